"""How a model's cost grows with one of its sizes, or with one thing that is asked of it, as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokentape.errors import UsageError
from tokentape.study.cost.prediction import Prediction
from tokentape.views.cost_text import request_text
from tokentape.views.plots import GREY, caption, check_plot, drawn, heading, log_axis, new_figure, save, shades, ticks

__all__ = ["plot_growth"]

_PANELS = (
    (
        "memory (GiB)",
        2**30,
        (("weight_bytes", "weights"), ("cache_bytes", "cache"), ("peak_bytes", "peak on a device")),
    ),
    ("operations (GFLOP)", 1e9, (("prefill_flops", "prefill"), ("decode_flops", "decode step"))),
    ("time (ms)", 1e6, (("prefill_ns", "prefill"), ("decode_ns", "decode step"))),
)


def plot_growth(found: Sequence[tuple[int, Prediction]], name: str, path: str | os.PathLike[str]) -> Path:
    """Draw predictions against the value of ``name`` that each was made for, as a .png or .svg file.

    Memory, operations and, where a machine or a law tells them, times. Raises UsageError for fewer than two values, and what
    :func:`~tokentape.views.plots.check_plot` raises.
    """
    place = check_plot(path)
    rows = sorted(found, key=lambda row: row[0])
    if len(rows) < 2:
        raise UsageError(
            "one value makes no line",
            why=f"{name} is {rows[0][0]:,}" if rows else "there is none",
            fix=f"--vary {name}=1..64",
        )
    panels = [p for p in _PANELS if all(row[p[2][0][0]] is not None for _, row in rows)]
    one = rows[0][1]
    called = name.replace("_", " ")
    where = "" if one.hardware is None else f" on {one.hardware.name}"
    title = f"Cost of a {one.model_type} by {called}{where}"
    with drawn():
        figure = new_figure(3.5 * len(panels), 3.7)
        heading(figure, title, 36 * len(panels))
        for axes, (about, size, lines) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            _panel(axes, rows, size, lines)
            axes.set_title(about)
            axes.set_xlabel(called)
        caption(figure, [_sentence(rows, name)], 50 * len(panels))
        save(figure, place, title)
    return place


def _panel(axes: Any, rows: Sequence[tuple[int, Prediction]], size: float, lines: Sequence[tuple[str, str]]) -> None:
    values = [value for value, _ in rows]
    shown: list[float] = []
    for (figure, label), color, mark in zip(lines, shades(len(lines)), "os^", strict=False):
        y = [row[figure] / size for _, row in rows]
        if min(y) > 0:  # a model may have no cache
            axes.plot(values, y, mark, linestyle="-", color=color, markersize=4, linewidth=1.5, label=label)
            shown += y
    memory = rows[0][1].figures.get("memory_bytes")
    if lines[0][0] == "weight_bytes" and memory is not None and memory.value is not None:
        axes.axhline(memory.value / size, color=GREY, linewidth=1.1, linestyle=":", label="memory of the device")
        shown.append(memory.value / size)
    log_axis(axes.yaxis, min(shown) / 1.3, max(shown) * 1.3, most=6)
    log_axis(axes.xaxis, values[0] / 1.04, values[-1] * 1.04)
    at = values if len(values) <= 5 else ticks(values[0], values[-1], 2 if values[-1] >= 4 * values[0] else 10, 5)
    axes.set_xticks(at, [f"{value:,.0f}" for value in at])
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))


def _sentence(rows: Sequence[tuple[int, Prediction]], name: str) -> str:
    (low, first), (high, last) = rows[0], rows[-1]
    asked = "" if name in ("context", "batch", "new_tokens") else f"{request_text(first)}: "
    times = f"{high / low:,.3g} times the {name.replace('_', ' ')} ({low:,} to {high:,})"
    grown = [("peak_bytes", "peak memory"), ("decode_flops", "operations of a decode step"), ("decode_ns", "its time")]
    told = [f"{last[f] / first[f]:,.3g} times the {label}" for f, label in grown if first[f] is not None]
    return f"{asked}{times} cost {', '.join(told[:-1])} and {told[-1].replace('times the its', 'times its')}."
