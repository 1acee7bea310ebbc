"""Whether a server fell behind: requests came faster than it ended them, as long as they came.

A queue that is asked for ``1 + g`` times what it can do lets each request wait longer than the one before: the time to first token,
since a request was due, grows by ``g`` seconds in each second of the load. Of a queue that is asked for what it can do and no more,
chance alone lets it grow by some ``sqrt((a + s) / n)`` of the whole load of ``n`` requests, ``a`` and ``s`` being the squared
coefficients of variation of the gaps between arrivals and of the times of service (a random walk with reflection). So the server
fell behind where

* from the first tenth of the requests to the last (medians, five requests at least) that time grew by more than 3 % of the load's
  length, by more than 0.9 of that error (more of fewer than 60 requests), and by more than twice the error of two medians whose
  values differ among themselves, as those of unlike prompts do;
* and fewer requests ended than were due, as long as they were due;

or where 5 % or more were never sent, since there was no room for them until the time was over.

One moment at which few waited acquits nobody, and one long wait convicts nobody. Of M/D/k queues with Poisson arrivals at 50-80 %
of what they can do fewer than 5 % are told to fall behind, of those asked for 120 % fewer than 5 % are missed, in loads of 60
requests and more (``tests/load/test_backlog.py``). The 120 % are what really came: the time in which 60 requests come at random
moments varies by 13 % itself.

Sources: J. F. C. Kingman, "The heavy traffic approximation in the theory of queues", 1965 (both variations add up); W. Whitt,
"Planning queueing simulations", Management Science 35(11), 1989.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

__all__ = ["Passed", "backlog_of"]

FEW, ENOUGH = 20, 60
TENTH_LEAST = 5
GROWTH_LEAST = 0.03
CHANCE = 0.9
UNLIKE = 2.0
UNSENT_SHARE, UNSENT_LEAST = 0.05, 5
_MEDIAN = math.sqrt(math.pi / 2)
"""The error of a median over that of a mean, of normal values."""


class Passed(NamedTuple):
    """A request: when it was due, when it was over (None: never sent), and how long after it was due its first token came."""

    due_ns: int
    ended_ns: int | None
    ttft_ns: int | None


def backlog_of(passed: Sequence[Passed], n_unsent: int = 0) -> dict[str, Any] | None:
    """Whether a server fell behind, by the rules above, as plain values; None for fewer than 20 requests, or all due at once.

    ``growth`` is by how many seconds the time to first token grew in each second, ``growth_limit`` how much of that chance may do;
    both None where too few had a first token; ``span_ns`` is from the first due to the last. ``in_system`` were due and not ended
    at the end of each quarter, ``ttft_from_due_ns`` are the medians of the second and the last quarter. ``n_unsent`` were due too,
    at the end, and there was no room for them. Times are nanoseconds of any one clock.
    """
    due = sorted(one.due_ns for one in passed)
    if len(due) < FEW or due[0] == due[-1]:
        return None
    first, span = due[0], due[-1] - due[0]
    ends = sorted(one.ended_ns for one in passed if one.ended_ns is not None)
    marks = [first + span * quarter // 4 for quarter in range(1, 5)]
    inside = [bisect.bisect_right(due, at) - bisect.bisect_right(ends, at) for at in marks]
    inside[-1] += n_unsent
    n, n_ended = len(due) + n_unsent, bisect.bisect_right(ends, marks[-1])
    growth, limit = _growth(sorted(passed), due, span)
    grew = growth is not None and limit is not None and growth > limit
    never = n_unsent >= max(UNSENT_LEAST, UNSENT_SHARE * n)
    return {
        "behind": n_ended < n and (never or grew),
        "growth": growth,
        "growth_limit": limit,
        "in_system": inside,
        "ttft_from_due_ns": [_median(passed, marks[quarter - 1], marks[quarter]) for quarter in (1, 3)],
        "span_ns": span,
        "due_per_s": (len(due) - 1) * 1e9 / span,
        "ended_per_s": n_ended * 1e9 / span,
        "n_unsent": n_unsent,
    }


def _growth(ordered: Sequence[Passed], due: Sequence[int], span: int) -> tuple[float | None, float | None]:
    """By how much the waits grew, over the time in which they did, and the most that is no sign of anything."""
    waits = [one.ttft_ns for one in ordered if one.ttft_ns is not None]
    n = len(waits)
    if n < FEW:
        return None, None
    tenth = max(TENTH_LEAST, -(-n // 10))
    growth = (statistics.median(waits[-tenth:]) - statistics.median(waits[:tenth])) / span
    answered = [one for one in ordered if one.ended_ns is not None and one.ttft_ns is not None]
    # what a first token takes at the least, and all that comes after it: no part of it is the queue's
    served = [min(waits) + (one.ended_ns or 0) - one.due_ns - (one.ttft_ns or 0) for one in answered]
    chance = math.sqrt((_variation([b - a for a, b in pairwise(due)]) + _variation(served)) / n)
    # of two that follow each other the queue is nearly the same: what differs is their own
    unlike = statistics.pstdev([b - a for a, b in pairwise(waits)]) / math.sqrt(2)
    error = _MEDIAN * unlike * math.sqrt(2 / tenth) / span
    few = max(1.0, math.sqrt(ENOUGH / n))
    return growth, max(GROWTH_LEAST, CHANCE * few * chance, UNLIKE * error)


def _variation(times: Sequence[int]) -> float:
    """The squared coefficient of variation; 0 where there is nothing to vary."""
    mean = statistics.fmean(times) if times else 0.0
    return statistics.pvariance(times) / mean**2 if mean > 0 else 0.0


def _median(passed: Sequence[Passed], after: int, until: int) -> float | None:
    found = [one.ttft_ns for one in passed if after < one.due_ns <= until and one.ttft_ns is not None]
    return statistics.median(found) if found else None
