"""The steps of the runs, as columns of the page's document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokentape.study.times import plain_values
from tokentape.views.page.parts import Part
from tokentape.views.page.rounding import whole

if TYPE_CHECKING:
    from tokentape.data.trace import Trace

__all__ = ["run_part"]

_AS_RECORDED = (
    "kind",
    "context",
    "batch",
    "device_ns",
    "forward_ns",
    "rules_ns",
    "gc_ns",
    "switches",
    "cache_bytes",
    "rss_bytes",
    "device_bytes",
)


def run_part(trace: Trace) -> Part:
    """The columns ``Run`` of the run that a trace was part of, one entry a step; times in ns, sizes in bytes.

    ``start_ns`` counts from the start of the run (from its first step, where that start is not known); ``pause_ns`` is the time
    from the end of the step before, or the start of the run, to the start of the step.
    """
    steps = trace.steps
    starts, ends = plain_values(steps["start_ns"]), plain_values(steps["end_ns"])
    origin = trace.run.start_ns if trace.run.start_ns is not None else starts[0] if starts else 0
    before = [trace.run.start_ns, *ends]
    return {
        "number": trace.run.number,
        **{name: whole(steps[name]) for name in _AS_RECORDED},
        "start_ns": [start - origin for start in starts],
        "step_ns": [end - start for start, end in zip(starts, ends, strict=True)],
        "pause_ns": [None if end is None else start - end for start, end in zip(starts, before, strict=False)],
    }
