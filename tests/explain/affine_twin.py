"""Two networks of one block, written out in numpy and frozen by hand: what relevance propagation has to give for them.

A first pass notes the coefficients of every operation; later passes apply the same affine maps to other vectors. Nothing
of it knows gradients: relevance of a token is what the frozen network loses when the token's vector is zero, which for an
affine map is its whole share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = Any


@dataclass
class Frozen:
    """Operations that are themselves in the first pass, and their affine maps at that point afterwards."""

    held: bool
    notes: list[Any] = field(default_factory=list)
    at: int = -1

    def again(self) -> None:
        self.at = 0

    def _note(self, made: Callable[[], Any]) -> Any:
        if self.at < 0:
            self.notes.append(made())
            return self.notes[-1]
        self.at += 1
        return self.notes[self.at - 1]

    def layer_norm(self, x: Array, weight: Array, bias: Array, eps: float) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        sigma = self._note(lambda: np.sqrt((centred**2).mean(-1, keepdims=True) + eps))
        return centred / sigma * weight + bias

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        return x / self._note(lambda: np.sqrt((x**2).mean(-1, keepdims=True) + eps)) * weight

    def activation(self, x: Array, function: Callable[[Array], Array]) -> Array:
        return x * self._note(lambda: function(x) / x)

    def product(self, a: Array, b: Array, multiply: Callable[[Array, Array], Array]) -> Array:
        first, second = self._note(lambda: (a, b))
        return (multiply(first, b) + multiply(a, second)) / 2

    def attention(self, query: Array, key: Array, value: Array) -> Array:
        """One head, causal: ``[T, E]`` each."""
        causal = np.tril(np.ones((len(query), len(query)), bool))
        scores = self.product(query, key, lambda a, b: a @ b.T) / np.sqrt(query.shape[1])
        scores = np.where(causal, scores, 0)
        weights, there = self._note(lambda: (_softmax(np.where(causal, scores, -np.inf)), scores))
        if self.held:
            return weights @ value
        moved = scores - there
        linear = weights + weights * (moved - (weights * moved).sum(-1, keepdims=True))
        return self.product(linear, value, lambda a, b: a @ b)


def _softmax(scores: Array) -> Array:
    raised = np.exp(scores - scores.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def gpt2(frozen: Frozen, w: dict[str, Array], x: Array, n_heads: int) -> Array:
    """Logits ``[T, V]`` of a GPT-2 of one block from its token vectors ``[T, D]``."""
    h = x + w["transformer.wpe.weight"][: len(x)]
    block = "transformer.h.0."

    def norm(given: Array, name: str) -> Array:
        return frozen.layer_norm(given, w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    def dense(given: Array, name: str) -> Array:
        return given @ w[f"{block}{name}.weight"] + w[f"{block}{name}.bias"]

    query, key, value = np.split(dense(norm(h, block + "ln_1"), "attn.c_attn"), 3, axis=1)
    heads = zip(*(np.split(part, n_heads, axis=1) for part in (query, key, value)), strict=True)
    h = h + dense(np.concatenate([frozen.attention(*head) for head in heads], axis=1), "attn.c_proj")
    inner = frozen.activation(dense(norm(h, block + "ln_2"), "mlp.c_fc"), gelu)
    h = h + dense(inner, "mlp.c_proj")
    return norm(h, "transformer.ln_f") @ w["transformer.wte.weight"].T


def llama(frozen: Frozen, w: dict[str, Array], x: Array, n_heads: int, n_shared: int) -> Array:
    """Logits ``[T, V]`` of a Llama of one block; ``n_shared`` heads of queries use one of keys and values."""
    block = "model.layers.0."

    def norm(given: Array, name: str) -> Array:
        return frozen.rms_norm(given, w[f"{name}.weight"], 1e-6)

    def dense(given: Array, name: str) -> Array:
        return given @ w[f"{block}{name}.weight"].T

    given = norm(x, block + "input_layernorm")
    query = np.split(dense(given, "self_attn.q_proj"), n_heads, axis=1)
    key = np.split(dense(given, "self_attn.k_proj"), n_heads // n_shared, axis=1)
    value = np.split(dense(given, "self_attn.v_proj"), n_heads // n_shared, axis=1)
    mixed = [
        frozen.attention(_rotated(query[i]), _rotated(key[i // n_shared]), value[i // n_shared]) for i in range(n_heads)
    ]
    h = x + dense(np.concatenate(mixed, axis=1), "self_attn.o_proj")
    given = norm(h, block + "post_attention_layernorm")
    gate = frozen.activation(dense(given, "mlp.gate_proj"), silu)
    h = h + dense(frozen.product(gate, dense(given, "mlp.up_proj"), np.multiply), "mlp.down_proj")
    return norm(h, "model.norm") @ w["lm_head.weight"].T


def _rotated(x: Array) -> Array:
    half = x.shape[1] // 2
    angles = np.arange(len(x))[:, None] * 10000.0 ** (-np.arange(half) / half)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([x[:, :half] * cos - x[:, half:] * sin, x[:, half:] * cos + x[:, :half] * sin], axis=1)


@dataclass
class Twin:
    """``network(frozen, x)`` gives logits; ``value(logits)`` what is explained, ``[n_rows]`` and linear in them."""

    network: Callable[[Frozen, Array], Array]
    value: Callable[[Array], Array]
    entry: Array
    held: bool

    def __post_init__(self) -> None:
        self._frozen = Frozen(self.held)
        self.values = self.value(self.network(self._frozen, self.entry))

    def at(self, entry: Array) -> Array:
        """Values of the frozen network at other vectors."""
        self._frozen.again()
        return self.value(self.network(self._frozen, entry))

    def relevance(self) -> Array:
        """``[n_rows, T]``: what the frozen network loses without a token's vector."""
        lost = []
        for position in range(len(self.entry)):
            without = self.entry.copy()
            without[position] = 0
            lost.append(self.values - self.at(without))
        return np.stack(lost, axis=1)
