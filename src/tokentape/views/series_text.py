"""Series as columns: for a terminal, for a pipe, for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tokentape.study.series import AXES, SERIES, Series
from tokentape.study.served import Course, metric_family
from tokentape.views.drawing import drawn_text
from tokentape.views.screen import Screen, columns, pad
from tokentape.views.shape import plain_columns, token_names
from tokentape.views.units import ABSENT

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["series_document", "series_list", "series_table"]


def series_table(
    tape: Tape,
    series: Sequence[Series],
    screen: Screen,
    *,
    rows: int | None = None,
    traces: Sequence[int] | None = None,
    courses: Sequence[Course] = (),
) -> str:
    """One table an axis, the columns parted by tabs and padded: they align, and ``cut`` and ``awk`` read them.

    ``rows`` limits what is shown of each trace, None shows all; what is left out is counted. ``courses`` have a table a source.
    """
    parts = []
    for axis in _axes(series):
        table, left = _columns(tape, [one for one in series if one.axis == axis], axis, traces, rows)
        parts += [_aligned(table, left, screen)] if table else []
    for source in dict.fromkeys(one.source for one in courses):
        mine = [one for one in courses if one.source == source]
        columns = {drawn_text(one.name): list(one.values)[:rows] for one in mine}
        table = {"source": [source] * len(mine[0].at_ns[:rows]), "at_ns": list(mine[0].at_ns[:rows]), **columns}
        left = 0 if rows is None else max(0, len(mine[0].at_ns) - rows)
        parts.append(_aligned(table, left, screen))
    return "\n\n".join(parts)


def _aligned(table: dict[str, list[Any]], left: int, screen: Screen) -> str:
    """A table whose columns are parted by tabs, and how many rows it lacks."""
    cells = {name: [_cell(value) for value in values] for name, values in table.items()}
    header = list(cells)
    body = [list(row) for row in zip(*cells.values(), strict=True)]
    widths = [max(map(len, [name, *cells[name]])) for name in header]
    last = [">"] * (len(header) - 1) + ["<" if header[-1] == "token" else ">"]
    lines = [
        "\t".join(pad(cell, width, side) for cell, width, side in zip(row, widths, last, strict=True)).rstrip()
        for row in [header, *body]
    ]
    lines = [screen.safe(line) for line in lines]
    lines[0] = screen.paint(lines[0], "dim")
    if left:
        lines.append(screen.paint(screen.safe(screen.say("metrics.more", n=left)), "dim"))
    return "\n".join(lines)


def series_document(
    tape: Tape,
    series: Sequence[Series],
    *,
    traces: Sequence[int] | None = None,
    courses: Sequence[Course] = (),
) -> dict[str, Any]:
    """The same as columns by axis, with what each series is, and ``courses`` where there are any."""
    over_time = {"courses": [asdict(one) for one in courses]} if courses else {}
    return {
        **over_time,
        "series": [
            {"name": one.name, "axis": one.axis, "unit": one.unit or None, "meaning": one.meaning} for one in series
        ],
        "columns": {
            axis: _columns(tape, [one for one in series if one.axis == axis], axis, traces, None, headed=False)[0]
            for axis in _axes(series)
        },
    }


def series_list(screen: Screen, courses: Sequence[Course] = ()) -> str:
    """Every series: its axis, unit and meaning; and the names of what ``courses`` say over the time of the tape."""
    rows = [
        [one.name, screen.say(f"metrics.axis.{one.axis}"), one.unit, screen.say(f"metrics.meaning.{one.name}")]
        for one in SERIES.values()
    ]
    header = [screen.say(f"metrics.{name}") for name in ("series", "one_a", "unit", "meaning")]
    lines = columns(screen, header, rows, "<<<<")
    if courses:
        names = dict.fromkeys(f"  {drawn_text(metric_family(one.name))} ({drawn_text(one.source)})" for one in courses)
        lines += ["", screen.say("metrics.course"), *names]
    return "\n".join(screen.safe(line) for line in lines)


def _axes(series: Sequence[Series]) -> list[str]:
    return [axis for axis in AXES if any(one.axis == axis for one in series)]


def _columns(
    tape: Tape,
    series: Sequence[Series],
    axis: str,
    traces: Sequence[int] | None,
    limit: int | None,
    *,
    headed: bool = True,
) -> tuple[dict[str, list[Any]], int]:
    """The columns of one axis over all traces, and how many rows were left out."""
    table: dict[str, list[Any]] = {}
    left = 0
    seen: set[int] = set()
    for trace in tape.traces:
        if (traces is not None and trace.number not in traces) or (axis == "step" and trace.run.number in seen):
            continue
        seen.add(trace.run.number)
        found = {(one.column if headed else one.name): one.of(trace) for one in series}
        n = len(next(iter(found.values())))
        whose = trace.run.number if axis == "step" else trace.number
        keys: dict[str, list[Any]] = {"run" if axis == "step" else "trace": [whose] * n}
        keys |= {} if axis == "trace" else {axis if axis != "token" else "index": list(range(n))}
        found = {**keys, **_positions(trace, axis), **found, **_names(trace, tape, axis)}
        for name, values in found.items():
            table.setdefault(name, []).extend(values[:limit])
        left += max(0, n - limit) if limit is not None else 0
    return table, left


def _positions(trace: Trace, axis: str) -> dict[str, list[Any]]:
    return plain_columns({"position": trace.tokens["position"]}) if axis == "token" else {}


def _names(trace: Trace, tape: Tape, axis: str) -> dict[str, list[Any]]:
    return {"token": token_names(trace, tape)} if axis == "token" else {}


def _cell(value: Any) -> str:
    if value is None:
        return ABSENT
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1f}" if abs(value) >= 10_000 else f"{value:.6g}"
