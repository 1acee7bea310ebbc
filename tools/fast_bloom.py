"""BLOOM's forward pass written for short rows, with BloomForCausalLM's own parameter names.

The state dict loads into `transformers.BloomForCausalLM` as it is; `train_demo.py` checks that both give the
same logits before anything is written.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MATCH_GAIN = 0.6
COPY_GAIN = 0.5
FIRST_QUERY_GAIN = 0.3


class Attention(nn.Module):
    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.dense = nn.Linear(width, width)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        rows, length, width = hidden.shape
        # BLOOM interleaves query, key and value head by head.
        fused = self.query_key_value(hidden).view(rows, length, self.n_heads, 3, width // self.n_heads)
        query, key, value = fused.permute(3, 0, 2, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.dense(mixed.transpose(1, 2).reshape(rows, length, width))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(width, 4 * width)
        self.dense_4h_to_h = nn.Linear(4 * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.dense_4h_to_h(F.gelu(self.dense_h_to_4h(hidden), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(width)
        self.self_attention = Attention(width, n_heads)
        self.post_attention_layernorm = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        hidden = hidden + self.self_attention(self.input_layernorm(hidden), bias)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class Trunk(nn.Module):
    def __init__(self, vocabulary: int, width: int, n_layers: int, n_heads: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width)
        self.word_embeddings_layernorm = nn.LayerNorm(width)
        self.h = nn.ModuleList(Block(width, n_heads) for _ in range(n_layers))
        self.ln_f = nn.LayerNorm(width)

    @property
    def blocks(self) -> list[Block]:
        return [block for block in self.h if isinstance(block, Block)]


class FastBloom(nn.Module):
    """A decoder with ALiBi (Press et al. 2022), an embedding norm and a tied head (BigScience 2022).

    `n_heads` must be a power of two, for which the ALiBi slopes are `2 ** (-8 (i + 1) / n_heads)`.
    """

    def __init__(self, vocabulary: int, width: int, n_layers: int, n_heads: int) -> None:
        super().__init__()
        self.transformer = Trunk(vocabulary, width, n_layers, n_heads)
        slopes = torch.tensor([2.0 ** (-8.0 * (index + 1) / n_heads) for index in range(n_heads)])
        self.slopes: Tensor
        self.register_buffer("slopes", slopes, persistent=False)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Mimetic initialisation (Trockman & Kolter 2023, arXiv:2305.09828): heads that match and copy.

        Query and key projections start equal, so that a head attends to what resembles the place it looks
        from; value and output projections start as transposes, so that it copies what it sees. The first
        block's queries start small instead, where ALiBi alone makes it look nearby.
        """
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "word_embeddings.weight" in name:
                nn.init.normal_(parameter, std=0.02)
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
        for depth, block in enumerate(self.transformer.blocks):
            attention = block.self_attention
            size = attention.dense.in_features // attention.n_heads
            block.mlp.dense_4h_to_h.weight.mul_((2 * len(self.transformer.h)) ** -0.5)
            fused = attention.query_key_value.weight.view(attention.n_heads, 3, size, -1)
            for head in range(attention.n_heads):
                value = nn.init.orthogonal_(fused[head, 2])
                attention.dense.weight[:, head * size : (head + 1) * size] = COPY_GAIN * value.T
                if depth:
                    fused[head, 0] = fused[head, 1] = MATCH_GAIN * nn.init.orthogonal_(torch.empty_like(value))
                else:
                    fused[head, 0] *= FIRST_QUERY_GAIN

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[rows, length, vocabulary]` of token ids `[rows, length]`, and what the first block gives."""
        length = ids.shape[1]
        positions = torch.arange(length)
        distance = (positions[None, :] - positions[:, None]).float()
        bias = self.slopes[:, None, None] * distance
        bias = bias.masked_fill(distance > 0, float("-inf"))[None]
        trunk = self.transformer
        hidden = trunk.word_embeddings_layernorm(trunk.word_embeddings(ids))
        first = hidden = trunk.blocks[0](hidden, bias)
        for block in trunk.blocks[1:]:
            hidden = block(hidden, bias)
        return F.linear(trunk.ln_f(hidden), trunk.word_embeddings.weight), first
