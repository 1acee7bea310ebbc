"""When requests are due: schedules, in nanoseconds since the first could be sent.

* ``constant``: one every ``1 / rate``, the first at once;
* ``poisson``: gaps drawn from an exponential distribution, as of many users who know nothing of each other;
* ``gamma``: gaps drawn from a gamma distribution of shape ``burstiness``; 1 is ``poisson``, less comes in bursts (the
  coefficient of variation of the gaps is ``1 / sqrt(burstiness)``), more is more even;
* ``trace``: the times of recorded traffic, made shorter or longer by one factor.

``ramp_ns`` lets the rate rise from 0 in a straight line: the schedule is the image of one at rate 1 under the inverse of the
expected number of requests, ``rate * t^2 / (2 * ramp)`` up to the end of the ramp and ``rate * (t - ramp / 2)`` after it. So
half as many requests come in it as in as much time after it, and the gaps keep their distribution.

The same seed gives the same schedule, so a simulation is asked just what a load sends. Source: D. R. Cox, V. Isham, "Point
Processes", 1980, section 4.2 (change of time).
"""

from __future__ import annotations

import bisect
import difflib
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokentape.errors import UsageError

__all__ = ["DRAWN", "KINDS", "LAST_NS", "Schedule", "expected", "scaled"]

DRAWN = ("poisson", "gamma", "constant")
KINDS = (*DRAWN, "trace")

LAST_NS = 1 << 62
"""Nothing is due later: times are nanoseconds in 64 bits."""

