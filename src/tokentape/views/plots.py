"""What every plot shares: the file that it becomes, its style, axes with plain numbers.

Drawn with matplotlib's objects alone, on no display, with nothing of the user's matplotlibrc and nothing left behind in
pyplot; the same plot is the same file, byte for byte, under one version of matplotlib.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokentape.errors import MissingExtra, UsageError
from tokentape.views.drawing import drawn_text

__all__ = [
    "FORMATS",
    "caption",
    "check_plot",
    "context_axis",
    "drawn",
    "heading",
    "log_axis",
    "new_figure",
    "plain",
    "save",
    "shades",
    "unit_of",
    "wrapped",
]

FORMATS = ("png", "svg")

DPI = 150

GREY = "#5b6169"

_STYLE = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "svg.hashsalt": "tokentape",
}

_UNITS = ((1e3, "ns"), (1e6, "us"), (1e9, "ms"), (float("inf"), "s"))


def check_plot(path: str | os.PathLike[str]) -> Path:
    """The path, where a plot can become that file; to be asked before any work is done.

    Raises UsageError for a suffix that is neither .png nor .svg and for a folder that is not there, MissingExtra without
    matplotlib.
    """
    place = Path(path)
    shown, kind = drawn_text(str(place)), place.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise UsageError(
            f"{shown} is no picture that can be drawn",
            why=f"its suffix is {place.suffix!r}; there are .png and .svg"
            if kind
            else "it needs the suffix .png or .svg",
            fix=f"--plot {drawn_text(str(place.with_suffix('.png') if place.name else 'plot.png'))}",
        )
    if not place.parent.is_dir():
        raise _unwritable(place, f"there is no folder {drawn_text(str(place.parent))}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtra("a plot needs matplotlib", why=str(error), fix="pip install 'tokentape[plot]'") from error
    return place


def _unwritable(place: Path, why: str) -> UsageError:
    what = f"{drawn_text(str(place))} cannot be written"
    return UsageError(what, why=why, fix="give a file in a folder that exists and can be written to")


@contextlib.contextmanager
def drawn() -> Iterator[None]:
    """Matplotlib's defaults with the style of the house, while the block lasts."""
    from matplotlib import style

    with warnings.catch_warnings(), style.context(["default", _STYLE]):
        # a model's name may hold any character; one that the font lacks is drawn as a box
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def new_figure(width: float, height: float) -> Any:
    """A figure in inches that lays itself out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: Path, title: str) -> None:
    """Write the figure at once, or nothing. Raises UsageError where the file cannot be written."""
    kind = path.suffix.lower().removeprefix(".")
    metadata = {"Title": drawn_text(title), "Date" if kind == "svg" else "Software": None}
    made = io.BytesIO()
    figure.savefig(made, format=kind, metadata=metadata)
    try:
        path.write_bytes(made.getvalue())
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error


def plain(text: str) -> str:
    """Text to draw as it is: no mathematics between dollar signs, nothing invisible."""
    return drawn_text(text).replace("$", r"\$")


def wrapped(text: str, width: int) -> str:
    """The same in lines of at most ``width`` characters."""
    return textwrap.fill(plain(text), width, break_on_hyphens=False)


def heading(figure: Any, text: str, width: int) -> None:
    """The title of a figure, wrapped so that it stays clear of a legend to its right."""
    figure.suptitle(wrapped(text, width), x=0.012, ha="left", fontsize=11.5, fontweight="bold")


def caption(figure: Any, sentences: list[str], width: int) -> None:
    """Sentences below the plot, wrapped at ``width`` characters."""
    figure.supxlabel(
        wrapped(" ".join(sentences), width), x=0.012, ha="left", fontsize=8.5, color="#24292f", linespacing=1.35
    )


def unit_of(ns: float) -> tuple[float, str]:
    """The unit in which a time is read best, as nanoseconds and name."""
    size = 1.0
    for below, name in _UNITS:
        if ns < below:
            return size, name
        size = below
    raise AssertionError


def shades(n: int) -> list[Any]:
    """``n`` colours of cividis, dark first; its palest, which white paper swallows, are left out."""
    import matplotlib

    return [matplotlib.colormaps["cividis"](0.88 * i / max(1, n - 1)) for i in range(n)]


def log_axis(axis: Any, low: float, high: float, *, base: int = 10, most: int = 7) -> None:
    """A logarithmic axis with plain numbers at its ticks: powers of two, or round ones, ``most`` of them at most."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (low, high)})
    axis.set_major_locator(FixedLocator(ticks(low, high, base, most)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def context_axis(axis: Any, low: float, high: float) -> None:
    """An axis of tokens: as many powers of two as their labels leave room for."""
    log_axis(axis, low, high, base=2, most=min(9, 40 // len(tick_text(high))))


def tick_text(value: float) -> str:
    """``0.5``, ``16``, ``1,024``."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ticks(low: float, high: float, base: int, most: int) -> list[float]:
    """Round numbers from ``low`` to ``high``, ``most`` of them at most: powers of two, or 1-2-5 and the like of ten; the latter
    evenly apart where the axis is short.
    """
    first, last = math.floor(math.log(low, base)), math.ceil(math.log(high, base))
    for mantissas in ((1.0,),) if base == 2 else ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1,)):
        found = [m * float(base) ** e for e in range(first, last + 1) for m in mantissas]
        found = [value for value in found if low <= value <= high]
        if len(found) <= most:
            break
    if base == 10 and (high < 3 * low or len(found) < 2):
        return _even(low, high, most)
    return found[:: max(1, -(-len(found) // most))]


def _even(low: float, high: float, most: int) -> list[float]:
    for exponent in itertools.count(math.floor(math.log10(high - low)) - 1):
        for mantissa in (1, 2, 5):
            step = mantissa * 10.0**exponent
            found = [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
            if len(found) <= most:
                return found
    raise AssertionError
