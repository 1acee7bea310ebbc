"""Requests to a server as a timeline: a slice for each on a track of its own while it was under way, its parts nested in it.

A track is used again once its request is over, so that there are as many tracks as requests were under way at a time. Beside them
counters: requests in flight, and what was scraped of the server and of the client.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence, Set
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.exports.escaping import escaped
from tokentape.study.served import Flight, flights, in_flight, scraped

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["served_events"]

Event = dict[str, Any]

_REQUESTS, _READINGS = 1, 2
_LONGEST = 80


def served_events(
    tape: Tape, traces: Sequence[Trace], silent: Set[int], microseconds: Callable[[int], float]
) -> Iterator[Event]:
    """The requests of ``traces``; those whose numbers are ``silent`` without a word of what was said."""
    wanted = {trace.number for trace in traces}
    found = [one for one in flights(tape) if wanted & set(one.traces)]
    yield from _named(_REQUESTS, f"requests: {tape.setting.facts.get('model') or 'a server'}")
    lanes = _Lanes()
    for one in sorted(found, key=lambda one: (_ends(one)[0], one.run)):
        start, end = _ends(one)
        tid, new = lanes.take(start, end)
        if new:
            yield from _track(_REQUESTS, tid, f"flight {tid - _READINGS - 1}")
        for event in _request(tape, one, silent, start, end):
            yield {
                **event,
                "pid": _REQUESTS,
                "tid": tid,
                **{name: microseconds(event[name]) for name in ("ts", "dur") if name in event},
            }
    yield from _counters(tape, found, microseconds)


class _Lanes:
    """Tracks, each given to one request at a time."""

    def __init__(self) -> None:
        self._busy: list[tuple[int, int]] = []
        self._free: list[int] = []
        self._next = _READINGS + 1  # a thread whose number is that of its process would be taken for its main thread

    def take(self, start: int, end: int) -> tuple[int, bool]:
        """A track that is free from ``start``, and whether it is new; it is taken until ``end``."""
        while self._busy and self._busy[0][0] <= start:
            heapq.heappush(self._free, heapq.heappop(self._busy)[1])
        new = not self._free
        tid = self._next if new else heapq.heappop(self._free)
        self._next += new
        heapq.heappush(self._busy, (end + 1, tid))
        return tid, new


def _ends(one: Flight) -> tuple[int, int]:
    """When the first thing of a request was seen, and the last."""
    moments = (
        one.connect_ns,
        one.connected_ns,
        one.sent_ns,
        one.first_byte_ns,
        one.first_ns,
        one.last_ns,
        one.ended_ns,
    )
    known = [at for at in moments if at is not None]
    return (min(known), max(known)) if known else (0, 0)


def _request(tape: Tape, one: Flight, silent: Set[int], start: int, end: int) -> Iterator[Event]:
    passed = tape.exchanges.get(one.run)
    args = {
        "traces": list(one.traces),
        "label": one.label,
        "finish": one.finish,
        "fault": one.fault,
        "tokens": one.n_tokens,
        "chunks": one.n_chunks,
        "scheduled_ns": one.scheduled_ns,
        "schedule_delay_ns": one.schedule_delay_ns,
        "ttft_ns": one.ttft_ns,
        "status": None if passed is None else passed.status,
        "retry_of": None if passed is None else passed.retry_of,
        "error": None if passed is None or silent & set(one.traces) else passed.error,
    }
    name = f"run {one.run}" + (f": {one.fault}" if one.fault else "")
    known = {key: value for key, value in args.items() if value is not None}
    yield {"ph": "X", "name": name, "cat": "request", "ts": start, "dur": end - start, "args": known}
    at = start
    parts = (
        ("connecting", one.connected_ns),
        ("before sending", one.sent_ns),
        ("waiting for the first byte", one.first_byte_ns),
        ("waiting for content", one.first_ns),
        ("streaming", one.last_ns),
        ("ending", one.ended_ns),
    )
    for name, until in parts:
        if until is not None and until > at:
            yield {"ph": "X", "name": name, "cat": "part", "ts": at, "dur": until - at}
            at = until
    yield from _chunks(tape, one, silent)


def _chunks(tape: Tape, one: Flight, silent: Set[int]) -> Iterator[Event]:
    steps = tape.traces[one.traces[0]].steps
    said: dict[int, bytes] = {}
    for number in one.traces:
        trace = tape.traces[number]
        if number not in silent:
            for step, data in zip(trace.tokens["step"].tolist(), trace.token_bytes, strict=True):
                said[step] = said.get(step, b"") + (data or b"")
    lags = (steps["read_ns"] - steps["end_ns"]).tolist()
    rows = zip(np.asarray(steps["end_ns"]).tolist(), np.asarray(steps["n_out"]).tolist(), lags, strict=True)
    for i, (at, k, lag) in enumerate(rows):
        drawn = escaped(said.get(i, b"")[: 4 * _LONGEST])[:_LONGEST]
        args = {"chunk": i, "tokens": k, **({} if lag is None else {"read_lag_ns": lag})}
        yield {"ph": "i", "s": "t", "name": drawn or f"chunk of {k}", "cat": "chunk", "ts": at, "args": args}


def _counters(tape: Tape, found: Sequence[Flight], microseconds: Callable[[int], float]) -> Iterator[Event]:
    moments, numbers = in_flight(found)
    courses: list[tuple[str, Sequence[int], Sequence[float | None]]] = [("requests in flight", moments, numbers)]
    courses += [(f"{one.source} {one.name}", one.at_ns, one.values) for one in scraped(tape.scrapes)]
    yield from _named(_READINGS, "readings")
    for name, at, values in courses:
        for when, value in zip(at, values, strict=True):
            if value is not None and math.isfinite(value):
                known = {"ph": "C", "name": name, "pid": _READINGS, "ts": microseconds(when)}
                yield {**known, "args": {"value": value}}


def _named(pid: int, name: str) -> Iterator[Event]:
    yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": name}}
    yield {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": pid}}


def _track(pid: int, tid: int, name: str) -> Iterator[Event]:
    yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}}
    yield {"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": tid, "args": {"sort_index": tid}}
