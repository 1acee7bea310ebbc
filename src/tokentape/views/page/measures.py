"""Colours that a token can have: a figure for each place, and the ends of its scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from tokentape.views.page.parts import Part, Unit
from tokentape.views.page.rounding import rounded

__all__ = ["measure", "measures_part", "received"]

Values = Sequence[float | None]

_NAMED: tuple[tuple[str, str, Unit, Literal["linear", "log"]], ...] = (
    ("latency", "gap_ns", "ns", "log"),
    ("surprise", "surprise", "nats", "linear"),
    ("entropy", "entropy", "nats", "linear"),
    ("constraint", "removed", "nats", "linear"),
)
"""The measure, the column of the tokens that it is, its unit and its scale."""


def measures_part(tokens: Part, n_prompt: int, received: Values | None = None) -> list[Part]:
    """The measures of a trace: those of which something is known.

    ``tokens`` are the columns of the tokens, ``n_prompt`` the places before the first of them. ``received`` is the attention that
    each place received, one value a place, where it was looked at. The first token's latency, the time to first token, is shown but
    sets no end of the scale: it is another quantity.
    """
    before: list[float | None] = [None] * n_prompt
    found = []
    for name, column, unit, scale in _NAMED:
        values: list[float | None] = tokens[column]
        if any(value is not None for value in values):
            judged = values[1:] if name == "latency" and len(values) > 1 else values
            found.append(measure(name, unit, [*before, *values], scale, judged))
    if received is not None and any(value is not None for value in received):
        found.append(measure("attention", "share", received, "linear", received))
    return found


def measure(name: str, unit: Unit, values: Values, scale: Literal["linear", "log"], judged: Values) -> Part:
    """A measure whose scale runs over the middle 96 % of ``judged``, so that one outlier does not blacken the rest."""
    known = np.array([value for value in judged if value is not None], np.float64)
    positive = known[known > 0] if scale == "log" else known
    low, high = (0.0, 0.0) if not len(positive) else map(float, np.percentile(positive, (2, 98), method="nearest"))
    if scale == "linear" and low >= 0:
        low = 0.0  # of a figure that has a zero, the zero
    if not math.isfinite(high) or high <= low:
        high = low * 2 if low > 0 else 1.0
    ends: dict[str, Any] = {"low": rounded(low), "high": rounded(high)}
    return {"name": name, "unit": unit, "values": list(values), **ends, "scale": scale}


def received(attention: Part, n_places: int) -> list[float | None] | None:
    """The attention that each place received: the mean of its weight over the rows that could see it, as far as it was kept.

    ``attention`` is the part of that name; None where nobody looked.
    """
    if "overall" not in attention:
        return None
    weights, rows = attention["overall"], attention["rows"]
    sums, seen = [0.0] * n_places, [0] * n_places
    at = 0
    for count, place in zip(weights["counts"], rows, strict=True):
        columns = range(count) if weights["columns"] is None else weights["columns"][at : at + count]
        for column, value in zip(columns, weights["values"][at : at + count], strict=True):
            sums[column] += (value or 0) / weights["per"]
        seen[0] += 1
        if place < n_places:
            seen[place] -= 1
        at += count
    found: list[float | None] = []
    n_rows = 0
    for total, change in zip(sums, seen, strict=True):
        n_rows += change
        found.append(rounded(total / n_rows, 4) if n_rows > 0 else None)
    return found
