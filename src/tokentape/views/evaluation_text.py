"""An evaluation of methods as a table: which of them name what matters?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tokentape.views.screen import Screen, columns
from tokentape.views.text import folded
from tokentape.views.units import ABSENT
from tokentape.words.retold import retold

__all__ = ["evaluation_text"]

FIGURES = (
    "hit",
    "abpc_neutral",
    "abpc_random",
    "comprehensiveness_neutral",
    "sufficiency_neutral",
    "leave_one_out",
    "forward",
    "backward",
    "cpu_seconds",
)
"""Figures shown, in the order of their columns."""


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
    body = [[method, *(_cell(found.get((method, name)), name, screen) for name in shown)] for method in methods]
    header = [screen.say("evaluation.method"), *(screen.say(f"evaluation.figure.{name}") for name in shown)]
    lines = columns(screen, header, body, "<" + ">" * len(shown), stretch=0)
    for method, reason in refused.items():
        told = screen.say("evaluation.refused", method=method, reason=retold(reason, screen.lang))
        lines.append(screen.paint(screen.safe(told), "dim"))
    said = screen.say("evaluation.legend", n=str(n))
    lines += ["", *(screen.paint(line, "dim") for line in folded(said, screen.width))]
    return "\n".join(screen.safe(line) for line in lines)


def _mean(row: EstimatedRow | None) -> float:
    return float("-inf") if row is None or row.mean is None else row.mean


def _cell(row: EstimatedRow | None, figure: str, screen: Screen) -> str:
    if row is None or row.mean is None:
        return ABSENT
    if figure in ("forward", "backward"):
        return f"{row.mean:.0f}"
    if figure == "cpu_seconds":
        return f"{row.mean:.3f}"
    if row.low is None or row.high is None or figure not in ("hit", "abpc_neutral"):
        return f"{row.mean:.2f}"
    return screen.say("evaluation.mean_between", mean=f"{row.mean:.2f}", low=f"{row.low:.2f}", high=f"{row.high:.2f}")
