"""``show``: a whole tape as text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len

from tokentape.study.answers import is_placed
from tokentape.study.metrics import Summary
from tokentape.study.served import flights, is_served
from tokentape.views.card import card, finish_message
from tokentape.views.drawing import drawn_text
from tokentape.views.ribbon_text import ribbon
from tokentape.views.screen import Screen, columns, fit, pad
from tokentape.views.served_text import request_lines, request_table
from tokentape.views.shape import TokenRow, token_rows
from tokentape.views.sparkline import sparkline
from tokentape.views.units import ABSENT, duration, percent

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["folded", "show"]

ROWS = 40
"""Tokens shown of each trace unless more are asked for."""

FEW = 4
"""Up to so many requests are shown in full, not only in a table."""

_MIN_CANDIDATES = 12

_PIECE = re.compile(r"(?:[!-~]+|[^!-~])[，。；：、！？）》」』”’％]*")
"""What stays on one line: a word or number in ASCII, or one other character with the marks that may not begin a line."""


def show(
    tape: Tape,
    screen: Screen,
    *,
    rows: int | None = ROWS,
    traces: Sequence[int] | None = None,
    figures: Summary | None = None,
    measure: str | None = None,
) -> str:
    """The end card, then each trace: prompt, continuation, sparklines, a table of its tokens. Of requests to a server a table of
    them, and each in full where there are few, or it is asked for.

    ``rows`` limits each table (None shows every token); ``traces`` are the numbers of the traces to show, all by
    default. What is left out is counted. ``measure`` colours the continuation, where the screen has colours.
    """
    lines = [card(tape, screen, figures, commands=False)]
    asked = flights(tape) if is_served(tape) else []
    placed = is_placed(tape)
    if len(asked) > 1 and traces is None:
        lines += ["", *request_table(asked, screen, rows, placed=placed)]
    if len(asked) > FEW and traces is None:
        return "\n".join(lines)
    chosen = [trace for trace in tape.traces if traces is None or trace.number in traces]
    for trace in chosen:
        request = ["", *request_lines(trace, screen, rows, placed=placed)] if asked else []
        lines += [*request, "", *_trace(trace, tape, screen, rows, measure)]
    return "\n".join(lines)


def _trace(trace: Trace, tape: Tape, screen: Screen, limit: int | None, measure: str | None) -> list[str]:
    found = token_rows(trace, tape)
    say = screen.say
    title = say("show.sequence", n=trace.number) if len(tape.traces) > 1 else ""
    lines = [screen.paint(title, "bold")] if title else []
    prompt = say("show.prompt") if trace.n_prompt is None else say("show.prompt_of", n=trace.n_prompt)
    lines.append(screen.paint(prompt, "dim"))
    lines += _paragraph(trace.prompt_text, screen)
    finish = finish_message(trace.finish_reason, tape.state)
    lines.append(screen.paint(say("show.continuation", n=len(found), finish=finish), "dim"))
    coloured = None if measure is None else ribbon(trace, found, screen, measure)
    lines += _paragraph(trace.shown, screen) if coloured is None else coloured
    if not found:
        return lines
    lines += ["", *_sparklines(found, screen), "", *_table(found[:limit], screen)]
    if limit is not None and len(found) > limit:
        lines.append(screen.paint(say("show.more", n=len(found) - limit), "dim"))
    if overshot := len(trace.overshoot["step"]):
        lines.append(screen.paint(say("show.overshot", n=overshot), "dim"))
    return lines


def _paragraph(text: str | None, screen: Screen) -> list[str]:
    """Running text, indented and folded to the screen."""
    if text is None:
        return ["  " + screen.paint(screen.say("show.not_recorded"), "dim")]
    lines = []
    for line in screen.safe(drawn_text(text, keep="\n")).split("\n"):
        lines += folded(line, screen.width - 2)
    return ["  " + line if line else "" for line in lines]


def folded(line: str, width: int) -> list[str]:
    """One line as lines of at most ``width`` cells."""
    if cell_len(line) <= width:
        return [line]
    if cell_len(line) == len(line):
        return textwrap.wrap(line, width, replace_whitespace=False) or [""]
    folded, cells = [""], 0
    for piece in _PIECE.findall(line):
        taken = cell_len(piece)
        if cells + taken > width and folded[-1]:
            folded.append("")
            cells = 0
        if taken > width:  # one word longer than a line
            for character in piece:
                cells += cell_len(character)
                if cells > width:
                    folded.append("")
                    cells = cell_len(character)
                folded[-1] += character
        elif cells or not piece.isspace():
            folded[-1] += piece
            cells += taken
    return folded


def _sparklines(found: Sequence[TokenRow], screen: Screen) -> list[str]:
    width = max(10, screen.width - 40)
    # the first entry is the time to first token: another quantity, which would flatten the gaps
    gaps = [row.gap_ns for row in found[1:]]
    surprise = [None if row.logprob is None else -row.logprob for row in found]
    courses: list[tuple[str, Sequence[float | None], Callable[[float], str]]] = [
        ("gap", gaps, duration),
        ("surprise", surprise, "{:.2f}".format),
    ]
    lines = []
    for name, values, written in courses:
        known = [value for value in values if value is not None]
        if known:
            low, high = written(min(known)), written(max(known))
            ends = screen.say(f"show.{name}_ends", low=low, high=high)
            lines.append(f"{pad(screen.say(f'show.{name}'), 8)}  {sparkline(values, screen, width)}  {ends}")
    return lines


def _table(found: Sequence[TokenRow], screen: Screen) -> list[str]:
    say = screen.say
    header = [say("show.pos"), say("show.token"), "ms", "logprob", say("show.rank"), say("show.entropy")]
    align = "><>>>>"
    body = [_cells(row) for row in found]
    if any(row.rules_logprob is not None for row in found):
        header.append(say("show.after_rules"))
        align += ">"
        for cells, row in zip(body, found, strict=True):
            cells.append(_number(row.rules_logprob))
    if any(row.removed is not None for row in found):
        header += [say("show.allowed"), say("show.removed"), say("show.instead_of")]
        align += ">><"
        for cells, row in zip(body, found, strict=True):
            cells += [ABSENT if row.allowed is None else f"{row.allowed:,}", _number(row.removed), row.wanted or ""]
    if any(row.forced for row in found):
        header.append(say("show.given"))
        align += "<"
        for cells, row in zip(body, found, strict=True):
            cells.append(say("show.rule") if row.forced else "")
    body = [[screen.safe(cell) for cell in cells] for cells in body]
    for cells in body:
        cells[1] = fit(cells[1], 24, screen.choose("…", "..."))
    taken = sum(max(cell_len(row[i]) for row in [header, *body]) for i in range(len(header))) + 2 * len(header)
    left = screen.width - taken
    if left >= _MIN_CANDIDATES and any(row.candidates for row in found):
        header.append(say("show.likely"))
        align += "<"
        for cells, row in zip(body, found, strict=True):
            cells.append(_likely(row, screen, left))
    return columns(screen, header, body, align, stretch=1)


def _cells(row: TokenRow) -> list[str]:
    gap = ABSENT if row.gap_ns is None else f"{row.gap_ns / 1e6:,.3f}"
    rank = ABSENT if row.rank is None else f"{row.rank:,}"
    return [str(row.position), row.name, gap, _number(row.logprob), rank, _number(row.entropy)]


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3f}"


def _likely(row: TokenRow, screen: Screen, width: int) -> str:
    """As many whole candidates as there is room for, with their probabilities."""
    text = ""
    for candidate in row.candidates:
        entry = f"{screen.safe(candidate.name)} {percent(candidate.logprob)}"
        longer = f"{text}  {entry}" if text else entry
        if cell_len(longer) > width:
            break
        text = longer
    return text
