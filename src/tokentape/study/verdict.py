"""FASTER, SLOWER, SAME or UNCLEAR: what interleaved measurements of A and B allow to be said. Statistics alone.

Some measurements in a row, A and B taking turns as ABBA, are a *unit*; some units are a *pair*: one measurement of how B's times
stand to A's, a logarithm. What is done with them:

* **Unit.** Each ABBA gives half of what its two B take longer than its two A, in logarithms, which leaves out a linear drift; what
  is held against each other is the same step of a run, where the context, and so the work, is the same. The median over the unit
  sets stalls aside.
* **Pair.** The mean of the middle half of its units (25 % trimmed: Tukey & McLaughlin, Sankhya A 25, 1963); their spread from the
  winsorised variance.
* **Interval.** Student's t over the pairs. Units begin with A and with B in turn, and a coin decides with which a pair begins, so
  that what the machine does meanwhile, however autocorrelated, enters each pair with a sign of its own (Fisher, The Design of
  Experiments, 1935, section 21; how t behaves under such symmetry alone: Efron, JASA 64, 1969).
* **Looks.** After each pair one may stop. The error allowed is spent over the looks as ``alpha (n / max)^2`` (Lan & DeMets,
  Biometrika 70, 1983; Kim & DeMets, Biometrika 74, 1987), each look taking what has become free since the one before. By Bonferroni
  their sum is not exceeded, whatever the dependence: the intervals hold all at once (Jennison & Turnbull, JRSS B 51, 1989).
* **Words.** At a size of 3 %: SAME where the interval lies within +-3 % (two one-sided tests: Schuirmann, J. Pharmacokin. Biopharm.
  15, 1987). SLOWER where it lies above half of that, FASTER where below minus half. Between half and whole is the zone of
  indifference (Wald, Sequential Analysis, 1947) that a shift of exactly the size needs to be found at all. Else UNCLEAR.
* **Length.** Units are added to a pair until its spread is :attr:`Question.spread`. How they spread is the same whichever side
  they are for, so that this leaves the sign of the pair to the coin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tokentape.errors import TooFewPoints, UsageError

__all__ = [
    "FASTER",
    "SAME",
    "SLOWER",
    "UNCLEAR",
    "Question",
    "Verdict",
    "contrast_of_runs",
    "contrast_of_steps",
    "error_of_pair",
    "excess_of_pairs",
    "is_long_enough",
    "judge",
    "judge_apart",
    "judge_blocks",
    "pair_contrast",
    "spread_of_units",
]

FASTER, SLOWER, SAME, UNCLEAR = "FASTER", "SLOWER", "SAME", "UNCLEAR"

FIRST_LOOK = 5
"""Pairs before the first look. With fewer, signs that happen to agree would pass for a difference."""

LEAST_UNITS = 16
"""Units of a pair, unless a budget forbids: a stall that lasts for some of them is then left out with the ends."""

AT_MOST = 3.0
"""One pair that a stall hit is no reason to make all others longer than this squared."""

CUT = 0.25
POWER = 0.95
"""Planned for: that a shift of the size is found with the last pair at the latest. By simulation it is 0.89."""

Times = Sequence[float] | npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a difference of ``threshold`` (0.03 is 3 %), at a ``confidence`` over all looks, in ``max_pairs`` at most.

    Raises UsageError for what cannot be asked.
    """

    threshold: float = 0.03
    confidence: float = 0.99
    max_pairs: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise UsageError(
                f"a threshold of {100 * self.threshold:g} %",
                why="it is the size of the difference that matters, above 0 and at most 100 %",
                fix="a threshold of 3 %",
            )
        if not 0.5 <= self.confidence < 1:
            raise UsageError(
                f"a confidence of {self.confidence:g}",
                why="it is the chance that an interval holds, at least 0.5 and below 1",
                fix="a confidence of 0.99",
            )
        if self.max_pairs < 2:
            raise UsageError(
                f"{self.max_pairs} pairs at most", why="one pair has no spread; two are the least", fix="10 pairs"
            )

    @property
    def size(self) -> float:
        """The threshold as a logarithm."""
        return math.log1p(self.threshold)

    @property
    def margin(self) -> float:
        """Half the size: what a difference is found to exceed."""
        return self.size / 2

    @property
    def first_look(self) -> int:
        return min(FIRST_LOOK, self.max_pairs)

    @property
    def spread(self) -> float:
        """The standard deviation of a pair that is aimed at: then a shift of the size is found with :data:`POWER`."""
        needed = _t(1 - self.alpha(self.max_pairs) / 2, self.max_pairs - 1) + _normal(POWER)
        return (self.size - self.margin) * math.sqrt(self.max_pairs) / needed

    def alpha(self, n: int) -> float:
        """The error that the look after ``n`` pairs may take."""
        before = 0 if n <= self.first_look else n - 1
        return (1 - self.confidence) * (n**2 - before**2) / self.max_pairs**2


