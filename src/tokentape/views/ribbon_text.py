"""The continuation as a ribbon: each token on a ground whose colour says how slow, how surprising or how open it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len

from tokentape.views.drawing import drawn_tokens
from tokentape.views.screen import Screen
from tokentape.views.shape import TokenRow
from tokentape.views.units import duration

if TYPE_CHECKING:
    from tokentape.data.trace import Trace

__all__ = ["MEASURES", "ribbon", "shares_of"]

MEASURES = ("surprise", "latency", "entropy", "constraint")
"""What can colour a token."""

_TAIL = 0.98
"""The share of the tokens below the top of the scale: a single spike must not make all others alike."""


def measured(found: Sequence[TokenRow], measure: str) -> list[float | None]:
    """The figure of each token by which it is coloured; the first has no latency, since its wait is another quantity."""
    if measure == "latency":
        return [None if place == 0 else row.gap_ns for place, row in enumerate(found)]
    if measure == "surprise":
        return [None if row.logprob is None else -row.logprob for row in found]
    return [row.entropy if measure == "entropy" else row.removed for row in found]


def shares_of(values: Sequence[float | None]) -> tuple[list[float | None], float, float] | None:
    """Each value's place between 0 and 1, and the ends of the scale; None where there is no value.

    The scale begins at the least value and ends where 98 % of them lie below.
    """
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    low, high = known[0], known[min(len(known) - 1, int(_TAIL * len(known)))]
    span = high - low
    return [None if v is None else min(1.0, (v - low) / span) if span else 0.0 for v in values], low, high


def ribbon(trace: Trace, found: Sequence[TokenRow], screen: Screen, measure: str) -> list[str] | None:
    """Lines of coloured tokens and a legend; None where the screen has no colour, or a guard chose what may be seen."""
    if not screen.color or trace.guarded or not found:
        return None
    scale = shares_of(measured(found, measure))
    what = screen.say(f"show.{measure}")
    if scale is None:
        return [screen.paint(screen.say("show.nothing", what=what), "dim")]
    shares, low, high = scale
    lines = _folded(_texts(trace, found), shares, screen)
    written = duration if measure == "latency" else "{:.2f} nats".format
    ground = "".join(screen.shade(" ", i / 7) for i in range(8))
    legend = screen.say("show.ribbon", what=what, low=written(low), scale=ground, high=written(high))
    return ["  " + line for line in [*lines, legend]]


def _texts(trace: Trace, found: Sequence[TokenRow]) -> list[str]:
    drawn = drawn_tokens(trace.token_bytes)
    return [
        row.name if text is None or (not text and row.name) else text for row, text in zip(found, drawn, strict=True)
    ]


def _folded(texts: Sequence[str], shares: Sequence[float | None], screen: Screen) -> list[str]:
    """Tokens one after another, a line end where one ends a line, folded to the screen."""
    room = screen.width - 2
    lines, cells = [""], 0
    for text, share in zip(texts, shares, strict=True):
        for part in _pieces(screen.safe(text), room):
            width = cell_len(part)
            if cells + width > room:
                lines.append("")
                cells = 0
            lines[-1] += part if share is None else screen.shade(part, share)
            cells += width
        if text.endswith("\\n"):
            lines.append("")
            cells = 0
    return lines if lines[-1] else lines[:-1]


def _pieces(text: str, room: int) -> list[str]:
    """A text in pieces of at most ``room`` cells."""
    pieces, cells = [""], 0
    for character in text:
        width = cell_len(character)
        if cells + width > room:
            pieces.append("")
            cells = 0
        pieces[-1] += character
        cells += width
    return pieces
