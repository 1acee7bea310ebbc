"""A law as plain arrays to draw, a column for each of its parts, and what they come to in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tokentape.errors import StudyError, UsageError
from tokentape.study.cost.counting import ModelWork
from tokentape.study.cost.roofline import roof
from tokentape.study.law.gathering import workload_of
from tokentape.study.law.points import CAUSES
from tokentape.study.law.residuals import Residual, residuals_of
from tokentape.study.law.terms import Loads
from tokentape.views.units import count

if TYPE_CHECKING:
    from tokentape.study.cost.hardware import Hardware
    from tokentape.study.law.gathering import Subject
    from tokentape.study.law.laws import Law, Part

__all__ = ["FAR_BELOW", "LawColumn", "LawRow", "law_rows", "law_sentences"]

Array = npt.NDArray[np.float64]

MOST_LINES = 7
"""So many batches are told apart at most; the others are drawn as points without a line."""

BEYOND = 2.0
"""By this factor the plot goes beyond what was measured, to each side."""

FAR_BELOW = 30.0
"""A roofline further below every measurement than this is told in the caption instead."""

MOST_ROWS = 24


@dataclass(frozen=True)
class LawColumn:
    """One part of a law for one of its subjects."""

    law: Law
    part: Part
    place: int
    machine: Hardware | None
    confidence: float

    @property
    def subject(self) -> Subject:
        return self.law.subjects[self.place]

    @cached_property
    def residuals(self) -> list[Residual]:
        points = [point for point in self.law.points if point.kind == self.part.kind]
        both = zip(points, residuals_of(self.law, self.part), strict=True)
        return [residual for point, residual in both if int(point.labels.get("subject", 0)) == self.place]

    @cached_property
    def cells(self) -> dict[int, tuple[Array, Array]]:
        """By batch the contexts and times of what was fitted, one value a setting."""
        cells = self.part.fitted.cells
        mine = cells.groups == self.place
        batches = sorted({int(b) for b in cells.loads.batch[mine]})
        found = {batch: np.flatnonzero(mine & (cells.loads.batch == batch)) for batch in batches}
        return {batch: (cells.loads.context[at], cells.ns[at]) for batch, at in found.items()}

    @cached_property
    def lines(self) -> list[int]:
        """The batches that have a line."""
        batches = list(self.cells)
        if len(batches) <= MOST_LINES:
            return batches
        return [batches[i] for i in np.linspace(0, len(batches) - 1, MOST_LINES).round().astype(int)]

    @property
    def measured(self) -> tuple[float, float]:
        contexts = [c for contexts, _ in self.cells.values() for c in contexts]
        return min(contexts), max(contexts)

    @cached_property
    def contexts(self) -> Array:
        low, high = self.measured
        return np.geomspace(max(1.0, low / BEYOND), high * BEYOND, 96)

    def predicted(self, batch: int) -> tuple[Array, Array, Array]:
        """What ``Law.predict`` gives at :attr:`contexts`: times, and the ends of their intervals."""
        n, fitted, workload = len(self.contexts), self.part.fitted, self.subject.workload
        pooled = self.subject.pooled and workload is not None
        loads = Loads.of(self.part.kind, self.contexts, [batch] * n, [workload] * n if pooled else None)  # type: ignore[list-item]
        estimate = fitted.estimate(loads, np.full(n, self.place))
        width = np.exp(fitted.quantile(self.confidence) * estimate.deviation)
        return estimate.ns, estimate.ns / width, estimate.ns * width

    def roofline(self, batch: int) -> Array:
        """The least time at :attr:`contexts` on the machine that was named, in nanoseconds."""
        assert self.machine is not None
        work = replace(_work(self.subject), pairs="seen")
        asked = work.decode if self.part.kind == "decode" else work.prefill
        machine, dtype, n = self.machine, work.compute_dtype, work.tensor_parallel
        return np.array([roof(asked(float(c), batch), machine, dtype, n).ns for c in self.contexts])

    @cached_property
    def room_below(self) -> float | None:
        """How many times the nearest setting lies above its roofline; None without a machine."""
        if self.machine is None:
            return None
        ratios: list[float] = []
        for batch, (contexts, ns) in self.cells.items():
            ratios += (ns / np.interp(contexts, self.contexts, self.roofline(batch))).tolist()
        return min(ratios)

    def time_ends(self) -> tuple[float, float]:
        """Of the time axis: what was fitted, the lines with what is near of their bands, and a roofline within sight."""
        values = [r.ns for r in self.residuals if r.cause is None]
        for batch in self.lines:
            line, below, above = self.predicted(batch)
            values += [*line, *np.maximum(below, line / 2), *np.minimum(above, line * 2)]
            if self.room_below is not None and self.room_below < FAR_BELOW:
                values += self.roofline(batch).tolist()
        return min(values) / 1.12, max(values) * 1.12


@dataclass(frozen=True)
class LawRow:
    """The parts of a law for one Setting."""

    subject: Subject
    columns: tuple[LawColumn, ...]


def law_rows(laws: Sequence[Law], of: str | None, machine: Hardware | None, confidence: float) -> list[LawRow]:
    """A row for each Setting, or for the one that is named; raises UsageError for none, and for too many for a picture."""
    found = []
    for law in laws:
        parts = [part for part in (law.decode, law.prefill) if part is not None]
        for place, subject in enumerate(law.subjects):
            columns = [LawColumn(law, part, place, machine, confidence) for part in parts]
            columns = [column for column in columns if column.cells]
            if columns and of in (None, subject.name):
                found.append(LawRow(subject, tuple(columns)))
    if not found:
        names = [subject.name for law in laws for subject in law.subjects]
        raise UsageError(
            f"no Setting {of!r} in this law", why=f"it was fitted to {', '.join(names)}", fix=f"--of {names[0]!r}"
        )
    if len(found) > MOST_ROWS:
        raise UsageError(
            f"{len(found)} Settings are too many for one picture",
            why=f"each has a row, and there is room for {MOST_ROWS}",
            fix=f"--of {found[0].subject.name!r} draws one",
        )
    return found


def _work(subject: Subject) -> ModelWork:
    """The work of a subject; raises StudyError where its configuration is not known."""
    if isinstance(subject.workload, ModelWork):
        return subject.workload
    if subject.facts.get("config") is None:
        raise StudyError(
            f"no roofline can be drawn for {subject.name}",
            why="its configuration, from which bytes and operations are counted, is not there",
            fix="record it again with this version (a CSV: --config MODEL=config.json), or leave --on out",
        )
    return workload_of(subject.facts)


def law_sentences(columns: Sequence[LawColumn]) -> list[str]:
    """What the picture shows, in sentences made from its numbers."""
    law = columns[0].law
    found = []
    if (sentence := law.sentence()) is not None:
        found.append(f"{sentence[0].upper()}{sentence[1:]}.")
    for column in columns:
        part = column.part
        if part.check is not None:
            found.append(
                f"On {part.kind} settings left out of the fit the median error was {part.check.median_error:.1%}, "
                f"and its 90% intervals held {part.check.coverage:.0%} (n = {part.check.n})."
            )
    for column in columns:
        found += _floor_sentence(column)
    found.append(
        "Lines are the law corrected by what was measured nearby; below them stands what was measured over the law alone."
    )
    left = {c: sum(r.cause == c for column in columns for r in column.residuals) for c in CAUSES}
    told = [f"{count(n, 'measurement')} for {cause}" for cause, n in left.items() if n]
    if told:
        found.append(f"Left out of the fit: {', '.join(told)}.")
    return found


def _floor_sentence(column: LawColumn) -> Iterator[str]:
    """How far above the roofline the nearest setting lies, or that the roofline is not of this machine."""
    above, machine, kind = column.room_below, column.machine, column.part.kind
    if above is None or machine is None:
        return
    if above < 1:
        told = f"A {kind} setting took {above:.2f} of the least time that {machine.name} allows"
        yield f"{told}: its peaks are others, or it was not measured there."
    else:
        off = " (off the plot)" if above >= FAR_BELOW else ""
        yield f"{kind.capitalize()} settings took {above:,.3g} times the least that {machine.name} allows, or more{off}."
