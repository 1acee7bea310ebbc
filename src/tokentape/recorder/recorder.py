"""The recorder: ticks go in, blocks of records come out; marks become numbers here, once.

``add`` runs inside somebody's loop. It lets the probes note what cannot wait and puts the tick on a queue; several times a second
the queue becomes a block, which is appended to the tape in one transaction. Rows are made of the blocks when the tape is closed.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tokentape.clock import Clock
from tokentape.data.control import Decision, Outcome
from tokentape.data.exchange import Exchange
from tokentape.data.request import Run
from tokentape.data.setting import Setting
from tokentape.data.store import TapeWriter
from tokentape.data.tape import Tape, open_tape
from tokentape.errors import RecordingError, TokentapeError
from tokentape.recorder.progress import Progress
from tokentape.recorder.rows import RowMaker
from tokentape.recorder.tick import LiveRun, Probe, Tick, needs_of
from tokentape.recorder.wordless import exchange_without_text, without_reasons, without_text

__all__ = ["Recorder"]

FLUSH_NS = 200_000_000
"""How long steps may wait in memory. A killed process loses no more than this, the grace and the transaction under way."""

CUT_OFF = (None, "interrupted", "error")
"""Reasons of a trace that did not come to its end."""

FEW = 12
FEW_FLUSH_NS = 2_000_000_000
"""How long so few steps may wait: where steps are long, a transaction for each of them would be most of what recording costs."""

GRACE_NS = 25_000_000
"""How much longer the recorder's thread waits for the loop to write, which then is in a step that takes longer."""

READING_NS = 250_000_000
"""A system call costs ten microseconds and more when the caches are full of a model. So short steps share a reading of the
machine and of the memory, and are null in between. A step that takes twice as long as usual has its own, as has one in which
garbage was collected, and so have the first and the last step of a run."""


@dataclass(slots=True)
class _Begun:
    """A run has begun: its head, and once that is on the tape, what makes its rows."""

    run: Run
    live: LiveRun
    progress: Progress = field(default_factory=Progress)
    number: int = -1
    rows: RowMaker | None = None


@dataclass(frozen=True, slots=True)
class _Ended:
    """A run is over."""

    reasons: list[str | None]
    outcomes: Sequence[Sequence[Outcome]] | None = None
    decisions: Sequence[tuple[int, Decision]] = ()
    exchange: Exchange | None = None

    def without_text(self) -> _Ended:
        return replace(self, outcomes=without_reasons(self.outcomes), exchange=exchange_without_text(self.exchange))


