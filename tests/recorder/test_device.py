"""The path of a device, played by objects that refuse to be read before their event has been waited for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tokentape as tt
from tokentape.recorder.tick import Tick
from tokentape.sources.scripted import Line, ScriptedSource


class Event:
    """A mark in a stream of work; ``at_ms`` is when the device gets there."""

    def __init__(self, at_ms: float) -> None:
        self.at_ms = at_ms
        self.waited_for = False

    def synchronize(self) -> None:
        self.waited_for = True

    def elapsed_time(self, other: Event) -> float:
        assert other.waited_for, "an event has no time before it has been waited for"
        return other.at_ms - self.at_ms


class Result:
    """Ids that a device is still computing."""

    def __init__(self, values: list[int], device: Device) -> None:
        self.values, self.device, self.event = values, device, None

    def tolist(self) -> list[int]:
        assert self.event is not None and self.event.waited_for, "read before it was ready"
        assert self.device.aside, "read on the loop's own stream"
        return self.values


class Device(ScriptedSource):
    """Steps of 7, 8, 9 ms of device time, launched in no time at all."""

    aside = False

    def start(self, request, needs):
        assert "device_clock" in needs
        live = super().start(request, needs)
        results: list[Result] = []
        live.fence = lambda: self._fence(results)
        live.aside = self._aside
        live.ticks = self._launched(results)
        return live

    def _fence(self, results: list[Result]) -> Event:
        results[-1].event = Event(0)
        return results[-1].event

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        self.aside = True
        yield
        self.aside = False

    def _launched(self, results: list[Result]) -> Iterator[Tick]:
        for i in range(3):
            results.append(Result([i], self))
            tick = Tick("decode" if i else "prefill", 1, self.clock.mark(), self.clock.mark(), ids=results[-1])
            tick.device = (Event(10.0), Event(17.0 + i))
            yield tick


def test_nothing_is_read_before_the_device_is_there() -> None:
    tape = tt.record(Device([Line(1)]), "x", probe="timing")
    trace = tape.traces[0]
    assert trace.token_ids.tolist() == [0, 1, 2]
    assert trace.steps["device_ns"].tolist() == [7_000_000, 8_000_000, 9_000_000]