@dataclass(frozen=True, slots=True)
class Verdict:
    """``word`` on B against A at ``threshold`` and ``confidence``.

    ``change`` is the estimate of B's time over A's less one (0.03: B takes 3 % longer), ``low`` and ``high`` its interval; all None
    where ``n`` measurements, pairs or what stands for them, are too few. ``interleaved`` is False for A alone and then B alone;
    ``reason`` says in words what stands in the way of more, or None.
    """

    word: str
    threshold: float
    confidence: float
    change: float | None
    low: float | None
    high: float | None
    n: int
    interleaved: bool = True
    reason: str | None = None


def contrast_of_runs(a: Sequence[Times], b: Sequence[Times]) -> float | None:
    """A unit of whole runs, ABBA: median over the steps that all of them have; None where there is none.

    ``a`` and ``b`` hold the runs of a side, each with its times step by step. Raises TooFewPoints for a time that is not above 0.
    """
    n = min(len(run) for run in (*a, *b))
    if n == 0:
        return None
    logs = _logs([np.asarray(run, dtype=float)[:n] for run in (*a, *b)])
    return float(np.median(logs[len(a) :].mean(axis=0) - logs[: len(a)].mean(axis=0)))


def contrast_of_steps(a: Times, b: Times) -> float | None:
    """A unit of steps that took turns, ABBA ABBA ...: median over the fours; None where there is no whole one.

    ``a`` and ``b`` hold the times of the same steps. Raises TooFewPoints for a time that is not above 0.
    """
    n = min(len(a), len(b)) // 2 * 2
    if n == 0:
        return None
    logs = _logs([np.asarray(a, dtype=float)[:n], np.asarray(b, dtype=float)[:n]])
    return float(np.median((logs[1] - logs[0]).reshape(-1, 2).mean(axis=1)))


