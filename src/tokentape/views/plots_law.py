"""A law of latency as a picture: what was measured, the law with its interval, the roofline, and what is left over."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokentape.study.cost.hardware import Hardware, find_hardware
from tokentape.study.law.fitting import CONFIDENCE
from tokentape.study.law.laws import Law
from tokentape.study.law.points import CAUSES
from tokentape.study.law.residuals import Residual
from tokentape.views.law_shape import FAR_BELOW, LawColumn, LawRow, law_rows, law_sentences
from tokentape.views.plots import (
    GREY,
    caption,
    check_plot,
    context_axis,
    drawn,
    heading,
    log_axis,
    new_figure,
    plain,
    save,
    shades,
    unit_of,
    wrapped,
)

__all__ = ["plot_law"]

MANY = 300
"""More dots than these are an image inside an SVG: as shapes they would make it slow."""

LEFT_OUT = "#c2541b"
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_HOLLOW = dict(zip(CAUSES, ("o", "D", "v"), strict=True))

_AXES = {
    "decode": ("context (tokens)", "time of a decode step"),
    "prefill": ("prompt (tokens of a sequence)", "time of a prefill"),
}


def plot_law(
    laws: Law | Sequence[Law],
    path: str | os.PathLike[str],
    *,
    hardware: Hardware | str | None = None,
    of: str | None = None,
    confidence: float = CONFIDENCE,
) -> Path:
    """Draw one law or several as a .png or .svg file, each Setting in a row of its own (``of`` names the one that is meant).

    Latency against context with every measurement, the law and its interval by batch, and what was left out of the fit;
    below it the ratio of measured to law. With ``hardware`` the least time that its peaks allow is drawn too.

    Raises what :func:`~tokentape.views.plots.check_plot` and ``find_hardware`` raise, StudyError for a roofline without the
    model's configuration, UsageError for a Setting that is not there or a file that cannot be written.
    """
    place = check_plot(path)
    machine = None if hardware is None else find_hardware(hardware)
    given = [laws] if isinstance(laws, Law) else list(laws)
    rows = law_rows(given, of, machine, confidence)
    title = "latency of " + ", ".join(row.subject.name for row in rows)
    with drawn():
        wide = max(len(row.columns) for row in rows)
        figure = new_figure(10.4 if wide > 1 else 7.2, 5.4 * len(rows))
        for row, into in zip(rows, np.atleast_1d(figure.subfigures(len(rows), 1)), strict=True):
            _row(into, row, 152 if wide > 1 else 104)
        save(figure, place, title)
    return place


def _row(figure: Any, row: LawRow, width: int) -> None:
    heading(figure, f"Latency of {row.subject.name}", 72 if len(row.columns) > 1 else 46)
    axes = figure.subplots(
        2, len(row.columns), squeeze=False, sharex="col", gridspec_kw={"height_ratios": [3, 1], "hspace": 0}
    )
    batches = sorted({batch for column in row.columns for batch in column.lines})
    looks = {
        b: (color, _MARKS[i % len(_MARKS)])
        for i, (b, color) in enumerate(zip(batches, shades(len(batches)), strict=True))
    }
    for i, column in enumerate(row.columns):
        _latency(axes[0, i], column, looks)
        _residuals(axes[1, i], column, looks)
    figure.align_ylabels(axes)
    handles = list(_legend(row, looks))
    figure.legend(handles=handles, loc="outside right upper", borderaxespad=0.6, handlelength=2.2, labelspacing=0.55)
    caption(figure, law_sentences(row.columns), width)


def _latency(axes: Any, column: LawColumn, looks: dict[int, tuple[Any, str]]) -> None:
    low, high = column.time_ends()
    size, unit = unit_of(float(np.sqrt(low * high)))
    axes.set_title(wrapped(f"{column.part.kind} = {column.part.form}", 52), color="#24292f")
    axes.set_ylabel(f"{_AXES[column.part.kind][1]} ({unit})")
    log_axis(axes.yaxis, low / size, high / size)
    context_axis(axes.xaxis, column.contexts[0], column.contexts[-1])
    axes.tick_params(axis="x", which="both", length=0)
    _beyond(axes, column)
    if column.measured[0] > 1.2 * column.contexts[0]:
        axes.text(
            0.012, 0.985, "extrapolated", transform=axes.transAxes, rotation=90, va="top", fontsize=7.5, color=GREY
        )
    for batch in column.lines:
        color, mark = looks[batch]
        contexts, ns = column.cells[batch]
        line, below, above = column.predicted(batch)
        axes.fill_between(column.contexts, below / size, above / size, color=color, alpha=0.16, linewidth=0)
        inside = (column.contexts >= contexts.min() * 0.999) & (column.contexts <= contexts.max() * 1.001)
        axes.plot(column.contexts, line / size, color=color, linewidth=1.0, linestyle=(0, (4, 2)))
        axes.plot(column.contexts[inside], line[inside] / size, color=color, linewidth=1.8)
        if column.room_below is not None and column.room_below < FAR_BELOW:
            axes.plot(column.contexts, column.roofline(batch) / size, color=color, linewidth=1.1, linestyle=":")
        axes.plot(contexts, ns / size, mark, color=color, markersize=5, markeredgecolor="white", markeredgewidth=0.6)
    shown = [(r, r.ns / size) for r in column.residuals]
    _points(axes, shown, (low / size, high / size), looks)


def _residuals(axes: Any, column: LawColumn, looks: dict[int, tuple[Any, str]]) -> None:
    ratios = np.array([r.ratio for r in column.residuals if r.cause is None])
    most = float(np.exp(np.quantile(np.abs(np.log(ratios)), 0.995))) ** 1.25
    most = min(max(most, 1.02), 100.0)
    log_axis(axes.yaxis, 1 / most, most, most=5)
    axes.set_ylabel("ratio to the law")
    axes.set_xlabel(_AXES[column.part.kind][0])
    _beyond(axes, column)
    axes.axhline(1.0, color=GREY, linewidth=1.0)
    n_off = _points(axes, [(r, r.ratio) for r in column.residuals], (1 / most, most), looks)
    if n_off:
        told = f"{n_off:,} beyond the edge"
        axes.text(0.995, 0.03, told, transform=axes.transAxes, ha="right", va="bottom", fontsize=7.5, color=GREY)


def _points(axes: Any, shown: list[tuple[Residual, float]], limits: tuple[float, float], looks: dict[int, Any]) -> int:
    """Every measurement as a small dot, what was left out hollow; what lies beyond the limits stands at the edge."""
    low, high = limits
    edge = (high / low) ** 0.012
    for batch in sorted({r.batch for r, _ in shown}):
        rows = [(r.context, y) for r, y in shown if r.cause is None and r.batch == batch]
        if rows:
            x, y = zip(*rows, strict=True)
            color = looks.get(batch, (GREY, ""))[0]
            style = {"color": color, "markersize": 4, "alpha": 0.5, "markeredgewidth": 0}
            axes.plot(x, np.clip(y, low * edge, high / edge), ".", rasterized=len(rows) > MANY, **style)
    for cause in CAUSES:
        rows = [(r.context, y) for r, y in shown if r.cause == cause]
        if rows:
            x, y = zip(*rows, strict=True)
            style = {"markerfacecolor": "none", "markeredgecolor": LEFT_OUT, "markeredgewidth": 0.6, "markersize": 3.2}
            axes.plot(x, np.clip(y, low * edge, high / edge), _HOLLOW[cause], alpha=0.55, **style)
    return sum(not low <= y <= high for _, y in shown)


def _beyond(axes: Any, column: LawColumn) -> None:
    low, high = column.measured
    for left, right in ((column.contexts[0], low), (high, column.contexts[-1])):
        if left < right:
            axes.axvspan(left, right, color="#eef0f3", linewidth=0, zorder=0.5)


def _legend(row: LawRow, looks: dict[int, tuple[Any, str]]) -> Iterator[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    for batch, (color, mark) in looks.items():
        yield Line2D(
            [], [], color=color, marker=mark, markersize=5, linewidth=1.8, markeredgecolor="white", label=f"batch {batch:,}"
        )  # fmt: skip
    yield Line2D(
        [], [], linestyle="none", marker=".", markersize=5, color=GREY, markeredgewidth=0, label="one measurement"
    )
    yield Patch(color=GREY, alpha=0.2, linewidth=0, label=f"{100 * row.columns[0].confidence:.4g}% interval")
    yield Line2D([], [], color=GREY, linewidth=1.0, linestyle=(0, (4, 2)), label="not measured there")
    yield Patch(facecolor="#eef0f3", edgecolor="#d0d4da", linewidth=0.6, label="extrapolated")
    machine = row.columns[0].machine
    if machine is not None and any((c.room_below or FAR_BELOW) < FAR_BELOW for c in row.columns):
        yield Line2D([], [], color=GREY, linewidth=1.1, linestyle=":", label=f"roofline of\n{plain(machine.name)}")
    causes = {r.cause for column in row.columns for r in column.residuals}
    for cause in CAUSES:
        if cause in causes:
            yield Line2D(
                [], [], linestyle="none", marker=_HOLLOW[cause], markersize=4.5, markerfacecolor="none",
                markeredgecolor=LEFT_OUT, label=f"left out: {cause}",
            )  # fmt: skip
