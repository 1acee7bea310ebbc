"""The figures of a tape: small pure functions over its rows, and :func:`summary`, which gathers them.

Names and definitions, all on the host clock and all exact integers of nanoseconds:

* **TTFT**, time to first token: end of the step that gave the first token (the prefill) minus the start of the run;
* **token gap**: time between consecutive tokens of one trace. Tokens of one step came at one time: their gap is 0,
  and counts;
* **step time**: end minus start of one step;
* **E2E**: end of the last token minus the start of the run;
* **decode tokens/s**: ``(n - 1) / (last - first)``, the inverse of the mean gap; a batch adds up its sequences;
* **surprise**: ``-logprob`` under the model's own distribution; **perplexity**: ``exp`` of its mean over tokens.

What cannot be told is None.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.study.percentiles import Percentile, percentile

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = [
    "Cause",
    "SlowToken",
    "Summary",
    "SurprisingToken",
    "TraceSummary",
    "cause_of_gap",
    "decode_tokens_per_s",
    "e2e_ns",
    "mean_surprise_nats",
    "peak",
    "run_gaps_ns",
    "run_steps",
    "slowest_token",
    "step_times_ns",
    "summary",
    "surprises_nats",
    "tape_tokens_per_s",
    "token_gaps_ns",
    "token_times_ns",
    "ttft_ns",
]

Columns = Mapping[str, Any]

GAP_PERCENTILES = (50, 95, 99)
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


@dataclass(frozen=True, slots=True)
class SurprisingToken:
    """The token with the lowest log-probability."""

    trace: int
    index: int
    position: int
    surprise_nats: float
    rank: int | None


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """One sequence. ``n_surprise`` is how many of its tokens have a log-probability."""

    number: int
    n_prompt: int | None
    n_tokens: int
    n_overshoot: int
    finish_reason: str | None
    ttft_ns: int | None
    e2e_ns: int | None
    decode_tokens_per_s: float | None
    mean_surprise_nats: float | None
    perplexity: float | None
    n_surprise: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a tape. Times are nanoseconds, rates tokens per second, sizes bytes; None is what cannot be told.

    ``ttft_ns`` has one entry a run. ``gaps`` (as :func:`run_gaps_ns` counts them) and ``step_times`` (of all but the
    prefill) are percentiles over the whole tape; ``n_same_step`` of the gaps are 0 because their tokens came in one
    step. ``n_surprise`` tokens have a log-probability, and ``n_forced`` were given by a rule.
    """

    state: str
    n_runs: int
    n_traces: int
    n_steps: int
    n_tokens: int
    n_forced: int
    n_same_step: int
    ttft_ns: tuple[int | None, ...]
    gaps: tuple[Percentile, ...]
    step_times: tuple[Percentile, ...]
    mean_gap_ns: float | None
    e2e_ns: int | None
    decode_tokens_per_s: float | None
    overall_tokens_per_s: float | None
    mean_surprise_nats: float | None
    mean_surprise_bits: float | None
    perplexity: float | None
    n_surprise: int
    peak_cache_bytes: int | None
    peak_rss_bytes: int | None
    peak_device_bytes: int | None
    slowest: SlowToken | None
    most_surprising: SurprisingToken | None
    traces: tuple[TraceSummary, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return asdict(self)


# of one trace


def token_steps(trace: Trace) -> list[int]:
    """For each token the row, in ``trace.steps``, of the step that gave it."""
    return list(np.searchsorted(np.asarray(trace.steps["index"]), np.asarray(trace.tokens["step"])).tolist())


def token_times_ns(trace: Trace) -> list[int]:
    """For each token the moment at which it was known, since the tape's origin."""
    return list(np.asarray(trace.steps["end_ns"])[token_steps(trace)].tolist()) if len(trace.tokens["step"]) else []


def token_gaps_ns(trace: Trace) -> list[int]:
    """The ``n - 1`` times between consecutive tokens; 0 between tokens of one step."""
    times = token_times_ns(trace)
    return [after - before for before, after in pairwise(times)]


def ttft_ns(trace: Trace) -> int | None:
    """Time to first token: from the start of the run to the end of the step that gave the trace's first token."""
    times = token_times_ns(trace)
    return times[0] - trace.run.start_ns if times and trace.run.start_ns is not None else None


def e2e_ns(trace: Trace) -> int | None:
    """From the start of the run to the trace's last token."""
    times = token_times_ns(trace)
    return times[-1] - trace.run.start_ns if times and trace.run.start_ns is not None else None


def step_times_ns(steps: Columns, kind: int | None = None) -> list[int]:
    """End minus start of each step, or of those of one ``kind`` (an index into ``schema.KINDS``)."""
    times = np.asarray(steps["end_ns"]) - np.asarray(steps["start_ns"])
    return list((times if kind is None else times[np.asarray(steps["kind"]) == kind]).tolist())


def decode_tokens_per_s(traces: Iterable[Trace]) -> float | None:
    """``sum(n - 1) / (last - first)`` over the sequences of one run; None with fewer than two moments."""
    times = [token_times_ns(trace) for trace in traces]
    times = [t for t in times if t]
    if not times:
        return None
    span = max(t[-1] for t in times) - min(t[0] for t in times)
    return sum(len(t) - 1 for t in times) / span * 1e9 if span > 0 else None


def surprises_nats(trace: Trace) -> list[float | None]:
    """``-logprob`` of each token, None where it is not known."""
    return [None if value is None else -float(value) for value in _values(trace.tokens["logprob"])]


def mean_surprise_nats(traces: Iterable[Trace]) -> float | None:
    """Mean of ``-logprob`` over all tokens that have one."""
    known = [s for trace in traces for s in surprises_nats(trace) if s is not None]
    return math.fsum(known) / len(known) if known else None


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
        waits = [ns - cpu for ns, cpu in zip(gaps, spent["cpu_ns"], strict=True) if cpu is not None]
        wait = gap - here["cpu_ns"]
        if wait - statistics.median(waits) >= excess / 2:
            return Cause("switches", here["switches"], wait)
    return None


def _most_surprising(traces: Sequence[Trace]) -> SurprisingToken | None:
    known = [(s, t, i) for t, trace in enumerate(traces) for i, s in enumerate(surprises_nats(trace)) if s is not None]
    if not known:
        return None
    surprise, t, index = max(known, key=lambda item: (item[0], -item[1], -item[2]))
    tokens = traces[t].tokens
    rank = _values(tokens["rank"])[index]
    return SurprisingToken(traces[t].number, index, int(tokens["position"][index]), surprise, rank)


# of a run and of a tape


def run_gaps_ns(traces: Iterable[Trace]) -> list[int]:
    """The token gaps of a run, each counted once.

    The sequences of a batch share their steps, so what is one measurement of time is a gap of each of them: counted once a
    sequence, it would feign a larger sample than there is.
    """
    found: dict[tuple[int, int, int], int] = {}
    for trace in traces:
        seen: Counter[tuple[int, int]] = Counter()
        for steps, ns in zip(pairwise(token_steps(trace)), token_gaps_ns(trace), strict=True):
            found[(*steps, seen[steps])] = ns
            seen[steps] += 1
    return list(found.values())


def runs_of(tape: Tape) -> list[list[Trace]]:
    """The traces of the tape, those of one run together."""
    groups: list[list[Trace]] = []
    for trace in tape.traces:
        if groups and groups[-1][0].run.number == trace.run.number:
            groups[-1].append(trace)
        else:
            groups.append([trace])
    return groups


def run_steps(tape: Tape) -> list[Columns]:
    """The step columns of each run that has a trace."""
    return [group[0].steps for group in runs_of(tape)]


def peak(columns: Iterable[Any]) -> int | None:
    """The largest value in masked arrays, None where all of them are null."""
    known = [int(value) for column in columns for value in _values(column) if value is not None]
    return max(known, default=None)


def summary(tape: Tape) -> Summary:
    """Every figure that the end card shows. Pure: the tape alone decides."""
    groups, steps = runs_of(tape), run_steps(tape)
    traces = [trace for group in groups for trace in group]
    gaps = [ns for group in groups for ns in run_gaps_ns(group)]
    # one forward pass after the prompt; of a served stream, one message
    decode = [ns for columns in steps for kind in (1, 2) for ns in step_times_ns(columns, kind)]
    surprise = mean_surprise_nats(traces)
    ends = [max((ns for t in group if (ns := e2e_ns(t)) is not None), default=None) for group in groups]
    e2e = sum(ns for ns in ends if ns is not None) if ends and None not in ends else None
    n_tokens = sum(len(trace.tokens["step"]) for trace in traces)
    return Summary(
        state=tape.state,
        n_runs=len(tape.runs),
        n_traces=len(traces),
        n_steps=sum(len(columns["index"]) for columns in steps),
        n_tokens=n_tokens,
        n_forced=sum(int(np.sum(trace.tokens["forced"])) for trace in traces if len(trace.tokens["forced"])),
        n_same_step=sum(ns == 0 for ns in gaps),
        ttft_ns=tuple(min((ns for t in group if (ns := ttft_ns(t)) is not None), default=None) for group in groups),
        gaps=tuple(percentile(gaps, q) for q in GAP_PERCENTILES),
        step_times=tuple(percentile(decode, q) for q in GAP_PERCENTILES),
        mean_gap_ns=sum(gaps) / len(gaps) if gaps else None,
        e2e_ns=e2e,
        decode_tokens_per_s=tape_tokens_per_s(tape),
        overall_tokens_per_s=n_tokens / e2e * 1e9 if e2e else None,
        mean_surprise_nats=surprise,
        mean_surprise_bits=None if surprise is None else surprise / math.log(2),
        perplexity=_perplexity(surprise),
        n_surprise=sum(s is not None for trace in traces for s in surprises_nats(trace)),
        peak_cache_bytes=peak(columns["cache_bytes"] for columns in steps),
        peak_rss_bytes=peak(columns["rss_bytes"] for columns in steps),
        peak_device_bytes=peak(columns["device_bytes"] for columns in steps),
        slowest=slowest_token(traces),
        most_surprising=_most_surprising(traces),
        traces=tuple(_trace_summary(trace) for trace in traces),
    )


def _trace_summary(trace: Trace) -> TraceSummary:
    surprise = mean_surprise_nats([trace])
    return TraceSummary(
        number=trace.number,
        n_prompt=trace.n_prompt,
        n_tokens=len(trace.tokens["step"]),
        n_overshoot=len(trace.overshoot["step"]),
        finish_reason=trace.finish_reason,
        ttft_ns=ttft_ns(trace),
        e2e_ns=e2e_ns(trace),
        decode_tokens_per_s=decode_tokens_per_s([trace]),
        mean_surprise_nats=surprise,
        perplexity=_perplexity(surprise),
        n_surprise=sum(s is not None for s in surprises_nats(trace)),
    )


def tape_tokens_per_s(tape: Tape) -> float | None:
    """Decode tokens/s over all runs: their tokens over the sum of their spans."""
    tokens, span = 0, 0
    for group in runs_of(tape):
        times = [t for trace in group if (t := token_times_ns(trace))]
        if times:
            tokens += sum(len(t) - 1 for t in times)
            span += max(t[-1] for t in times) - min(t[0] for t in times)
    return tokens / span * 1e9 if span > 0 else None


def _perplexity(surprise: float | None) -> float | None:
    try:
        return None if surprise is None else math.exp(surprise)
    except OverflowError:  # a surprise of more than 709 nats a token: beyond a float
        return None


def _values(column: Any) -> list[Any]:
    """A masked array as plain Python values, None where masked."""
    return list(np.ma.asarray(column).tolist())


def _between(column: Any, rows: Sequence[int]) -> list[int | None]:
    """For each two consecutive tokens the sum over the steps from one to the other; None where one is null."""
    values = _values(column)
    parts = [values[before + 1 : after + 1] for before, after in pairwise(rows)]
    return [None if None in part else sum(part) for part in parts]
