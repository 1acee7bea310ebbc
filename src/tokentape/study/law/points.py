"""Measured points: the steps of a tape, brought together into what a law is fitted to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tokentape.data.schema import KINDS
from tokentape.study.law.changes import warm_up

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["CAUSES", "Point", "StepTimes", "points_of", "step_times_of"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CAUSES = ("warm-up", "gc", "switches")
"""Why a step is kept on the tape and left out of a fit, in the order in which they are asked."""

BLOCK = 32
"""So many consecutive decode steps make one point at most: within them a context grows little."""

SPAN = 1.25
"""A block ends where its context has grown by this factor."""

OFF_SHARE = 0.25
"""Off the processor for more than this share of its time, and pushed off by force, a step says more of its neighbours."""


@dataclass(frozen=True, slots=True)
class Point:
    """One measured value of the time of a step.

    ``kind`` is ``"decode"`` or ``"prefill"``. ``context`` counts the positions of each sequence after the step (its mean over
    the ``n`` steps that the value stands for), ``batch`` the sequences. ``ns`` is the median of their times. ``run`` is the
    run's number on its tape and ``start_ns`` when the first step began, since the tape's origin. ``cause`` is None for a
    measurement as good as any, else why it is left out of a fit, one of :data:`CAUSES`.
    """

    kind: str
    context: float
    batch: int
    ns: float
    n: int = 1
    run: int = 0
    start_ns: int = 0
    cause: str | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StepTimes:
    """Every step of a tape that can be placed on a law, ``[n]`` each; ``clock`` says whose time it is.

    ``cause`` holds indexes into :data:`CAUSES`, -1 for none. ``decode`` is False for a prefill. Steps that read neither one
    token of each sequence nor a whole prompt, and those of unknown context, are not in it.
    """

    clock: str
    decode: npt.NDArray[np.bool_]
    context: Array
    batch: Ints
    ns: Array
    run: Ints
    start_ns: Ints
    cause: Ints

    def __len__(self) -> int:
        return len(self.ns)


def step_times_of(tape: Tape) -> StepTimes:
    """Place every step: its kind, load, time and, where there is one, the cause that keeps it out of a fit.

    Time is the device's where every step has one, else the host's, end minus start. Causes come from what was measured
    beside the time, never from the time alone, but for the warm-up, which is found as a change in a run's own series.
    """
    columns = tape.columns("step")
    # what attention reads: of a text that is seen through a window, what the cache still holds
    context = np.ma.filled(columns["context"].astype(float), np.nan) - columns["dropped"].filled(0)
    n_in = np.ma.filled(columns["n_in"].astype(float), np.nan)
    batch = np.asarray(columns["batch"]).astype(np.int64)
    kind = np.asarray(columns["kind"])
    device = columns["device_ns"]
    on_device = len(device) > 0 and not np.ma.getmaskarray(device).any()
    host = np.asarray(columns["end_ns"]) - np.asarray(columns["start_ns"])
    ns = (np.asarray(device) if on_device else host).astype(float)
    run = np.asarray(columns["run"]).astype(np.int64)
    untold = np.isnan(n_in)
    with np.errstate(invalid="ignore"):
        # a prefill that reads one token on top of a filled cache does what a decode step does, and what follows a copy of it
        whole = (kind == KINDS.index("prefill")) & (untold | (n_in == batch * context)) & (context > 0)
        decode = (kind == KINDS.index("decode")) & (untold | (n_in == batch)) & (context > 0)
    placed = (whole | decode) & (ns > 0)
    cause = _causes(columns, host.astype(float), run, decode & placed)
    rows = np.flatnonzero(placed)
    return StepTimes(
        clock="device" if on_device else "host",
        decode=decode[rows],
        context=context[rows],
        batch=batch[rows],
        ns=ns[rows],
        run=run[rows],
        start_ns=np.asarray(columns["start_ns"])[rows],
        cause=cause[rows],
    )


def _causes(columns: Mapping[str, Any], host: Array, run: Ints, decode: npt.NDArray[np.bool_]) -> Ints:
    found = np.full(len(host), -1, np.int64)
    switches = np.ma.filled(columns["switches"].astype(float), 0.0)
    own = np.ma.filled(columns["cpu_ns"].astype(float), np.nan)
    with np.errstate(invalid="ignore"):
        # a reading that stands for several short steps has more CPU time than this one lasted, and tells nothing of it
        off = (switches > 0) & (own <= host) & (host - own > OFF_SHARE * host)
    found[off & decode] = CAUSES.index("switches")
    found[np.ma.filled(columns["gc_count"].astype(float), 0.0) > 0] = CAUSES.index("gc")
    for rows in _runs(run):
        steps = rows[decode[rows]]
        if len(steps):
            found[steps[: warm_up(host[steps])]] = CAUSES.index("warm-up")
    return found


def _runs(run: Ints) -> Iterator[Ints]:
    edges = np.flatnonzero(np.diff(run)) + 1
    yield from np.split(np.arange(len(run)), edges)


def points_of(tape: Tape, labels: Mapping[str, Any] | None = None) -> list[Point]:
    """The points of a tape: each whole prefill, and the decode steps of a run in blocks of some dozen.

    What has a cause comes as points of its own, so that it can be counted and shown. ``labels`` go onto every point.
    """
    steps = step_times_of(tape)
    labels = {"clock": steps.clock, **(labels or {})}
    found: list[Point] = []
    for rows in _runs(steps.run):
        for code in (-1, *range(len(CAUSES))):
            cause = None if code < 0 else CAUSES[code]
            these = rows[steps.cause[rows] == code]
            prefills = these[~steps.decode[these]]
            found += [_point("prefill", steps, prefills[i : i + 1], cause, labels) for i in range(len(prefills))]
            found += [
                _point("decode", steps, block, cause, labels) for block in _blocks(these[steps.decode[these]], steps)
            ]
    return sorted(found, key=lambda point: point.start_ns)


def _blocks(rows: Ints, steps: StepTimes) -> Iterator[Ints]:
    start = 0
    for i in range(1, len(rows) + 1):
        if (
            i == len(rows)
            or i - start == BLOCK
            or steps.context[rows[i]] > SPAN * steps.context[rows[start]]
            or steps.batch[rows[i]] != steps.batch[rows[start]]
        ):
            yield rows[start:i]
            start = i


def _point(kind: str, steps: StepTimes, rows: Ints, cause: str | None, labels: Mapping[str, Any]) -> Point:
    first = int(rows[0])
    return Point(
        kind=kind,
        context=float(np.mean(steps.context[rows])),
        batch=int(steps.batch[first]),
        ns=float(np.median(steps.ns[rows])),
        n=len(rows),
        run=int(steps.run[first]),
        start_ns=int(steps.start_ns[first]),
        cause=cause,
        labels=labels,
    )
