"""Waiting for sockets and for moments, to some 10 microseconds.

A selector's own time limit is in milliseconds, rounded up. Where it is itself something that can be selected (epoll, kqueue), a
``select`` on it alone waits to the microsecond, as exact as the kernel's timers (50 us by default); what is left before a
moment that matters is spent asking again and again.
"""

from __future__ import annotations

import contextlib
import select
import selectors
import time
from collections.abc import Iterable
from typing import Any, Protocol

__all__ = ["SPIN_NS", "SocketWaiting", "Waiting"]

SPIN_NS = 150_000
"""The last part of the time to a moment that matters, spent without sleeping."""
LONGEST_NS = 1_000_000_000


class Waiting(Protocol):
    """What a loop needs of the world: the time, and to be told what happens until some moment."""

    def now(self) -> int:
        """Nanoseconds of the monotonic clock."""

    def watch(self, key: Any, fileno: int, mask: int) -> None:
        """Tell of a socket from now on; again for one whose number or mask has changed."""

    def forget(self, key: Any) -> None:
        """Tell no longer of it."""

    def wait(self, until_ns: int, *, exact: bool) -> Iterable[Any]:
        """The keys of sockets that are ready, at once or before ``until_ns``; none when that moment has come.

        ``exact`` is for a moment at which something has to be done on time.
        """


class SocketWaiting:
    """The waiting for real sockets. ``close()`` when done."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        fileno = getattr(self._selector, "fileno", None)
        # select() takes no number above 1023
        self._selectable = [fileno()] if fileno is not None and fileno() < 1024 else None
        self._watched: dict[Any, tuple[int, int]] = {}
        self.now = time.perf_counter_ns

    def watch(self, key: Any, fileno: int, mask: int) -> None:
        """See :class:`Waiting`. A socket that wants nothing (``mask`` 0) is not told of."""
        before = self._watched.get(key)
        if before == (fileno, mask):
            return
        if before is not None and before[0] == fileno and mask and self._modified(fileno, mask, key):
            self._watched[key] = (fileno, mask)
            return
        self.forget(key)
        if mask:
            self._selector.register(fileno, mask, key)
            self._watched[key] = (fileno, mask)

    def _modified(self, fileno: int, mask: int, key: Any) -> bool:
        """Whether it could be done: not where another socket has got the number since."""
        try:
            self._selector.modify(fileno, mask, key)
        except (KeyError, OSError):
            return False
        return True

    def forget(self, key: Any) -> None:
        before = self._watched.pop(key, None)
        if before is not None:
            self._unregister(before[0])

    def _unregister(self, fileno: int) -> None:
        with contextlib.suppress(KeyError, ValueError, OSError):  # once closed, the kernel has forgotten it by itself
            self._selector.unregister(fileno)

    def wait(self, until_ns: int, *, exact: bool) -> list[Any]:
        ready = self._ready(0.0)
        left = until_ns - self.now()
        while not ready and left > 0:
            rest = left - SPIN_NS if exact else left
            if rest > 0:
                ready = self._sleep(min(rest, LONGEST_NS))
            else:
                ready = self._ready(0.0)
            left = until_ns - self.now()
        return ready

    def _sleep(self, ns: int) -> list[Any]:
        if self._selectable is None:
            return self._ready(ns / 1e9)
        select.select(self._selectable, (), (), ns / 1e9)
        return self._ready(0.0)

    def _ready(self, timeout: float) -> list[Any]:
        return [key.data for key, _ in self._selector.select(timeout)]

    def close(self) -> None:
        """Let go of the selector, not of the sockets."""
        self._selector.close()
