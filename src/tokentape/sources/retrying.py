"""A request that is sent again where it came to nothing: each attempt is a run of its own, so that none is hidden."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from tokentape.data.request import Request
from tokentape.data.tape import Tape
from tokentape.errors import TokentapeError
from tokentape.recorder.probes import tier
from tokentape.recorder.run import Kept, drive_scraped, recorder_of
from tokentape.recorder.tick import LiveRun, Probe, needs_of
from tokentape.sources.endpoint.failures import may_go_better, wait_s
from tokentape.sources.endpoint.flight import Flight
from tokentape.sources.endpoint.source import EndpointSource

__all__ = ["record_again"]

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 30.0
"""Before the second attempt; it doubles with each, unless the server says how long to wait."""


def record_again(
    source: EndpointSource,
    request: Request,
    retries: int,
    *,
    path: str | Path | None = None,
    probe: str = "distribution",
    candidates: int = 5,
    pause: Callable[[float], None] = time.sleep,
    **kept: Unpack[Kept],
) -> Tape:
    """Record a request as :func:`~tokentape.recorder.run.record` does, with up to so many ``retries``.

    The tape has every attempt, also those that were answered with nothing but an error, and what the server said of itself before
    and after each. Raises what the last one met.
    """
    probes = tier(probe, candidates)
    live, flight = _launched(source, request, probes, 1)
    recorder, origin = recorder_of(source, live, probes, path, **kept), live.start
    with recorder:
        for attempt in itertools.count(1):
            if attempt > 1:
                live, flight = _launched(source, request, probes, attempt)
            try:
                drive_scraped(recorder, live, origin)
            except TokentapeError:
                again = attempt <= retries and may_go_better(flight.fault, flight.status)
                recorder.end(flight.finish_reasons(), repeated=again)
                if not again:
                    raise
                pause(_pause_s(flight, attempt))
            else:
                break
    return recorder.tape


def _launched(
    source: EndpointSource, request: Request, probes: Sequence[Probe], attempt: int
) -> tuple[LiveRun, Flight]:
    """The request on its way; what passed will have the number of the attempt, and the run that it repeats."""
    live, flight = source.launched(request, needs_of(probes))
    before = attempt - 2 if attempt > 1 else None
    live.exchange = lambda origin: replace(flight.exchange(origin), attempt=attempt, retry_of=before)
    return live, flight


def _pause_s(flight: Flight, attempt: int) -> float:
    asked = wait_s(flight.headers)
    if asked is None:
        doublings = min(attempt - 1, 30)
        return min(FIRST_PAUSE_S * float(1 << doublings), LONGEST_PAUSE_S)
    return min(float(asked), LONGEST_PAUSE_S)
