"""The figures of a tape of requests to a server, gathered by :func:`served_summary`: what its end card and its page show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tokentape.study.answers import CUT_SHORT, FAILED, VAGUE, is_placed
from tokentape.study.autocorrelation import effective_n
from tokentape.study.percentiles import Percentile, percentile
from tokentape.study.served import Flight, flights, most_in_flight
from tokentape.study.served_reads import (
    arrival_gaps_ns,
    arrivals,
    ends_of,
    n_shared_reads,
    n_sharing,
    not_alone,
    token_gaps,
)

if TYPE_CHECKING:
    from tokentape.data.exchange import Exchange
    from tokentape.data.tape import Tape

__all__ = ["ServedSummary", "is_answered", "label_reason", "mostly_failed", "served_summary"]

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class ServedSummary:
    """How the requests of a tape went. Times are nanoseconds, rates per second; None is what cannot be told.

    ``labels`` count the requests by what is told of their tokens (None: no chunk came); ``label_reasons`` are the words that say
    most often why it is not more, by label. ``faults`` count those that something was wrong with, ``statuses`` the failed ones by
    what the server answered instead of 2xx; ``said`` are the words that most of these ended with. ``n_failed`` ended in an error,
    ``n_open`` were interrupted or are under way. ``n_tokens`` is None where those of a request that was answered are not known.
    Times are counted from sending the request, and those ``_scheduled`` from when it was due; they are of all requests that have
    them. ``e2e``, to the last token, and ``answer_time``, to the end of the stream, are of those that were answered. Of
    ``n_messages`` the ``n_sharing`` came in one read with another or with the end of the answer, in ``n_shared_reads`` in all:
    when, only the read tells. Gaps are those before tokens that came alone, each measurement once; ``n_gaps_untold`` more are not
    measured (:mod:`tokentape.study.served_reads`); ``gap_ends_ns`` are the least and the greatest. ``chunk_gaps`` are all those
    between the arrivals of the same requests.
    ``late`` is how late requests were sent, ``read_lag`` how long bytes waited to be read. ``window_ns`` is from the first request
    to the end of the last answer; like ``most_in_flight`` and the rates it is None where it is not known when requests were sent
    beside one another.
    """

    n_requests: int
    n_failed: int
    n_open: int
    n_retries: int
    n_messages: int
    n_sharing: int
    n_shared_reads: int
    most_in_flight: int | None
    n_tokens: int | None
    labels: Mapping[str | None, int]
    label_reasons: Mapping[str, str]
    faults: Mapping[str, int]
    stamps: Mapping[str, int]
    statuses: Mapping[int, int]
    said: str | None
    ttft: tuple[Percentile, ...]
    ttft_scheduled: tuple[Percentile, ...]
    e2e: tuple[Percentile, ...]
    answer_time: tuple[Percentile, ...]
    gaps: tuple[Percentile, ...]
    n_gaps_untold: int
    gap_ends_ns: tuple[int, ...]
    chunk_gaps: tuple[Percentile, ...]
    connecting: tuple[Percentile, ...]
    late: tuple[Percentile, ...]
    read_lag: tuple[Percentile, ...]
    window_ns: int | None
    requests_per_s: float | None
    tokens_per_s: float | None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values for JSON; a label that there is none of is ``"none"``."""
        counts = ("faults", "stamps", "statuses", "label_reasons")  # asdict makes pairs of a Counter's keys
        plain = asdict(replace(self, labels={}, label_reasons={}, faults={}, stamps={}, statuses={}))
        labels = {name or "none": n for name, n in self.labels.items()}
        return {**plain, "labels": labels, **{name: dict(getattr(self, name)) for name in counts}}


def is_answered(one: Flight) -> bool:
    """Whether a request came to its end without an error."""
    return one.finish not in (*FAILED, *CUT_SHORT)


def mostly_failed(figures: ServedSummary) -> bool:
    """Whether more than half of the requests ended in an error: then that is what there is to say of them."""
    return 2 * figures.n_failed > figures.n_requests


def served_summary(tape: Tape, found: Sequence[Flight] | None = None) -> ServedSummary:
    """The figures of a tape whose runs are requests. Pure: the tape alone decides."""
    found = flights(tape) if found is None else found
    passed = tape.exchanges
    answered = [one for one in found if is_answered(one)]
    failed = [passed[one.run] for one in found if one.finish in FAILED and one.run in passed]
    words = Counter(one.error for one in failed if one.error)
    placed = is_placed(tape)
    window = _window_ns(found) if placed else None
    gaps, chunk_gaps, n_untold = _gaps(tape, found)
    ends = ends_of(passed)
    every = [ns for some in gaps for ns in some]
    known = [one.n_tokens for one in found if one.n_tokens is not None]
    n_tokens = None if any(one.n_tokens is None for one in answered) or not known else sum(known)
    return ServedSummary(
        n_requests=len(found),
        n_failed=sum(one.finish in FAILED for one in found),
        n_open=sum(one.finish in CUT_SHORT for one in found),
        n_retries=sum(one.retry_of is not None for one in passed.values()),
        n_messages=len(tape.columns("step")["run"]),
        n_sharing=n_sharing(tape.columns("step"), ends),
        n_shared_reads=n_shared_reads(tape.columns("step"), ends),
        most_in_flight=most_in_flight(found) if placed else None,
        n_tokens=n_tokens,
        labels=Counter(one.label for one in found if one.run in passed),
        label_reasons=_label_reasons(passed.values()),
        faults=Counter(one.fault for one in found if one.fault is not None),
        stamps=Counter(one.stamps for one in passed.values() if one.stamps is not None),
        statuses=Counter(one.status for one in failed if one.status is not None and not 200 <= one.status < 300),
        said=words.most_common(1)[0][0] if words else None,
        ttft=_of_requests(one.ttft_ns for one in found),
        ttft_scheduled=_of_requests(one.ttft_scheduled_ns for one in found),
        e2e=_of_requests(one.e2e_ns for one in answered),
        answer_time=_of_requests(one.answer_time_ns for one in answered),
        gaps=_percentiles(gaps),
        n_gaps_untold=n_untold,
        gap_ends_ns=(min(every), max(every)) if every else (),
        chunk_gaps=_percentiles(chunk_gaps),
        connecting=_of_requests(one.connecting_ns for one in found),
        late=_of_requests(one.schedule_delay_ns for one in found),
        read_lag=_percentiles([_read_lags(tape)]),
        window_ns=window,
        requests_per_s=_per_s(len(answered), window),
        tokens_per_s=_per_s(n_tokens, window),
    )


