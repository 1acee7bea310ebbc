"""A request that is sent again where it came to nothing: each attempt is a run of its own, so that none is hidden."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokentape.data.request import Request
from tokentape.data.tape import Tape
from tokentape.errors import TokentapeError
from tokentape.recorder.probes import tier
from tokentape.recorder.progress import Progress
from tokentape.recorder.recorder import Recorder
from tokentape.recorder.run import drive
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
    overwrite: bool = False,
    text: bool = True,
    notes: Mapping[str, Any] | None = None,
    observer: Callable[[Progress], None] | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Tape:
    """Record a request as :func:`~tokentape.recorder.run.record` does, with up to so many ``retries``.

    The tape has every attempt, also those that were answered with nothing but an error. Raises what the last one met.
    """
    probes = tier(probe, candidates)
    needs: frozenset[str] = frozenset().union(*(probe.needs for probe in probes))
    recorder: Recorder | None = None
    with contextlib.ExitStack() as stack:
        for attempt in range(1, retries + 2):
            live, flight = source.launched(request, needs)
            live.exchange = _numbered(flight, attempt)
            if recorder is None:
                recorder = Recorder(
                    path,
                    source.setting(),
                    probes,
                    source.clock,
                    origin=live.start,
                    notes=notes,
                    overwrite=overwrite,
                    text=text,
                    observer=observer,
                )
                stack.enter_context(recorder)
            try:
                drive(recorder, live)
            except TokentapeError:
                again = attempt <= retries and may_go_better(flight.fault, flight.status)
                recorder.end(flight.finish_reasons(), repeated=again)
                if not again:
                    raise
                pause(_pause_s(flight, attempt))
                continue
            break
    assert recorder is not None
    return recorder.tape


def _numbered(flight: Flight, attempt: int) -> Callable[[Any], Any]:
    """What passed, with the number of the attempt and the run that it repeats."""
    before = attempt - 2 if attempt > 1 else None
    return lambda origin: replace(flight.exchange(origin), attempt=attempt, retry_of=before)


def _pause_s(flight: Flight, attempt: int) -> float:
    asked = wait_s(flight.headers)
    if asked is None:
        doublings = min(attempt - 1, 30)
        return min(FIRST_PAUSE_S * float(1 << doublings), LONGEST_PAUSE_S)
    return min(float(asked), LONGEST_PAUSE_S)
