"""Messages of a served stream that came in one read of the socket: their order is known, their moments are not.

A read returns all bytes that are there, and one stamp: that of the last of them. So the messages of one read are one *arrival*, of
as many tokens as they have together. What lies between its tokens was not measured: it is no zero, and no gap is told there, as
little as between the tokens of one message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tokentape.data.schema import KINDS
from tokentape.study.times import token_gaps_ns, token_steps

if TYPE_CHECKING:
    from tokentape.data.trace import Trace

__all__ = ["arrival_gaps_ns", "arrivals", "is_streamed", "message_times_ns", "n_sharing", "told_gaps_ns"]

Rows = npt.NDArray[np.int64]


def arrivals(steps: Mapping[str, Any]) -> Rows:
    """For each step the number of its arrival; steps of one run that were read at one moment have the same.

    ``steps`` are those of one run, or of a whole tape with its column ``run``. A step of which no read is known is an arrival of
    its own.
    """
    read = np.ma.asarray(steps["read_ns"])
    known, at = ~np.ma.getmaskarray(read), np.ma.filled(read, 0)
    if not len(at):
        return np.zeros(0, np.int64)
    together = known[1:] & known[:-1] & (at[1:] == at[:-1])
    if "run" in steps:
        owner = np.asarray(steps["run"])
        together &= owner[1:] == owner[:-1]
    return np.concatenate([[0], np.cumsum(~together)]).astype(np.int64)


def n_sharing(steps: Mapping[str, Any]) -> int:
    """How many messages came in one read with another."""
    sizes = np.bincount(arrivals(steps))
    return int(sizes[sizes > 1].sum())


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
