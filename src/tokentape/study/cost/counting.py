"""What a model costs before it runs: parameters, bytes and operations, counted from its architecture.

Sources of the formulas: J. Kaplan et al., "Scaling Laws for Neural Language Models", 2020, table 1 (two operations for each
weight and token); R. Pope et al., "Efficiently Scaling Transformer Inference", 2022 (bytes and all-reduces). How they are
checked is told in ``docs/explanation/cost.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokentape.errors import UsageError
from tokentape.study.cost.architecture import architecture_of
from tokentape.study.cost.blocks import Architecture, Attention, Matrix
from tokentape.study.cost.work import Work

__all__ = ["DTYPE_BYTES", "ModelWork", "workload"]

DTYPE_BYTES: dict[str, float] = {
    "float32": 4, "bfloat16": 2, "float16": 2, "float8": 1, "int8": 1, "float4": 0.5, "int4": 0.5,
}  # fmt: skip
"""Bytes of a value; of ``float8`` and below those of the weights, while activations and cache stay in two bytes."""

_ALIASES = {
    "fp32": "float32", "f32": "float32", "float": "float32", "bf16": "bfloat16", "fp16": "float16", "f16": "float16",
    "half": "float16", "fp8": "float8", "float8_e4m3fn": "float8", "float8_e5m2": "float8", "fp4": "float4", "mxfp4": "float4",
    "nvfp4": "float4",
}  # fmt: skip

PAIRS = ("all", "seen")

_WINDOW_MARK_BYTES = 8


def dtype_named(name: str) -> str:
    """The full name of a dtype; raises UsageError for one that is not known."""
    plain = str(name).lower().removeprefix("torch.")
    plain = _ALIASES.get(plain, plain)
    if plain not in DTYPE_BYTES:
        raise UsageError(
            f"no dtype {name!r}", why=f"there are {', '.join(DTYPE_BYTES)}", fix="--dtype bfloat16, for example"
        )
    return plain


def workload(config: Any, dtype: str | None = None, tensor_parallel: int = 1, *, pairs: str = "all") -> ModelWork:
    """The work of a model's forward passes, counted from its configuration.

    ``config`` is whatever :func:`~tokentape.study.cost.architecture.architecture_of` reads, or an architecture. ``dtype`` is that
    of weights, activations and cache; by default the one that the configuration names, float32 where it names none, as
    transformers does. ``tensor_parallel`` devices share each block. ``pairs`` says which products of queries and keys count:
    ``"all"`` those of every query with every key, masked or not, which is what eager attention computes and torch's
    ``FlopCounterMode`` counts; ``"seen"`` only those that the mask and the window leave, the least that a kernel has to do.

    Raises UsageError for a family that is not known, a dtype that does not exist, or devices that do not divide the heads.
    """
    architecture = architecture_of(config)
    if pairs not in PAIRS:
        raise UsageError(f"no pairs {pairs!r}", why=f"there are {', '.join(PAIRS)}", fix='pairs="all"')
    named = dtype_named(dtype or architecture.dtype or ("bfloat16" if architecture.bits else "float32"))
    _check_parallel(architecture, tensor_parallel)
    return ModelWork(architecture, named, int(tensor_parallel), pairs, overridden=dtype is not None)


def _check_parallel(architecture: Architecture, n: Any) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise UsageError(f"{n!r} devices", why="a model runs on 1 or more", fix="--tensor-parallel 1")
    if n == 1:
        return
    heads, kv = architecture.heads, architecture.kv_heads
    if heads % n or (kv and kv % n and n % kv):
        what = f"{heads} heads" if heads % n else f"{kv} key-value heads"
        fits = [d for d in range(1, heads + 1) if heads % d == 0 and (kv % d == 0 or d % kv == 0)]
        raise UsageError(
            f"{n} devices cannot share {what}",
            why="tensor parallelism gives each device whole heads" if heads else "it has no attention heads to share",
            fix=f"--tensor-parallel {' or '.join(map(str, fits[-6:]))}" if fits else "--tensor-parallel 1",
        )


@dataclass(frozen=True)
class ModelWork:
    """An architecture in a dtype, on ``tensor_parallel`` devices: a :class:`~tokentape.study.cost.work.Workload`.

    ``overridden`` says that the dtype was asked for, so that a quantisation which the configuration names does not hold.
    """

    architecture: Architecture
    dtype: str
    tensor_parallel: int = 1
    pairs: str = "all"
    overridden: bool = False

    @property
    def weight_value_bytes(self) -> float:
        """Bytes of a value of a weight that is not quantised."""
        return DTYPE_BYTES[self.dtype] if not self._narrow else 2.0

    @property
    def dtype_text(self) -> str:
        """The dtype as a person reads it, with that of quantised products."""
        a = self.architecture
        if a.bits is None or self.overridden:
            return self.dtype
        return f"{self.dtype}, {' and '.join(sorted(a.quantized_roles))} weights {a.quantization} ({a.bits:g} bits)"

    @property
    def compute_dtype(self) -> str:
        """The dtype in which products are computed."""
        return self.dtype

    @property
    def value_bytes(self) -> float:
        """Bytes of a value of the activations and of the cache."""
        return max(2.0, DTYPE_BYTES[self.dtype])

    @property
    def _narrow(self) -> bool:
        return DTYPE_BYTES[self.dtype] < 2

    def matrix_value_bytes(self, matrix: Matrix) -> float:
        """Bytes of a weight of this product, its share of scales included.

        A dtype of less than two bytes that was asked for is that of the blocks' products, while head, embedding and
        norms stay in two bytes.
        """
        a = self.architecture
        if not self.overridden and a.bits is not None:
            return a.bits / 8 if matrix.role in a.quantized_roles else self.weight_value_bytes
        if self._narrow and matrix.role not in ("head", "router", "projection"):
            return DTYPE_BYTES[self.dtype]
        return self.weight_value_bytes

    @cached_property
    def weight_bytes(self) -> float:
        """Bytes of all weights on all devices: products are cut, everything else is held by each."""
        a, n = self.architecture, self.tensor_parallel
        cut = sum(self._bytes(m) for m in a.matrices) + (0 if a.tied else self._bytes(a.head))
        cut += self.weight_value_bytes * (a.embedding + (a.head.bias if a.tied else 0))
        return cut + self.weight_value_bytes * n * self._replicated + self._extra_kv_weights

    @property
    def _replicated(self) -> int:
        a = self.architecture
        return a.other_parameters + a.position_table + sum(b.other_parameters for b in a.blocks)

    @cached_property
    def _extra_kv_weights(self) -> float:
        """Copies of key and value projections where there are more devices than key-value heads."""
        values = sum(at.cached_values * max(0.0, self.tensor_parallel / at.kv_heads - 1) for at in self._attending)
        return values * self.architecture.hidden * self.weight_value_bytes

    def _bytes(self, matrix: Matrix, copies: float | None = None) -> float:
        one = matrix.n_in * matrix.n_out * self.matrix_value_bytes(matrix) + matrix.bias * self.weight_value_bytes
        return one * (matrix.copies if copies is None else copies)

    def read_bytes(self, tokens: float, sequences: float) -> float:
        """Bytes of the weights that a pass over ``tokens`` tokens reads once: of experts those that are expected to be chosen.

        Of the embedding it reads the rows of its tokens, unless the head reads all of it anyway.
        """
        a = self.architecture
        total = sum(self._bytes(m, m.touched(tokens)) for m in a.matrices) + self._bytes(a.head)
        rows = 0 if a.tied else min(tokens, a.vocab) * (a.embedding / a.vocab)
        rows += tokens / max(1.0, sequences) * a.hidden if a.position_table else 0
        others = self.tensor_parallel * (self._replicated - a.position_table)
        return total + self.weight_value_bytes * (rows + others) + self._extra_kv_weights

    @cached_property
    def flops_per_token(self) -> float:
        """Operations of one token in the products of the blocks: two for each weight that takes part."""
        return 2.0 * sum(m.n_in * m.n_out * m.active for m in self.architecture.matrices)

    @property
    def head_flops(self) -> float:
        """Operations of the logits of one position."""
        return 2.0 * self.architecture.head.n_in * self.architecture.head.n_out

    @cached_property
    def state_bytes(self) -> float:
        """Bytes of the recurrent states of one sequence, whatever its length."""
        states = [b.state for b in self.architecture.blocks if b.state is not None]
        return sum(s.values * self.value_bytes + s.float32_values * 4 for s in states)

    def kv_bytes(self, context: float) -> float:
        """Bytes of keys and values of one sequence that one more token reads, itself included; windows bound them."""
        return sum(_attended(at, context) * self._kv_bytes_of(at) for at in self._attending)

    def cache_bytes(self, context: float, batch: float = 1) -> float:
        """Bytes that cache and states hold between two steps, once ``context`` tokens of each sequence were read.

        A layer with a window keeps one position less than it sees: the next token brings its own. transformers' cache
        holds the size of the window too, as a tensor of eight bytes, which is counted as the recorder counts it.
        """
        kept, marks = 0.0, 0
        for attention in self._attending:
            window = attention.window
            kept += self._kv_bytes_of(attention) * (context if window is None else min(context, window - 1))
            marks += window is not None
        return batch * (kept + self.state_bytes) + _WINDOW_MARK_BYTES * marks

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes that one more token adds to the cache, on all devices, before any window is full."""
        return sum(self._kv_bytes_of(at) for at in self._attending)

    @property
    def _attending(self) -> Iterator[Attention]:
        return (b.attention for b in self.architecture.blocks if b.attention is not None)

    def _kv_bytes_of(self, attention: Attention) -> float:
        """Bytes that a token adds to the cache of one block, on all devices that hold its heads."""
        return attention.cached_values * self.value_bytes * max(1.0, self.tensor_parallel / attention.kv_heads)

    def decode(self, context: float, batch: float) -> Work:
        """One new token for each of ``batch`` sequences; ``context`` positions are attended, the new one included."""
        a = self.architecture
        attention = 0.0
        for at in self._attending:
            seen = _attended(at, context)
            attention += at.pair_flops * seen + at.expand_flops * (seen - 1)
        return Work(
            layers=len(a.blocks),
            weight_bytes=self.read_bytes(batch, batch),
            kv_bytes=batch * (self.kv_bytes(context) + self.state_bytes),
            kv_write_bytes=batch * (self.kv_bytes_per_token + self.state_bytes),
            flops=batch * (self.flops_per_token + self.head_flops),
            attention_flops=batch * (attention + self._state_flops),
            reduce_bytes=self._reduce_bytes(batch),
        )

    def prefill(self, length: float, batch: float) -> Work:
        """``length`` tokens for each of ``batch`` sequences, none of which is in the cache; logits of the last one alone."""
        tokens = length * batch
        attention = sum(at.pair_flops * self._pairs(at, length) for at in self._attending)
        return Work(
            layers=len(self.architecture.blocks),
            weight_bytes=self.read_bytes(tokens, batch),
            kv_bytes=batch * (length * self.kv_bytes_per_token + self.state_bytes),
            kv_write_bytes=batch * (length * self.kv_bytes_per_token + self.state_bytes),
            flops=tokens * self.flops_per_token + batch * self.head_flops,
            attention_flops=batch * attention + tokens * self._state_flops,
            reduce_bytes=self._reduce_bytes(tokens),
        )

    def _pairs(self, attention: Attention, length: float) -> float:
        """Pairs of a query and a key in a prompt."""
        if self.pairs == "all":
            return length * length
        seen = _attended(attention, length)
        return seen * (seen + 1) / 2 + (length - seen) * seen

    @cached_property
    def _state_flops(self) -> float:
        return float(sum(b.state.flops for b in self.architecture.blocks if b.state is not None))

    def _reduce_bytes(self, tokens: float) -> float:
        """What each device sends: a ring sends twice what it adds up, but the part of its own (Patarasuk and Yuan, 2009)."""
        n = self.tensor_parallel
        sums = sum(b.reduces for b in self.architecture.blocks)
        return sums * tokens * self.architecture.hidden * self.value_bytes * 2 * (n - 1) / n


def _attended(attention: Attention, context: float) -> float:
    return context if attention.window is None else min(context, attention.window)
