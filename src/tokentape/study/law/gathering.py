"""Whose measurements they are, whether there are enough of them, and their grouping into cells."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.errors import NotComparable, StudyError, TooFewPoints, UsageError
from tokentape.study.cost.configuration import config_in
from tokentape.study.cost.counting import ModelWork, workload
from tokentape.study.law.fitting import LEAST_CELLS, Cells
from tokentape.study.law.points import Point
from tokentape.study.law.terms import Loads

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.study.cost.work import Workload

__all__ = [
    "MACHINE",
    "Subject",
    "cell_key",
    "cells_of",
    "check_enough",
    "check_one_machine",
    "subject_of",
    "workload_of",
    "workloads_of",
]

MACHINE = ("processor", "logical_cpus", "torch_threads", "gpu", "engine", "torch", "transformers")
"""Facts of a Setting that have to agree for measurements to be of one machine and one program."""

LEAST_CONTEXTS = 3
LEAST_SPAN = 1.5

PER_OCTAVE = 4
"""Measurements whose contexts lie within a quarter of an octave are of one cell."""


@dataclass(frozen=True)
class Subject:
    """One Setting that was measured. ``pooled`` says that its work is what the law is about: ``workload`` is then there."""

    name: str
    fingerprint: str
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    workload: Workload | None = field(default=None, repr=False)
    pooled: bool = False

    def as_pooled(self) -> Subject:
        """The subject with its workload; raises StudyError where the configuration is not known."""
        if self.workload is not None:
            return replace(self, pooled=True)
        config = self.facts.get("config")
        if config is None:
            raise StudyError(
                f"the architecture of {self.name} is not on its tape",
                why="a law across models counts bytes and operations, for which the configuration is needed",
                fix="record it again with this version, or fit the tape by itself",
            )
        return replace(self, workload=workload_of(self.facts), pooled=True)

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "fingerprint": self.fingerprint}


def subject_of(tape: Tape) -> Subject:
    """The Setting of a tape as a subject, named by its model and dtype."""
    facts = tape.setting.facts
    name = " ".join(str(facts[key]) for key in ("model", "dtype") if facts.get(key) is not None) or "a model"
    work = None
    if facts.get("config") is not None:
        with contextlib.suppress(UsageError, StudyError):  # a family that is not known: its law is one of counts
            work = workload_of(facts)
    return Subject(name, tape.setting.fingerprint, dict(facts), work)


def workload_of(facts: Mapping[str, Any]) -> ModelWork:
    """The work of the model whose ``config``, ``dtype`` and ``tensor_parallel`` these facts have. Raises UsageError."""
    config = config_in(facts, str(facts.get("model") or "the tape"))
    return workload(config, tensor_parallel=int(facts.get("tensor_parallel") or 1))


def check_one_machine(subjects: Sequence[Subject]) -> None:
    """Raise NotComparable unless all were measured on one machine with one engine."""
    first = subjects[0]
    for other in subjects[1:]:
        apart = [
            f"{fact} ({first.facts.get(fact)}, {other.facts.get(fact)})"
            for fact in MACHINE
            if first.facts.get(fact) != other.facts.get(fact)
        ]
        if apart:
            raise NotComparable(
                f"{first.name} and {other.name} were not measured under one machine and engine",
                why=f"they differ in {', '.join(apart)}",
                fix="fit each tape by itself, then compare the laws",
            )


def check_enough(points: Sequence[Point], kind: str) -> None:
    """Raise TooFewPoints, with what would be needed, unless the points can carry a law."""
    good = [point for point in points if point.cause is None]
    if not points:
        raise TooFewPoints(
            f"no {kind} step was measured",
            why="none has a known context, a batch and a time above zero",
            fix=f"record with the timing probe; a {kind} step needs its context on the tape",
        )
    contexts = sorted({round(point.context, 3) for point in good})
    cells = {cell_key(point) for point in good}
    needed = f"a law needs {LEAST_CELLS} settings with {LEAST_CONTEXTS} contexts that span a factor of {LEAST_SPAN:g}"
    if len(cells) < LEAST_CELLS or len({_octave(c) for c in contexts}) < LEAST_CONTEXTS:
        left = f", and {len(points) - len(good)} were left out for a cause" if len(points) > len(good) else ""
        raise TooFewPoints(
            f"too few {kind} measurements for a law",
            why=f"{len(cells)} settings with {len({_octave(c) for c in contexts})} distinct contexts{left}; {needed}",
            fix="tokentape sweep MODEL --context 64..1024",
        )
    if contexts[-1] < LEAST_SPAN * contexts[0]:
        raise TooFewPoints(
            f"the {kind} measurements lie too close together for a law",
            why=f"contexts from {contexts[0]:g} to {contexts[-1]:g}; {needed}",
            fix="tokentape sweep MODEL --context 64..1024",
        )


def _octave(context: float) -> int:
    return round(float(np.log2(context)) * PER_OCTAVE)


def cell_key(point: Point) -> tuple[Any, ...]:
    """Which cell a point belongs to: the setting that its label names, else its context and batch."""
    subject = point.labels.get("subject", 0)
    if "setting" in point.labels:
        return (subject, point.labels["setting"])
    return (subject, _octave(point.context), point.batch)


def workloads_of(owners: Sequence[int], subjects: Sequence[Subject]) -> list[Workload] | None:
    """The workload of each owner, an index into ``subjects``; None where they are not pooled."""
    if not subjects[0].pooled:
        return None
    return [work for owner in owners if (work := subjects[owner].workload) is not None]


def cells_of(kind: str, points: Sequence[Point], subjects: Sequence[Subject]) -> Cells:
    """The points of one kind by cell; with pooled subjects their loads are of bytes and operations."""
    groups: dict[tuple[Any, ...], list[Point]] = defaultdict(list)
    for point in points:
        groups[cell_key(point)].append(point)
    cells = sorted(groups.values(), key=lambda cell: (cell[0].labels.get("subject", 0), cell[0].batch, cell[0].context))
    owners = [int(cell[0].labels.get("subject", 0)) for cell in cells]
    return Cells(
        loads=Loads.of(
            kind,
            [float(np.mean([point.context for point in cell])) for cell in cells],
            [cell[0].batch for cell in cells],
            workloads_of(owners, subjects),
        ),
        ns=np.array([float(np.median([point.ns for point in cell])) for cell in cells]),
        groups=np.array(owners),
        logs=tuple(np.log([point.ns for point in cell]) for cell in cells),
    )
