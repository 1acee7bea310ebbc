"""A client process: it owns its sockets and stamps what happens on them; its parent writes it down.

It is started by :mod:`tokentape.load.driving` with one end of a pair of sockets. Over it come a :class:`Task`, the moment at
which the load begins, and perhaps an order to stop; when the other end is closed, the parent is gone and so is the process.
"""

from __future__ import annotations

import contextlib
import gc
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tokentape.load.engine import Engine, Launcher
from tokentape.load.errands import Errands
from tokentape.load.grounded import in_words
from tokentape.load.lateness import Lateness
from tokentape.load.records import Frames, Outbox, framed
from tokentape.load.waiting import SocketWaiting
from tokentape.load.workloads import Conversation, Workload
from tokentape.study.traffic.schedule import Schedule

__all__ = ["Task", "main", "work"]

MS = 1_000_000
SAMPLE_NS = 250 * MS
"""How often the client notes its own state."""
_LINK = "link"
_YOUNG = 20_000
"""New objects at which garbage is collected, between two turns of the loop."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a client process is to do. ``launcher`` makes its launcher, given nothing; it is sent as it is.

    ``schedule`` None is a closed loop. Of the conversations it takes each ``processes``-th from ``process`` on, up to
    ``n_conversations``, and ``cap`` of them at once. ``duration_ns`` is counted from the start; nothing begins after it.
    """

    launcher: Callable[[], Launcher]
    workload: Workload
    schedule: Schedule | None
    n_conversations: int | None
    cap: int | None
    duration_ns: int | None
    origin: int
    process: int = 0
    processes: int = 1
    retries: int = 0

    def feed(self, began: int) -> Iterator[tuple[int | None, Conversation]]:
        """Conversations with their due times, of this process."""
        if self.schedule is None:
            number = self.process
            while self.n_conversations is None or number < self.n_conversations:
                yield None, self.workload.conversation(number)
                number += self.processes
            return
        for number, due in enumerate(self.schedule):
            if self.n_conversations is not None and number >= self.n_conversations:
                return
            if number % self.processes == self.process:
                yield began + due, self.workload.conversation(number)


@dataclass
class _Linked(SocketWaiting):
    """Waits for sockets and for the parent too."""

    told: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        super().__init__()

    def wait(self, until_ns: int, *, exact: bool) -> list[Any]:
        ready = super().wait(until_ns, exact=exact)
        if _LINK in ready:
            self.told = True
            ready.remove(_LINK)
        return ready


class Pauses:
    """Notes the pauses of Python's garbage collector, which works here only when asked."""

    def __init__(self, lateness: Lateness) -> None:
        self._lateness = lateness
        self._began = 0
        self._rounds = 0

    def __enter__(self) -> Pauses:
        gc.collect()
        gc.freeze()
        gc.disable()
        gc.callbacks.append(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._note)
        gc.enable()

    def _note(self, phase: str, _: Any) -> None:
        now = time.perf_counter_ns()
        if phase == "start":
            self._began = now
        else:
            self._lateness.collections.add(now - self._began)

    def give_room(self) -> None:
        """Collect what is young, where it has become much."""
        if gc.get_count()[0] > _YOUNG:
            self._rounds += 1
            gc.collect(0 if self._rounds % 32 else 1)


def main(fileno: int) -> None:
    """The process, with the number of its end of the pair."""
    with contextlib.suppress(OSError, ValueError):  # each request under way takes a file
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with socket.socket(fileno=fileno) as link:
        frames = Frames()
        orders: list[Any] = []
        if not _received(link, frames, orders):
            return
        task = orders.pop(0)
        link.sendall(framed([("ready", task.process)]))
        if _received(link, frames, orders):
            began, *more = orders  # an order to stop may have come with it
            work(task, link, frames, began, stopped="stop" in more)


def _received(link: socket.socket, frames: Frames, orders: list[Any]) -> bool:
    """Wait for an order; False where the parent is gone."""
    while not orders:
        data = link.recv(1 << 16)
        if not data:
            return False
        orders += frames.feed(data)
    return True


