"""A thread that reads one answer, so that nothing else holds it up: not the making of a tape, nor what is written to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue

from tokentape.recorder.tick import Tick
from tokentape.sources.endpoint.flight import Flight
from tokentape.sources.endpoint.getting import wait_for

__all__ = ["Reader"]

_SLICE_NS = 50_000_000
"""How soon the thread hears that it is to stop."""


class Reader:
    """Moves a flight on in a thread of its own; :meth:`ticks` gives what comes of it, in the thread of the caller.

    The bytes that come while nobody reads lie together in the socket, and are stamped together when they are read. So reading
    begins with the request, and goes on whatever the recorder does.
    """

    def __init__(self, flight: Flight) -> None:
        self.flight = flight
        self._found: SimpleQueue[list[Tick] | None] = SimpleQueue()
        self._ready = threading.Event()
        self._stopping = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="tokentape-reader", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        flight = self.flight
        try:
            while not flight.done and not self._stopping:
                ticks = flight.advance()
                if ticks:
                    self._found.put(ticks)
                if flight.ready:
                    self._ready.set()
                if not flight.done:
                    wait_for(flight, flight.deadline_ns, _SLICE_NS)
        except BaseException as error:  # told by whoever asks for the ticks
            self._failure = error
        finally:
            if flight.done and flight.connection is not None:  # nobody may ever ask for the ticks
                flight.connection.close()
                flight.connection = None
            self._ready.set()
            self._found.put(None)

    def wait_until_ready(self) -> None:
        """Wait for the first tokens, or the end; what interrupts that stops the reading."""
        try:
            while not self._ready.wait(1.0):  # in slices, so that Ctrl-C is heard everywhere
                pass
        except BaseException:
            self.stop()
            raise
        if self._failure is not None:
            self.stop()

    def ticks(self) -> Iterator[Tick]:
        """Ticks as they come, to the end."""
        while (found := self._found.get()) is not None:
            yield from found

    def stop(self) -> None:
        """End the thread, and the flight if it is not over, and close its connection. Raises what the thread could not handle."""
        self._stopping = True
        self._thread.join()
        self.flight.abort()
        if self.flight.connection is not None:
            self.flight.connection.close()
            self.flight.connection = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
