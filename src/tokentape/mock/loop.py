"""The loop that serves: one thread, one selector, and a heap of what is due.

Between moments it sleeps in the selector; shortly before one it stops sleeping and watches the clock, so that a send
is late by microseconds, not by a sleep's slack. What can be prepared is prepared while nothing is due: a send takes
bytes that are there.
"""

from __future__ import annotations

import contextlib
import heapq
import select
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from tokentape.mock.answering import Received
from tokentape.mock.connection import Connection, Gone
from tokentape.mock.framing import Act
from tokentape.mock.log import Log, Sent, Served
from tokentape.mock.metrics import Counts
from tokentape.mock.routing import UNLOGGED, Routing
from tokentape.mock.settings import Settings

__all__ = ["Loop"]

_AHEAD = 6
"""Acts of a stream that are prepared before they are due."""

_SLACK_NS = 1_500_000
"""The selector's own timeouts are whole milliseconds; closer to a moment another wait is used."""

_BREATH_NS = 150_000
"""So long before a moment nothing else is begun."""

_LOOK_NS = 5_000_000
"""At least so often the sockets are looked at, however much is due."""


class Stream:
    """An answer on its way."""

    __slots__ = ("acts", "base_ns", "connection", "due_ns", "generates", "n_sent", "ready", "served", "tokened_ns")

    def __init__(self, connection: Connection, served: Served, acts: Iterator[Act], generates: bool) -> None:
        self.connection = connection
        self.served = served
        self.acts = acts
        self.generates = generates
        self.ready: deque[Act] = deque()
        self.base_ns = served.read_ns
        self.due_ns = served.read_ns
        self.n_sent = 0
        self.tokened_ns: int | None = None

    def prepare(self) -> bool:
        """Make the next act; False where there is none."""
        act = next(self.acts, None)
        if act is None:
            return False
        self.ready.append(act)
        return True


