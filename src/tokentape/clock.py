"""Clocks: ``mark()`` now, nanoseconds when asked.

A mark is cheap and may be opaque; it becomes a number only in ``ns(mark, since=origin)``, after the run. On a GPU that is the
whole point: a mark is an event in the stream, and asking it for its time inside the loop would make the loop wait.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

__all__ = ["Clock", "CudaClock", "FakeClock", "HostClock"]


@runtime_checkable
class Clock(Protocol):
    """What a recorder needs of a clock. ``name`` is written beside every time taken with it."""

    name: str

    def mark(self) -> Any:
        """Note the present moment without waiting for anything."""

    def ns(self, mark: Any, since: Any) -> int:
        """Nanoseconds from the mark ``since`` to ``mark``; may wait for the device."""


class HostClock:
    """The monotonic clock of this machine, ``time.perf_counter_ns``; never stepped by NTP as wall clocks are."""

    name = "perf_counter_ns"
    mark = staticmethod(time.perf_counter_ns)

    def ns(self, mark: int, since: int) -> int:
        return mark - since


class CudaClock:
    """Events in a CUDA stream: device time, resolved after the run.

    ``mark()`` records an event and returns at once. ``ns()`` waits for both events and has the resolution of
    ``cudaEventElapsedTime``, about half a microsecond.
    """

    name = "cuda_event"

    def __init__(self, device: Any = None) -> None:
        import torch

        self._event = torch.cuda.Event
        self._stream = lambda: torch.cuda.current_stream(device)

    def mark(self) -> Any:
        event = self._event(enable_timing=True)
        event.record(self._stream())
        return event

    @staticmethod
    def ns(mark: Any, since: Any) -> int:
        mark.synchronize()
        return round(float(since.elapsed_time(mark)) * 1e6)


class FakeClock:
    """A clock that moves only when told, for tests that are exact to the nanosecond.

    ``advance(ns)`` moves it; ``ticks``, where given, are added one after another, one at each ``mark()``.

    >>> clock = FakeClock(); start = clock.mark(); clock.advance(1_500_000); clock.ns(clock.mark(), since=start)
    1500000
    """

    name = "fake"

    def __init__(self, now_ns: int = 0, ticks: Iterable[int] = ()) -> None:
        self.now_ns = now_ns
        self._ticks: Iterator[int] = iter(ticks)

    def advance(self, ns: int) -> None:
        if ns < 0:
            raise ValueError(f"a clock does not run backwards: advance({ns})")
        self.now_ns += ns

    def mark(self) -> int:
        self.now_ns += next(self._ticks, 0)
        return self.now_ns

    def ns(self, mark: int, since: int) -> int:
        return mark - since