def _logs(times: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    rows = np.array(times)
    if not (rows > 0).all():
        raise TooFewPoints(
            "a step took no time at all", why="a ratio of times needs times above 0", fix="measure a longer step"
        )
    logs: npt.NDArray[np.float64] = np.log(rows)
    return logs


def pair_contrast(units: Sequence[float]) -> float:
    """The trimmed mean of the units of a pair, at least one."""
    ordered = np.sort(units)
    k = int(CUT * len(ordered))
    return float(ordered[k : len(ordered) - k].mean())


def spread_of_units(units: Sequence[float]) -> float | None:
    """The standard deviation that one unit contributes to a trimmed mean; None with fewer than two.

    Winsorised, over ``1 - 2 CUT``: Tukey & McLaughlin, 1963.
    """
    if len(units) < 2:
        return None
    ordered = np.sort(units)
    k = int(CUT * len(ordered))
    winsorised = np.clip(ordered, ordered[k], ordered[-k - 1])
    return float(winsorised.std(ddof=1)) / (1 - 2 * k / len(ordered))


def is_long_enough(units: Sequence[float], question: Question, excess: float = 1.0) -> bool:
    """Whether a pair of these units has the spread that the question needs, by their own spread.

    ``excess`` is by how much earlier pairs differed more than their units had said (:func:`excess_of_pairs`).
    """
    error = error_of_pair(units)
    if error is None or len(units) < LEAST_UNITS:
        return False
    # of so few the spread is known badly: the upper end of its 80 % interval is what has to do
    return error * math.sqrt((len(units) - 1) / _chi2(0.2, len(units) - 1)) * excess <= question.spread


def error_of_pair(units: Sequence[float]) -> float | None:
    """The standard error of :func:`pair_contrast`, as if its units were independent; None with fewer than two."""
    spread = spread_of_units(units)
    return None if spread is None else spread / math.sqrt(len(units))


def excess_of_pairs(contrasts: Sequence[float], errors: Sequence[float]) -> float:
    """How many times as far as their ``errors`` say the pairs lie apart, from 1 to :data:`AT_MOST`; 1 with fewer than three.

    Units that resemble their neighbours tell less than as many independent ones.
    """
    expected = math.fsum(error**2 for error in errors) / max(1, len(errors))
    if len(contrasts) < 3 or expected == 0:
        return 1.0
    return min(AT_MOST, max(1.0, float(np.std(contrasts, ddof=1)) / math.sqrt(expected)))


def judge(contrasts: Sequence[float], question: Question) -> Verdict:
    """The verdict after these pairs, as one of the looks of ``question``. Pairs beyond its ``max_pairs`` raise UsageError."""
    n = len(contrasts)
    if n > question.max_pairs:
        raise UsageError(
            f"{n} pairs where {question.max_pairs} were to be the most",
            why="the error allowed is shared out over that many looks",
            fix=f"ask for at most {n} pairs before measuring",
        )
    if n < question.first_look:
        reason = f"{n} of the {question.first_look} pairs that the first look needs"
        return Verdict(UNCLEAR, question.threshold, question.confidence, None, None, None, n, reason=reason)
    mean, half = _interval(np.asarray(contrasts, dtype=float), question.alpha(n))
    return _verdict(mean, half, n, question)


def judge_apart(a: Sequence[float], b: Sequence[float], question: Question) -> Verdict:
    """The verdict on A alone and then B alone, from the logarithms of their times: one of each run, at least two a side.

    Welch's interval (Biometrika 34, 1947). It knows the variation within each side; what drifted between the two it cannot.
    """
    if min(len(a), len(b)) < 2:
        reason = "one measurement a side has no spread"
        n = min(len(a), len(b))
        return Verdict(UNCLEAR, question.threshold, question.confidence, None, None, None, n, False, reason)
    variances = [float(np.var(side, ddof=1)) / len(side) for side in (a, b)]
    total = math.fsum(variances)
    if total > 0:
        freedom = total**2 / math.fsum(v**2 / (len(s) - 1) for v, s in zip(variances, (a, b), strict=True))
        half = _t((1 + question.confidence) / 2, freedom) * math.sqrt(total)
    else:
        half = 0.0
    return replace(_verdict(float(np.mean(b) - np.mean(a)), half, min(len(a), len(b)), question), interleaved=False)


def judge_blocks(contrasts: Sequence[float], question: Question) -> Verdict:
    """The verdict on one run of A and one of B that was made after it, from the contrasts of stretches of their steps.

    Batch means (Schmeiser, Operations Research 30, 1982). What drifted between the two runs it cannot know.
    """
    mean, half = _interval(np.asarray(contrasts, dtype=float), 1 - question.confidence)
    return replace(_verdict(mean, half, len(contrasts), question), interleaved=False)


def _interval(values: npt.NDArray[np.float64], alpha: float) -> tuple[float, float]:
    """Mean and half the width of Student's interval."""
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()), _t(1 - alpha / 2, len(values) - 1) * error


def _verdict(mean: float, half: float, n: int, question: Question) -> Verdict:
    low, high = mean - half, mean + half
    if -question.size < low and high < question.size:
        word = SAME
    elif low > question.margin:
        word = SLOWER
    elif high < -question.margin:
        word = FASTER
    else:
        word = UNCLEAR
    change, least, most = (math.expm1(min(value, 700.0)) for value in (mean, low, high))
    return Verdict(word, question.threshold, question.confidence, change, least, most, n)


@lru_cache(maxsize=4096)
def _t(chance: float, freedom: float) -> float:
    from scipy.stats import t

    return float(t.ppf(chance, freedom))


@lru_cache(maxsize=4096)
def _chi2(chance: float, freedom: float) -> float:
    from scipy.stats import chi2

    return float(chi2.ppf(chance, freedom))


def _normal(chance: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(chance)
