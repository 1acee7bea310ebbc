"""The probes: which columns are kept, and at what price.

Two tiers. ``timing`` keeps marks and what the machine did (CPU time, context switches, collections, memory); it costs a few
microseconds a step. ``distribution`` adds what the model believed: log-probability, entropy, rank, candidates.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from tokentape.clock import CudaClock
from tokentape.errors import UsageError
from tokentape.recorder.tick import Probe, Tick

try:
    import resource
except ImportError:  # no such module on Windows
    resource = None  # type: ignore[assignment]

__all__ = ["TIERS", "DistributionProbe", "MachineProbe", "MemoryProbe", "TimingProbe", "tier"]

TIERS = ("timing", "distribution")

Column = list[Any] | int | None
"""Values of some ticks, or one for all of them."""


class TimingProbe:
    """Start, end, time of the forward call and of the rules by the host clock; device time where there is a clock for it."""

    name = "timing"
    series = "step"
    every_tick = False  # the marks travel in the tick itself
    needs = frozenset({"device_clock"})
    columns = ("forward_ns", "device_ns", "rules_ns")

    def begin(self, ask: Callable[[], None]) -> None:
        pass

    def keep(self, tick: Tick) -> None:
        return None

    def resolve(self, kept: Sequence[None], ticks: Sequence[Tick]) -> tuple[Column, Column, Column]:
        forward = [None if tick.forward is None else tick.forward[1] - tick.forward[0] for tick in ticks]
        device: Column = None
        if ticks[0].device is not None:  # there is a device clock or there is none
            device = [tick.device and CudaClock.ns(tick.device[1], since=tick.device[0]) for tick in ticks]
        rules: Column = None
        if any(tick.rules is not None for tick in ticks):
            rules = [None if tick.rules is None else tick.rules[1] - tick.rules[0] for tick in ticks]
        return forward, device, rules

    def end(self) -> None:
        pass


class MachineProbe:
    """What else the machine did: CPU time and involuntary context switches of the loop's thread, garbage collections.

    All are counted from the reading before (at first, from the start of the run). A collection asks for a reading, so that
    the step it fell into is known, and steps between readings had none.
    """

    name = "machine"
    series = "step"
    every_tick = False
    needs: frozenset[str] = frozenset()
    columns = ("cpu_ns", "switches", "gc_count", "gc_ns")

    def __init__(self) -> None:
        self._collections = 0
        self._collecting_ns = 0
        self._collection_start = 0
        self._ask: Callable[[], object] = int  # does nothing
        self._last: tuple[int, int | None, int] | None = None
        self._who = getattr(resource, "RUSAGE_THREAD", None)  # Linux only

    def begin(self, ask: Callable[[], None]) -> None:
        self._collections = self._collecting_ns = 0
        self._ask = ask
        gc.callbacks.append(self._on_collection)
        self._last = self._read()

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collection_start = time.perf_counter_ns()
        else:
            self._collections += 1
            self._collecting_ns += time.perf_counter_ns() - self._collection_start
            self._ask()

    def _read(self) -> tuple[int, int | None, int]:
        # getrusage tells CPU time too, but as of the scheduler's last tick; this clock is exact
        switches = None if self._who is None else resource.getrusage(self._who).ru_nivcsw
        return time.thread_time_ns(), switches, threading.get_ident()

    def keep(self, tick: Tick) -> tuple[int | None, int | None, int, int]:
        collections, collecting_ns = self._collections, self._collecting_ns
        self._collections = self._collecting_ns = 0
        now = self._read()
        before, self._last = self._last or now, now
        if now[2] != before[2]:  # another thread runs the loop now, with counts of its own
            return None, None, collections, collecting_ns
        switches = None if now[1] is None or before[1] is None else now[1] - before[1]
        return now[0] - before[0], switches, collections, collecting_ns

    def resolve(
        self, kept: Sequence[tuple[int | None, int | None, int, int] | None], ticks: Sequence[Tick]
    ) -> Sequence[Column]:
        return _transposed(kept, (None, None, 0, 0))

    def end(self) -> None:
        with contextlib.suppress(ValueError):
            gc.callbacks.remove(self._on_collection)


class MemoryProbe:
    """Bytes held after a step: key-value cache and recurrent state, the process, the device; and what the cache let go."""

    name = "memory"
    series = "step"
    every_tick = False
    needs = frozenset({"cache"})
    columns = ("cache_bytes", "rss_bytes", "device_bytes", "dropped")

    def __init__(self) -> None:
        self._statm: int | None = None
        self._page = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
        self._cache_bytes: Callable[[Any], int | None] | None = None

    def begin(self, ask: Callable[[], None]) -> None:
        try:
            self._statm = os.open("/proc/self/statm", os.O_RDONLY)
        except OSError:  # no /proc: macOS, Windows
            self._statm = None

    def keep(self, tick: Tick) -> tuple[int | None, bytes | None, int | None]:
        held = None
        if tick.cache is not None:
            if self._cache_bytes is None:
                from tokentape.models.cache import cache_bytes

                self._cache_bytes = cache_bytes
            held = self._cache_bytes(tick.cache)
        return held, None if self._statm is None else os.pread(self._statm, 64, 0), _device_bytes(tick.ids)

    def resolve(
        self, kept: Sequence[tuple[int | None, bytes | None, int | None] | None], ticks: Sequence[Tick]
    ) -> Sequence[Column]:
        held, statm, device = _transposed(kept, (None, None, None))
        if isinstance(statm, list):
            statm = [None if read is None else int(read.split()[1]) * self._page for read in statm]
        dropped = [tick.dropped for tick in ticks]
        return held, statm, device, dropped if any(count is not None for count in dropped) else None

    def end(self) -> None:
        if self._statm is not None:
            os.close(self._statm)
            self._statm = None


def _transposed(kept: Sequence[tuple[Any, ...] | None], between: tuple[Any, ...]) -> Sequence[Column]:
    """Columns of what was kept at readings; ``between`` stands for the ticks without."""
    if not any(kept):
        return between
    return [list(column) for column in zip(*(between if one is None else one for one in kept), strict=True)]


def _device_bytes(ids: Any) -> int | None:
    """Bytes allocated on the CUDA device that holds ``ids``, or None where it is on no such device."""
    if ids is None or not getattr(ids, "is_cuda", False):
        return None
    import torch

    return int(torch.cuda.memory_allocated(ids.device))


class DistributionProbe:
    """What the model believed at each step, and what rules did to it, reduced where the logits lie.

    ``resolve`` gives, for each tick and each of its tokens, what :func:`tokentape.models.distribution.rows` says; ``candidates`` is
    the number of most likely tokens kept.
    """

    name = "distribution"
    series = "token"
    every_tick = True
    needs = frozenset({"logits"})
    columns = ("logprob", "entropy", "rank", "rules_logprob", "candidates", "wanted", "allowed", "removed", "effects")

    def __init__(self, candidates: int = 5) -> None:
        if candidates < 0:
            raise UsageError(
                f"candidates={candidates} is negative",
                why="it counts the most likely tokens to keep",
                fix="give 0 or more",
            )
        self.n_candidates = candidates
        self._reduce: Any = None

    def begin(self, ask: Callable[[], None]) -> None:
        self._reduce = None

    def keep(self, tick: Tick) -> Any:
        if tick.logits is None:
            return None
        if self._reduce is None:
            from tokentape.models.distribution import Reducer

            self._reduce = Reducer(self.n_candidates)
        kept = self._reduce(tick.logits, tick.ids, tick.scores, tick.stages, tick.wanted)
        if tick.given:
            kept = self._reduce.with_given(kept, tick.given_logits, tick.given, tick.given_by)
        return kept

    def resolve(self, kept: Sequence[Any], ticks: Sequence[Tick]) -> Sequence[Any]:
        if all(one is None for one in kept):
            return ()
        from tokentape.models.distribution import rows

        return rows(kept)

    def end(self) -> None:
        pass


def tier(name: str, candidates: int = 5) -> list[Probe]:
    """The probes of a tier, ``"timing"`` or ``"distribution"``."""
    if name not in TIERS:
        raise UsageError(f"no such probe tier: {name!r}", why=f"there are {' and '.join(TIERS)}", fix="--probe timing")
    probes: list[Probe] = [TimingProbe(), MachineProbe(), MemoryProbe()]
    if name == "distribution":
        probes.append(DistributionProbe(candidates))
    return probes
