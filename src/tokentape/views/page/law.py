"""A law of latency alone, for the page: what was measured, the lines of the law with their intervals, what is left over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.study.cost.hardware import find_hardware
from tokentape.study.law.fitting import CONFIDENCE
from tokentape.study.law.points import CAUSES
from tokentape.study.law.residuals import Residual, residuals_by_cause
from tokentape.views.drawing import drawn_text
from tokentape.views.law_shape import FAR_BELOW, LawColumn, LawRow, law_rows
from tokentape.views.page.envelope import envelope
from tokentape.views.page.law_words import form_message, meaning_message, per_message, term_message
from tokentape.views.page.parts import Part
from tokentape.views.page.rounding import near, rounded, short
from tokentape.words.catalogue import Message

if TYPE_CHECKING:
    from tokentape.study.cost.hardware import Hardware
    from tokentape.study.law.laws import Coefficient, Law
    from tokentape.words.catalogue import Lang

__all__ = ["law_document", "law_part"]

MOST_POINTS = 3000
"""Measurements of one kind of step that are drawn, evenly chosen where there are more; what was fitted rests on all."""

LINE = slice(None, None, 2)
"""Every other place of a line: its shape needs no more."""


def law_document(
    law: Law, *, hardware: Hardware | str | None = None, confidence: float = CONFIDENCE, lang: Lang | None = None
) -> dict[str, Any]:
    """The document of a law, without a tape. With ``hardware`` its lines have the least times that the peaks of it allow.

    Raises what ``find_hardware`` raises, and StudyError for a roofline without the model's configuration.
    """
    part = law_part(law, hardware=hardware, confidence=confidence)
    return envelope(", ".join(drawn_text(subject.name) for subject in law.subjects), law=part, lang=lang)


def law_part(law: Law, *, hardware: Hardware | str | None = None, confidence: float = CONFIDENCE) -> Part:
    """``LawPart`` of ``web/src/document.ts``: a row for each Setting, in it a column for each kind of step."""
    machine = None if hardware is None else find_hardware(hardware)
    rows = law_rows([law], None, machine, confidence)
    return {
        "caption": _caption(law, rows).as_dict(),
        "confidence": confidence,
        "machine": None if machine is None else machine.name,
        "subjects": [
            {"name": drawn_text(row.subject.name), "columns": [_column(column) for column in row.columns]}
            for row in rows
        ],
        "missing": [Message("page_law.missing", {"kind": _kind(kind)}).as_dict() for kind in law.missing],
    }


def _kind(kind: str) -> Message:
    return Message(f"page_cost.kind_{kind}")


def _caption(law: Law, rows: Sequence[LawRow]) -> Message:
    """What context costs, in one sentence; where that is not in the law, how well it predicts, or what it was fitted to."""
    if (told := _context_cost(law)) is not None:
        return told
    column = rows[0].columns[0]
    part = column.part
    return Message("page_law.fitted", {"kind": _kind(part.kind), "n": part.n_cells, "points": part.n_points})


def _context_cost(law: Law) -> Message | None:
    """As :func:`tokentape.study.law.laws.context_sentence`: milliseconds that 1,000 more tokens of context add to a token."""
    if law.decode is None:
        return None
    terms = [c for c in law.decode.coefficients if c.name in ("key-value", "positions")]
    if not terms:
        return None
    value, low, high = (1000 * sum(getattr(c, name) for c in terms) for name in ("value", "low", "high"))
    return Message("page_law.context", {"time": time_text(value), "low": time_text(low), "high": time_text(high)})


def _column(column: LawColumn) -> Part:
    part = column.part
    return {
        "kind": part.kind,
        "title": _kind(part.kind).as_dict(),
        "form": form_message(part.form),
        "also": [form_message(form) for form in part.also],
        "clock": part.clock,
        "n_cells": part.n_cells,
        "n_points": part.n_points,
        "measured": [rounded(value, 6) for value in column.measured],
        "batch": list(part.batch),
        "ends": short(column.time_ends(), 4),
        "ratio_ends": short(_ratio_ends(column.residuals), 4),
        "contexts": short(column.contexts[LINE], 5),
        "lines": [_line(column, batch) for batch in column.lines],
        "cells": _cells(column),
        "points": _points(column.residuals),
        "coefficients": [_coefficient(c) for c in part.coefficients],
        "check": None
        if part.check is None
        else {name: rounded(getattr(part.check, name), 4) for name in ("median_error", "p90_error", "coverage", "n")},
        "sentences": [message.as_dict() for message in _sentences(column)],
    }


def _ratio_ends(residuals: Sequence[Residual]) -> tuple[float, float]:
    """Of the axis of ratios: nearly all of what was fitted; what was left out may lie beyond."""
    ratios = np.array([r.ratio for r in residuals if r.cause is None] or [1.0])
    most = min(max(float(np.exp(np.quantile(np.abs(np.log(ratios)), 0.995))) ** 1.25, 1.02), 100.0)
    return 1 / most, most


def _line(column: LawColumn, batch: int) -> Part:
    """Times and the ends of their intervals at the contexts of the column; the roofline where it is within sight."""
    ns, low, high = column.predicted(batch)
    seen = column.room_below is not None and column.room_below < FAR_BELOW
    return {
        "batch": batch,
        "ns": short(ns[LINE], 5),
        "low": short(low[LINE], 5),
        "high": short(high[LINE], 5),
        "roof": short(column.roofline(batch)[LINE], 5) if seen else None,
    }


def _cells(column: LawColumn) -> Part:
    rows = [
        (batch, context, ns)
        for batch, (contexts, times) in column.cells.items()
        for context, ns in zip(contexts.tolist(), times.tolist(), strict=True)
    ]
    return {
        "batch": [row[0] for row in rows],
        "context": near([row[1] for row in rows], 1),
        "ns": short([row[2] for row in rows], 6),
    }


def _points(residuals: Sequence[Residual]) -> Part:
    """Every measurement with its ratio to the law; ``cause`` is 0 for what was fitted, else one more than its place in CAUSES."""
    rows = list(residuals)
    if len(rows) > MOST_POINTS:
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, MOST_POINTS).round().astype(int)]
    return {
        "n": len(residuals),
        "context": near([r.context for r in rows], 1),
        "batch": [r.batch for r in rows],
        "ns": short([r.ns for r in rows], 5),
        "ratio": short([r.ratio for r in rows], 5),
        "cause": [0 if r.cause is None else 1 + CAUSES.index(r.cause) for r in rows],
    }


def _coefficient(c: Coefficient) -> Part:
    return {
        "term": term_message(c.name).as_dict(),
        "per": per_message(c.per).as_dict(),
        "meaning": meaning_message(c.name).as_dict(),
        "value": rounded(c.value, 5),
        "low": rounded(c.low, 5),
        "high": rounded(c.high, 5),
        "share": rounded(c.share, 4),
        "text": [time_text(value) for value in (c.value, c.low, c.high)],
    }


def _sentences(column: LawColumn) -> list[Message]:
    """How well it predicts, how far above the roofline it lies, what was left out of it and why."""
    part, found = column.part, []
    kind = _kind(part.kind)
    if part.check is None:
        found.append(Message("page_law.no_check"))
    else:
        told = {"error": f"{part.check.median_error:.1%}", "coverage": f"{part.check.coverage:.0%}", "n": part.check.n}
        found.append(Message("page_law.check", {"kind": kind, **told}))
    above, machine = column.room_below, column.machine
    if above is not None and machine is not None:
        key = "page_law.below_roof" if above < 1 else "page_law.above_roof"
        found.append(Message(key, {"kind": kind, "times": f"{above:,.3g}", "machine": machine.name}))
    for group in residuals_by_cause(column.residuals):
        if group.cause is not None:
            told = {"median": f"{group.median_ratio:,.2f}", "most": f"{group.largest_ratio:,.2f}", "n": group.n}
            found.append(Message("page_law.left_out", {"cause": Message(f"page_law.cause.{group.cause}"), **told}))
    return found


def time_text(ns: float) -> str:
    """A time that may be far below a nanosecond, three significant digits: ``3.1 ps``, ``12 us``."""
    if ns == 0:
        return "0"
    for below, factor, unit in ((1.0, 1e3, "ps"), (1e3, 1.0, "ns"), (1e6, 1e-3, "us"), (1e9, 1e-6, "ms")):
        if abs(ns) < below * 0.9995:
            return f"{rounded(ns * factor, 3):,g} {unit}"
    return f"{rounded(ns / 1e9, 3):,g} s"