class Recorder:
    """Records the runs of one source into one tape.

    ``path`` None keeps the tape in memory; a ``writer`` goes on with a tape that was begun before. Use it as a context
    manager, or call :meth:`close`; after that :attr:`tape` is there to read. A write that fails (a full disk) does not disturb
    the loop: the rows are kept in memory, and :meth:`close` tries again, then saves everything elsewhere, and raises
    :class:`~tokentape.errors.RecordingError` that says where.
    """

    def __init__(
        self,
        path: str | Path | None,
        setting: Setting,
        probes: Sequence[Probe],
        clock: Clock,
        *,
        origin: Any = None,
        notes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        text: bool = True,
        observer: Callable[[Progress], None] | None = None,
        writer: TapeWriter | None = None,
    ) -> None:
        self.needs = needs_of(probes)
        self.probes = tuple(probes)
        self._at_every_tick = any(probe.every_tick for probe in probes)
        self._clock = clock
        self._text = text
        self._observer = observer
        self._origin = clock.mark() if origin is None else origin
        kept = {"probes": [probe.name for probe in probes], "clock": clock.name, "text": text, **(notes or {})}
        kept["origin_unix_ns"] = time.time_ns() - clock.ns(clock.mark(), since=self._origin)
        self._writer = writer or TapeWriter.create(path, setting, notes=kept, overwrite=overwrite)
        self._queue: deque[_Begun | tuple[Tick, list[Any] | None] | _Ended] = deque()
        self._fence: Callable[[], Any] | None = None
        self._live: LiveRun | None = None  # the run that the loop is in
        self._n_under_way = 0  # and its traces
        self._run: _Begun | None = None  # the run that rows are being made of, which may be an earlier one
        self._failure: BaseException | None = None
        self._observers_error: Exception | None = None
        self._broken = False  # the failure is not one that a second try could mend
        self._complete = True
        self._flushing = threading.Lock()
        self._closing = threading.Lock()  # held until then; waiting for it costs less than an Event
        self._closing.acquire()
        self._thread: threading.Thread | None = None
        self._in_the_loop = False  # the loop's own thread writes
        self._tape: Tape | None = None
        # moments of time.perf_counter_ns, and how long a step usually takes
        self._read_at = self._flush_at = self._before = 0
        self._usual_ns = 0

    # -- in the loop ---------------------------------------------------------------------------------------------------

    def begin(self, live: LiveRun, *, own_thread: bool = True) -> None:
        """A run starts. The time from ``live.prepared`` to now was the recorder's own, and is left out of its start.

        With ``own_thread`` False nothing is written before :meth:`flush` or :meth:`close` is called.
        """
        for probe in self.probes:
            probe.begin(self._ask)
        self._live, self._fence = live, live.fence
        # Handing a block over to the other thread costs the loop more than writing it: two threads share one interpreter. But
        # the loop must not wait for a device, nor for whoever observes.
        self._in_the_loop = own_thread and live.fence is None and self._observer is None
        now = self._clock.mark()
        own_ns = 0 if live.prepared is None else self._clock.ns(now, since=live.prepared)
        run = replace(live.run, start_ns=self._ns(live.start) + own_ns)
        self._n_under_way = len(run.traces)
        self._before = time.perf_counter_ns()
        if not self._queue:  # else what an earlier run left in it is due as before
            self._flush_at = self._before + FLUSH_NS
        self._queue.append(_Begun(run if self._text else without_text(run), live))
        self._read_at = self._usual_ns = 0
        if self._thread is None and own_thread:
            self._thread = threading.Thread(target=self._flush_when_due, name="tokentape-writer", daemon=True)
            self._thread.start()

    def _ask(self) -> None:
        self._read_at = 0

    def add(self, tick: Tick) -> None:
        """Keep what the probes want of a tick, and let its tensors die. Does not wait for a device."""
        now = time.perf_counter_ns()
        took = now - self._before
        usual = self._usual_ns or took
        if now >= self._read_at or took > 2 * usual or tick.last:
            self._read_at = now + READING_NS
            kept: list[Any] | None = [probe.keep(tick) for probe in self.probes]
        elif self._at_every_tick:
            kept = [probe.keep(tick) if probe.every_tick else None for probe in self.probes]
        else:
            kept = None
        self._usual_ns = usual + ((took - usual) >> 4)
        tick.release()
        if self._fence is not None:
            tick.ready = self._fence()
        self._queue.append((tick, kept))
        if self._in_the_loop and now >= self._flush_at and self._is_due(now):
            self.flush()
            now = time.perf_counter_ns()
        self._before = now

    def end(self, finish_reasons: Iterable[str | None], *, repeated: bool = False) -> None:
        """The run is over, with one reason a trace; what its rules conclude is asked of it. Its last rows reach the tape later.

        The next run repeats it where ``repeated``: then it leaves nothing out that the tape should have.
        """
        reasons = list(finish_reasons)
        for probe in self.probes:
            probe.end()
        live, self._live, self._n_under_way = self._live, None, 0
        ended, cut_off = _Ended(reasons), any(reason in CUT_OFF for reason in reasons)
        self._complete &= repeated or not cut_off
        if live is not None:
            with contextlib.suppress(Exception) if cut_off else contextlib.nullcontext():  # the first error is told
                ended = _Ended(reasons, *live.concluded(cut_off=cut_off))
            if live.exchange is not None:
                ended = replace(ended, exchange=live.exchange(self._origin))
        self._queue.append(ended if self._text else ended.without_text())

    # -- from ticks to the tape ----------------------------------------------------------------------------------------

    def _ns(self, mark: Any) -> int:
        return self._clock.ns(mark, since=self._origin)

    def _flush_when_due(self) -> None:
        """The other thread: writes where the loop does not, or is late because a step takes long."""
        with contextlib.suppress(AttributeError, OSError):  # not everywhere, and not everywhere allowed
            # waking up must not push the loop off its core: this thread takes the other one, or waits its turn
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        while True:
            now = time.perf_counter_ns()
            wait = self._flush_at + GRACE_NS * self._in_the_loop - now
            if wait <= 0:
                if self._is_due(now):
                    self.flush()
                wait = FLUSH_NS
            if self._closing.acquire(timeout=wait / 1e9):
                return

    def _is_due(self, now: int) -> bool:
        """Whether to write, the usual time having passed since it was done last."""
        return not self._in_the_loop or len(self._queue) > FEW or now >= self._flush_at + FEW_FLUSH_NS - FLUSH_NS

    def flush(self) -> None:
        """Write what has been added, as one block. Called several times a second, by the loop or by the recorder's thread."""
        if not self._flushing.acquire(blocking=False):
            return  # the other thread is at it
        try:
            self._flush()
        finally:
            self._flush_at = time.perf_counter_ns() + FLUSH_NS
            self._flushing.release()

    def _flush(self) -> None:
        if self._broken:
            return
        waiting = len(self._queue)
        try:
            self._write()
        except RecordingError as error:
            self._failure = error  # what is unwritten stays in memory; close() tries again
        except Exception as error:  # told by close(): raising here would only end this thread
            self._failure, self._broken = error, True
            with contextlib.suppress(TokentapeError):
                self._append()
        except BaseException:  # Ctrl-C in the middle: what is on the tape is whole, and would not be if this went on
            self._broken = True
            raise
        else:
            self._failure = None
            if waiting and self._run is not None:
                self._observe(self._run.progress)

    def _observe(self, progress: Progress) -> None:
        if self._observer is None:
            return
        try:
            self._observer(progress)
        except Exception as error:  # close() tells; the recording is not to suffer from who watches it
            self._observer, self._observers_error = None, error

    def _write(self) -> None:
        """Take the queue and write what it holds. What could not be written is still there for the next try."""
        while self._queue:
            head = self._queue[0]
            if isinstance(head, _Begun):
                self._begin_writing(head)
            elif isinstance(head, _Ended):
                self._append()
                assert self._run is not None and self._run.rows is not None
                decisions = self._run.rows.placed(head.decisions)
                self._writer.end(self._run.number, head.reasons, head.outcomes, decisions, head.exchange)
            else:
                self._make_records()
                continue
            self._queue.popleft()
        self._append()

    def _begin_writing(self, begun: _Begun) -> None:
        """Write down the run and its traces, which is before their first step."""
        numbers = self._writer.begin(begun.run)
        begun.number = numbers.number
        begun.rows = RowMaker(numbers.trace_numbers, begun.live, self.probes, self._origin, text=self._text)
        self._run = begun

    def _make_records(self) -> None:
        """Records of the ticks at the head of the queue."""
        run = self._run
        assert run is not None and run.rows is not None
        ticks, kept = [], []
        while self._queue and isinstance(head := self._queue[0], tuple):
            ticks.append(head[0])
            kept.append(head[1])
            self._queue.popleft()
        watched = self._observer is not None
        if run.live.aside is None:
            made = run.rows.make(ticks, kept, watched=watched)
        else:
            with run.live.aside():
                made = run.rows.make(ticks, kept, watched=watched)
        if made is not None:
            run.progress.take(made, run.run.start_ns or 0)

    def _append(self) -> None:
        """Append the block, if there is something in it."""
        if self._run is None or self._run.rows is None:
            return
        rows = self._run.rows
        if len(rows.draft):
            self._writer.append_block(self._run.number, rows.draft, rows.pieces, rows.effects, rows.decisions)
        elif rows.pieces:
            self._writer.add_pieces(rows.pieces)
        rows.clear()

    @property
    def writer(self) -> TapeWriter:
        """What writes the tape, for what is noted between two runs."""
        return self._writer

    # -- afterwards ----------------------------------------------------------------------------------------------------

    @property
    def tape(self) -> Tape:
        """The recorded tape; an error before :meth:`close`."""
        if self._tape is None:
            raise RecordingError(
                "the tape is still being recorded",
                why="its last rows are not written yet",
                fix="read it after the recording has been closed",
            )
        return self._tape

    def close(self) -> None:
        """Stop the thread, write what is left, make the file whole, and open it for reading."""
        if self._tape is not None:
            return
        self._closing.release()
        if self._thread is not None:
            self._thread.join()
        self.flush()
        if self._broken:
            self._end_run_on_tape()
        if self._failure is None:
            self._lay_out()
        if isinstance(self._failure, RecordingError):
            self._move_aside(self._failure)
        self._tape = self._writer.close("complete" if self._complete and self._failure is None else "partial")
        if self._failure is not None:
            raise self._failure
        if self._observers_error is not None:
            raise self._observers_error

    def _end_run_on_tape(self) -> None:
        """Say why the run ended of which not everything could be written."""
        rest = next((item for item in self._queue if not isinstance(item, tuple)), None)
        with contextlib.suppress(TokentapeError):
            if self._run is not None and isinstance(rest, _Ended):
                self._writer.end(self._run.number, rest.reasons, rest.outcomes, exchange=rest.exchange)

    def _lay_out(self) -> None:
        try:
            self._writer.lay_out()
        except RecordingError as error:
            self._failure = error

    def _move_aside(self, failure: RecordingError) -> None:
        """Save all of the tape where there is room, and go on there; the failure then says where."""
        first = self._writer
        name = first.path.name if first.path is not None else "rescued.tape"
        place = Path(tempfile.mkdtemp(prefix="tokentape-")) / name
        try:
            with open_tape(first) as tape:
                tape.save(place)
            self._writer = TapeWriter.resume(place)
            self._write()
            self._writer.lay_out()
        except TokentapeError as error:
            self._writer = first
            raise failure from error
        with contextlib.suppress(TokentapeError):
            first.close("partial")
        self._failure = RecordingError(
            failure.what,
            why=failure.why,
            fix=f"nothing is lost: the whole tape is at {place}; move it where there is room",
        )

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if self._n_under_way:  # left in the middle of a run
            reason = "interrupted" if isinstance(error, KeyboardInterrupt) else "error"
            self.end([reason] * self._n_under_way)
        if error is None:
            self.close()
            return
        self._complete = False
        with contextlib.suppress(TokentapeError):  # the error under way is the one to tell
            self.close()
