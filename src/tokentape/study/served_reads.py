"""Messages of a served stream that came in one read of the socket: their order is known, their moments are not.

A read returns all bytes that are there, and one stamp: that of the last of them. So the messages of one read are one *arrival*, of
as many tokens as they have together. What lies between its tokens was not measured: it is no zero, and no gap is told there, as
little as between the tokens of one message.

Nor is the gap before an arrival of several tokens one of its first token: it is the time in which all of them came, and told as a
gap of one it would make the others seem slower than they are. So a token gap is measured only before a token that came alone:
without another of its sequence, without a message behind it that has none, and without the end of the answer, whose stamp it would
have. The others are *untold*: they enter no percentile, and their number is said. Together they took as long as the answer, so the
mean is of all gaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tokentape.data.schema import KINDS
from tokentape.study.times import run_gaps_ns, token_gaps_ns, token_steps

if TYPE_CHECKING:
    from tokentape.data.exchange import Exchange
    from tokentape.data.trace import Trace

__all__ = [
    "TokenGaps",
    "arrival_gaps_ns",
    "arrivals",
    "end_of",
    "ends_of",
    "is_streamed",
    "leaves_out_many",
    "mean_token_gap_ns",
    "message_times_ns",
    "n_shared_reads",
    "n_sharing",
    "not_alone",
    "run_token_gaps",
    "token_gaps",
    "told_gaps_ns",
]

Rows = npt.NDArray[np.int64]
Ends = Mapping[int, int] | int | None
"""When the answers were over: of one run, or of each of several."""

MANY_UNTOLD = 0.05
"""The part of the token gaps that may be untold before that says something of the others."""


class TokenGaps(NamedTuple):
    """Token gaps of a run, in nanoseconds: those that are measured, in the order of time and each measurement once; how many more
    there are; and how long how many took in all, of the sequences that have two moments.
    """

    told: list[int]
    n_untold: int
    total_ns: int
    n_all: int

    @classmethod
    def whole(cls, gaps: list[int]) -> TokenGaps:
        """Gaps all of which are measured."""
        return cls(gaps, 0, sum(gaps), len(gaps))


def arrivals(steps: Mapping[str, Any]) -> Rows:
    """For each step the number of its arrival; steps of one run that were read at one moment have the same.

    ``steps`` are those of one run, or of a whole tape with its column ``run``. A step of which no read is known is an arrival of
    its own.
    """
    read = steps["read_ns"]
    known, at = ~np.ma.getmaskarray(read), np.ma.filled(read, 0)
    if not len(at):
        return np.zeros(0, np.int64)
    together = known[1:] & known[:-1] & (at[1:] == at[:-1])
    if "run" in steps:
        owner = np.asarray(steps["run"])
        together &= owner[1:] == owner[:-1]
    return np.concatenate([[0], np.cumsum(~together)]).astype(np.int64)


def end_of(passed: Exchange | None) -> int | None:
    """When an answer that came as a stream was over."""
    return passed.ended_ns if passed is not None and passed.streamed else None


def ends_of(exchanges: Mapping[int, Exchange]) -> dict[int, int]:
    """The same of each run that has one, by its number."""
    return {run: end for run, one in exchanges.items() if (end := end_of(one)) is not None}


def _with_end(steps: Mapping[str, Any], ends: Ends) -> npt.NDArray[np.bool_]:
    """For each step whether the end of its answer has the same stamp: both came in one read."""
    if not ends:
        return np.zeros(len(steps["read_ns"]), bool)
    at = np.asarray(steps["end_ns"])
    if isinstance(ends, int):
        over = np.full(len(at), ends)
    else:
        runs, place = np.unique(np.asarray(steps["run"]), return_inverse=True)
        over = np.array([ends.get(int(run), -1) for run in runs], np.int64)[place]
    found: npt.NDArray[np.bool_] = ~np.ma.getmaskarray(steps["read_ns"]) & (at == over)
    return found


def _shared(steps: Mapping[str, Any], ends: Ends) -> tuple[Rows, npt.NDArray[np.bool_]]:
    """The messages of each arrival, and whether they share it with one another or with the end of the answer."""
    of = arrivals(steps)
    sizes = np.bincount(of)
    shared = sizes > 1
    shared[of[_with_end(steps, ends)]] = True
    return sizes, shared


def n_sharing(steps: Mapping[str, Any], ends: Ends = None) -> int:
    """How many messages came in one read with another, or with the end of their answer (``ends``)."""
    sizes, shared = _shared(steps, ends)
    return int(sizes[shared].sum())


def n_shared_reads(steps: Mapping[str, Any], ends: Ends = None) -> int:
    """How many reads brought more than one message. Of the messages that shared one, so many have a moment of their own."""
    return int(_shared(steps, ends)[1].sum())


def not_alone(steps: Mapping[str, Any], ends: Ends = None) -> npt.NDArray[np.bool_]:
    """For each arrival whether a message without a token, or the end of the answer, came with it: then its stamp may be theirs."""
    of = arrivals(steps)
    found = np.bincount(of, np.asarray(steps["n_out"]) == 0, minlength=int(of[-1]) + 1 if len(of) else 0) > 0
    found[of[_with_end(steps, ends)]] = True
    return found


def is_streamed(traces: Sequence[Trace]) -> bool:
    """Whether the steps of a run are messages of a server."""
    return bool(traces) and (traces[0].exchange is not None or np.ma.count(traces[0].steps["read_ns"]) > 0)


def arrival_gaps_ns(traces: Iterable[Trace]) -> list[int]:
    """The times between consecutive arrivals that gave a trace of one run tokens, each counted once, in the order of time."""
    found: dict[tuple[int, int], int] = {}
    for trace in traces:
        of, ends = arrivals(trace.steps), np.asarray(trace.steps["end_ns"])
        last = {int(of[row]): int(ends[row]) for row in sorted(set(token_steps(trace)))}
        for before, after in pairwise(last):
            found[after, before] = last[after] - last[before]
    return [found[key] for key in sorted(found)]


def token_gaps(traces: Sequence[Trace]) -> TokenGaps:
    """The token gaps of the traces of one run that a server answered."""
    told: dict[tuple[int, int], int] = {}
    n_untold = total = n_all = 0
    for trace in traces:
        rows, steps = token_steps(trace), trace.steps
        if len(rows) < 2:
            continue
        with_others = not_alone(steps, end_of(trace.exchange))
        of, sizes = np.unique(arrivals(steps)[rows], return_counts=True)
        at = np.asarray(steps["end_ns"])[rows][np.cumsum(sizes) - 1]
        alone = ((sizes == 1) & ~with_others[of])[1:]
        spans = np.diff(at)
        told |= {(int(of[i + 1]), int(of[i])): int(spans[i]) for i in np.flatnonzero(alone)}
        n_untold += len(rows) - 1 - int(alone.sum())
        if len(of) > 1:
            total += int(at[-1] - at[0])
            n_all += len(rows) - 1
    return TokenGaps([told[key] for key in sorted(told)], n_untold, total, n_all)


def run_token_gaps(traces: Sequence[Trace]) -> TokenGaps:
    """The token gaps of the traces of one run, whoever answered it: where no server did, all of them are measured."""
    return token_gaps(traces) if is_streamed(traces) else TokenGaps.whole(run_gaps_ns(traces))


def leaves_out_many(n: int, n_untold: int) -> bool:
    """Whether so many gaps are untold beside ``n`` that are told that those between arrivals should be told too."""
    return n_untold > MANY_UNTOLD * (n + n_untold)


def mean_token_gap_ns(found: Sequence[TokenGaps]) -> float | None:
    """The mean of all token gaps, measured or not: the time that they took together over their number."""
    if not any(one.n_untold for one in found):
        told = [ns for one in found for ns in one.told]
        return sum(told) / len(told) if told else None
    n = sum(one.n_all for one in found)
    return sum(one.total_ns for one in found) / n if n else None


def message_times_ns(steps: Mapping[str, Any]) -> list[int]:
    """End minus start of each message, but of those of one read only of the first: the others have no time of their own."""
    of = arrivals(steps)
    first = np.concatenate([[True], of[1:] != of[:-1]]) if len(of) else np.zeros(0, bool)
    times = np.asarray(steps["end_ns"]) - np.asarray(steps["start_ns"])
    return list(times[first & (np.asarray(steps["kind"]) != KINDS.index("prefill"))].tolist())


def told_gaps_ns(trace: Trace) -> list[int | None]:
    """The token gaps of a trace; of a served one None between tokens of one arrival, whose moments are not told apart."""
    gaps: list[int | None] = list(token_gaps_ns(trace))
    if not gaps or not is_streamed([trace]):
        return gaps
    of = arrivals(trace.steps)[token_steps(trace)]
    return [None if same else gap for gap, same in zip(gaps, (of[1:] == of[:-1]).tolist(), strict=True)]
