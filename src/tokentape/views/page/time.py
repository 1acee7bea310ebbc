"""How long each step of a run took: percentiles, the law and the roofline, what was late and why, the prefill by itself."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tokentape.data.schema import KINDS
from tokentape.study.causes import SLOW
from tokentape.study.times import plain_values
from tokentape.views.page.parts import Part, figure, missing
from tokentape.views.page.time_late import MOST_LATE, Late, late_steps
from tokentape.views.page.time_law import Placed, Timing, floor_part, law_part, placed, timing_of
from tokentape.views.page.time_messages import messages_part, percentile_figures, scale_of
from tokentape.views.units import duration, rate
from tokentape.words.catalogue import Message

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["time_part"]

Array = npt.NDArray[np.float64]


def time_part(tape: Tape, run_number: int) -> Part:
    """The part Time of one run, as plain values: ``TimePart`` of ``web/src/document.ts``, or why there is none.

    Time is the device's where every step of the run has one, else the host's, end minus start; the two are never mixed. The
    law is the tape's, fitted once; its curve and the roofline's are told at some steps, measured over law at every one.
    """
    columns = tape.reader.steps(run_number)
    kind = np.asarray(columns["kind"])
    if not len(kind):
        return missing(Message("page_time.no_steps"))
    if tape.exchanges or np.ma.count(columns["read_ns"]):
        return messages_part(columns)
    clock, ns = _times_of(columns)
    rows = np.flatnonzero(kind != KINDS.index("prefill"))
    timing = timing_of(tape)
    steps = placed(timing, tape, run_number) if timing.times.clock == clock else _nothing()
    expected, by_law = _expected(timing, steps, rows, ns)
    late = late_steps(columns, rows, ns[rows], expected, _left_out(steps))
    law = law_part(timing, steps, tape)
    given = any(trace.finish_reason == "given" for trace in tape.traces if trace.run.number == run_number)
    return {
        "caption": _caption(clock, ns[rows], rows, law.get("sentence"), given=given).as_dict(),
        "clock": clock,
        "clock_note": Message(f"page_time.clock_{clock}").as_dict(),
        "scale": scale_of(ns[rows]),
        "law": law,
        "floor": floor_part(tape, steps),
        "late": [one.as_dict() for one in late[:MOST_LATE]],
        "late_caption": _late_caption(late, len(rows), by_law).as_dict(),
        "prefill": _prefill(columns, kind, ns, clock, given=given),
        "percentiles": percentile_figures(ns[rows].tolist()),
        "split": _split(columns, rows),
    }


def _times_of(columns: Mapping[str, Any]) -> tuple[str, Array]:
    """Whose clock, and the time of each step by it."""
    device = columns["device_ns"]
    if not np.ma.getmaskarray(device).any():
        return "device", np.asarray(device).astype(float)
    return "host", (np.asarray(columns["end_ns"]) - np.asarray(columns["start_ns"])).astype(float)


def _nothing() -> Placed:
    none = np.zeros(0, np.int64)
    return Placed(none, none.astype(float), none, none.astype(float), none)


def _left_out(steps: Placed) -> dict[int, int]:
    return {index: cause for index, cause in zip(steps.index.tolist(), steps.cause.tolist(), strict=True) if cause >= 0}


def _expected(timing: Timing, steps: Placed, rows: npt.NDArray[np.int64], ns: Array) -> tuple[Array, bool]:
    """What each of the steps ``rows`` should take: by the law where it speaks of them, else the median of all."""
    typical = float(np.median(ns[rows])) if len(rows) else 0.0
    found = np.full(len(ns), typical)
    law = timing.law.decode if timing.law is not None else None
    if law is not None and len(steps):
        found[steps.index] = law.fitted.plain(steps.loads)
    return found[rows], law is not None and len(steps) > 0


def _caption(clock: str, ns: Array, rows: npt.NDArray[np.int64], law: dict[str, Any] | None, *, given: bool) -> Message:
    """The middle, the slowest, and what the law says of context where there is one."""
    if not len(ns):
        return Message("page_time.caption_given" if given else "page_time.caption_prefill_only")
    at = int(np.argmax(ns))
    told = {
        "n": len(ns),
        "median": duration(statistics.median_low(ns.tolist())),  # as the percentiles beside it
        "most": duration(float(ns[at])),
        "step": int(rows[at]),
        "clock": Message(f"page_time.on_{clock}"),
    }
    found = Message("page_time.caption" if len(ns) > 1 else "page_time.caption_one", told)
    return found if law is None else Message("page_time.two", {"first": found, "second": Message.of(law)})


def _late_caption(late: Sequence[Late], n: int, by_law: bool) -> Message:
    if not n:
        return Message("page_time.late_no_steps")
    slow = f"{SLOW:g}"
    against = Message("page_time.against_law" if by_law else "page_time.against_median")
    if not late:
        return Message("page_time.late_none", {"n": n, "slow": slow, "against": against})
    told = Counter(one.cause for one in late)
    unknown = told.pop(None, 0)
    found: dict[str, Any] = {"n": len(late), "of": n, "slow": slow, "against": against, "unknown": unknown}
    names = {"warm-up": "warm_up", "gc": "gc", "switches": "switches"}
    found |= {names[cause]: told.get(cause, 0) for cause in names}
    return Message("page_time.late", found)


def _prefill(columns: Mapping[str, Any], kind: npt.NDArray[Any], ns: Array, clock: str, *, given: bool) -> Part | None:
    """The first prefill: another quantity than a step, and never on one scale with it."""
    rows = np.flatnonzero(kind == KINDS.index("prefill"))
    if not len(rows):
        return None
    row = int(rows[0])
    n_in = plain_values(columns["n_in"])[row]
    taken = float(ns[row])
    speed = rate(n_in / taken * 1e9) if n_in is not None and taken > 0 else None
    decode = ns[kind != KINDS.index("prefill")]
    typical = float(np.median(decode)) if len(decode) else 0.0
    batch = int(columns["batch"][row])
    told = {"n": n_in, "ns": duration(taken), "rate": speed, "clock": Message(f"page_time.on_{clock}")}
    told |= {"batch": batch, "passes": len(rows)}
    of_given = "given" if len(rows) > 1 else "given_once"
    key = "unknown" if n_in is None else of_given if given else "batch" if batch > 1 else None
    sentence = Message("page_time.prefill" if key is None else f"page_time.prefill_{key}", told)
    as_many = Message("page_time.prefill_steps", {"times": f"{taken / typical:.3g}"}) if typical > 0 else None
    return {
        "caption": sentence.as_dict(),
        "figures": [
            figure(Message("page_time.prefill_time"), duration(taken), taken, "ns", note=as_many),
            figure(Message("page_time.prefill_tokens"), None if n_in is None else f"{n_in:,}", n_in, "tokens"),
            figure(Message("page_time.prefill_rate"), speed, None if speed is None else n_in / taken * 1e9),
        ],
        "n": len(rows),
    }


def _split(columns: Mapping[str, Any], rows: npt.NDArray[np.int64]) -> Part | None:
    """Where the host's time of the decode steps went; None where the time of the forward call is not known.

    Parts that do not overlap: the forward call, the rules, what is left of the step, and the pause before it. A garbage collection
    falls into any of them, and is told beside them.
    """
    names = ("forward_ns", "rules_ns", "gc_ns")
    forward, rules, collected = (_sum(columns[name], rows) for name in names)
    if forward is None or not len(rows):
        return None
    starts, ends = np.asarray(columns["start_ns"]), np.asarray(columns["end_ns"])
    whole = int((ends[rows] - starts[rows]).sum())
    after = rows[rows > 0]
    pause = int((starts[after] - ends[after - 1]).sum())
    parts = {"forward": forward, "rules": rules, "other": whole - forward - (rules or 0), "pause": pause}
    total = whole + pause
    if total <= 0:
        return None
    found = [
        {
            "name": Message(f"page_time.split_{name}").as_dict(),
            "ns": ns,
            "share": round(ns / total, 4),
            "text": duration(ns),
        }
        for name, ns in parts.items()
        if ns is not None
    ]
    share = f"{forward / total:.0%}"
    told = {"total": duration(total), "n": len(rows), "forward": share, "gc": duration(collected)}
    key = "page_time.split_caption" if collected is not None else "page_time.split_caption_no_gc"
    return {"caption": Message(key, told).as_dict(), "rows": found}


def _sum(column: Any, rows: npt.NDArray[np.int64]) -> int | None:
    """The sum over some rows; None where none of them is known."""
    values = column[rows]
    return None if not np.ma.count(values) else int(np.ma.sum(values))
