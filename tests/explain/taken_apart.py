"""Two networks taken apart by hand, from their weights alone: what attention carries from token to token, layer by layer.

Nothing of it knows hooks, graphs or function modes. In float64, but for Llama's norms, which compute in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

Tensor = torch.Tensor


@dataclass
class Layer:
    """What one block does: ``vectors`` ``[i, j, D]`` without the stream, ``began`` and ``became`` ``[T, D]``, what its MLP adds."""

    weights: Tensor
    vectors: Tensor
    began: Tensor
    became: Tensor
    mlp: Tensor


@dataclass
class Network:
    layers: list[Layer]
    final: Tensor  # [T, D], what the last norm reads
    reads: Tensor  # [T, V, D], what each row's logits read of it, the norm's scale held


def gpt2(model: Any, ids: tuple[int, ...]) -> Network:
    body, heads = model.transformer, model.config.n_head
    x = body.wte.weight[list(ids)] + body.wpe.weight[: len(ids)]
    layers = []
    for block in body.h:
        q, k, v = _linear(_layer_norm(x, block.ln_1), block.attn.c_attn).split(x.shape[-1], -1)
        q, k, v = (part.view(len(ids), heads, -1).transpose(0, 1) for part in (q, k, v))
        out = block.attn.c_proj.weight.view(heads, -1, x.shape[-1])
        weights = _causal(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5)
        vectors = torch.einsum("hij,hjv,hvd->ijd", weights, v, out)
        became = x + vectors.sum(1) + block.attn.c_proj.bias
        inner = _linear(_layer_norm(became, block.ln_2), block.mlp.c_fc)
        mlp = _linear(torch.nn.functional.gelu(inner, approximate="tanh"), block.mlp.c_proj)
        layers.append(Layer(weights, vectors, x, became, mlp))
        x = became + mlp
    unembedding = model.lm_head.weight * body.ln_f.weight
    unembedding = unembedding - unembedding.mean(-1, keepdim=True)  # centring, read from the other side
    sigma = (x.var(-1, unbiased=False) + body.ln_f.eps).sqrt()
    return Network(layers, x, unembedding / sigma[:, None, None])


def llama(model: Any, ids: tuple[int, ...]) -> Network:
    body, config = model.model, model.config
    x = body.embed_tokens.weight[list(ids)]
    layers = []
    for block in body.layers:
        read, attention = _rms_norm(x, block.input_layernorm), block.self_attn
        width = config.head_dim
        q, k, v = (
            (read @ part.weight.T).view(len(ids), -1, width).transpose(0, 1)
            for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        repeats = config.num_attention_heads // config.num_key_value_heads
        k, v = _rotated(k).repeat_interleave(repeats, 0), v.repeat_interleave(repeats, 0)
        weights = _causal(_rotated(q) @ k.transpose(-1, -2) / width**0.5)
        out = attention.o_proj.weight.T.view(config.num_attention_heads, width, -1)
        vectors = torch.einsum("hij,hjv,hvd->ijd", weights, v, out)
        became = x + vectors.sum(1)
        inner = _rms_norm(became, block.post_attention_layernorm)
        gate = torch.nn.functional.silu(inner @ block.mlp.gate_proj.weight.T)
        mlp = (gate * (inner @ block.mlp.up_proj.weight.T)) @ block.mlp.down_proj.weight.T
        layers.append(Layer(weights, vectors, x, became, mlp))
        x = became + mlp
    rms = (x.square().mean(-1) + body.norm.variance_epsilon).sqrt()
    return Network(layers, x, model.lm_head.weight * body.norm.weight / rms[:, None, None])


def with_stream(layer: Layer) -> Tensor:
    """The vectors with what each row was before."""
    return layer.vectors + torch.diag_embed(layer.began.T).permute(1, 2, 0)


def rolled(matrices: list[Tensor]) -> Tensor:
    product = torch.eye(len(matrices[0]), dtype=matrices[0].dtype)
    for matrix in matrices:
        product = matrix @ product
    return product


def lengths(layer: Layer) -> Tensor:
    """Kobayashi et al. 2021: norms of the vectors, rows summing to one."""
    found = with_stream(layer).norm(dim=-1)
    return found / found.sum(-1, keepdim=True)


def mixing(layer: Layer) -> Tensor:
    """Ferrando et al. 2022: how much nearer each vector comes to what the row became, rows summing to one."""
    whole = layer.became.abs().sum(-1, keepdim=True)
    found = (whole - (layer.became[:, None] - with_stream(layer)).abs().sum(-1)).clamp(min=0)
    return found / found.sum(-1, keepdim=True)


def alti_logit(network: Network, row: int, reads: Tensor, mlp: bool = True) -> Tensor:
    """Relevance ``[T]`` for a value that reads the final state of a row by ``reads`` ``[D]``."""
    n = len(network.final)
    found, mixed = torch.zeros(n, dtype=torch.float64), torch.eye(n, dtype=torch.float64)
    if mlp:
        found[row] += network.layers[0].began[row] @ reads
    for layer in network.layers:
        found += (layer.vectors[row] @ reads) @ mixed
        mixed = mixing(layer) @ mixed
        if mlp:
            found += (layer.mlp[row] @ reads) * mixed[row]
    return found


def _linear(x: Tensor, conv1d: Any) -> Tensor:
    return x @ conv1d.weight + conv1d.bias


def _layer_norm(x: Tensor, norm: Any) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def _rms_norm(x: Tensor, norm: Any) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt() * norm.weight


def _causal(scores: Tensor) -> Tensor:
    above = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(above, -torch.inf).softmax(-1)


def _rotated(x: Tensor, base: float = 10_000.0) -> Tensor:
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[-2])[:, None] * base ** (-torch.arange(half, dtype=torch.float64) / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)
