"""The steps of a run that took much longer than expected, with what their covariates tell of why."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tokentape.study.causes import SLOW
from tokentape.study.law.points import CAUSES
from tokentape.views.page.rounding import rounded
from tokentape.views.units import duration
from tokentape.words.catalogue import Message

__all__ = ["MOST_LATE", "Late", "late_steps"]

Array = npt.NDArray[np.float64]

MOST_LATE = 40
"""So many are told one by one."""


@dataclass(frozen=True, slots=True)
class Late:
    """A step that took :data:`~tokentape.study.causes.SLOW` times what was expected, or longer."""

    index: int
    ns: int
    times: float
    cause: str | None
    why: Message

    def as_dict(self) -> dict[str, Any]:
        """The same for the page."""
        return {
            "step": self.index,
            "ns": self.ns,
            "times": rounded(self.times, 3),
            "cause": self.cause,
            "why": self.why.as_dict(),
        }


def late_steps(
    columns: Mapping[str, Any], rows: npt.NDArray[np.int64], ns: Array, expected: Array, left_out: Mapping[int, int]
) -> list[Late]:
    """Those of the steps ``rows`` (times ``ns``) that took :data:`SLOW` times ``expected`` or longer, the longest excess first.

    The cause is what explains at least half of the time above what was expected: garbage collections, or time off the processor
    with involuntary context switches; else what kept the step out of the fit (``left_out`` has indexes into ``CAUSES`` by step),
    which comes from the same covariates and from the change at a run's start; else None, not told. What a step of this run waits in
    any case, as for a device, is no cause.
    """
    waits = _waits(columns)
    ordinary = rows[ns < SLOW * expected]
    known = [wait for wait in waits[ordinary].tolist() if not math.isnan(wait)]
    typical_wait = statistics.median(known) if known else 0.0
    found = [
        (float(excess), int(row), float(time), float(typical))
        for row, time, typical, excess in zip(rows, ns, expected, ns - expected, strict=True)
        if typical > 0 and time >= SLOW * typical
    ]
    found.sort(key=lambda one: (-one[0], one[1]))
    return [
        _late(columns, row, time, time / typical, excess, float(waits[row]) - typical_wait, left_out)
        for excess, row, time, typical in found
    ]


def _waits(columns: Mapping[str, Any]) -> Array:
    """Host time of each step that its thread did not compute; NaN where a reading is missing or stands for several steps."""
    host = (np.asarray(columns["end_ns"]) - np.asarray(columns["start_ns"])).astype(float)
    own = np.ma.filled(columns["cpu_ns"].astype(float), np.nan)
    with np.errstate(invalid="ignore"):
        return np.where(own <= host, host - own, np.nan)


def _late(
    columns: Mapping[str, Any],
    row: int,
    ns: float,
    times: float,
    excess: float,
    wait: float,
    left_out: Mapping[int, int],
) -> Late:
    def value(name: str) -> int | None:
        found = np.ma.asarray(columns[name][row : row + 1]).tolist()[0]
        return None if found is None else int(found)

    collected, n_collected = value("gc_ns"), value("gc_count")
    switches = value("switches")
    cause: str | None = None
    why = Message("page_time.why_unknown")
    if collected is not None and collected >= excess / 2:
        cause = "gc"
        why = Message("page_time.why_gc", {"n": n_collected or 0, "ns": duration(collected)})
    elif switches and wait >= excess / 2:  # NaN never is
        cause = "switches"
        why = Message("page_time.why_switches", {"n": switches, "ns": duration(wait)})
    elif row in left_out:
        cause = CAUSES[left_out[row]]
        why = Message(f"page_time.cause_{cause.replace('-', '_')}")
    return Late(row, round(ns), times, cause, why)
