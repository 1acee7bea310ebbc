"""What is known of each generated token, as columns of the page's document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.study.control import overruled
from tokentape.study.served_reads import told_gaps_ns
from tokentape.study.surprise import surprises_nats
from tokentape.study.times import plain_values, token_steps, token_times_ns
from tokentape.views.page.parts import Part
from tokentape.views.page.rounding import short, whole

if TYPE_CHECKING:
    from tokentape.data.trace import Trace

__all__ = ["gaps_ns", "tokens_part"]


def tokens_part(trace: Trace) -> Part:
    """The columns ``Tokens`` of the page's document, one entry a generated token; times in ns, logarithms in nats.

    ``wanted`` is there where another token was overruled, and nowhere else.
    """
    columns = trace.tokens
    start = trace.run.start_ns
    times = token_times_ns(trace)
    parted = overruled(trace)
    wanted = plain_values(columns["wanted"])
    found = trace.candidates
    return {
        "step": token_steps(trace),
        "time_ns": [None if start is None else at - start for at in times],
        "gap_ns": gaps_ns(trace),
        "logprob": short(columns["logprob"]),
        "surprise": short(surprises_nats(trace)),
        "entropy": short(columns["entropy"]),
        "rank": whole(columns["rank"]),
        "rules_logprob": short(columns["rules_logprob"]),
        "forced": [int(bool(flag)) for flag in plain_values(columns["forced"])],
        "wanted": [token if differs else None for token, differs in zip(wanted, parted, strict=True)],
        "allowed": whole(columns["allowed"]),
        "removed": short(columns["removed"]),
        "candidate_ids": _rows(found.ids, int),
        "candidate_logprobs": [short(row, 4) for row in _rows(found.logprob, float)],
    }


def gaps_ns(trace: Trace) -> list[int | None]:
    """Time since the token before; of the first, the time to first token, null where the start is not known.

    Null for text that was given: its tokens were read together, and nobody waited for one; likewise between the tokens of a server
    that came in one read.
    """
    times, start = token_times_ns(trace), trace.run.start_ns
    if not times:
        return []
    if trace.finish_reason == "given":
        return [None] * len(times)
    return [None if start is None else times[0] - start, *told_gaps_ns(trace)]


def _rows(masked: Any, kind: type) -> list[list[Any]]:
    """The rows of a masked array ``[T, k]`` without their masked ends."""
    array = np.ma.asarray(masked)
    if not np.ma.is_masked(array):
        return list(np.ma.getdata(array).tolist())
    return [[kind(value) for value in row if value is not None] for row in array.tolist()]
