"""The part Requests of an endpoint's tape: each request's times, how many were under way, and what the server said meanwhile."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.study.percentiles import Percentile
from tokentape.study.served import Course, Flight, courses_of, flights
from tokentape.study.served_summary import ServedSummary
from tokentape.views.card import finish_message
from tokentape.views.drawing import drawn_text
from tokentape.views.page.parts import Part, figure
from tokentape.views.page.rounding import rounded
from tokentape.views.units import duration
from tokentape.words.catalogue import Message

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["MOST_COURSES", "MOST_POINTS", "MOST_TRACES", "requests_part", "telling_traces"]

MOST_POINTS = 1500
"""Points of one course that are drawn; of more, the greatest of some neighbours."""

MOST_TRACES = 200
"""So many sequences of requests a page shows in full."""

MOST_COURSES = 40
"""So many metrics can be chosen."""

_BUCKETS = "_bucket{"


def requests_part(tape: Tape, found: Sequence[Flight], figures: ServedSummary) -> Part:
    """``RequestsPart`` of the page's document: a column of one entry a request, and the courses beside them."""
    courses, n_all = _chosen(courses_of(tape))
    ends = list(dict.fromkeys(one.finish for one in found))
    found = sorted(found, key=lambda one: (_moment(one), one.run))
    moments = [_moment(one) for one in found]
    last = max([*moments, *(end for one in found if (end := one.ended_ns or one.last_ns) is not None)], default=0)
    return {
        "caption": _caption(found, figures).as_dict(),
        "span_ns": [min([0, *moments]), last],
        "trace": [one.traces[0] for one in found],
        "sent_ns": moments,
        "ttft_ns": [one.ttft_ns for one in found],
        "ttft_due_ns": [one.ttft_scheduled_ns for one in found],
        "answer_ns": [one.answer_time_ns for one in found],
        "tokens": [one.n_tokens for one in found],
        "label": [one.label for one in found],
        "fault": [None if one.fault is None else drawn_text(one.fault) for one in found],
        "fault_ns": [None if one.fault is None else max(1, one.answer_time_ns or one.ttft_ns or 0) for one in found],
        "end": [ends.index(one.finish) for one in found],
        "ends": [finish_message(one, tape.state).as_dict() for one in ends],
        "figures": _figures(figures),
        "courses": [_course(one) for one in courses],
        "left_out": None
        if len(courses) == n_all
        else Message("page_requests.left_out", {"n": len(courses), "all": n_all}).as_dict(),
    }


def _moment(one: Flight) -> int:
    """When a request was sent; of one that was not, the first thing that is known of it."""
    return next((at for at in (one.sent_ns, one.connect_ns, one.scheduled_ns, one.ended_ns) if at is not None), 0)