def label_reason(passed: Exchange) -> str | None:
    """Why the tokens of a request are told no better than its label says, in English; None where nobody said."""
    reason = (passed.server or {}).get("label_reason")
    return reason if isinstance(reason, str) and reason and passed.label is not None else None


def _label_reasons(passed: Iterable[Exchange]) -> dict[str, str]:
    counts: dict[str, Counter[str]] = {}
    for one in passed:
        if (reason := label_reason(one)) is not None:
            counts.setdefault(str(one.label), Counter())[reason] += 1
    return {label: found.most_common(1)[0][0] for label, found in counts.items()}


def _window_ns(found: Sequence[Flight]) -> int | None:
    starts = [one.sent_ns for one in found if one.sent_ns is not None]
    ends = [end for one in found if (end := one.ended_ns or one.last_ns) is not None]
    return max(ends) - min(starts) if starts and ends else None


def _of_requests(values: Iterable[int | None]) -> tuple[Percentile, ...]:
    return _percentiles([[value for value in values if value is not None]])


def _percentiles(groups: Sequence[Sequence[int]]) -> tuple[Percentile, ...]:
    worth = effective_n(groups)
    together = [value for group in groups for value in group]
    return tuple(percentile(together, q, worth) for q in PERCENTILES)


def _gaps(tape: Tape, found: Sequence[Flight]) -> tuple[list[list[int]], list[list[int]], int]:
    """The token gaps that are measured of each request whose tokens are told apart, its chunk gaps, and how many token gaps more
    there are in all.

    What :mod:`tokentape.study.served_reads` finds of each, for requests of one answer from whole columns.
    """
    lone = [one.traces[0] for one in found if len(one.traces) == 1 and one.label not in VAGUE]
    several = [[tape.traces[i] for i in one.traces] for one in found if len(one.traces) > 1 and one.label not in VAGUE]
    of_several = [token_gaps(traces) for traces in several]
    gaps, n_untold = [one.told for one in of_several], sum(one.n_untold for one in of_several)
    chunk_gaps = [arrival_gaps_ns(traces) for traces in several]
    steps, tokens = tape.columns("step"), tape.columns("token")
    run_of = np.array([trace.run.number for trace in tape.traces], np.int64)
    kept = np.asarray(tokens["overshoot"]) == 0
    trace, step = np.asarray(tokens["trace"])[kept], np.asarray(tokens["step"])[kept]
    ours = np.isin(trace, lone)
    trace, step = trace[ours], step[ours]
    if not len(trace):
        return gaps, chunk_gaps, n_untold
    row = np.searchsorted(np.asarray(steps["run"]), run_of)[trace] + step  # a run's steps count from 0
    at, arrival = np.asarray(steps["end_ns"])[row], arrivals(steps)[row]
    begins = np.flatnonzero(np.concatenate([[True], (trace[1:] != trace[:-1]) | (arrival[1:] != arrival[:-1])]))
    owner, sizes, spans = trace[begins], np.diff(np.append(begins, len(trace))), np.diff(at[begins], prepend=0)
    later = np.concatenate([[False], owner[1:] == owner[:-1]])
    alone = later & (sizes == 1) & ~not_alone(steps, ends_of(tape.exchanges))[arrival[begins]]
    n_untold += len(trace) - len(np.unique(trace)) - int(alone.sum())
    return gaps + _by_owner(owner[alone], spans[alone]), chunk_gaps + _by_owner(owner[later], spans[later]), n_untold


def _by_owner(owner: npt.NDArray[np.int64], spans: npt.NDArray[np.int64]) -> list[list[int]]:
    pairs = zip(owner.tolist(), spans.tolist(), strict=True)
    return [[ns for _, ns in some] for _, some in groupby(pairs, lambda pair: pair[0])]


def _read_lags(tape: Tape) -> list[int]:
    steps = tape.columns("step")
    return [int(lag) for lag in (steps["read_ns"] - steps["end_ns"]).compressed().tolist()]


def _per_s(n: int | None, ns: int | None) -> float | None:
    return None if n is None or not ns else n * 1e9 / ns