_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule; iterating gives each request's due time, in order, again and again the same.

    ``rate`` is in requests per second, and of a ``trace`` already in its ``times_ns``. It ends before ``duration_ns``, or after
    ``requests``, whichever comes first; without both it never does, but for a trace. Raises UsageError for what is no schedule.
    """

    kind: str = "poisson"
    rate: float | None = None
    burstiness: float = 1.0
    ramp_ns: int = 0
    seed: int = 0
    duration_ns: int | None = None
    requests: int | None = None
    times_ns: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            near = difflib.get_close_matches(self.kind, KINDS, n=1)
            raise UsageError(
                f"no arrivals {self.kind!r}",
                why=f"there are {', '.join(KINDS)}",
                fix=f"--arrivals {near[0] if near else 'poisson'}",
            )
        if self.kind == "trace":
            self._check_trace()
        else:
            if self.rate is None:
                raise UsageError(f"{self.kind} arrivals without a rate", why="they come at some rate", fix="--rate 2")
            _check_rate(self.rate)
        if not (math.isfinite(self.burstiness) and self.burstiness > 0):
            raise UsageError(
                f"a burstiness of {self.burstiness:g}",
                why="it is the shape of a gamma distribution, a number above 0: 1 is poisson, less comes in bursts",
                fix="--burstiness 0.5",
            )
        if self.burstiness != 1 and self.kind != "gamma":
            raise UsageError(
                f"a burstiness of {self.burstiness:g} with {self.kind} arrivals",
                why="it is the shape of the gamma distribution of the gaps",
                fix="--arrivals gamma",
            )
        if self.ramp_ns < 0 or (self.duration_ns is not None and self.duration_ns <= 0):
            raise UsageError("a time below 0", why="a ramp and a duration go forward", fix="--ramp 10s --duration 60s")
        if self.requests is not None and self.requests < 1:
            raise UsageError(f"{self.requests} requests", why="at least one is needed", fix="--requests 100")

    def _check_trace(self) -> None:
        if not self.times_ns:
            raise UsageError(
                "arrivals as in a trace, without a trace",
                why="the workload has no times of its own",
                fix="--workload FILE in the Azure or Mooncake format, or --arrivals poisson --rate R",
            )
        if self.ramp_ns:
            raise UsageError(
                "a ramp over the times of a trace",
                why="a trace says itself when its requests came",
                fix="leave out --ramp, or --arrivals poisson --rate R",
            )

    def __iter__(self) -> Iterator[int]:
        due = iter(self.times_ns) if self.kind == "trace" and self.times_ns is not None else self._drawn()
        for count, at_ns in enumerate(due):
            if self.requests is not None and count >= self.requests:
                return
            if self.duration_ns is not None and at_ns >= self.duration_ns:
                return
            yield at_ns

    def _drawn(self) -> Iterator[int]:
        rate = self.rate
        assert rate is not None, "a schedule that is drawn has a rate"
        draw = random.Random(f"arrivals/{self.seed}")
        ramp_s, done = self.ramp_ns / _S, 0.0
        in_ramp = rate * ramp_s / 2
        while True:
            if self.kind == "poisson":
                done += draw.expovariate(1.0)
            elif self.kind == "gamma":
                done += draw.gammavariate(self.burstiness, 1 / self.burstiness)
            at_s = math.sqrt(2 * ramp_s * done / rate) if done < in_ramp else done / rate + ramp_s / 2
            yield round(min(at_s * _S, LAST_NS))
            if self.kind == "constant":
                done += 1.0


def _check_rate(rate: float) -> None:
    if not (math.isfinite(rate) and rate > 0):
        raise UsageError(
            f"a rate of {rate:g} requests/s",
            why="it is a number of requests a second, above 0: at none nothing would ever be sent",
            fix="--rate 2",
        )


def scaled(
    times_ns: Sequence[int],
    *,
    time_scale: float | None = None,
    rate: float | None = None,
    duration_ns: int | None = None,
    requests: int | None = None,
) -> list[int]:
    """The times of a trace since its first request, ``time_scale`` times as long, or such that its requests come at ``rate``.

    With ``rate``, as many requests as the duration takes at it, or as were asked for, are taken from the start of the trace and
    laid over their time exactly. Raises UsageError for a factor that is none, and for a trace without extent.
    """
    if time_scale is not None and rate is not None:
        raise UsageError(
            "a time scale together with a rate", why="each decides how fast a trace is replayed", fix="leave one out"
        )
    if time_scale is not None and not (math.isfinite(time_scale) and time_scale > 0):
        raise UsageError(
            f"a time scale of {time_scale:g}",
            why="times are multiplied by it: 0.1 is ten times as fast, 1 as it was",
            fix="--time-scale 0.1",
        )
    first = times_ns[0] if times_ns else 0
    since = [at - first for at in times_ns]
    if rate is None:
        return since if time_scale in (None, 1.0) else [round(at * time_scale) for at in since]
    _check_rate(rate)
    n = len(since)
    if duration_ns is not None:
        n = min(n, max(1, round(rate * duration_ns / _S)))
    if requests is not None:
        n = min(n, requests)
    # the time of the request after the last one that is taken, where there is one, is when the part ends
    extent = since[n] if n < len(since) else since[-1] * n / max(1, n - 1)
    if extent <= 0:
        if n == 1:
            return since[:1]
        raise UsageError(
            "a rate for a trace in which all requests come at once",
            why="nothing can be stretched there",
            fix="--arrivals poisson --rate R",
        )
    factor = n / rate * _S / extent
    return [round(at * factor) for at in since[:n]]


def expected(schedule: Schedule) -> int | None:
    """How many requests a schedule will about have; None where it does not end."""
    if schedule.kind == "trace":
        times = schedule.times_ns or ()
        n = len(times) if schedule.duration_ns is None else bisect.bisect_left(times, schedule.duration_ns)
        return n if schedule.requests is None else min(n, schedule.requests)
    if schedule.duration_ns is None:
        return schedule.requests
    seconds = schedule.duration_ns / _S
    ramp_s = min(schedule.ramp_ns / _S, seconds)
    rate = schedule.rate or 0.0
    in_ramp = rate * ramp_s**2 / (2 * schedule.ramp_ns / _S) if schedule.ramp_ns else 0.0
    n = round(min(rate * (seconds - ramp_s) + in_ramp, LAST_NS))
    return n if schedule.requests is None else min(n, schedule.requests)
