"""ABBA pairs: two sides take turns until the verdict between them is clear, or the budget is spent.

The machine's speed wanders, by a factor of two within a second and hardly from one step to the next. So where both sides live in
one process they take turns step by step; else run by run. What that shows is for :mod:`tokentape.study.verdict` to say.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tokentape.errors import TooFewPoints
from tokentape.study.verdict import (
    LEAST_UNITS,
    UNCLEAR,
    Question,
    Verdict,
    contrast_of_runs,
    contrast_of_steps,
    error_of_pair,
    excess_of_pairs,
    is_long_enough,
    judge,
    pair_contrast,
)

__all__ = ["FunctionSide", "Measured", "Moment", "Side", "measure"]

FOURS = 8
UNIT_NS = 1_000_000_000
"""A unit of steps is at most so many times ABBA, and fewer where that would take longer than this."""

MOST_UNITS = 512
"""Units of a pair at most: noise that needs more is told by the pairs."""


class Side(Protocol):
    """One of the two things that are compared."""

    def run(self) -> Iterator[float]:
        """One run of it, done as it is iterated: the time of each step that counts, in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Moment:
    """How far a measurement has come: ``n_units`` of the pair after ``n_pairs`` (None: warming up)."""

    n_pairs: int | None
    n_units: int
    elapsed_ns: int
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured: the contrast of each pair (log time of B over A), and where on the sides' runs it lies.

    Where turns are ``"steps"``, each of ``units`` is ``(run, first step, steps)`` of both sides; where ``"runs"``, ``(run, 0, 0)``
    stands for that run and the next. Run 0 warmed up. ``pairs`` has how many units each pair is of. ``ended`` is ``"clear"``,
    ``"pairs"``, ``"budget"`` or ``"interrupted"``.
    """

    verdict: Verdict
    contrasts: tuple[float, ...]
    turns: str
    units: tuple[tuple[int, int, int], ...]
    pairs: tuple[int, ...]
    seed: int | None
    elapsed_ns: int
    ended: str

    def layout(self, question: Question) -> dict[str, Any]:
        """What a tape has to know of it, so that the verdict can be derived again."""
        return {
            "threshold": question.threshold,
            "confidence": question.confidence,
            "max_pairs": question.max_pairs,
            "turns": self.turns,
            "units": [list(unit) for unit in self.units],
            "pairs": list(self.pairs),
            "seed": self.seed,
            "ended": self.ended,
        }


class FunctionSide:
    """A callable as a side: one run is one call, and its one time is how long that took."""

    def __init__(self, function: Callable[[], object], now_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self._function = function
        self._now_ns = now_ns

    def run(self) -> Iterator[float]:
        start = self._now_ns()
        self._function()
        yield self._now_ns() - start


def measure(
    a: Side,
    b: Side,
    question: Question,
    *,
    turns: str = "runs",
    budget_ns: int | None = None,
    seed: int | None = None,
    now_ns: Callable[[], int] = time.perf_counter_ns,
    watch: Callable[[Moment], None] | None = None,
) -> Measured:
    """Let ``a`` and ``b`` take turns until the verdict is clear, the pairs are used up, or ``budget_ns`` is spent.

    ``turns`` is ``"steps"`` or ``"runs"``; ``seed`` decides which side begins each pair. Ctrl-C ends it with what there is.
    Raises what a side raises, and TooFewPoints where the two have no two steps in common.
    """
    kind = _StepTurns if turns == "steps" else _RunTurns
    bench = _Bench(kind(a, b), question, budget_ns, random.Random(seed), now_ns, watch or (lambda moment: None))
    try:
        bench.warm_up()
        ended = bench.pairs()
    except KeyboardInterrupt:
        ended = "interrupted"
    finally:
        bench.turns.close()
    return bench.measured(ended, turns, seed)


class _RunTurns:
    """Whole runs take turns: a unit is the four of one ABBA."""

    def __init__(self, a: Side, b: Side) -> None:
        self._sides = (a, b)
        self._n_runs = 0
        self.units: list[tuple[int, int, int]] = []

    def warm_up(self, now_ns: Callable[[], int]) -> None:
        for side in self._sides:
            for _ in side.run():
                pass
        self._n_runs = 1

    def unit(self, first: int) -> float:
        """The contrast of the next unit, in which side ``first`` begins."""
        times: tuple[list[list[float]], ...] = ([], [])
        for which in (first, 1 - first, 1 - first, first):
            times[which].append(list(self._sides[which].run()))
        self.units.append((self._n_runs, 0, 0))
        self._n_runs += 2
        found = contrast_of_runs(times[0], times[1])
        if found is None:
            raise _nothing_in_common()
        return found

    def close(self) -> None:
        pass


class _StepTurns:
    """Steps take turns: a unit is some ABBA in a row out of one run of each side."""

    def __init__(self, a: Side, b: Side) -> None:
        self._sides = (a, b)
        self._runs: tuple[Iterator[float], Iterator[float]] | None = None
        self._run = 0
        self._step = 0
        self._fours = FOURS
        self.units: list[tuple[int, int, int]] = []

    def warm_up(self, now_ns: Callable[[], int]) -> None:
        """A whole run of each side, from which it is seen how units are best cut."""
        steps, ns = [], 0
        for side in self._sides:
            start = now_ns()
            steps.append(sum(1 for _ in side.run()))
            ns += (now_ns() - start) // max(1, steps[-1])
        fours = min(steps) // 2
        if fours == 0:
            raise _nothing_in_common()
        most = max(1, min(FOURS, UNIT_NS // max(1, 2 * ns)))
        self._fours = -(-fours // -(-fours // most))  # units of a run are of about one size

    def unit(self, first: int) -> float:
        """The contrast of the next unit, in which side ``first`` begins."""
        times: tuple[list[float], list[float]] = ([], [])
        for attempt in range(2):
            runs = self._runs or self._next_runs()
            began = self._step
            for _ in range(self._fours):
                four = [(which, next(runs[which], None)) for which in (first, 1 - first, 1 - first, first)]
                if any(ns is None for _, ns in four):
                    self.close()
                    break
                for which, ns in four:
                    times[which].append(ns)  # type: ignore[arg-type]
                self._step += 2
            if times[0]:
                self.units.append((self._run, began, len(times[0])))
                break
            if attempt:
                raise _nothing_in_common()
        found = contrast_of_steps(*times)
        assert found is not None
        return found

    def _next_runs(self) -> tuple[Iterator[float], Iterator[float]]:
        a, b = self._sides
        self._run, self._step = self._run + 1, 0
        self._runs = (a.run(), b.run())
        return self._runs

    def close(self) -> None:
        """End the runs under way where they are."""
        runs, self._runs = self._runs, None
        for run in runs or ():
            if (close := getattr(run, "close", None)) is not None:
                close()


def _nothing_in_common() -> TooFewPoints:
    return TooFewPoints(
        "A and B have no two steps in common to be timed",
        why="a run ended before there were two steps after its prompt",
        fix="more --max-new-tokens, --ignore-eos, or --of ttft",
    )


class _Bench:
    """A measurement that is under way."""

    def __init__(
        self,
        turns: _RunTurns | _StepTurns,
        question: Question,
        budget_ns: int | None,
        coin: random.Random,
        now_ns: Callable[[], int],
        watch: Callable[[Moment], None],
    ) -> None:
        self.turns = turns
        self._question = question
        self._budget_ns = budget_ns
        self._coin = coin
        self._now_ns = now_ns
        self._watch = watch
        self._start_ns = self._warm_ns = now_ns()
        self._pairs: list[int] = []
        self._contrasts: list[float] = []
        self._errors: list[float] = []
        self._verdict: Verdict | None = None

    def warm_up(self) -> None:
        """A run of each side that does not count."""
        self._watch(self._moment(None, 0))
        self.turns.warm_up(self._now_ns)
        self._warm_ns = self._now_ns()

    def pairs(self) -> str:
        """Pair after pair; says why it ended."""
        while len(self._contrasts) < self._question.max_pairs:
            units = self._pair()
            if not units:
                return "budget"
            self._pairs.append(len(units))
            self._contrasts.append(pair_contrast(units))
            self._errors.append(error_of_pair(units) or 0.0)
            self._verdict = judge(self._contrasts, self._question)
            if self._verdict.word != UNCLEAR:
                return "clear"
        return "pairs"

    def _pair(self) -> list[float]:
        """The units of one pair, an even number, as many as the noise asks for and the budget allows; none where it allows none."""
        first = self._coin.randrange(2)
        excess = excess_of_pairs(self._contrasts, self._errors)
        ends_ns = self._ends_ns()
        if self._pairs and self._left_ns() < 2 * self._unit_ns():
            return []
        units: list[float] = []
        while len(units) < MOST_UNITS and not is_long_enough(units, self._question, excess):
            if units and self._now_ns() + 2 * self._unit_ns() > ends_ns:
                break
            for i in range(2):
                self._watch(self._moment(len(self._contrasts), len(units)))
                units.append(self.turns.unit(first ^ i))
        return units

    def measured(self, ended: str, turns: str, seed: int | None) -> Measured:
        verdict = self._verdict or judge([], self._question)
        if verdict.word == UNCLEAR:
            verdict = replace(verdict, reason=self._why_unclear(ended))
        return Measured(
            verdict=verdict,
            contrasts=tuple(self._contrasts),
            turns=turns,
            units=tuple(self.turns.units[: sum(self._pairs)]),
            pairs=tuple(self._pairs),
            seed=seed,
            elapsed_ns=self._now_ns() - self._start_ns,
            ended=ended,
        )

    def _why_unclear(self, ended: str) -> str:
        n, first, most = len(self._contrasts), self._question.first_look, self._question.max_pairs
        after = f"after {n} of at most {most} pairs" if n >= first else f"after {n} of the {first} pairs that it takes"
        return {
            "pairs": f"the {n} pairs are used up",
            "budget": f"the budget was spent {after}{self._would_take()}",
            "interrupted": f"interrupted {after}",
        }[ended]

    def _left_ns(self) -> float:
        """Of the budget."""
        return math.inf if self._budget_ns is None else self._budget_ns - (self._now_ns() - self._start_ns)

    def _ends_ns(self) -> float:
        """When the pair that begins now has to end, so that as much is left for each of those that may follow."""
        return self._now_ns() + self._left_ns() / (self._question.max_pairs - len(self._pairs))

    def _unit_ns(self) -> float:
        """How long a unit takes."""
        return (self._now_ns() - self._warm_ns) / max(1, len(self.turns.units))

    def _would_take(self) -> str:
        """What budget this noise asks for, by the pairs so far."""
        if not self._pairs:
            return ""
        error = math.sqrt(math.fsum(error**2 for error in self._errors) / len(self._errors))
        needed = sum(self._pairs) / len(self._pairs) * (error / self._question.spread) ** 2
        units = max(LEAST_UNITS, needed) * (self._question.max_pairs - len(self._pairs))
        minutes = (self._now_ns() - self._start_ns + units * self._unit_ns()) / 60e9
        time = f"{60 * minutes:.0f} s" if minutes < 2 else f"{minutes:.0f} min"
        return f"; at this noise, at most {time} would do"

    def _moment(self, n_pairs: int | None, n_units: int) -> Moment:
        return Moment(n_pairs, n_units, self._now_ns() - self._start_ns, self._verdict)
