"""The plan of a load: when, how many, how long, by how many processes; checked before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from tokentape.errors import UsageError
from tokentape.load.engine import Launcher
from tokentape.load.worker import Task
from tokentape.load.workloads import Workload
from tokentape.study.traffic.schedule import Schedule, expected, scaled

__all__ = ["Plan"]

MOST_PROCESSES = 256
MOST_COUNTED = 100_000
"""Requests of a schedule that are counted one by one beforehand."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for. ``rate`` (requests/s) or the times of a trace make an open loop: requests go out when they are due,
    whatever has become of those before. ``concurrency`` alone makes a closed one, of so many users; beside a rate it is a limit,
    and what waits for it is seen on the tape.

    ``arrivals`` None is ``trace`` where the workload has times, else ``poisson``. ``requests`` counts conversations: one request
    each, where they have no turns. Times are nanoseconds.
    """

    rate: float | None = None
    concurrency: int | None = None
    arrivals: str | None = None
    burstiness: float = 1.0
    ramp_ns: int = 0
    duration_ns: int | None = None
    requests: int | None = None
    time_scale: float | None = None
    processes: int = 1
    retries: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("concurrency", self.concurrency, 1),
            ("requests", self.requests, 1),
            ("processes", self.processes, 1),
            ("retries", self.retries, 0),
        ):
            if value is not None and value < least:
                raise UsageError(f"--{name} {value}", why=f"it is {least} or more", fix=f"--{name} {max(1, least)}")
        if self.processes > MOST_PROCESSES:
            raise UsageError(
                f"{self.processes} client processes", why=f"{MOST_PROCESSES} are the most", fix="--processes 4"
            )
        if self.duration_ns is not None and self.duration_ns <= 0:
            raise UsageError("a duration of 0", why="nothing begins after it", fix="--duration 60s")
        if self.concurrency is not None and self.processes > self.concurrency:
            raise UsageError(
                f"{self.processes} client processes for {self.concurrency} requests at a time",
                why="each process sends one at least",
                fix=f"--processes {self.concurrency}",
            )

    def is_closed(self, workload: Workload) -> bool:
        """Whether requests follow each other, rather than a schedule."""
        return (
            self.rate is None and self.arrivals is None and (self.concurrency is not None or workload.times_ns is None)
        )

    def schedule(self, workload: Workload) -> Schedule | None:
        """When requests are due; None in a closed loop. Raises UsageError."""
        if self.is_closed(workload):
            self._check_closed()
            self._check_single(workload)
            self.n_conversations(workload)
            return None
        kind = self.arrivals or ("trace" if workload.times_ns is not None else "poisson")
        ends = self.requests
        if kind != "trace":
            if self.time_scale is not None:
                raise UsageError(
                    f"a time scale for {kind} arrivals",
                    why="it is for the times of a trace",
                    fix="--arrivals trace, or leave out --time-scale",
                )
            if self.duration_ns is None and ends is None:
                ends = self._whole(workload)
            made = Schedule(
                kind, self.rate, self.burstiness, self.ramp_ns, self.seed, duration_ns=self.duration_ns, requests=ends
            )
            self._check_single(workload)
            return made
        times = workload.times_ns
        found = (
            None
            if not times
            else scaled(times, time_scale=self.time_scale, rate=self.rate, duration_ns=self.duration_ns, requests=ends)
        )
        return Schedule(
            kind,
            burstiness=self.burstiness,
            ramp_ns=self.ramp_ns,
            duration_ns=self.duration_ns,
            requests=ends,
            times_ns=found,
        )

    def n_conversations(self, workload: Workload) -> int | None:
        """How many there will be at most; None where only the time ends them."""
        if self.requests is not None:
            return self.requests
        return None if self.duration_ns is not None else self._whole(workload)

    def n_expected(self, workload: Workload) -> int | None:
        """How many there will be, as far as can be told."""
        schedule = self.schedule(workload)
        if schedule is None:
            return self.n_conversations(workload)
        about = expected(schedule)
        # a schedule is the same each time that it is gone through
        return about if about is None or about > MOST_COUNTED else sum(1 for _ in schedule)

    def tasks(self, launcher: Callable[[], Launcher], workload: Workload, origin: int) -> list[Task]:
        """What each process is to do, on the tape whose origin is the mark ``origin``."""
        schedule, n = self.schedule(workload), self.n_conversations(workload)
        cap = (self.concurrency or 1) if schedule is None else self.concurrency
        one = Task(
            launcher,
            workload,
            schedule,
            n,
            cap,
            self.duration_ns,
            origin,
            processes=self.processes,
            retries=self.retries,
        )
        return [replace(one, process=i, cap=_share(cap, i, self.processes)) for i in range(self.processes)]

    def described(self, workload: Workload) -> dict[str, Any]:
        """What is written down of it with the tape."""
        schedule = self.schedule(workload)
        loop = {"loop": "closed"} if schedule is None else {"loop": "open", "kind": schedule.kind}
        return {**loop, **asdict(self), **workload.described()}

    def _check_closed(self) -> None:
        for name, given in (
            ("--ramp", self.ramp_ns),
            ("--burstiness", self.burstiness != 1),
            ("--time-scale", self.time_scale is not None),
        ):
            if given:
                raise UsageError(
                    f"{name} without a rate",
                    why="in a closed loop each request follows the end of another, and no schedule",
                    fix=f"--rate 2, or leave out {name}",
                )

    def _check_single(self, workload: Workload) -> None:
        """One prompt is sent once, unless something says how often."""
        asked = "--rate" if self.rate is not None else "--concurrency"
        many = self.rate is not None or (self.concurrency or 1) > 1
        if many and workload.n == 1 and self.requests is None and self.duration_ns is None:
            raise UsageError(
                f"{asked} for one prompt",
                why="it would be sent once, and nothing says how often it is to be",
                fix="--requests 100, or --duration 60s",
            )

    def _whole(self, workload: Workload) -> int:
        if workload.n is None:
            raise UsageError(
                "a load that would never end",
                why="prompts of a given length can be made without end",
                fix="--requests 100, or --duration 60s",
            )
        return workload.n


def _share(cap: int | None, process: int, processes: int) -> int | None:
    return None if cap is None else cap // processes + (process < cap % processes)
