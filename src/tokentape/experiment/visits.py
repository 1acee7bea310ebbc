"""The plan of a sweep: which cells are visited, in which order, and what a tape says of visits that were made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tokentape.data.tape import Tape
from tokentape.data.trace import RecordedRun
from tokentape.errors import UsageError
from tokentape.experiment.grid import KINDS, Cell

__all__ = [
    "NOTE",
    "REFERENCE_EVERY",
    "Plan",
    "Visit",
    "account_of",
    "advice_of",
    "cell_of",
    "reference_cell",
    "repeats_of",
    "schedule",
    "visits_of",
]

NOTE = "sweep"
"""What a tape's note, and the option of a run, of a sweep are called."""

REFERENCE_EVERY = 8
"""So many visits lie between two of the reference cell, by which the drift of the machine is seen."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One run of a sweep: a cell, measured once. ``round`` counts the visits of the cell, and those of the reference apart."""

    cell: Cell
    round: int
    reference: bool = False

    def as_options(self) -> dict[str, Any]:
        """What is written into the options of its run, under ``"sweep"``."""
        return {**asdict(self.cell), "round": self.round, "reference": self.reference}


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for. ``steps`` are the decode steps of a visit after its first; ``seed`` decides the order."""

    contexts: tuple[int, ...]
    batches: tuple[int, ...]
    kinds: tuple[str, ...] = KINDS
    repeat: int = 3
    steps: int = 16
    seed: int = 0
    prefill_tokens: int | None = None
    budget_s: float | None = None

    def check(self) -> None:
        """Raise UsageError for what cannot be asked for."""
        least = (("repeat", self.repeat), ("steps", self.steps), ("prefill-tokens", self.prefill_tokens or 1))
        for name, value in least:
            if value < 1:
                raise UsageError(f"--{name} {value} is less than 1", why="it is a count", fix=f"--{name} 3")
        if self.budget_s is not None and not self.budget_s > 0:
            raise UsageError(f"a budget of {self.budget_s:g} s", why="nothing fits into it", fix="--budget 10m")
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise UsageError(
                f"nothing to measure: kinds {', '.join(self.kinds) or 'none'}",
                why=f"the kinds are {' and '.join(KINDS)}",
                fix="leave out --no-decode or --no-prefill",
            )

    def as_notes(self) -> dict[str, Any]:
        """The plan as a tape notes it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def differences(self, noted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """What differs from a plan that a tape noted, as ``{name: (asked for, noted)}``."""
        mine = self.as_notes()
        return {name: (mine[name], noted.get(name)) for name in mine if mine[name] != noted.get(name)}


def advice_of(cells: Sequence[Cell], plan: Plan) -> list[str]:
    """What a law fitted to these cells will not be able to tell, and what to ask for instead."""
    found = []
    for kind, word in (("decode", "context"), ("prefill", "length")):
        contexts = {cell.context for cell in cells if cell.kind == kind}
        if len(contexts) == 1:
            found.append(f"one {word} alone: no law of {kind} over it can be fitted; --context 64..1024 gives five")
        elif len(contexts) == 2:
            found.append(f"two {word}s: a law of {kind} goes through both, whatever it is; three or more can refute it")
    if cells and len({cell.batch for cell in cells}) == 1:
        found.append(f"batch {cells[0].batch} alone: a law will say nothing of other batches; --batch 1,2,4")
    if plan.steps < 6 and "decode" in plan.kinds:
        found.append(f"{plan.steps} decode steps a visit are too few to find the warm-up in: --steps 16")
    if plan.budget_s is None and plan.repeat == 1:
        found.append("each cell is visited once: noise cannot be told from what the law misses; --repeat 3")
    return found


def reference_cell(cells: Sequence[Cell]) -> Cell:
    """The cell whose repetition tells the drift: of the decode cells, else of all, the smallest batch at its middle context."""
    of_kind = [cell for cell in cells if cell.kind == "decode"] or list(cells)
    batch = min(cell.batch for cell in of_kind)
    row = sorted(cell for cell in of_kind if cell.batch == batch)
    return row[len(row) // 2]


def repeats_of(cell: Cell, cells: Iterable[Cell], repeat: int) -> int:
    """How often a cell is visited: ``repeat`` times, but prefills of more tokens than the middle one in proportion less
    often, and never less than twice where ``repeat`` allows it.
    """
    if cell.kind != "prefill":
        return repeat
    middle = float(np.median([other.context * other.batch for other in cells if other.kind == "prefill"]))
    wanted = round(repeat * min(1.0, middle / (cell.context * cell.batch)))
    return max(wanted, min(2, repeat))


def schedule(cells: Sequence[Cell], plan: Plan) -> list[Visit]:
    """All visits in their order: every round visits each cell once, in an order of its own, so that a drift of the machine
    falls on all cells alike; the reference cell is visited at the start, every few visits, and at the end.
    """
    visits = []
    for number in range(plan.repeat):
        of_round = [cell for cell in cells if repeats_of(cell, cells, plan.repeat) > number]
        order = np.random.default_rng([plan.seed, number]).permutation(len(of_round))
        visits += [Visit(of_round[place], number) for place in order]
    return with_references(visits, reference_cell(cells)) if cells else []


def with_references(visits: Sequence[Visit], reference: Cell) -> list[Visit]:
    """The visits, with those of the reference cell between them, at the start and at the end."""
    found = []
    for place in range(0, len(visits), REFERENCE_EVERY):
        found += [Visit(reference, place // REFERENCE_EVERY, reference=True), *visits[place : place + REFERENCE_EVERY]]
    return [*found, Visit(reference, -(-len(visits) // REFERENCE_EVERY), reference=True)]


def cell_of(noted: Mapping[str, Any]) -> Cell:
    """A cell as a note has it."""
    return Cell(str(noted["kind"]), int(noted["context"]), int(noted["batch"]))


def _visit_of(run: RecordedRun) -> Visit | None:
    """The visit that a run of a tape was; None where it was none."""
    noted = run.options.get(NOTE)
    if not isinstance(noted, Mapping):
        return None
    return Visit(cell_of(noted), int(noted["round"]), bool(noted["reference"]))


def visits_of(tape: Tape) -> Iterator[tuple[RecordedRun, Visit, bool]]:
    """The runs of a tape that were visits, and whether each came to its end: was not killed, interrupted or out of memory."""
    reasons: dict[int, set[str | None]] = {}
    for trace in tape.traces:
        reasons.setdefault(trace.run.number, set()).add(trace.finish_reason)
    for run in tape.runs:
        if (visit := _visit_of(run)) is not None:
            yield run, visit, run.finished and reasons.get(run.number) == {"length"}


def account_of(tape: Tape) -> dict[str, Any]:
    """What a sweep's tape holds, in plain values: its note, and how many visits of how many cells came to their end."""
    note = dict(tape.notes.get(NOTE, {}))
    whole = [visit for _, visit, whole in visits_of(tape) if whole]
    visited = {visit.cell for visit in whole}
    return {"n_visits": len(whole), "n_visited": len(visited), "n_cells": len(note.get("cells", ())), **note}
