"""The tape of a sweep: begun anew, or taken up where an earlier call left it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tokentape.data.setting import Setting
from tokentape.data.tape import Tape
from tokentape.errors import TapeExists
from tokentape.experiment.grid import Cell
from tokentape.experiment.order import Made
from tokentape.experiment.visits import NOTE, Plan, cell_of, visits_of
from tokentape.recorder.resuming import OTHER, Resumable, tape_there

__all__ = ["Earlier", "earlier"]


@dataclass(frozen=True, slots=True)
class Earlier(Resumable):
    """What an earlier call left: its note, its visits, and when its last step ended, in ns since the tape's origin.

    ``broken_off`` says that its last visit came to no end.
    """

    path: Path
    complete: bool
    setting: Setting
    note: Mapping[str, Any]
    origin_unix_ns: int
    end_ns: int
    made: Made = field(default_factory=Made)
    broken_off: bool = False

    @property
    def cells(self) -> list[Cell]:
        """The cells of its grid, without those that turned out to be impossible."""
        impossible = {cell_of(one) for one in self.note.get("impossible", ())}
        return [cell for cell in map(cell_of, self.note["cells"]) if cell not in impossible]


def earlier(path: Path | None, plan: Plan, *, resume: bool, overwrite: bool) -> Earlier | None:
    """What an earlier sweep of the same plan left at ``path``; None where a new tape is to be made.

    Raises TapeExists where the file is something else, holds another plan, or is complete and ``resume`` is False;
    UsageError where there is nothing to resume.
    """
    tape = tape_there(path, "a sweep", resume=resume, overwrite=overwrite)
    if tape is None or path is None:
        return None
    with tape:
        found = _read(tape, path)
    if found is None:
        raise TapeExists(f"{path} already exists", why="it holds no sweep to go on with", fix=OTHER)
    differing = plan.differences(found.note["plan"])
    if differing:
        raise TapeExists(
            f"{path} holds another sweep",
            why="; ".join(f"{name} is {mine!r} now, {theirs!r} there" for name, (mine, theirs) in differing.items()),
            fix=f"the same options go on with it; else {OTHER}",
        )
    if found.complete and not resume:
        raise TapeExists(
            f"{path} already holds this sweep, complete",
            why=f"all of its {len(found.made.done)} visits are done",
            fix=f"tokentape fit {path}; or {OTHER}",
        )
    return found


def _read(tape: Tape, path: Path) -> Earlier | None:
    note = tape.notes.get(NOTE)
    if not isinstance(note, Mapping) or not {"plan", "cells"} <= note.keys():
        return None
    made, end_ns, broken_off = Made(), 0, False
    steps_of = {trace.run.number: trace for trace in tape.traces}
    for run, visit, whole in visits_of(tape):
        broken_off = not whole
        steps = steps_of[run.number].steps if run.number in steps_of else None
        if steps is None or not steps.n_rows:
            continue
        end_ns = int(steps["end_ns"][-1])
        if whole:
            times = (steps["end_ns"] - steps["start_ns"]).data
            step_ns = float(np.median(times[1:] if len(times) > 1 else times))
            made.add(visit, step_ns / 1e9, (end_ns - (run.start_ns or 0)) / 1e9)
    origin = int(tape.notes.get("origin_unix_ns", 0))
    return Earlier(path, tape.state == "complete", tape.setting, note, origin, end_ns, made, broken_off)
