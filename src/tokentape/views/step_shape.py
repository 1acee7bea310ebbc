"""One step of a run as plain values: what it took, what state it left, and what each sequence got from it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokentape.data.schema import KINDS
from tokentape.errors import UsageError
from tokentape.study.causes import Cause, cause_of_gap
from tokentape.study.times import decode_times_ns, plain_values, token_steps
from tokentape.views.shape import TokenRow, token_rows

if TYPE_CHECKING:
    from tokentape.data.explanation import Explanation
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["GivenToken", "StepRow", "rest_of_mass", "step_row"]


@dataclass(frozen=True, slots=True)
class GivenToken:
    """What a step gave to one sequence. ``cause`` is what explains a long gap before it; ``explanations`` are of this token."""

    trace: int
    row: TokenRow
    data: bytes | None
    cause: Cause | None
    explanations: tuple[Explanation, ...]


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step. Times are nanoseconds on the host's clock but ``device_ns``; None is what was not recorded.

    ``other_ns`` is what forward call, rules and garbage collections leave of ``step_ns``; ``pause_ns`` lies before the step.
    ``median_ns`` is over the ``n_decode`` decode steps of the run. ``dropped`` counts positions that the cache no longer holds.
    """

    run: int
    index: int
    n_steps: int
    kind: str
    n_in: int | None
    n_out: int
    context: int | None
    step_ns: int
    forward_ns: int | None
    rules_ns: int | None
    gc_ns: int | None
    other_ns: int | None
    pause_ns: int | None
    device_ns: int | None
    cpu_ns: int | None
    switches: int | None
    cache_bytes: int | None
    rss_bytes: int | None
    device_bytes: int | None
    dropped: int | None
    median_ns: float | None
    n_decode: int
    tokens: tuple[GivenToken, ...]


def step_row(tape: Tape, index: int, traces: Sequence[Trace]) -> StepRow:
    """Step ``index`` of the run of some traces, and what these got from it; the traces are of one run.

    Raises UsageError where the run has no such step.
    """
    run, steps = traces[0].run, traces[0].steps
    if not 0 <= index < steps.n_rows:
        there = f"steps 0 to {steps.n_rows - 1:,}" if steps.n_rows else "no step"
        raise UsageError(f"no step {index}", why=f"its run has {there}", fix="--step 0")
    values = {name: plain_values(steps[name])[index] for name in steps}
    took = values["end_ns"] - values["start_ns"]
    before = run.start_ns if index == 0 else int(steps["end_ns"][index - 1])
    parts = [values[name] for name in ("forward_ns", "rules_ns", "gc_ns")]
    decode = decode_times_ns(steps)
    return StepRow(
        run=run.number,
        index=index,
        n_steps=steps.n_rows,
        kind=KINDS[values["kind"]],
        step_ns=took,
        # a collection may lie within the forward call, so that the parts overlap and leave nothing
        other_ns=None if parts[0] is None else max(0, took - sum(part or 0 for part in parts)),
        pause_ns=None if before is None else values["start_ns"] - before,
        median_ns=statistics.median(decode) if decode else None,
        n_decode=len(decode),
        tokens=tuple(_given(tape, traces, index)),
        **{name: values[name] for name in _COPIED},
    )


_COPIED = (
    "n_in", "n_out", "context", "forward_ns", "rules_ns", "gc_ns", "device_ns", "cpu_ns", "switches", "cache_bytes",
    "rss_bytes", "device_bytes", "dropped",
)  # fmt: skip


def _given(tape: Tape, traces: Sequence[Trace], index: int) -> Iterable[GivenToken]:
    for trace in traces:
        places = [i for i, step in enumerate(token_steps(trace)) if step == index]
        if not places:
            continue
        rows, data = token_rows(trace, tape), trace.token_bytes
        for place in places:
            position = rows[place].position
            about = (one for one in tape.explanations if one.trace == trace.number and position in one.targets)
            cause = cause_of_gap(trace, place) if place else None
            yield GivenToken(trace.number, rows[place], data[place], cause, tuple(about))


def rest_of_mass(row: TokenRow) -> float | None:
    """The probability that the candidates of a token leave to the rest of the vocabulary; None where there are none."""
    if not row.candidates:
        return None
    return max(0.0, 1.0 - math.fsum(math.exp(candidate.logprob) for candidate in row.candidates))
