"""An evaluation of methods as a table: which of them name what matters?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tokentape.views.screen import Screen, columns
from tokentape.views.text import folded
from tokentape.views.units import ABSENT

__all__ = ["evaluation_text"]

FIGURES = {
    "hit": "hit@1",
    "abpc_neutral": "ABPC",
    "abpc_random": "ABPC random",
    "comprehensiveness_neutral": "compr.",
    "sufficiency_neutral": "suff.",
    "leave_one_out": "corr. l.o.o.",
    "forward": "forward",
    "backward": "backward",
    "cpu_seconds": "CPU s",
}
"""Figures shown, by the head of their column."""


class EstimatedRow(Protocol):
    """One figure of one method, as an evaluation gives it."""

    @property
    def method(self) -> str: ...
    @property
    def figure(self) -> str: ...
    @property
    def mean(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...
    @property
    def n(self) -> int: ...


def evaluation_text(rows: Sequence[EstimatedRow], refused: Mapping[str, str], n: int, screen: Screen) -> str:
    """A line for each method, the best area between its deletion curves first, with 95 % intervals where there is room."""
    found = {(row.method, row.figure): row for row in rows}
    shown = [name for name in FIGURES if any(row.figure == name and row.mean is not None for row in rows)]
    methods = sorted({row.method for row in rows}, key=lambda method: -_mean(found.get((method, "abpc_neutral"))))
    body = [[method, *(_cell(found.get((method, name)), name) for name in shown)] for method in methods]
    lines = columns(screen, ["method", *(FIGURES[name] for name in shown)], body, "<" + ">" * len(shown), stretch=0)
    for method, reason in refused.items():
        lines.append(screen.paint(screen.safe(f"{method}: {reason}"), "dim"))
    said = (
        f"n = {n}; ABPC: how much further the value falls when what a method names goes first than when it goes last "
        "(higher is better); compr.: its fall without the top 10 to 50 %; suff.: with them alone (lower is better)"
    )
    lines += ["", *(screen.paint(line, "dim") for line in folded(said, screen.width))]
    return "\n".join(lines)


def _mean(row: EstimatedRow | None) -> float:
    return float("-inf") if row is None or row.mean is None else row.mean


def _cell(row: EstimatedRow | None, figure: str) -> str:
    if row is None or row.mean is None:
        return ABSENT
    if figure in ("forward", "backward"):
        return f"{row.mean:.0f}"
    if figure == "cpu_seconds":
        return f"{row.mean:.3f}"
    if row.low is None or row.high is None or figure not in ("hit", "abpc_neutral"):
        return f"{row.mean:.2f}"
    return f"{row.mean:.2f} ({row.low:.2f} to {row.high:.2f})"