class Loop:
    """Serves on a listening socket until it is told to stop."""

    def __init__(self, listening: socket.socket, settings: Settings, context: ssl.SSLContext | None = None) -> None:
        self.log = Log()
        self.counts = Counts()
        self._settings = settings
        self._routing = Routing(settings, self.log, self.counts)
        self._context = context
        self._listening = listening
        self._selector = selectors.DefaultSelector()
        self._waker, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._stopped = False
        self._heap: list[tuple[int, int, Stream]] = []
        self._n_pushed = 0
        self._streams: dict[Connection, Stream] = {}
        self._connections: set[Connection] = set()
        self._queue: deque[Stream] = deque()
        self._hungry: deque[Stream] = deque()
        self._looked_ns = 0
        self._spin_ns = int(settings.spin_us * 1000)
        listening.setblocking(False)
        self._selector.register(listening, selectors.EVENT_READ, None)
        self._selector.register(self._woken, selectors.EVENT_READ, None)

    # the loop itself

    def stop(self) -> None:
        """End the loop; may be called from another thread, or from a signal."""
        self._stopped = True
        with contextlib.suppress(OSError):
            self._waker.send(b".")

    def also_watch(self, stream: Any) -> None:
        """Stop when a stream (the standard input) has its end."""
        self._selector.register(stream, selectors.EVENT_READ, "end")

    def run(self) -> None:
        """Serve until :meth:`stop`; closes every connection, and the listening socket."""
        try:
            while not self._stopped:
                self._turn()
        finally:
            self._end()

    def _turn(self) -> None:
        now = time.perf_counter_ns()
        if now - self._looked_ns > _LOOK_NS:
            self._look(0.0)
            if self._stopped:  # that look may have taken what wakes the next one
                return
            now = time.perf_counter_ns()
        if not self._heap:
            if not self._fill():
                self._look(None)
            return
        left = self._heap[0][0] - now
        if left <= 0:
            self._fire(heapq.heappop(self._heap)[2])
        elif left > _BREATH_NS and self._fill():
            return
        elif left > _SLACK_NS + self._spin_ns:
            self._look((left - _SLACK_NS - self._spin_ns) / 1e9)
        elif left > self._spin_ns + _BREATH_NS:
            self._nap((left - self._spin_ns) / 1e9)
        elif left > _BREATH_NS:
            self._look(0.0)

    def _nap(self, seconds: float) -> None:
        """Wait for the sockets with the finer timeout that select has."""
        if isinstance(self._selector, getattr(selectors, "EpollSelector", ())):
            select.select([self._selector.fileno()], [], [], seconds)
            self._look(0.0)
        else:
            self._look(seconds)

    def _fill(self) -> bool:
        """Prepare one act of a stream that has few; False where nothing is left to prepare."""
        while self._hungry:
            stream = self._hungry.popleft()
            if stream.served.ended_ns is None and len(stream.ready) < _AHEAD and stream.prepare():
                if len(stream.ready) < _AHEAD:
                    self._hungry.append(stream)
                return True
        return False

    def _look(self, seconds: float | None) -> None:
        """Handle what the sockets have, waiting for it at most so long."""
        # whoever was woken by stop() once must not wait for a second call
        found = self._selector.select(0.0 if self._stopped else seconds)
        self._looked_ns = time.perf_counter_ns()
        for key, mask in found:
            if isinstance(key.data, Connection):
                self._handle(key.data, mask)
            elif key.fileobj is self._listening:
                self._accept()
            elif key.data == "end":
                self._stopped = not key.fileobj.read1(1024) or self._stopped  # type: ignore[union-attr]
            else:
                self._woken.recv(64)

    def _end(self) -> None:
        for connection in list(self._connections):
            self._drop(connection, "closed")
        for other in (self._listening, self._waker, self._woken):
            other.close()
        self._selector.close()

    # connections

    def _accept(self) -> None:
        try:
            sock, _ = self._listening.accept()
        except OSError:
            return
        if self._routing.hangs_up():
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            sock = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        connection = Connection(sock, self._received)
        self._connections.add(connection)
        self._selector.register(sock, selectors.EVENT_READ, connection)

    def _handle(self, connection: Connection, mask: int) -> None:
        if connection not in self._connections:
            return  # dropped since the selector saw it
        try:
            if mask & selectors.EVENT_WRITE:
                connection.flush()
            if mask & selectors.EVENT_READ and not connection.closing:
                connection.read()
            self._settle(connection)
        except Gone:
            self._drop(connection, "gone")

    def _settle(self, connection: Connection) -> None:
        """What is awaited of a connection's socket, after something was done with it."""
        if connection not in self._connections:
            return
        if connection.waiting:
            self._selector.modify(connection.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)
        elif connection.closing:
            self._drop(connection, "closed")
        elif self._selector.get_key(connection.sock).events != selectors.EVENT_READ:
            self._selector.modify(connection.sock, selectors.EVENT_READ, connection)

    def _drop(self, connection: Connection, how: str) -> None:
        """Close a connection, and end what was being answered there."""
        if connection in self._connections:
            self._connections.discard(connection)
            self._selector.unregister(connection.sock)
            if how == "reset":
                connection.reset()
            else:
                connection.close()
        stream = self._streams.pop(connection, None)
        if stream is not None:
            self._finish(stream, how)

    # answers

    def _received(self, connection: Connection, received: Received, read_ns: int) -> None:
        served, answer = self._routing.answer(received, read_ns)
        stream = Stream(connection, served, answer.acts, answer.generates)
        self._streams[connection] = stream
        slots = self._settings.slots
        if answer.generates and slots is not None and self.counts.running >= slots:
            self._queue.append(stream)
            self.counts.waiting += 1
        else:
            self._begin(stream, read_ns)

    def _begin(self, stream: Stream, at_ns: int) -> None:
        stream.base_ns = stream.served.begun_ns = at_ns
        self.counts.running += stream.generates
        stream.prepare()
        self._schedule(stream)
        self._hungry.append(stream)

    def _schedule(self, stream: Stream) -> None:
        """Put the next act of a stream on the heap."""
        if not stream.ready and not stream.prepare():
            return
        act = stream.ready[0]
        us = act.after_us + act.n_beats * self._settings.batch_cost_us * max(self.counts.running - 1, 0)
        stream.due_ns = stream.base_ns + int(us * 1000)
        self._n_pushed += 1
        heapq.heappush(self._heap, (stream.due_ns, self._n_pushed, stream))

    def _fire(self, stream: Stream) -> None:
        """Send what is due."""
        if stream.served.ended_ns is not None:
            return  # its client has gone
        act = stream.ready.popleft()
        connection = stream.connection
        if act.data:
            row = Sent(stream.served.request, stream.n_sent, act.kind, stream.due_ns, 0, len(act.data))
            row.n_tokens, row.n_messages, row.choice = act.n_tokens, act.n_messages, act.choice
            row.data = act.data if self._settings.keep_bytes else None
            stream.n_sent += 1
            if row.request != UNLOGGED:
                self.log.sent.append(row)
            row.sent_ns = time.perf_counter_ns()
            try:
                row.n_late_bytes = connection.send(act.data)
            except Gone:
                self._drop(connection, "gone")
                return
            if row.n_late_bytes:
                self._settle(connection)
            if act.n_tokens:
                self._count(stream, row)
        stream.base_ns = stream.due_ns
        if act.ends is None:
            self._schedule(stream)
            if len(stream.ready) < _AHEAD // 2:
                self._hungry.append(stream)
        elif act.ends != "hold":
            self._ended(stream, act.ends)

    def _ended(self, stream: Stream, how: str) -> None:
        connection = stream.connection
        if how == "reset":
            self._drop(connection, "reset")
            return
        self._streams.pop(connection, None)
        self._finish(stream, "done" if how == "keep" else "closed")
        try:
            if how == "close" or connection.last:
                connection.closing = True
            else:
                connection.answered()
            self._settle(connection)
        except Gone:
            self._drop(connection, "gone")

    def _finish(self, stream: Stream, how: str) -> None:
        """An answer is over: the one that waited longest takes its slot."""
        stream.served.ended_ns = now = time.perf_counter_ns()
        stream.served.how = how
        if not stream.generates:
            return
        if stream.served.begun_ns is None:
            self._queue.remove(stream)
            self.counts.waiting -= 1
            return
        self.counts.running -= 1
        self.counts.n_finished += how in ("done", "closed")
        self.counts.latency.add((now - stream.served.read_ns) / 1e9)
        if self._queue:
            self.counts.waiting -= 1
            self._begin(self._queue.popleft(), now)

    def _count(self, stream: Stream, row: Sent) -> None:
        """The server's own figures of itself."""
        counts, began = self.counts, stream.tokened_ns
        if began is None:
            counts.ttft.add((row.sent_ns - stream.served.read_ns) / 1e9)
            counts.prompt_seconds += (row.sent_ns - stream.served.read_ns) / 1e9
            counts.n_prompt += stream.served.n_prompt
        else:
            for _ in range(row.n_tokens):
                counts.gap.add((row.sent_ns - began) / 1e9 / row.n_tokens)
            counts.generation_seconds += (row.sent_ns - began) / 1e9
        counts.n_generated += row.n_tokens
        stream.tokened_ns = row.sent_ns
