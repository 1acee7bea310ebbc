"""The metrics of a tape: :func:`metrics` gathers them, in our own definitions or in those of another tool.

The definitions stand where the functions are: times in :mod:`tokentape.study.times`, goodput and fluidity in
:mod:`tokentape.study.slo`, surprise in :mod:`tokentape.study.surprise`, other tools in :mod:`tokentape.study.dialects`. All
times are on the host clock and exact integers of nanoseconds. What cannot be told is None.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, overload

from tokentape.study.answers import Answer, answers, duration_ns, window_ns
from tokentape.study.autocorrelation import effective_n
from tokentape.study.causes import Cause, SlowToken, cause_of_gap, slowest_token
from tokentape.study.dialects import dialect as dialect_named
from tokentape.study.percentiles import Percentile, percentile
from tokentape.study.readings import Reading, read
from tokentape.study.served import flights, is_served
from tokentape.study.served_reads import arrival_gaps_ns, is_streamed, message_times_ns
from tokentape.study.slo import Fluidity, Goodput, Slo, fluidity, goodput
from tokentape.study.summary import Summary, TraceSummary, summary
from tokentape.study.surprise import SurprisingToken, bits_per_byte, mean_surprise_nats, perplexity, surprises_nats
from tokentape.study.times import (
    decode_times_ns,
    decode_tokens_per_s,
    e2e_ns,
    peak,
    run_chunk_gaps_ns,
    run_gaps_ns,
    run_steps,
    runs_of,
    runs_tokens_per_s,
    step_times_ns,
    tape_tokens_per_s,
    token_gaps_ns,
    token_steps,
    token_times_ns,
    ttft_ns,
)

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = [
    "Cause",
    "Metrics",
    "Slo",
    "SlowToken",
    "Spread",
    "Summary",
    "SurprisingToken",
    "TraceSummary",
    "cause_of_gap",
    "decode_tokens_per_s",
    "e2e_ns",
    "mean_surprise_nats",
    "metrics",
    "peak",
    "run_gaps_ns",
    "run_steps",
    "runs_of",
    "slowest_token",
    "spread",
    "step_times_ns",
    "summary",
    "surprises_nats",
    "tape_tokens_per_s",
    "token_gaps_ns",
    "token_steps",
    "token_times_ns",
    "ttft_ns",
]

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class Spread:
    """``n`` values of time in nanoseconds, worth ``n_effective`` independent ones. Percentiles are None where that is too few."""

    n: int
    n_effective: int
    mean: float | None
    min: float | None
    max: float | None
    percentiles: tuple[Percentile, ...]


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of a tape. Each sequence is a request; ``window_ns`` is from the first one's start to the last token or message.

    ``ttft`` and ``mean_gap`` are of every request that has one, ``e2e`` and ``normalised_latency`` of those that ended: of
    ``n_requests``, ``n_failed`` ended in an error and ``n_cut_short`` did not end. Of a batch the requests share their steps,
    so such figures are worth no more independent samples than there are runs. ``token_gap``, ``chunk_gap`` and ``step_time``
    (of all steps but prefills) count each measurement of time once. ``tokens_per_s``, of all tokens, and ``requests_per_s``,
    of the requests that ended, are over the window; ``decode_tokens_per_s`` is over the time from first to last token.
    Where a row of the tape is some tokens, nobody says how many, there are no token gaps, and ``n_tokens`` and what rests on it
    is None unless the server counted, and credibly. Tokens of a served stream that came in one message, or in messages of one
    read, have no gap between them: when each came was not measured. ``goodput`` is None without objectives, ``fluidity`` unless
    they name a TTFT and a gap.
    """

    n_requests: int
    n_failed: int
    n_cut_short: int
    n_tokens: int | None
    window_ns: int | None
    ttft: Spread
    token_gap: Spread
    chunk_gap: Spread
    step_time: Spread
    mean_gap: Spread
    e2e: Spread
    normalised_latency: Spread
    tokens_per_s: float | None
    requests_per_s: float | None
    decode_tokens_per_s: float | None
    mean_surprise_nats: float | None
    perplexity: float | None
    bits_per_byte: float | None
    slo: Slo | None
    goodput: Goodput | None
    fluidity: Fluidity | None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return asdict(self)


