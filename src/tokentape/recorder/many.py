"""Many runs at once into one tape: the requests of a load, whose chunks come in whatever order the servers send them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from tokentape.data.exchange import Exchange, Scrape
from tokentape.data.setting import Setting
from tokentape.data.store import TapeWriter
from tokentape.data.tape import Tape
from tokentape.recorder.rows import RowMaker
from tokentape.recorder.tick import LiveRun, Tick
from tokentape.recorder.wordless import exchange_without_text, without_text

__all__ = ["ManyRuns"]


@dataclass(slots=True)
class _Open:
    """A run under way: its number on the tape, what makes its rows, and the ticks that are not rows yet."""

    number: int
    n_traces: int
    rows: RowMaker
    waiting: list[Tick]


class ManyRuns:
    """Writes the runs of a load as they go on: :meth:`begin`, :meth:`add`, :meth:`end`, in any order, each run by its key.

    ``origin`` is the mark of the host clock from which the tape counts. Nothing is written before :meth:`flush`, to be called
    several times a second, except that a run's head and end are written at once. It is for one thread, and not for that which
    stamps. ``state`` of a tape closed by an exception, or with runs that did not come to their end, is ``partial``.
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
        self._tape: Tape | None = None

    @property
    def writer(self) -> TapeWriter:
        """What writes the tape, for notes."""
        return self._writer

    def begin(self, key: Any, live: LiveRun) -> int:
        """A run starts; returns its number on the tape."""
        run = replace(live.run, start_ns=live.start - self._origin)
        begun = self._writer.begin(run if self._text else without_text(run))
        rows = RowMaker(begun.trace_numbers, live, (), self._origin, text=self._text)
        self._open[key] = _Open(begun.number, len(run.traces), rows, [])
        return begun.number

    def add(self, key: Any, ticks: Iterable[Tick]) -> None:
        """Some chunks of a run that is open."""
        self._open[key].waiting += ticks

    def end(self, key: Any, reasons: Sequence[str | None], exchange: Exchange | None = None) -> None:
        """The run is over, with one reason a trace and what passed with the server, in nanoseconds since the tape's origin."""
        one = self._open.pop(key)
        self._write(one)
        self._writer.end(one.number, reasons, exchange=exchange if self._text else exchange_without_text(exchange))

    def scraped(self, scrapes: Iterable[Scrape]) -> None:
        """Keep readings of the server, or of the client."""
        self._writer.add_scrapes(scrapes)

    def flush(self) -> None:
        """Write what has been added."""
        for one in self._open.values():
            self._write(one)

    def _write(self, one: _Open) -> None:
        if not one.waiting:
            return
        ticks, one.waiting = one.waiting, []
        one.rows.make(ticks, [None] * len(ticks))
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
