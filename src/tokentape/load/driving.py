"""The parent of the client processes: it starts them, writes what they tell into one tape, and watches server and clients.

The processes stamp and this one writes, so that neither writing nor drawing comes between a socket and its stamp. Ctrl-C, SIGTERM
and SIGHUP end the load: what is under way is broken off, and everything is kept; a second one leaves at once. A process that dies
takes its sockets with it: its requests end as ``client_died``, which is no fault of the server's, and the tape says so.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from tokentape.data.exchange import Exchange, Scrape
from tokentape.errors import RecordingError
from tokentape.load.lateness import Lateness
from tokentape.load.records import Frames, SharedVocabulary, framed, unpacked
from tokentape.load.signals import deaf, exit_code, hearing
from tokentape.load.standing import Standing
from tokentape.load.worker import Task
from tokentape.recorder.many import ManyRuns
from tokentape.recorder.tick import LiveRun

__all__ = ["Driven", "drive"]

MS = 1_000_000
S = 1_000_000_000
FLUSH_NS = 250 * MS
SETTLE_NS = 50 * MS
"""How often a run that has ended is made what it is on a whole tape: closing would do it, and take its time."""
LEAD_NS = 30 * MS
"""The load begins so long after all processes have said that they are ready."""
READY_S = 60.0
"""How long a process may take to start."""
LEAVING_NS = 10 * S
"""How long a process may take to end after it has been told to."""
SCRAPE_S = 1.0

Observer = Callable[[dict[str, Any]], None]
Scraper = Callable[[], Scrape | None]


@dataclass
class Driven:
    """What came of it beside the tape. ``ended_by`` is the signal that ended it, by its name."""

    standing: Standing
    lateness: list[Lateness] = field(default_factory=list)
    ended_by: str | None = None
    gone: bool = False
    n_unsent: int = 0
    died: list[str] = field(default_factory=list)

    @property
    def interrupted(self) -> bool:
        return self.ended_by is not None


@dataclass
class _Client:
    number: int
    link: socket.socket
    process: subprocess.Popen[bytes]
    said: IO[bytes]
    """What it writes to stderr, which is not for the terminal."""
    why: str | None = None
    frames: Frames = field(default_factory=Frames)
    left: deque[Any] = field(default_factory=deque)
    finished: bool = False


def drive(
    tasks: Sequence[Task],
    tape: ManyRuns,
    *,
    origin: int,
    n_all: int | None = None,
    scraper: Scraper | None = None,
    observer: Observer | None = None,
    on_interrupt: bool = True,
) -> Driven:
    """Carry out tasks, one a process, into a tape whose origin is the mark ``origin``; the tape is left open.

    ``scraper`` reads the server's state, every second on a thread of its own. ``observer`` is told how it stands, some times a
    second.
    Raises RecordingError where a process does not start.
    """
    return _Drive(tasks, tape, origin, n_all, scraper, observer).run(on_interrupt=on_interrupt)


class _Drive:
    def __init__(
        self,
        tasks: Sequence[Task],
        tape: ManyRuns,
        origin: int,
        n_all: int | None,
        scraper: Scraper | None,
        observer: Observer | None,
    ) -> None:
        self._tasks = tasks
        self._tape = tape
        self._origin = origin
        self._scraper = scraper
        self._observer = observer
        self._clients: list[_Client] = []
        self._selector = selectors.DefaultSelector()
        self._numbers: dict[int, int] = {}
        self._open: dict[int, tuple[int, int]] = {}
        self._vocabulary = SharedVocabulary()
        self._stopping_ns: int | None = None
        self._driven = Driven(Standing(0, n_all, tasks[0].duration_ns, origin))

    def run(self, *, on_interrupt: bool) -> Driven:
        with contextlib.ExitStack() as stack:
            stack.callback(self._clean_up)
            stack.enter_context(hearing(self._heard if on_interrupt else None))
            self._start()
            began = time.perf_counter_ns() + LEAD_NS
            self._driven.standing.began = began
            for client in self._clients:
                client.link.sendall(framed(began))
            scrapes: queue.Queue[Scrape] = queue.Queue()
            if self._scraper is not None:
                stack.enter_context(_scraped(self._scraper, scrapes))
            try:
                self._loop(scrapes)
            except BaseException:
                self._save()
                raise
        for scrape in _all_of(scrapes):  # of the last reading, when the thread has ended
            self._tape.scraped([self._since_origin(scrape)])
        self._tape.flush()
        return self._driven

    # processes

    def _start(self) -> None:
        for task in self._tasks:
            self._clients.append(_started(task))
        for client in self._clients:
            client.link.settimeout(READY_S)
            try:
                data = client.link.recv(1 << 16)
            except TimeoutError:
                data = b""
            if not data or not client.frames.feed(data):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    client.process.wait(1.0)
                raise RecordingError(
                    "a client process did not start",
                    why=f"it said nothing, and ended with {client.process.poll()}: {_last_line(client.said)}",
                    fix="fewer --processes, or a machine with more memory",
                )
            client.link.setblocking(False)
            self._selector.register(client.link, selectors.EVENT_READ, client)

    def _save(self) -> None:
        """Keep what the processes have sent until now, whatever it was that went wrong here."""
        for client in self._clients:
            with contextlib.suppress(OSError):
                while not client.finished and (data := client.link.recv(1 << 20)):
                    client.left += [record for records in client.frames.feed(data) for record in records]
            while client.left:
                with contextlib.suppress(Exception):
                    self._hear(client, b"")
        with contextlib.suppress(Exception):
            self._tape.flush()

    def _clean_up(self) -> None:
        self._selector.close()
        for client in self._clients:
            client.link.close()  # which ends the process, if it has not ended
        for client in self._clients:
            try:
                client.process.wait(2.0)
            except subprocess.TimeoutExpired:
                client.process.kill()
                client.process.wait()
            client.said.close()

    def _heard(self, name: str) -> None:
        if self._driven.ended_by is None:
            self._driven.ended_by = name
        elif name == "SIGINT":
            raise KeyboardInterrupt
        else:
            raise SystemExit(exit_code(name))

    # what they tell

    def _loop(self, scrapes: queue.Queue[Scrape]) -> None:
        flushed = settled = 0
        while not all(client.finished for client in self._clients):
            for key, _ in self._selector.select(0.05):
                self._receive(key.data)
            now = time.perf_counter_ns()
            if (self._driven.interrupted or self._driven.gone) and self._stopping_ns is None:
                self._stop(now)
            if self._stopping_ns is not None and now - self._stopping_ns > LEAVING_NS:
                for client in self._clients:
                    client.process.kill()
            if now - settled >= SETTLE_NS:
                settled = now
                self._tape.settle()
            if now - flushed >= FLUSH_NS:
                flushed = now
                self._tape.scraped([self._since_origin(one) for one in _all_of(scrapes)])
                self._tape.flush()
                if self._observer is not None:
                    self._observer(self._driven.standing.as_dict(now))

    def _stop(self, now: int) -> None:
        self._stopping_ns = now
        for client in self._clients:
            if not client.finished:
                with contextlib.suppress(OSError):
                    client.link.send(framed("stop"))

    def _receive(self, client: _Client) -> None:
        try:
            data = client.link.recv(1 << 20)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._lost(client)
            return
        self._hear(client, data)

    def _hear(self, client: _Client, data: bytes) -> None:
        client.left += [record for records in client.frames.feed(data) for record in records]
        while client.left:
            name, *told = client.left.popleft()
            getattr(self, f"_on_{name}")(client, *told)

    def _on_begun(self, client: _Client, key: int, run: Any, start: int) -> None:
        live = LiveRun(run, start, _no_ticks(), lambda: (), spellers=[self._vocabulary] * len(run.traces))
        self._numbers[key] = self._tape.begin(key, live)
        self._open[key] = (client.number, len(run.traces))
        self._driven.standing.begun(key, start)

    def _on_pieces(self, client: _Client, pieces: Sequence[Any]) -> None:
        self._vocabulary.learn(pieces)

    def _on_ticked(self, client: _Client, key: int, ticks: Sequence[Any]) -> None:
        found = [unpacked(one) for one in ticks]
        self._tape.add(key, found)
        self._driven.standing.ticked(key, found)

    def _on_ended(self, client: _Client, key: int, reasons: list[str | None], passed: Exchange) -> None:
        del self._open[key]
        if passed.retry_of is not None:
            passed = replace(passed, retry_of=self._numbers[passed.retry_of])
        passed = self._tape.end(key, reasons, passed) or passed
        self._driven.standing.ended(key, reasons, passed, time.perf_counter_ns())

    def _on_state(
        self, client: _Client, process: int, began: int, ended: int, values: dict[str, Any], gone: bool
    ) -> None:
        self._driven.standing.client[process] = values
        self._tape.scraped([self._since_origin(Scrape(f"client {process}", began, ended, values))])
        self._driven.gone = self._driven.gone or gone

    def _on_finished(self, client: _Client, process: int, lateness: Lateness, counts: Any) -> None:
        client.finished = True
        self._selector.unregister(client.link)
        self._driven.lateness.append(lateness)
        self._driven.n_unsent += counts.unsent

    def _on_broke(self, client: _Client, process: int, why: str) -> None:
        client.why = why

    def _lost(self, client: _Client) -> None:
        """A process is gone that had not finished: what it had under way is lost with it."""
        client.finished = True
        self._selector.unregister(client.link)
        client.process.wait()
        why = client.why or _last_line(client.said)
        what = f"client process {client.number} ended with {client.process.returncode}{f': {why}' if why else ''}"
        self._driven.died.append(what)
        now = time.perf_counter_ns()
        for key, (number, n_traces) in list(self._open.items()):
            if number == client.number:
                passed = Exchange(ended_ns=now - self._origin, fault="client_died", error=what, process=number)
                self._on_ended(client, key, ["error"] * n_traces, passed)

    def _since_origin(self, scrape: Scrape) -> Scrape:
        return replace(scrape, began_ns=scrape.began_ns - self._origin, ended_ns=scrape.ended_ns - self._origin)


def _started(task: Task) -> _Client:
    """A client process, with its task; it does not hear Ctrl-C and its like, which are its parent's to hear."""
    ours, theirs = socket.socketpair()
    home = str(Path(__file__).resolve().parents[2])
    code = f"import sys; sys.path.insert(0, {home!r}); from tokentape.load.worker import main; main({theirs.fileno()})"
    said = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process
    try:
        with theirs, deaf():
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=said,
                env={**os.environ},
            )
    except OSError:
        ours.close()
        said.close()
        raise
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    ours.sendall(framed(task))
    return _Client(task.process, ours, process, said)


def _last_line(said: IO[bytes]) -> str:
    """The last thing that a process wrote to stderr; empty where it said nothing."""
    said.seek(0)
    lines = said.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


@contextlib.contextmanager
def _scraped(scraper: Scraper, scrapes: queue.Queue[Scrape]) -> Iterator[None]:
    """Read the server's state every second, and once more at the end. It stops where there is nothing to read."""
    over = threading.Event()

    def read() -> None:
        while True:
            last = over.is_set()
            found = scraper()
            if found is not None:
                scrapes.put(found)
            if last or found is None:
                return
            over.wait(SCRAPE_S)

    thread = threading.Thread(target=read, name="scraper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5.0)


def _all_of(scrapes: queue.Queue[Scrape]) -> list[Scrape]:
    found = []
    with contextlib.suppress(queue.Empty):
        while True:
            found.append(scrapes.get_nowait())
    return found


def _no_ticks() -> Any:
    yield from ()