def work(task: Task, link: socket.socket, frames: Frames, began: int, *, stopped: bool = False) -> None:
    """Carry out a task that begins at ``began``, a mark of the monotonic clock; nothing of it where it was ``stopped`` before."""
    lateness = Lateness()
    outbox, waiting, launcher = Outbox(link), _Linked(), task.launcher()
    until = None if task.duration_ns is None else began + task.duration_ns
    errands = Errands(task.feed(began), cap=task.cap, closed=task.schedule is None, until_ns=until)
    engine = Engine(
        errands,
        launcher,
        outbox,
        waiting,
        origin=task.origin,
        retries=task.retries,
        cap=task.cap,
        process=task.process,
        stride=task.processes,
        lateness=lateness,
    )
    waiting.watch(_LINK, link.fileno(), 1)
    if stopped:
        engine.stop("interrupted")
    try:
        with Pauses(lateness) as pauses:
            _loop(_Client(engine, waiting, lateness, outbox, task), pauses, link, frames, began)
        outbox.tell("finished", task.process, lateness, engine.counts)
        outbox.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass  # nobody is left to be told
    except Exception as error:
        with contextlib.suppress(OSError):
            outbox.tell("broke", task.process, in_words(error))
            outbox.drain()  # with all that has come until now
        raise SystemExit(1) from None
    finally:
        waiting.close()
        launcher.close()


@dataclass
class _Client:
    engine: Engine
    waiting: _Linked
    lateness: Lateness
    outbox: Outbox
    task: Task


def _loop(client: _Client, pauses: Pauses, link: socket.socket, frames: Frames, began: int) -> None:
    engine, waiting, outbox, lateness = client.engine, client.waiting, client.outbox, client.lateness
    while waiting.now() < began and not waiting.told:
        waiting.wait(began, exact=True)
    readings = _Readings(client, waiting.now())
    framed_ns = sampled_ns = waiting.now()
    while True:
        if waiting.told and not _heeded(client, link, frames):
            return
        if not engine.step():
            break
        now = waiting.now()
        if now - framed_ns >= 20 * MS:
            framed_ns = now
            pauses.give_room()
            outbox.pump()
        else:
            outbox.pump(frame=False)
        if now - sampled_ns >= SAMPLE_NS:
            sampled_ns = now
            readings.note(now)
    readings.note(waiting.now())
    lateness.wall_ns = max(1, waiting.now() - began)


def _heeded(client: _Client, link: socket.socket, frames: Frames) -> bool:
    """Do as the parent says; False where it is gone."""
    client.waiting.told = False
    try:
        data = link.recv(1 << 16)
    except BlockingIOError:
        return True
    if not data:
        client.engine.stop("interrupted")
        return False
    for order in frames.feed(data):
        if order == "stop":
            client.engine.stop("interrupted")
    return True


class _Readings:
    """The client's own state, several times a second: one :class:`~tokentape.data.exchange.Scrape` each."""

    def __init__(self, client: _Client, now: int) -> None:
        self._client = client
        self._last_ns = now
        self._cpu_ns = time.process_time_ns()
        self._busy_ns = client.lateness.busy_ns
        self._cpu_began = self._cpu_ns
        self._starved_began = starved_ns()

    def note(self, now: int) -> None:
        client, own = self._client, self._client.lateness
        cpu, counts, wall = time.process_time_ns(), client.engine.counts, max(1, now - self._last_ns)
        values = {
            "sent": counts.sent,
            "done": counts.done,
            "failed": counts.failed,
            "under_way": counts.under_way,
            "waiting": client.engine.n_due(now),
            "cpu_share": round((cpu - self._cpu_ns) / wall, 4),
            "busy_share": round((own.busy_ns - self._busy_ns) / wall, 4),
            "gc_ns": own.collections.total,
            "gc_count": own.collections.n,
        }
        for name, tally in (("dispatch_delay", own.dispatch), ("read_lag", own.read), ("loop_lag", own.loop)):
            if tally.n:
                values |= {f"{name}_p99_ns": tally.quantile(99) or 0, f"{name}_max_ns": tally.most or 0}
        own.cpu_ns = cpu - self._cpu_began
        starved = starved_ns()
        if starved is not None and self._starved_began is not None:
            own.starved_ns = values["starved_ns"] = starved - self._starved_began
        client.outbox.tell("state", client.task.process, self._last_ns, now, values, counts.gone)
        self._last_ns, self._cpu_ns, self._busy_ns = now, cpu, own.busy_ns


def starved_ns() -> int | None:
    """How long this thread could have run and was not let, since it was started; None where the system does not say."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:
            return int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return None


if __name__ == "__main__":
    main(int(sys.argv[1]))
