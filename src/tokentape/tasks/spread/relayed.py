"""A run that a worker drove to its end, to be recorded by another process: nothing of the model is in it any more."""

from __future__ import annotations

import os
import platform
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tokentape.recorder.tick import LiveRun, Speller, Tick
from tokentape.tasks.spread.crossing import Moment

if TYPE_CHECKING:
    from tokentape.data.request import Run

__all__ = ["BY_RAY", "Relayed"]

BY_RAY = "ray"
"""Where a run's options say which worker made it."""

Entry = tuple[str, bytes, bool] | None


@dataclass(frozen=True, slots=True)
class Spelled:
    """Spells what a worker has spelled already: every token comes with its bytes, and these are its vocabulary's ``entries``."""

    entries: Mapping[int, Entry]

    def feed(self, token_id: int) -> bytes:
        entry = self.entries[token_id]
        return b"" if entry is None else entry[1]

    def piece(self, token_id: int) -> Entry:
        return self.entries[token_id]


@dataclass(frozen=True, slots=True)
class Relayed:
    """A run over given tokens, with its ticks; marks are of the worker's clock, of which ``moment`` is one.

    ``spelled`` has one entry a trace, None where bytes cannot be told.
    """

    run: Run
    ticks: Sequence[Tick]
    reasons: Sequence[str | None]
    spelled: Sequence[Spelled | None]
    start: int
    moment: Moment

    @staticmethod
    def of(live: LiveRun) -> Relayed:
        """Drive a run whose ticks say their tokens to its end, here, and keep what a recorder wants of it."""
        ticks = [_with_bytes(tick, live.spellers) for tick in live.ticks]
        ids = {token_id for head in live.run.traces for token_id in head.prompt_ids or ()} | _ids_said(ticks)
        speller = next((one for one in live.spellers if one is not None), None)
        entries: dict[int, Entry] = (
            {} if speller is None else {token_id: speller.piece(token_id) for token_id in sorted(ids)}
        )
        spelled = [None if one is None else Spelled(entries) for one in live.spellers]
        where = {BY_RAY: {"host": platform.node(), "pid": os.getpid()}}
        run = replace(live.run, options={**live.run.options, **where})
        return Relayed(run, ticks, list(live.finish_reasons()), spelled, live.start, Moment.now())

    def here(self, sent: int) -> LiveRun:
        """The same as a run of this process, whose clock showed ``sent`` when the work was handed out."""
        last = max([self.start, *(tick.end for tick in self.ticks)])
        now = Moment.now()
        shift = self.moment.shift_ns(now, begun=(self.start, sent), ended=(last, now.mark_ns))
        return LiveRun(
            run=self.run,
            start=self.start + shift,
            ticks=_shifted(self.ticks, shift),
            finish_reasons=lambda: self.reasons,
            spellers=self.spelled,
        )


def _with_bytes(tick: Tick, spellers: Sequence[Speller | None]) -> Tick:
    """A tick whose tokens carry their bytes; they are spelled in order."""
    told = []
    for said in tick.said or ():
        speller = spellers[said.row]
        told.append(said if speller is None or said.id is None else replace(said, data=speller.feed(said.id)))
    return replace(tick, said=tuple(told))


def _ids_said(ticks: Sequence[Tick]) -> set[int]:
    """The ids of all tokens and of their candidates."""
    found: set[int] = set()
    for tick in ticks:
        for said in tick.said or ():
            if said.id is not None:
                found |= {said.id, *(token_id for token_id, _ in said.candidates or ())}
    return found


def _shifted(ticks: Sequence[Tick], shift: int) -> Generator[Tick]:
    for tick in ticks:
        yield replace(tick, start=tick.start + shift, end=tick.end + shift)
