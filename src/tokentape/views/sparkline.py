"""A row of numbers as a row of characters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tokentape.views.screen import Screen

__all__ = ["sparkline"]

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.-:=+*#"


def sparkline(values: Sequence[float | None], screen: Screen, width: int) -> str:
    """At most ``width`` characters, from 0 (lowest) to the largest value (highest); a null is a space.

    Where there are more values than characters, each character shows the largest of its share, so that no spike is
    lost.
    """
    marks = screen.choose(_BLOCKS, _ASCII)
    groups = _shares(values, width)
    peaks = [max((v for v in group if v is not None), default=None) for group in groups]
    top = max((v for v in peaks if v is not None), default=0)
    if top <= 0:
        return "".join(" " if v is None else marks[0] for v in peaks)
    return "".join(" " if v is None else marks[round(max(v, 0) / top * (len(marks) - 1))] for v in peaks)


def _shares(values: Sequence[float | None], width: int) -> list[Sequence[float | None]]:
    n = min(len(values), max(1, width))
    edges = [i * len(values) // n for i in range(n + 1)] if n else [0]
    return [values[a:b] for a, b in itertools.pairwise(edges)]
