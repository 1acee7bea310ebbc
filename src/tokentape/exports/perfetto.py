"""A tape as a timeline for Perfetto and ``chrome://tracing``: Chrome's trace event format, as JSON.

A process for each run; in it a track for its steps, with what is known of their inside nested in them, one for the
pauses between them, one for garbage collections, one for device time, and one for each sequence with an instant for
each token; memory, surprise and entropy are counters. Times are microseconds since the tape's origin, with the
nanoseconds after the point.

How long a forward call, the rules, a collection or the device took was measured; where inside their step was not. The
forward call is drawn from the step's beginning and the rules after it, which is their order; a collection at the end of
the time in which it ended, device time from the step's beginning, or from the end of the device time before it. The
names of these tracks say so. Requests to a server have tracks of their own kind: :mod:`tokentape.exports.perfetto_served`.

Format: "Trace Event Format", Google, 2016; read by Perfetto's JSON importer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence, Set
from itertools import count, groupby
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from tokentape._version import __version__
from tokentape.data.schema import KINDS
from tokentape.exports.escaping import escaped
from tokentape.exports.perfetto_served import served_events
from tokentape.study.served import is_served

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["microseconds", "write_perfetto"]

Event = dict[str, Any]

_LONGEST = 80
"""Characters of a token that are drawn as its name; the rest is in the tape."""

_COUNTERS = (("cache_bytes", "KV cache"), ("rss_bytes", "process memory"), ("device_bytes", "device memory"))


def microseconds(ns: int) -> float:
    """Nanoseconds as microseconds that every reader turns back into the same nanoseconds.

    Readers multiply the parsed double by 1,000; some round, some cut off, and 1.001 times 1,000 is just below 1,001.
    Where cutting off would lose a nanosecond, a tenth of one is added.
    """
    nearest = ns / 1000
    return nearest if int(nearest * 1000) == ns else (ns + math.copysign(0.1, ns)) / 1000


def write_perfetto(tape: Tape, traces: Sequence[Trace], file: TextIO, *, text: bool, withheld: bool = False) -> None:
    """Write the runs of ``traces``; without ``text`` tokens are named by their position, and have no ids; nor, unless
    ``withheld``, have those of a sequence of which a guard withheld something.
    """
    facts = {
        "tokentape_version": __version__,
        "fingerprint": tape.setting.fingerprint,
        "origin_unix_ns": tape.notes.get("origin_unix_ns"),
        "clock": tape.notes.get("clock"),
        "state": tape.state,
    }
    file.write('{"traceEvents": [')
    separator = "\n"
    silent = {trace.number for trace in traces if not text or (trace.has_withheld and not withheld)}
    for event in _events(tape, traces, silent):
        file.write(separator)
        file.write(json.dumps(event, ensure_ascii=False, allow_nan=False))
        separator = ",\n"
    file.write(f'\n],\n"otherData": {json.dumps(facts, ensure_ascii=False, allow_nan=False)}}}\n')


def _events(tape: Tape, traces: Sequence[Trace], silent: Set[int]) -> Iterator[Event]:
    if is_served(tape):
        yield from served_events(tape, traces, silent, microseconds)
        return
    model = tape.setting.facts.get("model")
    runs = [list(group) for _, group in groupby(traces, key=lambda trace: trace.run.number)]
    # A thread whose number is that of its process would be taken for its main thread, and the importer
    # tells names of threads apart by their number alone.
    numbers = count(1 + max((group[0].run.number for group in runs), default=0) + 1)
    for group in runs:
        run = _Run(group[0].run.number + 1, numbers)
        yield _meta("process_name", run.pid, 0, name=f"run {group[0].run.number}" + (f": {model}" if model else ""))
        yield _meta("process_sort_index", run.pid, 0, sort_index=run.pid)
        yield from _steps(run, group[0])
        for trace in group:
            yield from _tokens(run, trace, trace.number not in silent)


def _meta(what: str, pid: int, tid: int, **args: Any) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args}


class _Run:
    """The tracks of one process."""

    def __init__(self, pid: int, numbers: Iterator[int]) -> None:
        self.pid = pid
        self._numbers = numbers

    def track(self, name: str) -> tuple[int, list[Event]]:
        """A new track: its number, and the events that name it."""
        tid = next(self._numbers)
        named = _meta("thread_name", self.pid, tid, name=name)
        return tid, [named, _meta("thread_sort_index", self.pid, tid, sort_index=tid)]

    def slice(self, tid: int, name: str, category: str, start_ns: int, ns: int, args: Event | None = None) -> Event:
        times = {"ts": microseconds(start_ns), "dur": microseconds(ns)}
        event = {"ph": "X", "name": name, "cat": category, "pid": self.pid, "tid": tid, **times}
        return {**event, "args": args} if args else event

    def counter(self, name: str, unit: str, at_ns: int, value: float) -> Event:
        at = microseconds(at_ns)
        return {"ph": "C", "name": name, "pid": self.pid, "ts": at, "args": {unit: value}}


def _rows(columns: Any) -> list[Event]:
    """The rows of columns as plain values, without those that are null."""
    plain = {name: np.ma.asarray(column).tolist() for name, column in columns.items()}
    rows = zip(*plain.values(), strict=True)
    return [{name: v for name, v in zip(plain, row, strict=True) if v is not None} for row in rows]


def _steps(run: _Run, trace: Trace) -> Iterator[Event]:
    rows = _rows(trace.steps)
    tid, named = run.track("steps (forward, then rules; drawn from the beginning)")
    yield from named
    for row in rows:
        start, ns = row["start_ns"], row["end_ns"] - row["start_ns"]
        kind = KINDS[row["kind"]]
        args = {name: value for name, value in row.items() if name not in ("start_ns", "end_ns", "kind")}
        yield run.slice(tid, kind, kind, start, ns, args)
        yield from _phases(run, tid, row, ns)
    yield from _pauses(run, trace, rows)
    yield from _collections(run, trace, rows)
    yield from _device(run, rows)
    for column, name in _COUNTERS:
        for row in rows:
            if column in row:
                yield run.counter(name, "bytes", row["end_ns"], row[column])


def _phases(run: _Run, tid: int, row: Event, ns: int) -> Iterator[Event]:
    """What a step was spent on, one after another; none that would not fit into it."""
    spent = 0
    for name in ("forward", "rules"):
        phase = row.get(f"{name}_ns")
        if phase is not None and spent + phase <= ns:
            yield run.slice(tid, name, "phase", row["start_ns"] + spent, phase)
            spent += phase


def _pauses(run: _Run, trace: Trace, rows: Sequence[Event]) -> Iterator[Event]:
    """From the end of one step to the beginning of the next; before the first, since the request was handed over."""
    tid, named = run.track("between steps")
    yield from named
    until = trace.run.start_ns
    for row in rows:
        if until is not None and row["start_ns"] > until:
            name = "pause" if row["index"] else "before the first step"
            yield run.slice(tid, name, "pause", until, row["start_ns"] - until)
        until = row["end_ns"]


def _collections(run: _Run, trace: Trace, rows: Sequence[Event]) -> Iterator[Event]:
    found = [row for row in rows if row.get("gc_ns")]
    if not found:
        return
    tid, named = run.track("garbage collection (drawn at the end of its step)")
    yield from named
    free = min(trace.run.start_ns or 0, rows[0]["start_ns"])
    for row in found:
        start = max(free, row["end_ns"] - row["gc_ns"])
        free = start + row["gc_ns"]
        yield run.slice(tid, "gc", "gc", start, row["gc_ns"], {"gc_count": row.get("gc_count", 0)})


def _device(run: _Run, rows: Sequence[Event]) -> Iterator[Event]:
    timed = [row for row in rows if "device_ns" in row]
    if not timed:
        return
    tid, named = run.track("device (drawn from the beginning of its step)")
    yield from named
    free = timed[0]["start_ns"]
    for row in timed:
        start = max(free, row["start_ns"])
        free = start + row["device_ns"]
        yield run.slice(tid, KINDS[row["kind"]], "device", start, row["device_ns"], {"step": row["index"]})


def _tokens(run: _Run, trace: Trace, text: bool) -> Iterator[Event]:
    tid, named = run.track(f"tokens of sequence {trace.number}")
    yield from named
    kept, overshoot = trace.loader.symbols(trace.number)
    ends = dict(zip(trace.steps["index"].tolist(), trace.steps["end_ns"].tolist(), strict=True))
    for part, category in ((kept, "token"), (overshoot, "overshoot")):
        for row, data in zip(_rows(part.columns), part.bytes, strict=True):
            args = {name: _number(value) for name, value in row.items() if text or name not in ("id", "wanted")}
            at = ends[row["step"]]
            yield {
                "ph": "i",
                "s": "t",
                "name": _name(row, data if text else None),
                "cat": category,
                "pid": run.pid,
                "tid": tid,
                "ts": microseconds(at),
                "args": args,
            }
            for column, name, sign in (("logprob", "surprise", -1), ("entropy", "entropy", 1)):
                value = row.get(column)
                if value is not None and math.isfinite(value) and category == "token":
                    yield run.counter(f"{name} of sequence {trace.number}", "nats", at, sign * value + 0.0)


def _number(value: Any) -> Any:
    """JSON has no infinity, so that one is a word."""
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _name(row: Event, data: bytes | None) -> str:
    if data is None:
        return f"token at {row['position']}"
    drawn = escaped(data[: 4 * _LONGEST])
    return (drawn if len(drawn) <= _LONGEST else drawn[:_LONGEST] + "…") or "(empty)"
