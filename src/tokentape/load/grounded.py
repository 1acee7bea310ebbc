"""A request that could not be made: it never leaves, and is a failure of its own all the same."""

from __future__ import annotations

import selectors
from collections.abc import Generator, Sequence

from tokentape.data.exchange import Exchange
from tokentape.data.request import Run, TraceHead
from tokentape.recorder.fitting import words_of
from tokentape.recorder.tick import LiveRun, Tick

__all__ = ["Grounded", "in_words"]


def in_words(error: Exception) -> str:
    """What an error is and says, on one line that a tape can hold."""
    kind, said = type(error).__name__, words_of(error)
    return kind if said == kind else f"{kind}: {said}"


class Grounded:
    """Stands for a flight that was not launched at the mark ``now``, for the reason ``why``."""

    wants = selectors.EVENT_READ
    deadline_ns: int | None = None
    done = True
    connection = None

    def __init__(self, now: int, why: str) -> None:
        self._now = now
        self._why = why

    def fileno(self) -> int:
        return -1

    def advance(self, now: int) -> list[Tick]:
        return []

    def live(self) -> LiveRun:
        """A run of one trace of which nothing is known."""
        return LiveRun(Run((TraceHead(0, None, None, None),), {}), self._now, _no_ticks(), self.finish_reasons)

    def finish_reasons(self) -> Sequence[str | None]:
        return ["error"]

    def exchange(self, origin: int) -> Exchange:
        return Exchange(ended_ns=self._now - origin, fault="malformed", error=f"it could not be made: {self._why}")

    def abort(self, reason: str) -> None:
        """It is over already."""


def _no_ticks() -> Generator[Tick]:
    yield from ()
