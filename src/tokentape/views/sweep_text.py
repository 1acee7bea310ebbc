"""What a sweep says while it runs, and when it is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from tokentape.views.screen import Screen
from tokentape.views.units import duration
from tokentape.words.retold import retold

__all__ = ["account_text", "cell_text", "left_out_lines", "visit_text"]

FEW = 4
_ENGLISH = Screen()


class CellRow(Protocol):
    """A cell of the grid, as a sweep gives it."""

    @property
    def kind(self) -> str: ...
    @property
    def context(self) -> int: ...
    @property
    def batch(self) -> int: ...


def cell_text(cell: CellRow, screen: Screen) -> str:
    """A cell by its kind, context and batch."""
    return _cell(cell.kind, cell.context, cell.batch, screen)


def visit_text(
    cell: str, step_ns: float | None, n_done: int, n_all: int | None, left_s: float | None, screen: Screen = _ENGLISH
) -> str:
    """The line of progress after a visit; ``n_all`` None where the time decides how many there are, ``step_ns`` None where
    the cell turned out to be impossible.
    """
    place = screen.say("sweep.done", n=n_done) if n_all is None else screen.say("sweep.visit", n=n_done, all=n_all)
    if left_s is not None:
        place = screen.say("sweep.left", place=place, left=duration(max(left_s, 0) * 1e9))
    took = screen.say("sweep.out_of_memory") if step_ns is None else duration(step_ns)
    return screen.say("sweep.progress", place=place, cell=cell, took=took)


def account_text(account: Mapping[str, Any], path: str, screen: Screen = _ENGLISH) -> str:
    """What was measured and what was not, what a law will not tell, and the next command."""
    counts = {"visits": account["n_visits"], "visited": account["n_visited"], "cells": account["n_cells"]}
    lines = [
        screen.say("sweep.measured", **counts),
        *left_out_lines(account.get("left_out", ()), screen),
        *left_out_lines(({**one, "reason": "impossible"} for one in account.get("impossible", ())), screen),
        *_outlook(account.get("outlook", ()), screen),
        *_warnings(account.get("advice", ()), screen),
    ]
    lines.append(screen.say("sweep.next", path=path))
    return "\n".join(screen.safe(line) for line in lines)


def left_out_lines(left_out: Iterable[Mapping[str, Any]], screen: Screen = _ENGLISH) -> list[str]:
    """One line a reason: the first few cells that were not measured, and the numbers of the smallest."""
    by_reason: dict[str, list[Mapping[str, Any]]] = {}
    for one in left_out:
        by_reason.setdefault(one["reason"], []).append(one)
    lines = []
    for found in by_reason.values():
        found.sort(key=lambda one: one["context"] * one["batch"])
        few = [_cell(one["kind"], one["context"], one["batch"], screen) for one in found[:FEW]]
        told = {"cells": screen.say("card.list").join(few), "why": retold(found[0]["why"], screen.lang, "sweep.why")}
        if len(found) > FEW:
            lines.append(screen.say("sweep.not_measured_more", **told, n=str(len(found) - FEW)))
        else:
            lines.append(screen.say("sweep.not_measured", **told))
    return lines


def _cell(kind: str, context: int, batch: int, screen: Screen) -> str:
    return screen.say("sweep.cell", kind=screen.say(f"sweep.{kind}"), context=context, batch=str(batch))


def _warnings(advice: Iterable[str], screen: Screen) -> list[str]:
    return [screen.say("sweep.warning", what=retold(one, screen.lang, "sweep.advice")) for one in advice]


def _outlook(outlook: Iterable[Mapping[str, Any]], screen: Screen) -> list[str]:
    return [
        screen.say(
            "sweep.outlook",
            kind=screen.say(f"sweep.{one['kind']}"),
            visited=str(one["n_visited"]),
            cells=one["n_cells"],
            error=f"{one['error'] * 100:.2g}",
        )
        for one in outlook
        if one["error"] is not None
    ]
