"""The grid of a sweep: axes as they are written, cells, and the cells that a model or a memory cannot hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokentape.errors import UsageError

__all__ = ["KINDS", "Cell", "Footprint", "LeftOut", "cells_of", "fitting", "read_axis"]

KINDS = ("decode", "prefill")

MOST_VALUES = 1000

_ITEM = re.compile(r"(?P<first>\d+)(?:\.\.(?P<last>\d+)(?:/(?P<n>\d+))?)?")


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """A point of the grid. ``context`` counts the positions of each sequence: for a prefill those that it reads."""

    kind: str
    context: int
    batch: int

    def __str__(self) -> str:
        return f"{self.kind} of {self.context:,} x {self.batch}"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A cell that is not measured, and why, with the numbers; ``reason`` is ``"tokens"``, ``"positions"`` or ``"memory"``."""

    cell: Cell
    reason: str
    why: str


@dataclass(frozen=True, slots=True)
class Footprint:
    """What decides how much memory a cell takes beside the weights, all in bytes.

    ``kv_bytes`` is what a position of one sequence holds in the cache, ``state_bytes`` what a sequence holds whatever its
    length; ``logits_bytes`` the last logits of one sequence in fp32; ``hidden_bytes`` the widest activation of one token;
    ``score_bytes`` one attention score over all heads of a layer, 0 where attention never writes them down.
    """

    kv_bytes: float
    state_bytes: float
    logits_bytes: float
    hidden_bytes: float
    score_bytes: float

    COPIES_OF_CACHE = 1.5
    """The cache itself, and a layer's keys and values once more while they are joined and spread over the heads."""
    COPIES_OF_SCORES = 6
    """Scores, masked scores, their softmax, biases and mask of the same shape, and what the allocator keeps: at 768 tokens
    BLOOM-560m took 0.52 GB, and this says 0.53."""
    COPIES_OF_HIDDEN = 6
    COPIES_OF_LOGITS = 4

    def bytes_of(self, cell: Cell, n_new: int = 0) -> int:
        """Bytes that ``cell`` takes at its peak, ``n_new`` tokens after its context included."""
        length = cell.context + n_new
        read = length if cell.kind == "prefill" else 1
        held = self.COPIES_OF_CACHE * (length * self.kv_bytes + self.state_bytes)
        active = read * self.COPIES_OF_HIDDEN * self.hidden_bytes + self.COPIES_OF_LOGITS * self.logits_bytes
        scores = read * length * self.COPIES_OF_SCORES * self.score_bytes
        return round(cell.batch * (held + active + scores))


def read_axis(given: str | int | Iterable[int], name: str) -> tuple[int, ...]:
    """The values of an axis, ascending, each once.

    Of a text: ``"64"``, ``"1,2,4"``, ``"64..4096"`` (doubling; the last value is always there), ``"64..4096/9"`` (nine values
    at equal ratios, rounded), and lists of these. Numbers are taken as they are. Raises UsageError.
    """
    if isinstance(given, str):
        values = [value for item in given.split(",") for value in _item(item.strip(), given, name)]
    else:
        try:
            values = [int(value) for value in ([given] if isinstance(given, int) else given)]
        except (TypeError, ValueError) as error:
            raise _unreadable(given, name, str(error)) from error
    if not values:
        raise _unreadable(given, name, "it names no value")
    if min(values) < 1:
        raise UsageError(
            f"--{name} {min(values)} is less than 1",
            why=f"a {name} counts {'positions' if name == 'context' else 'sequences'}",
            fix=f"--{name} {'64..1024' if name == 'context' else '1,2,4'}",
        )
    found = tuple(sorted(set(values)))
    if len(found) > MOST_VALUES:
        raise _unreadable(given, name, f"it names {len(found):,} values, and each is measured several times")
    return found


def _item(item: str, given: str, name: str) -> list[int]:
    found = _ITEM.fullmatch(item)
    if found is None:
        raise _unreadable(given, name, f"{item!r} is neither a number nor a range")
    first = int(found["first"])
    if found["last"] is None:
        return [first]
    last = int(found["last"])
    if last < first:
        raise _unreadable(given, name, f"{item} ends before it begins", fix=f"--{name} {last}..{first}")
    if found["n"] is not None:
        n = int(found["n"])
        if n < 2 or first < 1 or n > MOST_VALUES:
            raise _unreadable(given, name, f"{item} asks for {n} values from {first} on at equal ratios")
        return [round(value) for value in np.geomspace(first, last, n).tolist()]
    if first < 1:
        raise _unreadable(given, name, f"{item} doubles from {first}, which leads nowhere")
    values = [first]
    while values[-1] * 2 < last:
        values.append(values[-1] * 2)
    return values if values[-1] == last else [*values, last]


def _unreadable(given: Any, name: str, why: str, fix: str | None = None) -> UsageError:
    examples = {"context": "64..4096, 64..4096/9 or 128,512,2048", "batch": "1,2,4,8 or 1..8"}
    return UsageError(f"--{name} {given} cannot be read", why=why, fix=fix or f"--{name} {examples[name]}")


def cells_of(
    contexts: Sequence[int], batches: Sequence[int], kinds: Sequence[str] = KINDS, most_tokens: int | None = None
) -> tuple[list[Cell], list[LeftOut]]:
    """All cells of the grid, and the prefills left out because they read more than ``most_tokens``, by default the longest
    context: what one prefill of that length and batch 1 reads.
    """
    most = max(contexts) if most_tokens is None else most_tokens
    kept, left_out = [], []
    for kind in kinds:
        for context in contexts:
            for batch in batches:
                cell = Cell(kind, context, batch)
                if kind == "prefill" and context * batch > most:
                    why = f"it reads {context * batch:,} tokens, and --prefill-tokens allows {most:,}"
                    left_out.append(LeftOut(cell, "tokens", why))
                else:
                    kept.append(cell)
    return kept, left_out


def fitting(
    cells: Iterable[Cell], footprint: Footprint, positions: int | None, memory_bytes: int | None, n_new: int
) -> tuple[list[Cell], list[LeftOut]]:
    """The cells that fit into the model's positions and the memory, and the others with the numbers.

    ``n_new`` tokens follow the context of a decode cell, unless the positions end there: then they are its last ones.
    """
    kept, left_out = [], []
    for cell in cells:
        if positions is not None and cell.context > positions:
            left_out.append(LeftOut(cell, "positions", f"the model reads {positions:,} positions"))
            continue
        needed = footprint.bytes_of(cell, n_new if cell.kind == "decode" else 0)
        if memory_bytes is not None and needed > memory_bytes:
            why = f"it needs about {needed / 1e9:,.2f} GB beside the weights, and {memory_bytes / 1e9:,.2f} GB may be used"
            left_out.append(LeftOut(cell, "memory", why))
            continue
        kept.append(cell)
    return kept, left_out
