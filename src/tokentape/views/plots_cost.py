"""What a model costs over context and batch, as a picture: times, where memory ends, what bounds them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import tokentape.study.cost.timing as timing
from tokentape.errors import UsageError
from tokentape.study.cost.architecture import architecture_of
from tokentape.study.cost.configuration import read_config
from tokentape.study.cost.counting import ModelWork, workload
from tokentape.study.cost.figure import Figure
from tokentape.study.cost.memory import memory_needed
from tokentape.study.cost.prediction import Prediction, predict
from tokentape.study.cost.roofline import Roof, roof
from tokentape.study.cost.whatif import CHANGES, altered
from tokentape.views.cost_text import number, request_text
from tokentape.views.plots import (
    caption,
    check_plot,
    context_axis,
    drawn,
    heading,
    log_axis,
    new_figure,
    save,
    tick_text,
    ticks,
    unit_of,
)
from tokentape.views.units import count, duration

if TYPE_CHECKING:
    from tokentape.study.cost.prediction import Calibration

__all__ = ["plot_cost"]

Array = npt.NDArray[np.float64]

N = 37
"""Values on each axis at which a surface is computed."""

LEAST_CONTEXT, MOST_CONTEXT = 128, 131_072
MOST_BATCH = 512

ORANGE = "#ff8c2e"
INK = "#1b1f24"


def plot_cost(config: Any, path: str | os.PathLike[str], **request: Any) -> Path:
    """Draw the times of a decode step and of a prefill over context and batch, as a .png or .svg file.

    ``request`` is that of :func:`~tokentape.study.cost.prediction.predict`; its context and batch are marked. Hatched is what does
    not fit the memory of the machine. Times are the least that the machine's peaks allow, or those of a ``law``.

    Raises UsageError with neither machine nor law, and what :func:`~tokentape.views.plots.check_plot` and ``predict`` raise.
    """
    place = check_plot(path)
    asked = predict(config, **request)
    if asked.hardware is None and request.get("law") is None:
        raise UsageError(
            "a picture of costs needs a machine",
            why="without one there are counts, and no times",
            fix="--on H100, or --law TAPE",
        )
    sizes = {name: request.get(name) for name in CHANGES}
    architecture = architecture_of(altered(read_config(config), **sizes))
    work = workload(architecture, request.get("dtype"), asked.tensor_parallel)
    found = _Surfaces(work, asked, request.get("law"))
    with drawn():
        figure = new_figure(10.4, 4.6)
        heading(figure, found.title, 82)
        axes = figure.subplots(1, 2)
        handles = [handle for axis, kind in zip(axes, _AXES, strict=True) for handle in _surface(axis, found, kind)]
        unique = {handle.get_label(): handle for handle in handles}
        figure.legend(handles=list(unique.values()), loc="outside right upper", borderaxespad=0.6, labelspacing=0.7)
        caption(figure, list(_sentences(found)), 152)
        save(figure, place, found.title)
    return place


@dataclass(frozen=True)
class _Surfaces:
    """What is drawn, each ``[batches, contexts]``."""

    work: ModelWork
    asked: Prediction
    law: Calibration | None

    @property
    def title(self) -> str:
        asked, n = self.asked, self.asked.tensor_parallel
        told = "Least times" if self.law is None else "Times by a law"
        where = "" if asked.hardware is None else f" on {f'{n} x ' * (n > 1)}{asked.hardware.name}"
        return f"{told} of a {asked.model_type} of {number(asked['parameters'])} parameters ({asked.dtype}){where}"

    @cached_property
    def contexts(self) -> Array:
        asked, positions = self.asked.context, self.work.architecture.positions or MOST_CONTEXT
        low = min(LEAST_CONTEXT, asked)
        return np.geomspace(low, max(min(positions, MOST_CONTEXT), 2 * asked, 8 * low), N)

    @cached_property
    def batches(self) -> Array:
        return np.geomspace(1, max(MOST_BATCH, 2 * self.asked.batch), N)

    @cached_property
    def roofs(self) -> dict[str, list[list[Roof]]]:
        """The roofline of each kind of pass, ``[batches][contexts]``; empty without a machine."""
        machine, seen = self.asked.hardware, replace(self.work, pairs="seen")
        if machine is None:
            return {}
        dtype, n = seen.compute_dtype, seen.tensor_parallel

        def row(kind: str, batch: float) -> list[Roof]:
            # as predict() asks: the first step after the prompt attends one position more
            works = [
                seen.decode(c + 1, batch) if kind == "decode" else seen.prefill(c, batch)
                for c in self.contexts.tolist()
            ]
            return [roof(work, machine, dtype, n) for work in works]

        return {kind: [row(kind, batch) for batch in self.batches.tolist()] for kind in _AXES}

    @cached_property
    def _told(self) -> list[list[dict[str, Figure]]]:
        machine, law = self.asked.hardware, self.law
        return self._over(lambda c, b: timing.times(self.work, machine, c, b, 1, law))

    def times(self, kind: str) -> Array:
        """Nanoseconds: the law's where there is one, else the roofline's."""
        if self.law is None:
            return np.array([[one.ns for one in row] for row in self.roofs[kind]])
        return np.array([[figures[f"{kind}_ns"].value for figures in row] for row in self._told])

    def bound(self, kind: str) -> Array | None:
        """Logarithm of the time of arithmetic over that of memory: above 0 compute bounds a pass. None without a machine."""
        if kind not in self.roofs:
            return None
        return np.log([[one.compute_ns / one.memory_ns for one in row] for row in self.roofs[kind]])

    @cached_property
    def fill(self) -> Array | None:
        """Logarithm of peak memory over what a device has: above 0 it does not fit. None where that is not known."""
        machine = self.asked.hardware
        if machine is None or machine.memory_gb is None:
            return None
        room, n = machine.memory_gb * 1e9, self.asked.new_tokens
        return np.log(self._over(lambda c, b: memory_needed(self.work, c, b, n).peak_bytes / room))

    def _over(self, value: Callable[[Any, Any], Any]) -> list[list[Any]]:
        return [[value(c, b) for c in self.contexts.tolist()] for b in self.batches.tolist()]


_AXES = {
    "decode": ("time of a decode step, one token for each sequence", "context (tokens)"),
    "prefill": ("time of a prefill, the whole prompt of each sequence", "prompt (tokens of a sequence)"),
}

_NAMES = {"decode": "decode step", "prefill": "prefill"}


def _surface(axes: Any, found: _Surfaces, kind: str) -> Iterator[Any]:
    """Draw one kind of pass; gives the handles of its legend."""
    from matplotlib.lines import Line2D

    x, y = found.contexts, found.batches
    title, about = _AXES[kind]
    axes.grid(False)
    axes.set_title(title, color="#24292f")
    axes.set_xlabel(about)
    axes.set_ylabel("batch (sequences)")
    context_axis(axes.xaxis, x[0], x[-1])
    log_axis(axes.yaxis, y[0], y[-1], base=2, most=11)
    _times(axes, found, kind)
    yield from _memory(axes, found)
    bound = found.bound(kind)
    if bound is not None and bound.min() < 0 < bound.max():
        axes.contour(x, y, bound, levels=[0.0], colors=ORANGE, linewidths=1.6, linestyles="--")
        label = "compute bounds above,\nbandwidth below"
        yield Line2D([], [], color=ORANGE, linewidth=1.6, linestyle="--", label=label)
    style = {"linestyle": "none", "marker": "*", "markersize": 12, "color": "white", "markeredgecolor": INK}
    star = Line2D([found.asked.context], [found.asked.batch], label="asked for", clip_on=False, zorder=5, **style)  # type: ignore[arg-type]
    axes.add_line(star)
    yield star


def _times(axes: Any, found: _Surfaces, kind: str) -> None:
    """Colours over what fits, and lines of equal time with their labels."""
    from matplotlib.colors import LogNorm
    from matplotlib.patheffects import withStroke

    times = found.times(kind)
    fits = np.ones(times.shape, bool) if found.fill is None or found.fill.min() > 0 else found.fill <= 0
    low, high = float(times[fits].min()), float(times[fits].max())
    # the palest colours are left out, so that white labels can be read
    norm = LogNorm(low, high * (high / low) ** 0.25 if high > low else 2 * low)
    style = {"cmap": "cividis", "norm": norm, "shading": "gouraud", "rasterized": True}
    axes.pcolormesh(found.contexts, found.batches, times, **style)
    levels = ticks(low * 1.02, high, 10, 9)
    if levels:
        # no label where nothing fits: a line ends within a cell of the edge, below the hatching
        shown = np.ma.masked_where(~_grown(fits), times)
        lines = axes.contour(found.contexts, found.batches, shown, levels=levels, colors="white", linewidths=0.8)
        places = list(_label_places(axes, lines, found, fits))
        for label in axes.clabel(lines, fmt=_time_text, fontsize=8.5, inline_spacing=3, manual=places):
            label.set_path_effects([withStroke(linewidth=1.8, foreground=INK)])


def _label_places(axes: Any, lines: Any, found: _Surfaces, fits: Any) -> Iterator[tuple[float, float]]:
    """On each line the point nearest to the middle of what is mostly filled; none along the rim or where nothing fits."""
    to_axes = axes.transData + axes.transAxes.inverted()
    for path in lines.get_paths():
        vertices = np.reshape(path.vertices, (-1, 2))
        at = np.reshape(to_axes.transform(vertices), (-1, 2))
        column = np.minimum(np.searchsorted(found.contexts, vertices[:, 0]), fits.shape[1] - 1)
        row = np.minimum(np.searchsorted(found.batches, vertices[:, 1]), fits.shape[0] - 1)
        inner = ((at > 0.08) & (at < 0.92)).all(axis=1) & fits[row, column]
        if inner.any():
            away = np.where(inner, np.hypot(at[:, 0] - 0.4, at[:, 1] - 0.4), np.inf)
            x, y = vertices[int(np.argmin(away))].tolist()
            yield x, y


def _grown(cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The same with one more cell to the right and above."""
    grown = cells.copy()
    grown[:, 1:] |= cells[:, :-1]
    grown[1:] |= grown[:-1].copy()
    return grown