def telling_traces(tape: Tape) -> list[int]:
    """The sequences of a tape that a page shows in full where there are thousands: the first, the slowest, those with a fault, and
    of the rest every so manieth; all of them where they are few.
    """
    n = len(tape.traces)
    if n <= MOST_TRACES:
        return list(range(n))
    found, part = flights(tape), MOST_TRACES // 4
    slow = sorted((one for one in found if one.ttft_ns is not None), key=lambda one: -(one.ttft_ns or 0))[:part]
    faults = [one for one in found if one.fault is not None][:part]
    evenly = found[:: -(-len(found) // part)]
    kept = {number for one in [*found[:part], *slow, *faults, *evenly] for number in one.traces}
    return sorted(kept)[:MOST_TRACES]


def _caption(found: Sequence[Flight], figures: ServedSummary) -> Message:
    known = [one.ttft_ns for one in found if one.ttft_ns is not None]
    told: dict[str, Any] = {
        "n": figures.n_requests,
        "window": duration(figures.window_ns),
        "ttft": duration(statistics.median_low(known) if known else None),
        "slowest": duration(max(known, default=None)),
        "faults": sum(figures.faults.values()),
    }
    caption = Message("page_requests.caption", told)
    due = [one.ttft_scheduled_ns for one in found if one.ttft_scheduled_ns is not None]
    late = [one.schedule_delay_ns for one in found if one.schedule_delay_ns is not None]
    if not due or not late:
        return caption
    return Message("page_requests.due", {"caption": caption, "due": duration(max(due)), "late": duration(max(late))})


def _figures(figures: ServedSummary) -> list[Part]:
    def counted(label: Message, n: int) -> Part:
        return figure(label, f"{n:,}", n, "count")

    def say(key: str, **args: Any) -> Message:
        return Message(f"page_requests.{key}", args)

    answered = figures.n_requests - figures.n_failed - figures.n_open
    counts = {"answered": answered, "failed": figures.n_failed, "open": figures.n_open}
    counts |= {"retries": figures.n_retries}
    counts |= {} if figures.most_in_flight is None else {"most": figures.most_in_flight}
    counts |= {"sharing": figures.n_sharing} if figures.n_sharing else {}
    rows = [counted(say(name), n) for name, n in counts.items()]
    rows += [counted(say("status", status=str(name)), n) for name, n in sorted(figures.statuses.items())]
    rows += [
        counted(say("no_label") if name is None else say("labelled", name=name), n)
        for name, n in sorted(figures.labels.items(), key=lambda one: str(one[0]))
    ]
    rows += [counted(say("faulty", name=drawn_text(name)), n) for name, n in sorted(figures.faults.items())]
    times = {"connecting": figures.connecting, "late": figures.late, "read_lag": figures.read_lag}
    return rows + [_time(say(name), known) for name, known in times.items() if known[0].n]


def _time(label: Message, known: Sequence[Percentile]) -> Part:
    told = [f"p{p.q:g} {duration(p.value)}" for p in known if p.value is not None]
    needs = next((p for p in known if p.value is None), None)
    note = _needs(needs) if needs is not None else _samples(known[0])
    return figure(label, ", ".join(told) or None, known[0].value, "ns", note=note)


def _needs(one: Percentile) -> Message:
    return Message("page_requests.figure_needs", {"n": one.n, "q": f"p{one.q:g}", "missing": one.n_missing})


def _samples(one: Percentile) -> Message:
    return Message("page_requests.figure_samples", {"n": one.n, "worth": one.n_effective})


def _chosen(courses: Sequence[Course]) -> tuple[list[Course], int]:
    """The courses that can be looked at: those that changed, our own always; and how many there are."""
    kept = [one for one in courses if one.source == "tape" or (_BUCKETS not in one.name and len(set(one.values)) > 1)]
    return kept[:MOST_COURSES], len(courses)


def _course(one: Course) -> Part:
    """One course as points: of what is counted at each change the corners of its steps."""
    at, values = np.array(one.at_ns, np.int64), np.array(one.values, float)
    if one.source == "tape":
        at, values = _corners(*_thinned(at, values, MOST_POINTS // 2))
    else:
        at, values = _thinned(at, values, MOST_POINTS)
    every = np.array(one.values, float)
    known, own, plain = every[np.isfinite(every)], one.source == "tape", drawn_text(one.name)
    name: Message | str = Message("page_requests.in_flight") if own else plain
    if not own and one.source != "server":
        name = Message("page_requests.of_source", {"name": plain, "source": drawn_text(one.source)})
    ends = {"low": f"{known.min():.6g}", "high": f"{known.max():.6g}"} if len(known) else {}
    key = "course_own" if own and ends else "course" if ends else "course_none"
    caption = Message(f"page_requests.{key}", {"name": name, "n": len(known), **ends})
    return {
        "name": name.as_dict() if isinstance(name, Message) else name,
        "caption": caption.as_dict(),
        "at_ns": at.tolist(),
        "values": [None if not np.isfinite(value) else rounded(float(value)) for value in values],
    }


def _thinned(at: Any, values: Any, most: int) -> tuple[Any, Any]:
    """At most ``most`` points; of several neighbours that with the greatest value stands for them."""
    if len(at) <= most:
        return at, values
    groups = np.array_split(np.arange(len(at)), most)
    kept = np.array([part[int(np.argmax(np.nan_to_num(values[part], nan=-np.inf)))] for part in groups])
    return at[kept], values[kept]


def _corners(at: Any, values: Any) -> tuple[Any, Any]:
    """A value that holds until the next one as points of a line."""
    return np.repeat(at, 2)[1:], np.repeat(values, 2)[:-1]
