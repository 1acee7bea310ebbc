"""Many runs at once into one tape: the requests of a load, whose chunks come in whatever order the servers send them."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from tokentape.data.blocks import lay_out
from tokentape.data.database import written
from tokentape.data.exchange import Exchange, Scrape
from tokentape.data.packing import pack_run
from tokentape.data.setting import Setting
from tokentape.data.store import BegunRun, TapeWriter
from tokentape.data.tape import Tape
from tokentape.errors import RecordingError
from tokentape.recorder.fitting import fitting_exchange, fitting_run, is_fitting_piece, words_of
from tokentape.recorder.rows import RowMaker
from tokentape.recorder.tick import LiveRun, Tick
from tokentape.recorder.wordless import exchange_without_text, without_text

__all__ = ["ManyRuns"]


@dataclass(slots=True)
class _Open:
    """A run under way: its number on the tape, what makes its rows, the ticks that are not rows yet, and what was refused of it."""

    number: int
    n_traces: int
    rows: RowMaker
    waiting: list[Tick]
    refused: list[str] = field(default_factory=list)
    cut: bool = False


class ManyRuns:
    """Writes the runs of a load as they go on: :meth:`begin`, :meth:`add`, :meth:`end`, in any order, each run by its key.

    ``origin`` is the mark of the host clock from which the tape counts. Nothing is written before :meth:`flush`, to be called
    several times a second, except that a run's head and end are written at once. It is for one thread, and not for that which
    stamps. ``state`` of a tape closed by an exception, or with runs that did not come to their end, is ``partial``.

    What no tape can hold, and a server sent all the same, is the fault of its one request (``malformed``): what came before it is
    kept, and the other runs go on.
    """

    def __init__(
        self,
        path: str | Path | None,
        setting: Setting,
        origin: int,
        *,
        notes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        text: bool = True,
    ) -> None:
        self._origin = origin
        self._text = text
        self._writer = TapeWriter.create(path, setting, notes={"text": text, **(notes or {})}, overwrite=overwrite)
        self._open: dict[Any, _Open] = {}
        self._ended: deque[int] = deque()
        self._tape: Tape | None = None

    @property
    def writer(self) -> TapeWriter:
        """What writes the tape, for notes."""
        return self._writer

    def begin(self, key: Any, live: LiveRun) -> int:
        """A run starts; returns its number on the tape."""
        run = replace(live.run, start_ns=live.start - self._origin)
        refused: list[str] = []
        try:
            begun, rows = self._begun(replace(live, run=run))
        except RecordingError:
            raise
        except Exception as error:
            refused.append(words_of(error))
            begun, rows = self._begun(replace(live, run=fitting_run(run)))
        self._open[key] = _Open(begun.number, len(run.traces), rows, [], refused)
        return begun.number

    def _begun(self, live: LiveRun) -> tuple[BegunRun, RowMaker]:
        run = live.run
        begun = self._writer.begin(run if self._text else without_text(run))
        return begun, RowMaker(begun.trace_numbers, live, (), self._origin, text=self._text)

    def add(self, key: Any, ticks: Iterable[Tick]) -> None:
        """Some chunks of a run that is open."""
        self._open[key].waiting += ticks

    def end(self, key: Any, reasons: Sequence[str | None], exchange: Exchange | None = None) -> Exchange | None:
        """The run is over, with one reason a trace and what passed with the server, in nanoseconds since the tape's origin.

        Returns what was written of it, which has a fault where something was refused.
        """
        one = self._open[key]
        self._write(one)
        del self._open[key]
        if one.cut:
            reasons = ["error"] * one.n_traces
        passed = exchange if self._text else exchange_without_text(exchange)
        try:
            passed = _faulty(passed, one.refused, text=self._text)
            self._writer.end(one.number, reasons, exchange=passed)
        except RecordingError:
            raise
        except Exception as error:
            if passed is None:
                raise
            passed = _faulty(fitting_exchange(passed), [*one.refused, words_of(error)], text=self._text)
            self._writer.end(one.number, reasons, exchange=passed)
        self._ended.append(one.number)
        return passed

    def scraped(self, scrapes: Iterable[Scrape]) -> None:
        """Keep readings of the server, or of the client."""
        self._writer.add_scrapes(scrapes)

    def flush(self) -> None:
        """Write what has been added."""
        for one in self._open.values():
            self._write(one)

    def settle(self) -> None:
        """Make one run that has ended what it is on a whole tape; closing does so with all that are left, and takes longer."""
        if not self._ended:
            return
        database = self._writer.database
        with contextlib.suppress(RecordingError), written(database.name), database.transaction() as connection:
            run = self._ended.popleft()
            lay_out(connection, run)
            pack_run(connection, run)

    def _write(self, one: _Open) -> None:
        if not one.waiting:
            return
        ticks, one.waiting = one.waiting, []
        if one.cut:
            return  # behind what was refused
        place = one.rows.place
        try:
            self._put(one, ticks)
        except RecordingError:
            one.rows.back_to(place)
            one.waiting = ticks
            raise
        except Exception:
            one.rows.back_to(place)
            self._write_singly(one, ticks)

    def _write_singly(self, one: _Open, ticks: Sequence[Tick]) -> None:
        """Write as many of the ticks as can be."""
        for place, tick in enumerate(ticks):
            before = one.rows.place
            try:
                self._put(one, [tick])
            except RecordingError:
                one.rows.back_to(before)
                one.waiting = list(ticks[place:])
                raise
            except Exception as error:
                one.rows.back_to(before)
                one.refused.append(words_of(error))
                one.cut = True
                return

    def _put(self, one: _Open, ticks: Sequence[Tick]) -> None:
        one.rows.make(ticks, [None] * len(ticks))
        one.rows.pieces[:] = filter(is_fitting_piece, one.rows.pieces)
        self._writer.append_block(one.number, one.rows.draft, one.rows.pieces)
        one.rows.clear()

    def close(self, state: str | None = None) -> Tape:
        """End what is open as interrupted, make the file whole, and open it for reading. A second call gives the same tape."""
        if self._tape is None:
            left = list(self._open)
            for key in left:
                self.end(key, ["interrupted"] * self._open[key].n_traces)
            self._tape = self._writer.close(state or ("partial" if left else "complete"))
        return self._tape

    def __enter__(self) -> ManyRuns:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tape is None:
            self.close("partial" if error is not None else None)


def _faulty(passed: Exchange | None, refused: Sequence[str], *, text: bool) -> Exchange | None:
    """What passed, with what was refused as its fault, unless it has another."""
    if not refused or passed is None or passed.fault is not None:
        return passed
    words = f"no tape can hold what came: {refused[0]}"
    return replace(passed, fault="malformed", error=words if text else None)
