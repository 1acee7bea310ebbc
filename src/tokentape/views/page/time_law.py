"""The law of latency along the steps of one run: what it expects at each, its interval, and the roofline below it."""

from __future__ import annotations

import contextlib
import re
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import numpy as np
import numpy.typing as npt

from tokentape.errors import StudyError, UsageError
from tokentape.study.cost.roofline import roof
from tokentape.study.law.fitting import CONFIDENCE, LEAST_CELLS
from tokentape.study.law.gathering import LEAST_CONTEXTS, LEAST_SPAN, workload_of
from tokentape.study.law.laws import fit
from tokentape.study.law.points import BLOCK, StepTimes, step_times_of
from tokentape.study.law.terms import Loads
from tokentape.views.page.law_words import per_message, term_message
from tokentape.views.page.parts import Part, missing
from tokentape.views.page.roofs import machine_name, machine_of
from tokentape.views.page.rounding import rounded, short
from tokentape.views.units import duration
from tokentape.words.catalogue import Message

if TYPE_CHECKING:
    from tokentape.data.reader import Reader
    from tokentape.data.tape import Tape
    from tokentape.study.law.laws import Coefficient, Law

__all__ = ["KNOTS", "Placed", "Timing", "floor_part", "law_part", "placed", "timing_of"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

KNOTS = 200
"""So many places of a run, at most, tell a curve: law and roofline are smooth between them."""


@dataclass(frozen=True)
class Timing:
    """What is asked once of a tape: when its steps ran, and the law fitted to them; None where they were too few."""

    times: StepTimes
    law: Law | None


@dataclass(frozen=True)
class Placed:
    """The decode steps of one run that a law can speak of, ``[n]`` each: ``index`` in the run, load, time, cause (-1: none)."""

    index: Ints
    context: Array
    batch: Ints
    ns: Array
    cause: Ints

    def __len__(self) -> int:
        return len(self.index)

    @property
    def loads(self) -> Loads:
        return Loads.of("decode", self.context, self.batch.astype(float))

    @property
    def batches(self) -> int:
        """Sequences of a step, in the median."""
        return int(np.median(self.batch))

    def knots(self) -> Placed:
        """A few of them, evenly chosen, first and last among them."""
        rows = np.unique(np.linspace(0, len(self) - 1, min(len(self), KNOTS)).round().astype(int))
        return Placed(self.index[rows], self.context[rows], self.batch[rows], self.ns[rows], self.cause[rows])


_TIMINGS: WeakKeyDictionary[Tape, tuple[int, ref[Reader], Timing]] = WeakKeyDictionary()


def timing_of(tape: Tape) -> Timing:
    """The steps of a tape and their law, found once for as long as the tape does not grow."""
    known = _TIMINGS.get(tape)
    if known is not None and known[1]() is tape.reader:
        return known[2]
    n = tape.columns("step").n_rows
    if known is None or known[0] != n:
        law = None
        with contextlib.suppress(StudyError):
            # what grows would be fitted again and again
            law = None if tape.state == "recording" else fit(tape)
        known = (n, ref(tape.reader), Timing(step_times_of(tape), law))
    _TIMINGS[tape] = (n, ref(tape.reader), known[2])
    return known[2]


def placed(timing: Timing, tape: Tape, run: int) -> Placed:
    """The decode steps of a run that have a known load."""
    times = timing.times
    steps = tape.reader.steps(run)
    starts, ends = np.asarray(steps["start_ns"]), np.asarray(steps["end_ns"])
    # two steps that begin at one moment cannot both have lasted
    index = {start: i for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)) if end > start}
    rows = np.flatnonzero((times.run == run) & times.decode)
    found = np.array([index[start] for start in times.start_ns[rows].tolist()], np.int64)
    return Placed(found, times.context[rows], times.batch[rows], times.ns[rows], times.cause[rows])


def law_part(timing: Timing, steps: Placed, tape: Tape) -> Part:
    """The law over a run: its curve with the interval at some steps, coefficients, and measured over law at every step."""
    law = timing.law
    if tape.state == "recording":
        return missing(Message("page_time.no_law_yet"))
    if law is None or law.decode is None or not len(steps):
        model = shlex.quote(str(tape.setting.facts.get("model") or "MODEL"))
        return missing(_too_little(steps), f"tokentape sweep {model} --context 64..1024")
    part = law.decode
    knots = steps.knots()
    estimate = part.fitted.estimate(knots.loads, np.zeros(len(knots), int))
    width = np.exp(part.fitted.quantile(CONFIDENCE) * estimate.deviation)
    ratio = steps.ns / np.maximum(part.fitted.plain(steps.loads), 1e-9)
    return {
        "sentence": law_sentence(law, steps.batches).as_dict(),
        "form": part.form,
        "coefficients": [_coefficient(one) for one in part.coefficients],
        "check": None if part.check is None else _check(part.check).as_dict(),
        "band": Message("page_time.band", {"confidence": f"{CONFIDENCE:.0%}", "block": BLOCK}).as_dict(),
        "knots": knots.index.tolist(),
        "ns": short(estimate.ns, 4),
        "low": short(estimate.ns / width, 4),
        "high": short(estimate.ns * width, 4),
        "index": steps.index.tolist() if not _consecutive(steps.index) else int(steps.index[0]),
        "ratio": short(ratio, 4),
        "ratio_caption": _ratios(ratio, steps.cause).as_dict(),
    }


