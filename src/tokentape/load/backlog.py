"""Whether a server fell behind: requests came faster than it ended them, as long as they came.

Looked at are the four quarters of the time in which requests were due. The server fell behind where

* more were in the system (due, and not ended) at the end of each of the last three quarters than at the end of the one before;
* of all that were due, 5 % or more were left in the end beyond those there in the middle, and 5 requests at least;
* those of the last quarter waited half as long again for their first token, since they were due, as those of the second (median);
* and in that time it ended fewer a second than were due.

or where so many were never sent, since there was no room for them until the time was over.

A server that keeps up has as many in the system in the end as in the middle, but for chance.
"""

from __future__ import annotations

import bisect
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["Passed", "backlog_of"]

LEFT_SHARE, LEFT_LEAST = 0.05, 5
SLOWER = 1.5
FEW = 20


class Passed(NamedTuple):
    """A request: when it was due, when it was over (None: never sent), and how long after it was due its first token came."""

    due_ns: int
    ended_ns: int | None
    ttft_ns: int | None


def backlog_of(passed: Sequence[Passed], n_unsent: int = 0) -> dict[str, Any] | None:
    """What the quarters say, with ``behind``, as plain values; None for fewer than 20 requests, or where all were due at once.

    ``n_unsent`` were due too, at the end, and there was no room for them. Times are nanoseconds of any one clock.
    """
    due = sorted(one.due_ns for one in passed)
    if len(due) < FEW or due[0] == due[-1]:
        return None
    first, span = due[0], due[-1] - due[0]
    ends = sorted(one.ended_ns for one in passed if one.ended_ns is not None)
    marks = [first + span * quarter // 4 for quarter in range(1, 5)]
    inside = [bisect.bisect_right(due, at) - bisect.bisect_right(ends, at) for at in marks]
    inside[-1] += n_unsent
    waits = [_median(passed, marks[quarter - 1], marks[quarter]) for quarter in (1, 3)]
    n, n_ended = len(due) + n_unsent, bisect.bisect_right(ends, marks[-1])
    grew = inside[0] < inside[1] < inside[2] < inside[3]
    left = inside[3] - inside[1] >= max(LEFT_LEAST, LEFT_SHARE * n)
    slower = waits[0] is not None and waits[1] is not None and waits[1] >= SLOWER * waits[0]
    never = n_unsent >= max(LEFT_LEAST, LEFT_SHARE * n)
    return {
        "behind": n_ended < n and (never or (grew and left and slower)),
        "in_system": inside,
        "ttft_from_due_ns": waits,
        "due_per_s": (len(due) - 1) * 1e9 / span,
        "ended_per_s": n_ended * 1e9 / span,
        "n_unsent": n_unsent,
    }


def _median(passed: Sequence[Passed], after: int, until: int) -> float | None:
    found = [one.ttft_ns for one in passed if after < one.due_ns <= until and one.ttft_ns is not None]
    return statistics.median(found) if found else None
