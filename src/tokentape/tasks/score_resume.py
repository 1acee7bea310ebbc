"""A tape of scores that an earlier call left: what is scored already, and what is still to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokentape.data.setting import Setting
from tokentape.data.tape import Tape
from tokentape.errors import TapeExists
from tokentape.recorder.resuming import OTHER, Resumable, tape_there

__all__ = ["Earlier", "earlier"]


@dataclass(frozen=True, slots=True)
class Earlier(Resumable):
    """What an earlier call left at ``path``: the numbers of the documents that are ``done``, and when its last step ended, in ns
    since the tape's origin. ``broken_off`` says that its last run came to no end.
    """

    path: Path
    complete: bool
    setting: Setting
    done: frozenset[int]
    broken_off: bool
    origin_unix_ns: int
    end_ns: int


def earlier(path: Path | None, plan: Mapping[str, Any], note: str, *, resume: bool, overwrite: bool) -> Earlier | None:
    """What an earlier call with the same ``plan``, which is on the tape under ``note``, left; None where a new tape is to be made.

    Raises TapeExists where the file is something else, holds another plan, or is complete and ``resume`` is False; UsageError
    where there is nothing to resume.
    """
    tape = tape_there(path, "scoring", resume=resume, overwrite=overwrite)
    if tape is None or path is None:
        return None
    with tape:
        there = tape.notes.get(note)
        if not isinstance(there, Mapping):
            raise TapeExists(f"{path} already exists", why="it holds no scores to go on with", fix=OTHER)
        differing = [name for name in sorted({*plan, *there}) if plan.get(name) != there.get(name)]
        if differing:
            why = "; ".join(f"{name} is {plan.get(name)!r} now, {there.get(name)!r} there" for name in differing)
            raise TapeExists(
                f"{path} holds other scores", why=why, fix=f"the same texts and options go on with it; {OTHER}"
            )
        found = _read(tape, path, note)
    if found.complete and not resume:
        raise TapeExists(
            f"{path} already holds these scores, complete",
            why=f"all of its {len(found.done)} documents are done",
            fix=f"tokentape show {path}; or {OTHER}",
        )
    return found


def _read(tape: Tape, path: Path, note: str) -> Earlier:
    done: set[int] = set()
    broken_off, end_ns = False, 0
    reasons: dict[int, set[str | None]] = {}
    for trace in tape.traces:
        reasons.setdefault(trace.run.number, set()).add(trace.finish_reason)
    steps = tape.columns("step")
    if steps.n_rows:
        end_ns = int(steps["end_ns"].max())
    for run in tape.runs:
        broken_off = not run.finished or bool(reasons.get(run.number, set()) & {None, "interrupted", "error"})
        if not broken_off:
            done |= {int(one["index"]) for one in run.options[note]["documents"]}
    origin = int(tape.notes.get("origin_unix_ns", 0))
    return Earlier(path, tape.state == "complete", tape.setting, frozenset(done), broken_off, origin, end_ns)
