"""The recorder: ticks go in, rows come out; marks become numbers here, once.

``add`` runs inside somebody's loop, so it only lets the probes note what they need and puts the tick on a queue. A second
thread takes the queue several times a second, turns it into rows, and appends them to the tape in one transaction.
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
from tokentape.data.request import Run
from tokentape.data.setting import Setting
from tokentape.data.store import TapeWriter
from tokentape.data.tape import Tape, open_tape
from tokentape.errors import RecordingError, TokentapeError
from tokentape.recorder.rows import Made, RowMaker
from tokentape.recorder.tick import LiveRun, Probe, Tick

__all__ = ["Progress", "Recorder"]

WORDY = frozenset(
    {"stop_strings", "bad_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens", "force_words_ids"}
)
"""Options of ``generate()`` that hold words, or ids that stand for words."""

FLUSH_SECONDS = 0.15
"""How long a row may wait in memory. A killed process loses no more than this and the transaction under way."""


@dataclass(slots=True)
class Progress:
    """How far a run has come; handed to an observer after each transaction, on the recorder's thread.

    ``text`` is what the first trace has said so far, ``gaps_ns`` and ``surprise`` its last 64 steps (surprise in nats, None
    where unknown), ``n_tokens`` the tokens of all its traces, ``elapsed_ns`` the host time since the run began.
    """

    n_tokens: int = 0
    n_steps: int = 0
    elapsed_ns: int = 0
    data: bytearray = field(default_factory=bytearray)
    gaps_ns: deque[int] = field(default_factory=lambda: deque(maxlen=64))
    surprise: deque[float | None] = field(default_factory=lambda: deque(maxlen=64))
    last_ns: int = 0

    @property
    def text(self) -> str:
        """The text so far, without a character whose last bytes have not come yet."""
        return self.data.decode("utf-8", errors="ignore")

    def take(self, made: Made, start_ns: int) -> None:
        """One more step."""
        self.n_steps += 1
        self.n_tokens += len(made.tokens)
        self.elapsed_ns = made.end_ns - start_ns
        self.gaps_ns.append(made.end_ns - (self.last_ns or start_ns))
        self.surprise.append(made.first_surprise)
        self.data += made.first_data
        self.last_ns = made.end_ns


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


@dataclass(slots=True)
class _Unwritten:
    """Rows that have been made and are not on the tape yet."""

    steps: list[tuple[Any, ...]] = field(default_factory=list)
    tokens: list[tuple[Any, ...]] = field(default_factory=list)
    pieces: list[tuple[int, str, bytes, bool]] = field(default_factory=list)


class Recorder:
    """Records the runs of one source into one tape.

    ``path`` None keeps the tape in memory. Use it as a context manager, or call :meth:`close`; after that :attr:`tape` is
    there to read. A write that fails (a full disk) does not disturb the loop: the rows are kept in memory, and :meth:`close`
    tries again, then saves everything elsewhere, and raises :class:`~tokentape.errors.RecordingError` that says where.
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
    ) -> None:
        self.needs: frozenset[str] = frozenset().union(*(probe.needs for probe in probes))
        self.probes = tuple(probes)
        self._keeps = [probe.keep for probe in probes]
        self._clock = clock
        self._text = text
        self._observer = observer
        self._origin = clock.mark() if origin is None else origin
        kept = {"probes": [probe.name for probe in probes], "clock": clock.name, "text": text, **(notes or {})}
        kept["origin_unix_ns"] = time.time_ns() - clock.ns(clock.mark(), since=self._origin)
        self._writer = TapeWriter.create(path, setting, notes=kept, overwrite=overwrite)
        self._queue: deque[_Begun | tuple[Tick, list[Any]] | _Ended] = deque()
        self._fence: Callable[[], Any] | None = None
        self._n_under_way = 0  # traces of the run that the loop is in
        self._run: _Begun | None = None  # the run that rows are being made of, which may be an earlier one
        self._unwritten = _Unwritten()
        self._failure: BaseException | None = None
        self._observers_error: Exception | None = None
        self._broken = False  # the failure is not one that a second try could mend
        self._complete = True
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._tape: Tape | None = None

    # -- in the loop ---------------------------------------------------------------------------------------------------

    def begin(self, live: LiveRun, *, own_thread: bool = True) -> None:
        """A run starts. The time from ``live.prepared`` to now was the recorder's own, and is left out of its start.

        With ``own_thread`` False nothing is written before :meth:`flush` or :meth:`close` is called.
        """
        for probe in self.probes:
            probe.begin(self._clock)
        self._fence = live.fence
        now = self._clock.mark()
        own_ns = 0 if live.prepared is None else self._clock.ns(now, since=live.prepared)
        run = replace(live.run, start_ns=self._ns(live.start) + own_ns)
        self._queue.append(_Begun(run if self._text else _without_text(run), live))
        self._n_under_way = len(run.traces)
        if self._thread is None and own_thread:
            self._thread = threading.Thread(target=self._flush_often, name="tokentape-writer", daemon=True)
            self._thread.start()

    def add(self, tick: Tick) -> None:
        """Keep what the probes want of a tick, and let its tensors die. Never waits: not for a device, not for the disk."""
        kept = [keep(tick) for keep in self._keeps]
        tick.release()
        if self._fence is not None:
            tick.ready = self._fence()
        self._queue.append((tick, kept))

    def end(self, finish_reasons: Iterable[str | None]) -> None:
        """The run is over, with one reason a trace. Its last rows reach the tape a moment later, or with :meth:`close`."""
        reasons = list(finish_reasons)
        for probe in self.probes:
            probe.end()
        if any(reason in (None, "interrupted", "error") for reason in reasons):
            self._complete = False
        self._n_under_way = 0
        self._queue.append(_Ended(reasons))

    # -- on the other thread -------------------------------------------------------------------------------------------

    def _ns(self, mark: Any) -> int:
        return self._clock.ns(mark, since=self._origin)

    def _flush_often(self) -> None:
        with contextlib.suppress(AttributeError, OSError):  # not everywhere, and not everywhere allowed
            # waking up must not push the loop off its core: this thread takes the other one, or waits its turn
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        while not self._closing.wait(FLUSH_SECONDS):
            self.flush()

    def flush(self) -> None:
        """Turn into rows what has been added, and write it. The recorder's own thread does this several times a second."""
        if self._broken:
            return
        waiting = len(self._queue)
        try:
            self._write()
        except RecordingError as error:
            self._failure = error  # what is unwritten stays in memory; close() tries again
        except Exception as error:  # told by close(): raising here would only end this thread
            self._failure, self._broken = error, True
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
                assert self._run is not None
                self._writer.end(
                    self._run.number, head.reasons, pack=False
                )  # close() packs: here it would take the lock
            else:
                self._make_rows()
                continue
            self._queue.popleft()
        self._append()

    def _begin_writing(self, begun: _Begun) -> None:
        """Write down the run and its traces, which is before their first step."""
        numbers = self._writer.begin(begun.run)
        begun.number = numbers.number
        begun.rows = RowMaker(numbers.number, numbers.trace_numbers, begun.live, self.probes, self._ns, text=self._text)
        self._unwritten.pieces.extend(begun.rows.prompt_pieces())
        self._run = begun

    def _make_rows(self) -> None:
        """Rows of the ticks at the head of the queue."""
        unwritten, run = self._unwritten, self._run
        assert run is not None and run.rows is not None
        with run.live.aside() if run.live.aside is not None else contextlib.nullcontext():
            while self._queue and isinstance(head := self._queue[0], tuple):
                self._queue.popleft()
                made = run.rows.make(*head)
                unwritten.steps.append(made.step)
                unwritten.tokens.extend(made.tokens)
                unwritten.pieces.extend(made.pieces)
                if self._observer is not None:
                    run.progress.take(made, run.run.start_ns or 0)

    def _append(self) -> None:
        unwritten = self._unwritten
        if unwritten.pieces:
            self._writer.add_pieces(unwritten.pieces)
            unwritten.pieces = []
        if unwritten.steps:
            self._writer.append(unwritten.steps, unwritten.tokens)
            unwritten.steps, unwritten.tokens = [], []

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
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()
        if isinstance(self._failure, RecordingError):
            self._move_aside(self._failure)
        self._tape = self._writer.close("complete" if self._complete and self._failure is None else "partial")
        if self._failure is not None:
            raise self._failure
        if self._observers_error is not None:
            raise self._observers_error

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


def _without_text(run: Run) -> Run:
    """The same run without words and ids: of prompts their lengths are kept, of options that hold words how many."""
    traces = tuple(replace(head, prompt_ids=None, prompt_text=None) for head in run.traces)
    options = {
        name: f"{len(value)} left out" if name in WORDY and hasattr(value, "__len__") else value
        for name, value in run.options.items()
    }
    return replace(run, traces=traces, options=options)
