"""How much memory a model needs: weights, cache, and what lives for the length of a forward pass.

Counted is what transformers' default (dynamic) cache and default attention need on one device, with the logits of the last
position alone, as tokentape's own loop asks for them. Copies were counted on live tensors (``docs/explanation/cost.md``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokentape.study.cost.blocks import Block
from tokentape.study.cost.counting import ModelWork

__all__ = ["Memory", "largest", "memory_needed"]

RESIDUALS = 4
"""Tensors as wide as the model that live through a block: the embeddings, the block's input, the sum, its norm."""

POSITIONED = frozenset({"gpt2", "gpt_bigcode", "gpt_neo"})
"""Families that keep the embeddings of tokens and of positions beside their sum."""

EAGER = {
    "bloom": 4, "mpt": 3, "gemma2": 2, "gpt_oss": 3, "codegen": 2, "gptj": 2, "gpt_neo": 2, "falcon": 2,
}  # fmt: skip
"""Families whose attention writes down its scores, and how many copies of them live at once; others run fused kernels."""

INNER_COPIES = {"bloom": 4, "gpt2": 4, "gpt_bigcode": 4, "gptj": 4, "codegen": 4, "gpt_neo": 4}
"""Families whose activation is made of several operations, each of which leaves a tensor as wide as the inner layer."""

LOGIT_COPIES = 3
"""The logits in the model's dtype, their float32 copy, and a working copy for the choice."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device. ``activation_bytes`` is the most that lives beside weights and cache at once, in ``phase``."""

    weight_bytes: float
    cache_bytes: float
    activation_bytes: float
    phase: str

    @property
    def peak_bytes(self) -> float:
        """All of it."""
        return self.weight_bytes + self.cache_bytes + self.activation_bytes


def memory_needed(work: ModelWork, context: float, batch: float, new_tokens: int = 1) -> Memory:
    """What reading ``context`` tokens of ``batch`` sequences and writing ``new_tokens`` to each needs on one device.

    The larger of two moments: in the middle of the prefill, and at the last step.
    """
    n = work.tensor_parallel
    weights = work.weight_bytes / n
    whole = batch * (context * work.kv_bytes_per_token + work.state_bytes) / n
    first = Memory(weights, whole, _prefill_extra(work, context, batch), "prefill")
    last = context + max(0, new_tokens - 1)
    held = work.cache_bytes(last, batch) / n
    extra = _decode_extra(work, last, batch)
    if new_tokens <= 1:
        return first
    if new_tokens == 2 or last <= context + 1:
        # layers with a window give the rest of the prompt back one by one
        held = max(held, whole)
    return max(first, Memory(weights, held, extra, "decode"), key=lambda m: m.peak_bytes)


def _prefill_extra(work: ModelWork, context: float, batch: float) -> float:
    tokens, size, a = context * batch, work.value_bytes, work.architecture
    logits = batch * a.vocab * (size + 4 * (LOGIT_COPIES - 1))
    most = max((_block_extra(work, block, context, batch) for block in a.blocks), default=0.0)
    return max(most, tokens * a.hidden * size * 2 + logits)


def _block_extra(work: ModelWork, block: Block, context: float, batch: float) -> float:
    """The most that lives at once inside a block: its attention with its scores, or its perceptron."""
    a, n, size = work.architecture, work.tensor_parallel, work.value_bytes
    wide = context * batch * a.hidden * size
    residuals = RESIDUALS * wide + ((wide + context * a.hidden * size) if a.model_type in POSITIONED else 0.0)
    fed = max(_fed(work, block, role, context * batch) / n for role in ("mlp", "shared", "expert", "mixer"))
    kept = attended = 0.0
    if block.attention is not None:
        at = block.attention
        copies = EAGER.get(a.model_type, 0)
        score = batch * at.heads * context * context * size / n
        kept = min(copies, 1) * score
        mask = batch * context * context * (size if copies else 1) if copies or _masks(block, context) else 0.0
        residuals += mask + 2 * context * at.key_dim * size  # and the table of rotary positions
        spread = 2 * at.heads if copies and at.kv_heads < at.heads else 0
        values = (4 * at.heads + at.kv_heads + spread) * at.key_dim / n
        attended = context * batch * values * size + copies * score - wide
    return residuals + max(attended, fed + kept)


def _masks(block: Block, context: float) -> bool:
    """Whether a mask is written down: a window that the prompt fills is one that no fused kernel knows."""
    return block.attention is not None and block.attention.window is not None and block.attention.window < context


def _fed(work: ModelWork, block: Block, role: str, tokens: float) -> float:
    """Tensors that live together inside a perceptron, a recurrence or the chosen experts."""
    a, size = work.architecture, work.value_bytes
    matrices = [m for m in block.matrices if m.role == role]
    if not matrices:
        return 0.0
    inner = matrices[0].n_out
    if role == "expert":
        return tokens * matrices[0].active * max(a.hidden + 4 * inner, 4 * a.hidden) * size
    if role == "mixer":
        # float32, in three copies: the decay, the input, and their product with the state
        scanned = 3 * 4 * (block.state.scanned or 0) if block.state is not None else 0
        return tokens * (4 * inner * size + scanned)
    return tokens * inner * INNER_COPIES.get(a.model_type, 3 if len(matrices) > 2 else 2) * size


def _decode_extra(work: ModelWork, context: float, batch: float) -> float:
    """A step copies the keys of one layer to add its own, or spreads keys and values over the heads; then come the logits."""
    a, size = work.architecture, work.value_bytes
    most = 0.0
    for at in (b.attention for b in a.blocks if b.attention is not None):
        spread = 2 * at.heads * at.key_dim if a.model_type in EAGER and at.kv_heads < at.heads else 0
        values = max(at.latent or at.kv_heads * at.key_dim, spread)
        most = max(most, batch * context * values * size / work.tensor_parallel)
    return max(most, batch * a.vocab * (size + 4 * (LOGIT_COPIES - 1)))


def largest(fits: Callable[[int], bool], limit: int = 1 << 34) -> int | None:
    """The largest whole number for which ``fits`` holds, where it holds for every smaller one: 0 for none.

    None where even ``limit`` fits: nothing bounds it.
    """
    if fits(limit):
        return None
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
