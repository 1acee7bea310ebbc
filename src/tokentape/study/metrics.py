"""The metrics of a tape: :func:`metrics` gathers them, in our own definitions or in those of another tool.

The definitions stand where the functions are: times in :mod:`tokentape.study.times`, goodput and fluidity in
:mod:`tokentape.study.slo`, surprise in :mod:`tokentape.study.surprise`, other tools in :mod:`tokentape.study.dialects`. All
times are on the host clock and exact integers of nanoseconds. What cannot be told is None.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, overload

from tokentape.errors import StudyError, UsageError
from tokentape.study.answers import Answer, answers, duration_ns, window_ns
from tokentape.study.autocorrelation import effective_n
from tokentape.study.causes import Cause, SlowToken, cause_of_gap, slowest_token
from tokentape.study.dialects import dialect as dialect_named
from tokentape.study.percentiles import Percentile, percentile
from tokentape.study.readings import Reading, read
from tokentape.study.served import flights, from_schedule, is_served, scheduled
from tokentape.study.served_rates import due_of, n_unsent_of, rates_of, was_due
from tokentape.study.served_reads import (
    arrival_gaps_ns,
    is_streamed,
    mean_token_gap_ns,
    message_times_ns,
    run_token_gaps,
)
from tokentape.study.slo import Fluidity, Goodput, Slo, came_apart, fluidity, goodput
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
    "check_since",
    "counted_answers",
    "counted_total",
    "decode_tokens_per_s",
    "e2e_ns",
    "gap_spreads",
    "mean_surprise_nats",
    "metrics",
    "peak",
    "run_gaps_ns",
    "run_steps",
    "runs_of",
    "since_of",
    "slowest_token",
    "spread",
    "step_times_ns",
    "summary",
    "surprises_nats",
    "tape_tokens_per_s",
    "token_gaps_ns",
    "token_steps",
    "token_times_ns",
    "told_apart",
    "ttft_ns",
]

PERCENTILES = (50, 90, 95, 99)
SINCE = ("start", "due")
"""The moments from which a request can be judged: when it was sent, and when it was due."""


@dataclass(frozen=True, slots=True)
class Spread:
    """``n`` values of time in nanoseconds, worth ``n_effective`` independent ones. Percentiles are None where that is too few.

    ``n_untold`` more are not measured: they are in the mean, which is of the time that all of them took, and in nothing else.
    """

    n: int
    n_effective: int
    mean: float | None
    min: float | None
    max: float | None
    percentiles: tuple[Percentile, ...]
    n_untold: int = 0


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of a tape. Each sequence is a request; ``window_ns`` is from the first one's start to the last token or message.

    ``ttft`` and ``mean_gap`` are of every request that has one, ``e2e`` and ``normalised_latency`` of those that ended: of
    ``n_requests``, ``n_failed`` ended in an error and ``n_cut_short`` did not end. Of a batch the requests share their steps,
    so such figures are worth no more independent samples than there are runs. ``token_gap``, ``chunk_gap`` and ``step_time``
    (of all steps but prefills) count each measurement of time once. ``tokens_per_s``, of all tokens, and ``requests_per_s``,
    of the requests that ended, are over the window; ``decode_tokens_per_s`` is over the time from first to last token.
    Where a row of the tape is some tokens, nobody says how many, there are no token gaps, and ``n_tokens`` and what rests on it
    is None unless the server counted, and credibly. Of a served stream a token gap is measured where the token came alone, and
    ``n_untold`` others are not (:mod:`tokentape.study.served_reads`); a chunk gap is one between arrivals.
    ``goodput`` is None without objectives, ``fluidity`` unless they name a TTFT and a gap.

    ``since`` is ``"start"``, or ``"due"`` where ``ttft``, ``e2e``, ``normalised_latency``, ``goodput`` and ``fluidity`` count from
    when requests were due: of the ``n_scheduled`` that were, while the others were due when they were sent. Then ``goodput`` is of
    requests, not of attempts, with those that were never sent among the misses, and it and ``requests_per_s`` are over
    ``schedule_ns``, the window of :mod:`tokentape.study.served_rates`; None else.
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
    since: str = "start"
    n_scheduled: int = 0
    schedule_ns: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return asdict(self)


@overload
def metrics(tape: Tape, dialect: None = None, slo: Slo | None = None, *, since: str | None = None) -> Metrics: ...
@overload
def metrics(tape: Tape, dialect: str, slo: Slo | None = None, *, since: str | None = None) -> Reading: ...
def metrics(
    tape: Tape, dialect: str | None = None, slo: Slo | None = None, *, since: str | None = None
) -> Metrics | Reading:
    """The metrics of a tape, with ``slo`` also how often it was met; with ``dialect`` those that another tool would give.

    ``dialect`` is a name of ``DIALECTS``: ``"vllm"``, ``"sglang"``, ``"aiperf"``, ``"genai-perf"``, ``"guidellm"``,
    ``"inference-perf"``, ``"mlperf"``. ``since="due"`` judges the requests of an open loop from when they were due instead of from
    when they were sent: what a user waited before that is in it. Where nothing is said, objectives of a tape of which requests were
    due are judged from there, and everything else from sending. Raises UsageError for any other name, and for a dialect from
    another moment than its own; StudyError for a tape of which no request was due.
    """
    since = since_of(tape, since, promised=slo is not None and dialect is None)
    check_since(tape, since, dialect)
    if dialect is not None:
        return read(answers(tape), dialect_named(dialect), slo, duration_ns=duration_ns(tape, dialect))
    runs = runs_of(tape)
    traces = [trace for run in runs for trace in run]  # kept: of thousands of requests, each is read once
    found, counts = counted_answers(tape, traces)
    due = scheduled(tape.exchanges)
    judged = promised = found
    n_unsent, rates = 0, None
    if since == "due":
        judged, promised = from_schedule(found, tape.exchanges), due_of(found, tape.exchanges)
        n_unsent, rates = n_unsent_of(tape), rates_of(tape, found)
    ended = [one for one in judged if one.outcome == "ended"]
    told, seen = told_apart(runs, found)
    token_gaps, chunk_gaps = gap_spreads(told, seen)
    window, n_tokens = window_ns(found), counted_total(found, counts)
    kept_over, per_s = (window, _per_s(len(ended), window)) if rates is None else (rates.window_ns, rates.ended_per_s)
    surprise = mean_surprise_nats(traces)
    return Metrics(
        n_requests=len(found),
        n_failed=sum(one.outcome == "failed" for one in found),
        n_cut_short=sum(one.outcome == "cut short" for one in found),
        n_tokens=n_tokens,
        window_ns=window,
        ttft=_of_requests((one.ttft_ns for one in judged), len(runs)),
        token_gap=token_gaps,
        chunk_gap=chunk_gaps,
        step_time=spread([_step_times_ns(run) for run in seen]),
        mean_gap=_of_requests(map(_mean_gap_ns, found), len(runs)),
        e2e=_of_requests((one.e2e_ns for one in ended), len(runs)),
        normalised_latency=_of_requests(map(_normalised_ns, ended), len(runs)),
        tokens_per_s=_per_s(n_tokens, window),
        requests_per_s=per_s,
        decode_tokens_per_s=runs_tokens_per_s(runs) if len(told) == len(runs) else None,
        mean_surprise_nats=surprise,
        perplexity=perplexity(surprise),
        bits_per_byte=bits_per_byte(traces),
        slo=slo,
        goodput=None if slo is None else goodput(promised, slo, kept_over, n_unsent),
        fluidity=None if slo is None else fluidity(judged, slo),
        since=since,
        n_scheduled=sum(one.run in due for one in found),
        schedule_ns=None if rates is None else rates.window_ns,
    )


def since_of(tape: Tape, asked: str | None, *, promised: bool) -> str:
    """The moment from which requests are judged where none is named: from when they were due where objectives are asked of it."""
    return asked or ("due" if promised and was_due(tape) else "start")


def check_since(tape: Tape, since: str, dialect: str | None = None) -> None:
    """Raise what :func:`metrics` would, where the requests of a tape cannot be judged from a moment."""
    if since not in SINCE:
        raise UsageError(
            f"since={since!r}", why="a request is judged from one of two moments", fix=f"one of {', '.join(SINCE)}"
        )
    if since == "start":
        return
    if dialect is not None:
        raise UsageError(
            f"{dialect} from when requests were due",
            why="another tool's figures count from the moment that it counts from",
            fix="leave out --dialect for our own metrics, or --from due",
        )
    if not scheduled(tape.exchanges):
        raise StudyError(
            f"no request was due at a moment of its own: {tape.path or 'the tape in memory'}",
            why="each was sent as soon as it could be, so that there is no other moment to count from",
            fix="leave out --from due; an open loop has one: tokentape record --endpoint URL --rate R",
        )


def told_apart(
    runs: Sequence[Sequence[Trace]], found: Sequence[Answer]
) -> tuple[list[Sequence[Trace]], list[Sequence[Trace]]]:
    """The runs of which every token is told apart, and those of which every message is known."""
    known = {one.trace: one for one in found}
    told = [run for run in runs if all(known[trace.number].sizes is not None for trace in run)]
    return told, [run for run in runs if all(known[trace.number].whole for trace in run)]


def gap_spreads(told: Sequence[Sequence[Trace]], seen: Sequence[Sequence[Trace]]) -> tuple[Spread, Spread]:
    """The token gaps of runs ``told`` and the chunk gaps of runs ``seen`` (:func:`told_apart`), each measurement of time once."""
    gaps = [run_token_gaps(run) for run in told]
    measured = spread([one.told for one in gaps])
    return (
        replace(measured, mean=mean_token_gap_ns(gaps), n_untold=sum(one.n_untold for one in gaps)),
        spread([arrival_gaps_ns(run) if is_streamed(run) else run_chunk_gaps_ns(run) for run in seen]),
    )


def counted_answers(tape: Tape, traces: Sequence[Trace]) -> tuple[list[Answer], Mapping[int, int | None]]:
    """All traces of a tape as answers, those of a server with no more tokens than can be told, and the tokens of each trace."""
    found = answers(tape, traces)
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


def counted_total(found: Sequence[Answer], counts: Mapping[int, int | None]) -> int | None:
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
    apart = came_apart(one)
    return (chunks[-1].at_ns - chunks[0].at_ns) / (n - 1) if n is not None and n > 1 and chunks and apart else None


def _normalised_ns(one: Answer) -> float | None:
    whole = one.e2e_ns
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
