"""The part Time of a request to a server: the wait for each message, whose model's steps nobody here has seen."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tokentape.study.autocorrelation import effective_n
from tokentape.study.causes import SLOW
from tokentape.study.metrics import PERCENTILES
from tokentape.study.percentiles import percentile
from tokentape.study.served_reads import arrivals
from tokentape.views.page.parts import Part, figure, missing
from tokentape.views.page.time_late import MOST_LATE, Late
from tokentape.views.units import duration
from tokentape.words.catalogue import Message

__all__ = ["messages_part", "percentile_figures", "scale_of"]

Array = npt.NDArray[np.float64]

WIDE = 4.0
"""An axis that shows the slowest step this many times above the typical one is logarithmic."""


def messages_part(columns: Mapping[str, Any]) -> Part:
    """``TimePart`` of a run whose steps are messages.

    The first message took what the TTFT says, another quantity. Those that came in one read with the one before have no time.
    """
    ns = (np.asarray(columns["end_ns"]) - np.asarray(columns["start_ns"])).astype(float)
    of = arrivals(columns)
    rows = np.flatnonzero(of[1:] != of[:-1]) + 1
    typical = statistics.median(ns[rows].tolist()) if len(rows) else 0.0
    late = _late(ns, rows, typical)
    return {
        "caption": _caption(ns, rows).as_dict(),
        "clock": "host",
        "clock_note": Message("page_time.clock_served").as_dict(),
        "scale": scale_of(ns[rows]),
        "law": missing(Message("page_time.no_law_served")),
        "floor": missing(Message("page_time.no_law_served")),
        "late": [one.as_dict() for one in late[:MOST_LATE]],
        "late_caption": _late_caption(len(late), len(rows)).as_dict(),
        "prefill": None,
        "percentiles": percentile_figures(ns[rows].tolist(), "percentile_needs_served"),
        "split": None,
    }


def _caption(ns: Array, rows: npt.NDArray[np.int64]) -> Message:
    first = duration(float(ns[0]))
    if not len(rows):
        return Message("page_time.caption_served_one", {"first": first})
    at = int(rows[int(np.argmax(ns[rows]))])
    told = {"n": len(rows), "median": duration(statistics.median_low(ns[rows].tolist())), "step": at, "first": first}
    return Message("page_time.caption_served", {**told, "most": duration(float(ns[at]))})


def _late(ns: Array, rows: npt.NDArray[np.int64], typical: float) -> list[Late]:
    slow = [row for row in rows.tolist() if typical > 0 and ns[row] >= SLOW * typical]
    slow.sort(key=lambda row: (-ns[row], row))
    why = Message("page_time.why_unknown")
    return [Late(row, round(ns[row]), float(ns[row] / typical), None, why) for row in slow]


def _late_caption(n: int, of: int) -> Message:
    if not of:
        return Message("page_time.late_no_messages")
    slow = f"{SLOW:g}"
    return (
        Message("page_time.late_served", {"n": n, "of": of, "slow": slow})
        if n
        else Message("page_time.late_none_served", {"n": of, "slow": slow})
    )


def scale_of(ns: Array) -> str:
    """``"log"`` where one value would flatten the others, else ``"linear"``."""
    positive = ns[ns > 0]
    wide = len(positive) > 1 and float(positive.max()) > WIDE * float(np.median(positive))
    return "log" if wide else "linear"


def percentile_figures(ns: Sequence[float], needs: str = "percentile_needs") -> list[Part]:
    """Each percentile of the steps' times, or how many more steps it would take."""
    worth = effective_n([ns]) if ns else 0
    found = []
    for q in PERCENTILES:
        one = percentile(ns, q, worth)
        label = Message("page_time.percentile", {"q": f"{q:g}"})
        counts = {"n": one.n, "worth": one.n_effective, "missing": one.n_missing}
        if one.value is None:
            found.append(figure(label, None, unit="ns", note=Message(f"page_time.{needs}", counts)))
        else:
            told = {**counts, "at_most": duration(one.at_most)}
            note = Message("page_time.percentile_of", told)
            found.append(figure(label, duration(one.value), one.value, "ns", note=note))
    return found
