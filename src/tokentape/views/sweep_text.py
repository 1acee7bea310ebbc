"""What a sweep says while it runs, and when it is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tokentape.views.units import count, duration

__all__ = ["account_text", "left_out_lines", "visit_text"]

FEW = 4


def visit_text(cell: str, step_ns: float | None, n_done: int, n_all: int | None, left_s: float | None) -> str:
    """The line of progress after a visit; ``n_all`` None where the time decides how many there are, ``step_ns`` None where
    the cell turned out to be impossible.
    """
    place = f"{count(n_done, 'visit')} done" if n_all is None else f"visit {n_done:,} of {n_all:,}"
    left = "" if left_s is None else f", {duration(max(left_s, 0) * 1e9)} left"
    return f"{place}{left}; {cell}: {'out of memory' if step_ns is None else duration(step_ns)}"


def account_text(account: Mapping[str, Any], path: str) -> str:
    """What was measured and what was not, what a law will not tell, and the next command."""
    lines = [
        f"{count(account['n_visits'], 'visit')}, {account['n_visited']:,} of {count(account['n_cells'], 'cell')}",
        *left_out_lines(account.get("left_out", ())),
        *left_out_lines({**one, "reason": "impossible"} for one in account.get("impossible", ())),
        *_outlook(account.get("outlook", ())),
        *(f"warning: {one}" for one in account.get("advice", ())),
    ]
    return "\n".join([*lines, f"next: tokentape fit {path}"])


def left_out_lines(left_out: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line a reason: the first few cells that were not measured, and the numbers of the smallest."""
    by_reason: dict[str, list[Mapping[str, Any]]] = {}
    for one in left_out:
        by_reason.setdefault(one["reason"], []).append(one)
    lines = []
    for found in by_reason.values():
        found.sort(key=lambda one: one["context"] * one["batch"])
        cells = ", ".join(f"{one['kind']} of {one['context']:,} x {one['batch']}" for one in found[:FEW])
        more = f" and {len(found) - FEW} more" if len(found) > FEW else ""
        lines.append(f"not measured: {cells}{more}; of the first: {found[0]['why']}")
    return lines


def _outlook(outlook: Iterable[Mapping[str, Any]]) -> list[str]:
    return [
        f"{one['kind']}: {one['n_visited']} of {count(one['n_cells'], 'cell')} visited; the generic law is expected to be off by "
        f"{one['error'] * 100:.2g} % over all of them (one standard error)"
        for one in outlook
        if one["error"] is not None
    ]
