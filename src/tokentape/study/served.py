"""Requests as a client of a server saw them: the times around the answer, requests in flight, and what the server said of itself.

A request is a run. Its moments, since the tape's origin: it was *scheduled*, *sent* (``start_ns`` of the run, its first byte handed
over), answered by a *first byte* (of the headers) and by *first content* (the first message with a token), and it *ended*.

* **schedule delay**: sent minus scheduled. Where it grows, a time counted from sending leaves out what the user waited:
  coordinated omission. So TTFT and answer time are told from both;
* **TTFB**: first byte minus sent; **TTFT**: first content minus sent, or minus scheduled;
* **E2E**: last content minus sent; **answer time**: ended minus sent, or minus scheduled: the stream may outlast its tokens;
* **read lag**: return of the read minus arrival of the bytes; **parse lag**: understood minus that return. Both are the client's;
* **in flight**: requests sent and not ended.

What was not seen is None.

Source of the term: G. Tene, "How NOT to Measure Latency", 2013.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tokentape.data.exchange import Exchange
from tokentape.study.answers import VAGUE, Answer

if TYPE_CHECKING:
    from tokentape.data.exchange import Scrape
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = [
    "Course",
    "Flight",
    "courses_named",
    "courses_of",
    "flight_of",
    "flights",
    "from_schedule",
    "in_flight",
    "is_served",
    "metric_family",
    "most_in_flight",
    "scheduled",
    "scraped",
]


FASTEST_PER_S = 1_000_000
"""A count of more tokens a second in one answer is none: of measured servers the fastest write some thousands."""

_LIMITS = ("max_tokens", "max_completion_tokens", "max_new_tokens", "n_predict")
_SLACK = 16
_NOTHING = Exchange()


@dataclass(frozen=True, slots=True)
class Flight:
    """One request: ``traces`` are the numbers of its answers, ``n_tokens`` the tokens of them all, as they came where each has a
    row, else as the server counts them if it does and the count can be true, else None; ``n_rows`` the rows of them on the tape.
    ``first_ns`` is None where an answer came in one piece. Moments are nanoseconds since the tape's origin.

    ``finish`` is why its first answer ended.
    """

    run: int
    traces: tuple[int, ...]
    n_tokens: int | None
    n_rows: int
    n_chunks: int
    scheduled_ns: int | None
    connect_ns: int | None
    connected_ns: int | None
    sent_ns: int | None
    first_byte_ns: int | None
    first_ns: int | None
    last_ns: int | None
    ended_ns: int | None
    label: str | None
    fault: str | None
    finish: str | None

    @property
    def schedule_delay_ns(self) -> int | None:
        """How late the request was sent."""
        return _between(self.scheduled_ns, self.sent_ns)

    @property
    def connecting_ns(self) -> int | None:
        """How long connecting took; None on a connection that was open already."""
        return _between(self.connect_ns, self.connected_ns)

    @property
    def ttfb_ns(self) -> int | None:
        """From sending to the first byte of the answer."""
        return _between(self.sent_ns, self.first_byte_ns)

    @property
    def ttft_ns(self) -> int | None:
        """From sending to the first message with a token."""
        return _between(self.sent_ns, self.first_ns)

    @property
    def ttft_scheduled_ns(self) -> int | None:
        """From when the request was due to the first message with a token."""
        return _between(self.scheduled_ns, self.first_ns)

    @property
    def e2e_ns(self) -> int | None:
        """From sending to the last message with a token."""
        return _between(self.sent_ns, self.last_ns)

    @property
    def answer_time_ns(self) -> int | None:
        """From sending to the end of the answer."""
        return _between(self.sent_ns, self.ended_ns)

    @property
    def answer_time_scheduled_ns(self) -> int | None:
        """From when the request was due to the end of the answer."""
        return _between(self.scheduled_ns, self.ended_ns)


@dataclass(frozen=True, slots=True)
class Course:
    """What one source said of one thing over time: ``at_ns`` is when each reading was there, ``values`` what it said, None where
    it said nothing of this. The source of what is counted from the tape itself is ``"tape"``.
    """

    source: str
    name: str
    at_ns: tuple[int, ...]
    values: tuple[float | None, ...]


def is_served(tape: Tape) -> bool:
    """Whether a server was asked."""
    return bool(tape.exchanges) or str(tape.setting.facts.get("source")) == "endpoint"


def flights(tape: Tape) -> list[Flight]:
    """The requests of a tape in the order of their runs; of thousands in well under a second."""
    steps, tokens = tape.columns("step"), tape.columns("token")
    owner, ends = np.asarray(steps["run"]), np.asarray(steps["end_ns"])
    told = np.flatnonzero(np.asarray(steps["n_out"]) > 0)
    kept = np.asarray(tokens["trace"])[np.asarray(tokens["overshoot"]) == 0]
    rows = np.bincount(kept, minlength=len(tape.traces))
    groups: dict[int, list[Trace]] = {}
    for trace in tape.traces:
        groups.setdefault(trace.run.number, []).append(trace)
    numbers = np.array(list(groups), np.int64)
    first, last = (np.searchsorted(owner, numbers, side) for side in ("left", "right"))
    found = []
    for group, start, stop, (low, high) in zip(
        groups.values(),
        first.tolist(),
        last.tolist(),
        zip(np.searchsorted(told, first).tolist(), np.searchsorted(told, last).tolist(), strict=True),
        strict=True,
    ):
        content = (int(ends[told[low]]), int(ends[told[high - 1]])) if high > low else (None, None)
        found.append(_flight(group, int(sum(rows[trace.number] for trace in group)), stop - start, content))
    return found


def flight_of(traces: Sequence[Trace]) -> Flight:
    """One request of the traces that answered it."""
    steps = traces[0].steps
    ends = np.asarray(steps["end_ns"])
    content = ends[np.asarray(steps["n_out"]) > 0]
    rows = sum(trace.tokens.n_rows for trace in traces)
    return _flight(traces, rows, len(ends), (int(content[0]), int(content[-1])) if len(content) else (None, None))


def _flight(traces: Sequence[Trace], n_rows: int, n_chunks: int, content: tuple[int | None, int | None]) -> Flight:
    """``content`` are the ends of the first and the last chunk that gave a token."""
    first, passed = traces[0], traces[0].exchange
    known = _NOTHING if passed is None else passed
    return Flight(
        run=first.run.number,
        traces=tuple(trace.number for trace in traces),
        n_tokens=_n_tokens(
            passed, n_rows, _most_tokens(traces, content[1] if content[1] is not None else known.ended_ns)
        ),
        n_rows=n_rows,
        n_chunks=n_chunks,
        scheduled_ns=known.scheduled_ns,
        connect_ns=known.connect_ns,
        connected_ns=known.connected_ns,
        sent_ns=first.run.start_ns,
        first_byte_ns=known.first_byte_ns,
        first_ns=content[0] if known.streamed else None,
        last_ns=content[1],
        ended_ns=known.ended_ns,
        label=known.label,
        fault=known.fault,
        finish=first.finish_reason,
    )


def _n_tokens(passed: Exchange | None, rows: int, most: float) -> int | None:
    """The rows where each is a token, whatever the server counts; else its count where that can be true."""
    if passed is None:
        return None
    if passed.label is not None and passed.label not in VAGUE:
        return rows
    n = passed.n_completion
    return n if n is not None and 0 <= n <= max(most, rows) else None


def _most_tokens(traces: Sequence[Trace], last_ns: int | None) -> float:
    """No server writes more tokens than it was asked for, or, where no limit was asked, than :data:`FASTEST_PER_S` allows."""
    options, took = traces[0].run.options, _between(traces[0].run.start_ns, last_ns)
    asked = [n for name in _LIMITS if isinstance(n := options.get(name), int) and not isinstance(n, bool)]
    if asked:
        return (max(asked) + _SLACK) * len(traces)
    return math.inf if took is None else (_SLACK + FASTEST_PER_S * took / 1e9) * len(traces)


def in_flight(found: Iterable[Flight]) -> tuple[list[int], list[int]]:
    """Requests under way over time: moments at which their number changed, and the number from then on.

    A request that did not come to its end counts until its last message; one that was never sent does not count.
    """
    changes: Counter[int] = Counter()
    for one in found:
        end = one.ended_ns if one.ended_ns is not None else one.last_ns
        if one.sent_ns is None or end is None:
            continue
        changes[one.sent_ns] += 1
        changes[max(end, one.sent_ns)] -= 1
    moments = sorted(changes)
    return moments, np.cumsum([changes[at] for at in moments], dtype=np.int64).tolist()


def most_in_flight(found: Iterable[Flight]) -> int:
    """The most requests that were under way at one time."""
    return max(in_flight(found)[1], default=0)


def scraped(scrapes: Iterable[Scrape]) -> list[Course]:
    """Every metric of every source, each over all readings of its source, in the order in which they were first seen."""
    moments: dict[str, list[int]] = {}
    values: dict[tuple[str, str], dict[int, float]] = {}
    for one in scrapes:
        at = moments.setdefault(one.source, [])
        for name, value in one.values.items():
            values.setdefault((one.source, name), {})[len(at)] = value
        at.append(one.ended_ns)
    return [
        Course(source, name, tuple(moments[source]), tuple(known.get(i) for i in range(len(moments[source]))))
        for (source, name), known in values.items()
    ]


def courses_of(tape: Tape) -> list[Course]:
    """Everything that is known over the time of a whole tape: requests in flight, and what was scraped."""
    moments, numbers = in_flight(flights(tape)) if is_served(tape) else ([], [])
    own = [Course("tape", "in_flight", tuple(moments), tuple(numbers))] if moments else []
    return own + scraped(tape.scrapes)


def courses_named(tape: Tape, names: Sequence[str]) -> tuple[list[Course], list[str]]:
    """The courses that some of the names mean, and the names that mean none.

    A name is that of a course, with its labels or without, or ``all``, which may mean more than courses and so stays.
    """
    found = courses_of(tape)
    meant = [one for one in found if {"all", one.name, metric_family(one.name)} & set(names)]
    known = {name for one in meant for name in (one.name, metric_family(one.name))}
    return meant, [name for name in names if name not in known]


def metric_family(name: str) -> str:
    """The name of a metric without its labels."""
    return name.partition("{")[0]


def from_schedule(found: Iterable[Answer], exchanges: Mapping[int, Exchange]) -> list[Answer]:
    """The answers with their times counted from when they were due, for objectives that a user would ask about.

    One that was sent as soon as it could be was due when it was sent.
    """
    due = scheduled(exchanges)
    return [replace(one, start_ns=due.get(one.run, one.start_ns)) for one in found]


def scheduled(exchanges: Mapping[int, Exchange]) -> dict[int, int]:
    """When each run was due, of those that were due at a moment of their own."""
    return {run: one.scheduled_ns for run, one in exchanges.items() if one.scheduled_ns is not None}


def _between(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before
