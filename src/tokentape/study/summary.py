"""The figures that the end card shows, gathered from a tape by :func:`summary`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.study.answers import VAGUE
from tokentape.study.autocorrelation import effective_n
from tokentape.study.causes import SlowToken, slowest_token
from tokentape.study.percentiles import Percentile, percentile
from tokentape.study.served_reads import is_streamed, mean_token_gap_ns, message_times_ns, run_token_gaps
from tokentape.study.surprise import SurprisingToken, mean_surprise_nats, most_surprising, perplexity, surprises_nats
from tokentape.study.times import (
    decode_times_ns,
    decode_tokens_per_s,
    e2e_ns,
    peak,
    runs_of,
    runs_tokens_per_s,
    ttft_ns,
)

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["Summary", "TraceSummary", "summary"]

GAP_PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """One sequence. ``n_surprise`` is how many of its tokens have a log-probability."""

    number: int
    n_prompt: int | None
    n_tokens: int | None
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
    prefill) are percentiles over the whole tape, told where the samples suffice though neighbours resemble each other;
    ``n_same_step`` of the gaps are 0 because their tokens came in one step. ``n_surprise`` tokens have a log-probability, and
    ``n_forced`` were given by a rule. Of requests to a server gaps are between arrivals, as in
    :mod:`tokentape.study.served_reads`, and ``n_tokens`` and speeds are None where a row need not be a token.
    """

    state: str
    n_runs: int
    n_traces: int
    n_steps: int
    n_tokens: int | None
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


def summary(tape: Tape, groups: Sequence[Sequence[Trace]] | None = None) -> Summary:
    """Every figure that the end card shows. Pure: the tape alone decides; ``groups`` are its runs, where these are known."""
    groups = runs_of(tape) if groups is None else groups
    steps = [group[0].steps for group in groups]
    traces = [trace for group in groups for trace in group]
    streamed = [is_streamed(group) for group in groups]
    found = [run_token_gaps(group) for group in groups]
    gaps = [one.told for one in found]
    decode = [
        message_times_ns(columns) if told else decode_times_ns(columns)
        for columns, told in zip(steps, streamed, strict=True)
    ]
    surprise = mean_surprise_nats(traces)
    ends = [max((ns for t in group if (ns := e2e_ns(t)) is not None), default=None) for group in groups]
    e2e = sum(ns for ns in ends if ns is not None) if ends and None not in ends else None
    counts = [_n_tokens(trace) for trace in traces]
    known = [n for n in counts if n is not None]
    n_tokens = sum(known) if len(known) == len(counts) else None
    return Summary(
        state=tape.state,
        n_runs=len(tape.runs),
        n_traces=len(traces),
        n_steps=sum(len(columns["index"]) for columns in steps),
        n_tokens=n_tokens,
        n_forced=sum(int(np.sum(trace.tokens["forced"])) for trace in traces if len(trace.tokens["forced"])),
        n_same_step=sum(ns == 0 for run in gaps for ns in run),
        ttft_ns=tuple(min((ns for t in group if (ns := ttft_ns(t)) is not None), default=None) for group in groups),
        gaps=_percentiles(gaps),
        step_times=_percentiles(decode),
        mean_gap_ns=mean_token_gap_ns(found),
        e2e_ns=e2e,
        decode_tokens_per_s=None if n_tokens is None else runs_tokens_per_s(groups),
        overall_tokens_per_s=n_tokens / e2e * 1e9 if e2e and n_tokens is not None else None,
        mean_surprise_nats=surprise,
        mean_surprise_bits=None if surprise is None else surprise / math.log(2),
        perplexity=perplexity(surprise),
        n_surprise=sum(s is not None for trace in traces for s in surprises_nats(trace)),
        peak_cache_bytes=peak(columns["cache_bytes"] for columns in steps),
        peak_rss_bytes=peak(columns["rss_bytes"] for columns in steps),
        peak_device_bytes=peak(columns["device_bytes"] for columns in steps),
        slowest=slowest_token(traces),
        most_surprising=most_surprising(traces),
        traces=tuple(_trace_summary(trace) for trace in traces),
    )


def _percentiles(runs: list[list[int]]) -> tuple[Percentile, ...]:
    worth = effective_n(runs)
    return tuple(percentile((ns for run in runs for ns in run), q, worth) for q in GAP_PERCENTILES)


def _n_tokens(trace: Trace) -> int | None:
    """The rows of a trace, where a row is a token."""
    passed = trace.exchange
    if passed is not None and (passed.label is None or passed.label in VAGUE):
        return None
    return trace.tokens.n_rows


def _trace_summary(trace: Trace) -> TraceSummary:
    surprise = mean_surprise_nats([trace])
    return TraceSummary(
        number=trace.number,
        n_prompt=trace.n_prompt,
        n_tokens=_n_tokens(trace),
        n_overshoot=len(trace.overshoot["step"]),
        finish_reason=trace.finish_reason,
        ttft_ns=ttft_ns(trace),
        e2e_ns=e2e_ns(trace),
        decode_tokens_per_s=None if _n_tokens(trace) is None else decode_tokens_per_s([trace]),
        mean_surprise_nats=surprise,
        perplexity=perplexity(surprise),
        n_surprise=sum(s is not None for s in surprises_nats(trace)),
    )
