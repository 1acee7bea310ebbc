"""What made a token late, as far as the covariates of its steps tell."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tokentape.study.times import plain_values, token_gaps_ns, token_steps

if TYPE_CHECKING:
    from tokentape.data.trace import Trace

__all__ = ["SLOW", "Cause", "SlowToken", "cause_of_gap", "slowest_token"]

SLOW = 1.5
"""A gap is worth a cause from this multiple of the median gap on."""


@dataclass(frozen=True, slots=True)
class Cause:
    """What the covariates of the steps explain of a long gap: at least half of what it has above the median.

    ``kind`` is ``"gc"`` (``ns`` in ``count`` garbage collections) or ``"switches"`` (``ns`` off the processor, with
    ``count`` involuntary context switches).
    """

    kind: str
    count: int
    ns: int


@dataclass(frozen=True, slots=True)
class SlowToken:
    """The token with the longest gap before it: ``index`` counts from 0 in the trace ``trace`` of the tape."""

    trace: int
    index: int
    position: int
    gap_ns: int
    cause: Cause | None


def slowest_token(traces: Sequence[Trace]) -> SlowToken | None:
    """The token with the longest gap before it, and what explains it."""
    gaps = [(ns, t, i + 1) for t, trace in enumerate(traces) for i, ns in enumerate(token_gaps_ns(trace))]
    if not gaps:
        return None
    ns, t, index = max(gaps, key=lambda gap: (gap[0], -gap[1], -gap[2]))
    trace = traces[t]
    return SlowToken(trace.number, index, int(trace.tokens["position"][index]), ns, cause_of_gap(trace, index))


def cause_of_gap(trace: Trace, index: int) -> Cause | None:
    """What made the gap before token ``index`` long, where the covariates of its steps tell; else None.

    A gap below :data:`SLOW` times the trace's median needs no cause. A collection of garbage, or time off the
    processor with involuntary context switches, is one if it explains half of what the gap has above the median.
    """
    gaps, rows = token_gaps_ns(trace), token_steps(trace)
    gap, typical = gaps[index - 1], statistics.median(gaps)
    if gap < SLOW * typical or gap == 0:
        return None
    excess = gap - typical
    spent = {name: _between(trace.steps[name], rows) for name in ("gc_ns", "gc_count", "switches", "cpu_ns")}
    here = {name: values[index - 1] for name, values in spent.items()}
    if here["gc_ns"] is not None and here["gc_ns"] >= excess / 2:
        return Cause("gc", here["gc_count"] or 0, here["gc_ns"])
    if here["switches"] and here["cpu_ns"] is not None:
        # more computing than time: a reading of several gaps, which tells nothing of one
        waits = [
            ns - cpu
            for ns, cpu in zip(gaps, spent["cpu_ns"], strict=True)
            if cpu is not None and cpu <= ns < SLOW * typical
        ]
        wait = gap - here["cpu_ns"]
        if wait - (statistics.median(waits) if waits else 0) >= excess / 2:
            return Cause("switches", here["switches"], wait)
    return None


def _between(column: Any, rows: Sequence[int]) -> list[int | None]:
    """For each two consecutive tokens the sum over the steps from one to the other; None where one is null."""
    values = plain_values(column)
    parts = [values[before + 1 : after + 1] for before, after in pairwise(rows)]
    return [None if None in part else sum(part) for part in parts]
