"""Times of two tapes side by side: steps at equal context, time to first token, the laws fitted to each; and the verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.errors import StudyError
from tokentape.study.times import runs_of, ttft_ns
from tokentape.study.turns import layout_of, steps_of_run, times_of_run, verdict_of_turns
from tokentape.study.verdict import UNCLEAR, Question, Verdict, judge_apart, judge_blocks

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = [
    "CoefficientPair",
    "Ratio",
    "StepRatios",
    "coefficient_pairs",
    "ratio_of_first_tokens",
    "step_ratios",
    "verdict_on",
]

BLOCKS = 8
"""Stretches into which the steps of one run are cut, so that each is longer than what makes neighbours alike."""

APART = (
    "the two were not recorded in turns: a drift of the machine from one to the other cannot be told from a difference, and "
    "the interval knows only what varied within each"
)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A time of A and of B (nanoseconds, medians of ``n_a`` and ``n_b`` values), and B over A."""

    a_ns: float
    b_ns: float
    ratio: float
    n_a: int
    n_b: int


@dataclass(frozen=True, slots=True)
class StepRatios:
    """Times of the steps after the prompt at each place that both have: medians over the runs, nanoseconds.

    ``at`` is ``"context"``, or ``"step"`` (counted from 0) where the contexts have nothing in common; ``places`` are
    ``(batch, context or step)``. ``whole`` has the medians over the places, its ratio being that of each place.
    """

    at: str
    places: tuple[tuple[int, int], ...]
    a_ns: tuple[float, ...]
    b_ns: tuple[float, ...]
    whole: Ratio


@dataclass(frozen=True, slots=True)
class CoefficientPair:
    """A coefficient of the laws fitted to A and to B: ``(value, low, high)`` in nanoseconds for each ``per``; None where absent."""

    kind: str
    name: str
    per: str
    meaning: str
    a: tuple[float, float, float] | None
    b: tuple[float, float, float] | None

    @property
    def apart(self) -> bool | None:
        """Whether the intervals do not touch; None where one is missing."""
        if self.a is None or self.b is None:
            return None
        return self.a[2] < self.b[1] or self.b[2] < self.a[1]


def step_ratios(a: Tape, b: Tape) -> StepRatios | None:
    """Steps of both tapes at equal batch and context; None where there are none."""
    for at in ("context", "step"):
        sides = [_by_place(tape, at) for tape in (a, b)]
        shared = sorted(sides[0].keys() & sides[1].keys())
        if shared:
            break
    else:
        return None
    medians = [[statistics.median(side[place]) for place in shared] for side in sides]
    ratio = math.exp(statistics.median(math.log(y / x) for x, y in zip(*medians, strict=True)))
    counts = [sum(len(side[place]) for place in shared) for side in sides]
    whole = Ratio(statistics.median(medians[0]), statistics.median(medians[1]), ratio, counts[0], counts[1])
    return StepRatios(at, tuple(shared), tuple(medians[0]), tuple(medians[1]), whole)


def _by_place(tape: Tape, at: str) -> dict[tuple[int, int], list[int]]:
    found: dict[tuple[int, int], list[int]] = {}
    for group in runs_of(tape):
        for i, (batch, context, ns) in enumerate(steps_of_run(group)):
            place = i if at == "step" else context
            if place is not None and ns > 0:
                found.setdefault((batch, place), []).append(ns)
    return found


def ratio_of_first_tokens(a: Tape, b: Tape) -> Ratio | None:
    """Time to first token, median over the runs; None where one cannot be told."""
    times = [
        [
            min(known)
            for group in runs_of(tape)
            if (known := [t for trace in group if (t := ttft_ns(trace)) is not None])
        ]
        for tape in (a, b)
    ]
    if not all(times) or min(min(side) for side in times) <= 0:
        return None
    medians = [statistics.median(side) for side in times]
    return Ratio(medians[0], medians[1], medians[1] / medians[0], len(times[0]), len(times[1]))


def coefficient_pairs(a: Tape, b: Tape) -> tuple[tuple[CoefficientPair, ...], str | None]:
    """The coefficients of both laws, beside each other, or none and the reason."""
    from tokentape.study.law.laws import fit

    laws = []
    for name, tape in (("A", a), ("B", b)):
        try:
            laws.append(fit(tape))
        except StudyError as error:
            return (), f"{name}: {error.what}: {error.why}"
    found: dict[tuple[str, str], CoefficientPair] = {}
    for side, law in zip("ab", laws, strict=True):
        for kind in ("decode", "prefill"):
            part = getattr(law, kind)
            for c in () if part is None else part.coefficients:
                pair = found.get((kind, c.name)) or CoefficientPair(kind, c.name, c.per, c.meaning, None, None)
                told = (c.value, c.low, c.high)
                found[kind, c.name] = replace(pair, a=told) if side == "a" else replace(pair, b=told)
    return tuple(found.values()), None


def verdict_on(a: Tape, b: Tape, of: str, question: Question | None) -> tuple[Verdict, str | None]:
    """The verdict, and what has to be said with it: None only where A and B were recorded in turns."""
    layout = layout_of(a, b)
    if layout is not None and layout["of"] == of:
        return verdict_of_turns(a, b, layout, question), None
    return _apart(a, b, of, question or Question()), f"{_order(a, b)}{APART}"


def _order(a: Tape, b: Tape) -> str:
    first, second = a.notes.get("origin_unix_ns"), b.notes.get("origin_unix_ns")
    if not isinstance(first, int) or not isinstance(second, int) or first == second:
        return ""
    return "A was recorded before B; " if first < second else "B was recorded before A; "


def _apart(a: Tape, b: Tape, of: str, question: Question) -> Verdict:
    """By whole runs where there are three a side, else by stretches of the steps that both have."""
    ratios = step_ratios(a, b) if of == "decode" else None
    places = None if ratios is None or ratios.at != "context" else set(ratios.places)
    runs = [_logs_of_runs(tape, of, places) for tape in (a, b)]
    if min(len(runs[0]), len(runs[1])) >= 3:
        return judge_apart(runs[0], runs[1], question)
    n = 0 if ratios is None else len(ratios.places)
    if ratios is None or n < 2 * BLOCKS:
        lacks = f"{2 * BLOCKS} steps at equal context" if of == "decode" else "3 runs a side"
        reason = f"{n} steps at equal context and {min(len(runs[0]), len(runs[1]))} runs a side; it takes {lacks}"
        if of == "decode":
            reason += ", or 3 runs a side"
        return Verdict(UNCLEAR, question.threshold, question.confidence, None, None, None, 0, False, reason)
    contrasts = np.log(np.asarray(ratios.b_ns) / np.asarray(ratios.a_ns))
    return judge_blocks([float(np.median(block)) for block in np.array_split(contrasts, BLOCKS)], question)


def _logs_of_runs(tape: Tape, of: str, places: set[tuple[int, int]] | None) -> list[float]:
    """For each run the logarithm of its median time, at the places that both tapes have."""
    found = []
    for group in runs_of(tape):
        times: Sequence[Any] = times_of_run(group, of)
        if of == "decode" and places is not None:
            times = [ns for batch, context, ns in steps_of_run(group) if (batch, context) in places]
        if times and (median := statistics.median(times)) > 0:
            found.append(math.log(median))
    return found