def _time_text(ns: float) -> str:
    size, unit = unit_of(ns)
    return f"{tick_text(ns / size)} {unit}"


def _memory(axes: Any, found: _Surfaces) -> Iterator[Any]:
    """Where memory ends."""
    from matplotlib.patches import Patch

    if found.fill is None or found.fill.max() <= 0:
        return
    style: dict[str, Any] = {"facecolor": "#eef0f3", "edgecolor": "#b9bfc7", "hatch": "////", "linewidth": 0}
    full = axes.contourf(
        found.contexts, found.batches, found.fill, levels=[0.0, np.inf], colors=["#eef0f3"], hatches=["////"], zorder=3
    )
    full.set_edgecolor("#b9bfc7")
    full.set_linewidth(0)
    yield Patch(label="does not fit", **style)


def _sentences(found: _Surfaces) -> Iterator[str]:
    """What was asked for and where memory ends, in words."""
    asked, f = found.asked, found.asked.figures
    least = "at least " if found.law is None else ""
    by = {kind: f" (bound by {f[f'{kind}_bound'].value})" if f"{kind}_bound" in f else "" for kind in _AXES}
    yield (
        f"{request_text(asked)}: a decode step takes {least}{duration(asked['decode_ns'])}{by['decode']}, "
        f"a prefill {duration(asked['prefill_ns'])}{by['prefill']}."
    )
    most, longest, machine = asked.figures.get("largest_batch"), asked.figures.get("largest_context"), asked.hardware
    if machine is not None and most is not None and longest is not None and None not in (most.value, longest.value):
        yield (
            f"The {machine.memory_gb:,.4g} GB of {machine.name} hold {count(most.value, 'sequence')} of that context, "
            f"or {count(longest.value, 'token')} of prompt at that batch."
        )
    for kind in _AXES:
        bound = found.bound(kind)
        if bound is not None and not bound.min() < 0 < bound.max():
            yield f"{'Compute' if bound.min() >= 0 else 'Bandwidth'} bounds every {_NAMES[kind]} shown."
