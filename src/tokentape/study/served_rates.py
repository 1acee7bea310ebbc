"""The rates of an open loop: asked, due, and ended, over one window, so that they can be held against each other.

* **asked**: the rate of the plan; None where the times of a trace said when;
* **due**: the requests that were due, those never sent among them, over the schedule's own length: the duration where the load had
  one and was not ended before, else the time from the first due to the last, and one mean gap more;
* **ended**: those of them that were answered, over the same window, or over a longer one: from the first of them that was due to
  the last, and by so much longer as answers took longer at the end than at the beginning (since they were due; medians of the first
  and the last tenth of the requests, five at least, as of a growth in a straight line).

What is under way when a load ends is answered after it. Counted up to the end of the schedule, a server that answered everything
would seem to have failed; counted up to the last answer, one that took long would make every rate smaller. Where a queue grows the
window grows by just that: of a server that is asked for more than it can do, what it could do is told. So where everything was
answered as fast at the end as at the beginning, as much ended as was due; and never more.

Source: J. D. C. Little, "A proof for the queuing formula L = λW", Operations Research 9, 1961 (in a window at whose ends as many
are in the system, arrivals and departures are as many).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tokentape.data.exchange import Exchange
from tokentape.study.answers import Answer
from tokentape.study.served import scheduled

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["Rates", "due_of", "n_unsent_of", "rates_of", "was_due"]

TENTH_LEAST = 5


@dataclass(frozen=True, slots=True)
class Rates:
    """Requests per second, over ``schedule_ns`` and ``window_ns``; ``n_due`` were due, ``n_ended`` of them answered."""

    asked_per_s: float | None
    due_per_s: float
    ended_per_s: float
    n_due: int
    n_ended: int
    schedule_ns: int
    window_ns: int


def was_due(tape: Tape) -> bool:
    """Whether requests were due at moments of a schedule. The turns of a conversation in a closed loop have moments, after the
    answers before them, and no schedule.
    """
    return bool(scheduled(tape.exchanges)) and _plan(tape).get("loop") != "closed"


def rates_of(tape: Tape, found: Sequence[Answer]) -> Rates | None:
    """The rates of a tape whose traces are the answers ``found``; None where no two requests were due at moments of their own."""
    if not was_due(tape):
        return None
    due = scheduled(tape.exchanges)
    again = {one.retry_of for one in tape.exchanges.values() if one.retry_of is not None}
    asked = [at for run, at in due.items() if tape.exchanges[run].retry_of is None]
    n_unsent = n_unsent_of(tape)
    n_due = len(asked) + n_unsent
    length = _length_ns(tape, asked, n_due)
    if length is None:
        return None
    took: dict[int, tuple[int, int]] = {}
    for one in found:
        if one.outcome == "ended" and one.run in due and one.run not in again and (end := one.ended_ns) is not None:
            at = due.get(_first(one.run, tape.exchanges), due[one.run])
            took[one.run] = (at, end - at)
    window = max(length, _answering_ns(sorted(took.values())))
    rate = _plan(tape).get("rate")
    return Rates(
        asked_per_s=float(rate) if isinstance(rate, int | float) else None,
        due_per_s=n_due * 1e9 / length,
        ended_per_s=len(took) * 1e9 / window,
        n_due=n_due,
        n_ended=len(took),
        schedule_ns=length,
        window_ns=window,
    )


def due_of(found: Iterable[Answer], exchanges: Mapping[int, Exchange]) -> list[Answer]:
    """The requests as those who asked see them: counted from when they were due, an attempt that was sent again being none."""
    due = scheduled(exchanges)
    again = {one.retry_of for one in exchanges.values() if one.retry_of is not None}
    return [
        replace(one, start_ns=due.get(_first(one.run, exchanges), one.start_ns))
        for one in found
        if one.run not in again
    ]


def n_unsent_of(tape: Tape) -> int:
    """How many requests were due and never sent."""
    noted = tape.notes.get("n_unsent")
    return noted if isinstance(noted, int) and noted > 0 else 0


def _first(run: int, exchanges: Mapping[int, Exchange]) -> int:
    """The run of the first attempt at a request; an attempt is written after those before it."""
    while (passed := exchanges.get(run)) is not None and passed.retry_of is not None and passed.retry_of < run:
        run = passed.retry_of
    return run


def _plan(tape: Tape) -> Mapping[str, object]:
    noted = tape.notes.get("load")
    return noted if isinstance(noted, Mapping) else {}


def _length_ns(tape: Tape, due: Sequence[int], n_due: int) -> int | None:
    """How long the schedule was; None where it has no length."""
    plan = _plan(tape)
    whole, limit = plan.get("duration_ns"), plan.get("requests")
    by_time = plan.get("kind") != "trace" and not (isinstance(limit, int) and n_due >= limit)
    if isinstance(whole, int) and whole > 0 and due and by_time and tape.state == "complete":
        return whole
    span = max(due) - min(due) if due else 0
    return round(span * n_due / (n_due - 1)) if span > 0 and n_due > 1 else None


def _answering_ns(took: Sequence[tuple[int, int]]) -> int:
    """From the first that was due to the last, and what answers took longer then; ``took`` are when each was due and how long."""
    n = len(took)
    tenth = min(max(TENTH_LEAST, -(-n // 10)), n // 2)
    if not tenth:
        return 0
    early, late = (statistics.median(ns for _, ns in some) for some in (took[:tenth], took[-tenth:]))
    longer = (late - early) * n / (n - tenth)  # the middles of both lie so much closer together than the ends
    return took[-1][0] - took[0][0] + max(0, round(longer))