_FAR = 4
"""A slope is told for no more tokens than this many times the contexts that were measured."""


def _per(span: float) -> int:
    """For how many tokens of context a slope is told that was measured over ``span`` of them: a thousand, or fewer."""
    return next((many for many in (1000, 100) if many <= _FAR * span), 10)


_OF_CONTEXT = re.compile(r"(?P<term>key-value|positions)(?: beyond (?P<at>.+))?")


def law_sentence(law: Law, batch: int) -> Message:
    """What context costs a step of so many sequences, with its interval and the contexts that it was measured at.

    Beyond the last bend, where the law has one.
    """
    part = law.decode
    assert part is not None
    per = _per(part.context[1] - part.context[0])
    value = low = high = 0.0
    bend = None
    for one in part.coefficients:
        found = _OF_CONTEXT.fullmatch(one.name)
        if found is None:
            continue
        name, at = found["term"], found["at"]
        many = per * (batch if name == "key-value" else 1)
        value, low, high = value + many * one.value, low + many * one.low, high + many * one.high
        bend = bend if at is None or one.value == 0 else at
    if not high:
        return Message("page_time.law_flat")
    first, last = (round(end) for end in part.context)
    told = {"value": duration(value), "low": duration(low), "high": duration(high), "batch": batch, "bend": bend}
    told |= {"per": per, "first": first, "last": last}
    key = "law_no_context" if low <= 0 else "law_context" if bend is None else "law_context_beyond"
    return Message(f"page_time.{key}", told)


def floor_part(tape: Tape, steps: Placed) -> Part:
    """The least time of each step on the machine that the tape was made on, by its roofline, at some steps."""
    facts = tape.setting.facts
    if facts.get("config") is None or not len(steps):
        return missing(Message("page_time.no_config" if facts.get("config") is None else "page_time.no_floor"))
    machine = machine_of(facts)
    if machine.hardware is None:
        return missing(Message("page_cost.no_roof", {"why": machine.note}), "tokentape doctor --measure")
    knots = steps.knots()
    try:
        work = replace(workload_of(facts), pairs="seen")
        least = [
            roof(work.decode(context, batch), machine.hardware, work.compute_dtype, work.tensor_parallel, batch).ns
            for context, batch in zip(knots.context.tolist(), knots.batch.tolist(), strict=True)
        ]
    except (StudyError, UsageError) as error:
        return missing(Message("page_core.refused", {"what": error.what, "why": error.why, "fix": error.fix}))
    above = float(np.median(knots.ns / np.array(least)))
    told = {"machine": machine_name(machine.hardware), "times": _times(above)}
    return {
        "name": machine.hardware.name,
        "badge": "modelled",
        "knots": knots.index.tolist(),
        "ns": short(least, 4),
        "above": rounded(above, 4),
        "note": Message("page_time.floor", {**told, "source": machine.note}).as_dict(),
    }


def _too_little(steps: Placed) -> Message:
    told: dict[str, Any] = {
        "n": len(steps),
        "cells": LEAST_CELLS,
        "contexts": LEAST_CONTEXTS,
        "span": f"{LEAST_SPAN:g}",
    }
    if not len(steps):
        return Message("page_time.no_law_unplaced", told)
    low, high = int(steps.context.min()), int(steps.context.max())
    return Message("page_time.no_law", {**told, "low": low, "high": high})


def _coefficient(one: Coefficient) -> dict[str, Any]:
    return {
        "name": term_message(one.name).as_dict(),
        "per": per_message(one.per).as_dict(),
        "value": rounded(one.value, 4),
        "low": rounded(one.low, 4),
        "high": rounded(one.high, 4),
        "share": rounded(one.share, 3),
    }


def _check(check: Any) -> Message:
    told = {"error": f"{check.median_error:.1%}", "coverage": f"{check.coverage:.0%}", "n": check.n}
    return Message("page_time.law_check", told)


def _ratios(ratio: Array, cause: Ints) -> Message:
    fitted = ratio[cause < 0]
    if not len(fitted):
        return Message("page_time.ratio_none")
    low, high = np.quantile(fitted, (0.05, 0.95))
    told = {"low": f"{low:.2f}", "high": f"{high:.2f}", "most": _times(float(ratio.max())), "n": len(ratio)}
    return Message("page_time.ratio", told)


def _times(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _consecutive(index: Ints) -> bool:
    return bool(np.all(np.diff(index) == 1))