@overload
def metrics(tape: Tape, dialect: None = None, slo: Slo | None = None) -> Metrics: ...
@overload
def metrics(tape: Tape, dialect: str, slo: Slo | None = None) -> Reading: ...
def metrics(tape: Tape, dialect: str | None = None, slo: Slo | None = None) -> Metrics | Reading:
    """The metrics of a tape, with ``slo`` also how often it was met; with ``dialect`` those that another tool would give.

    ``dialect`` is a name of ``DIALECTS``: ``"vllm"``, ``"sglang"``, ``"aiperf"``, ``"genai-perf"``, ``"guidellm"``,
    ``"inference-perf"``, ``"mlperf"``. Raises UsageError for any other.
    """
    if dialect is not None:
        return read(answers(tape), dialect_named(dialect), slo, duration_ns=duration_ns(tape, dialect))
    runs = runs_of(tape)
    traces = [trace for run in runs for trace in run]  # kept: of thousands of requests, each is read once
    found, counts = _counted(tape, answers(tape, traces))
    known = {one.trace: one for one in found}
    ended = [one for one in found if one.outcome == "ended"]
    told = [run for run in runs if all(known[trace.number].sizes is not None for trace in run)]
    seen = [run for run in runs if all(known[trace.number].whole for trace in run)]
    window, n_tokens = window_ns(found), _total(found, counts)
    surprise = mean_surprise_nats(traces)
    return Metrics(
        n_requests=len(found),
        n_failed=sum(one.outcome == "failed" for one in found),
        n_cut_short=sum(one.outcome == "cut short" for one in found),
        n_tokens=n_tokens,
        window_ns=window,
        ttft=_of_requests(map(ttft_ns, traces), len(runs)),
        token_gap=spread([arrival_gaps_ns(run) if is_streamed(run) else run_gaps_ns(run) for run in told]),
        chunk_gap=spread([arrival_gaps_ns(run) if is_streamed(run) else run_chunk_gaps_ns(run) for run in seen]),
        step_time=spread([_step_times_ns(run) for run in seen]),
        mean_gap=_of_requests(map(_mean_gap_ns, found), len(runs)),
        e2e=_of_requests(map(_e2e_ns, ended), len(runs)),
        normalised_latency=_of_requests(map(_normalised_ns, ended), len(runs)),
        tokens_per_s=_per_s(n_tokens, window),
        requests_per_s=_per_s(len(ended), window),
        decode_tokens_per_s=runs_tokens_per_s(runs) if len(told) == len(runs) else None,
        mean_surprise_nats=surprise,
        perplexity=perplexity(surprise),
        bits_per_byte=bits_per_byte(traces),
        slo=slo,
        goodput=None if slo is None else goodput(found, slo, window),
        fluidity=None if slo is None else fluidity(found, slo),
    )


def _counted(tape: Tape, found: list[Answer]) -> tuple[list[Answer], Mapping[int, int | None]]:
    """The answers, those of a server with no more tokens than can be told, and the tokens of each trace."""
    counts = {one.trace: one.n_tokens for one in found}
    if not is_served(tape):
        return found, counts
    told = {one.traces[0]: one.n_tokens for one in flights(tape) if len(one.traces) == 1}
    counts |= told
    untold = {number for number, n in told.items() if n is None}
    return [_uncounted(one) if one.trace in untold else one for one in found], counts


def _uncounted(one: Answer) -> Answer:
    messages = tuple(replace(chunk, n_tokens=None) if chunk.n_tokens else chunk for chunk in one.messages)
    return replace(one, n_told=None, messages=messages)


def _total(found: Sequence[Answer], counts: Mapping[int, int | None]) -> int | None:
    """The tokens of all answers, as far as they came; None where those of one that ended are not known."""
    if any(one.outcome == "ended" and counts[one.trace] is None for one in found):
        return None
    known = [n for n in counts.values() if n is not None]
    return sum(known) if known or not found else None


def _step_times_ns(run: Sequence[Trace]) -> list[int]:
    return message_times_ns(run[0].steps) if is_streamed(run) else decode_times_ns(run[0].steps)


def _mean_gap_ns(one: Answer) -> float | None:
    """``(last - first) / (n - 1)``; None with fewer than two tokens or moments, or where their number is not known."""
    n, chunks = one.n_tokens, one.chunks
    apart = len(chunks) < 2 or chunks[-1].at_ns > chunks[0].at_ns  # else all came in one read
    return (chunks[-1].at_ns - chunks[0].at_ns) / (n - 1) if n is not None and n > 1 and chunks and apart else None


def _e2e_ns(one: Answer) -> int | None:
    return one.since_start(one.chunks[-1].at_ns) if one.chunks else None


def _normalised_ns(one: Answer) -> float | None:
    whole = _e2e_ns(one)
    return whole / one.n_tokens if whole is not None and one.n_tokens else None


def spread(series: Iterable[Sequence[float]]) -> Spread:
    """One or several series of times, each in the order of time, as one sample."""
    groups = list(series)
    return _spread([value for group in groups for value in group], effective_n(groups))


def _of_requests(values: Iterable[float | None], n_runs: int) -> Spread:
    """One value a request; requests of one run share its steps."""
    known = [value for value in values if value is not None]
    return _spread(known, min(effective_n([known]), n_runs))


def _spread(values: Sequence[float], worth: int) -> Spread:
    return Spread(
        n=len(values),
        n_effective=worth,
        mean=sum(values) / len(values) if values else None,
        min=min(values, default=None),
        max=max(values, default=None),
        percentiles=tuple(percentile(values, q, worth) for q in PERCENTILES),
    )


def _per_s(n: int | None, ns: int | None) -> float | None:
    return n * 1e9 / ns if ns and n is not None else None
