"""Which visit comes next: by a list made before, or by what the time that is left buys."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tokentape.experiment.design import CostLaw, choose
from tokentape.experiment.grid import Cell
from tokentape.experiment.visits import REFERENCE_EVERY, Plan, Visit, reference_cell, schedule

__all__ = ["ByBudget", "ByRounds", "Made", "Order", "order_of"]


@dataclass(slots=True)
class Made:
    """The visits made so far: ``steps`` has learnt how long a step took in seconds, ``visits`` how long a visit did."""

    done: set[Visit] = field(default_factory=set)
    steps: CostLaw = field(default_factory=CostLaw)
    visits: CostLaw = field(default_factory=CostLaw)
    spent_s: float = 0.0

    def add(self, visit: Visit, step_s: float, visit_s: float) -> None:
        self.done.add(visit)
        self.steps.learn(visit.cell, step_s)
        self.visits.learn(visit.cell, visit_s)
        self.spent_s += visit_s


class Order(Protocol):
    """Tells the visits of a sweep one by one."""

    @property
    def n_all(self) -> int | None:
        """How many visits there are; None where the time decides."""

    def next(self) -> Visit | None:
        """The next visit; None where the sweep is done."""

    def left_s(self) -> float | None:
        """What the visits to come will take; None where nothing is known yet."""

    def without(self, cell: Cell) -> None:
        """The cell turned out to be impossible."""


class ByRounds:
    """Every visit of the plan that is not done yet, in the plan's order."""

    def __init__(self, cells: Sequence[Cell], plan: Plan, made: Made) -> None:
        self._made = made
        visits = schedule(cells, plan)
        self.n_all: int | None = len(visits)
        self._todo = deque(visit for visit in visits if visit not in made.done)

    def next(self) -> Visit | None:
        return self._todo.popleft() if self._todo else None

    def left_s(self) -> float | None:
        return self._made.visits.seconds_of(visit.cell for visit in self._todo)

    def without(self, cell: Cell) -> None:
        before = len(self._todo)
        self._todo = deque(visit for visit in self._todo if visit.cell != cell)
        self.n_all = (self.n_all or 0) - 1 - (before - len(self._todo))


class ByBudget:
    """Visits chosen a few at a time for what they tell, made in random order, the reference cell before each few."""

    def __init__(self, cells: Sequence[Cell], plan: Plan, made: Made, budget_s: float) -> None:
        self._cells, self._plan, self._made, self._budget_s = list(cells), plan, made, budget_s
        self._reference = reference_cell(cells)
        self._todo: deque[Visit] = deque()
        self.n_all: int | None = None

    def next(self) -> Visit | None:
        if not self._todo:
            self._todo.extend(self._few())
        while self._todo:
            visit = self._todo.popleft()
            if (self._made.visits.at_most(visit.cell) or 0.0) <= self.left_s() or not self._made.done:
                return visit
        return None

    def _few(self) -> Iterable[Visit]:
        made = self._made
        reference = Visit(self._reference, sum(visit.reference for visit in made.done), reference=True)
        left = self.left_s() - (made.visits.at_most(self._reference) or 0.0)
        cells = choose(self._cells, made.steps, made.visits, left, REFERENCE_EVERY)
        if not cells:
            return
        yield reference
        count = Counter(visit.cell for visit in made.done if not visit.reference)
        for place in np.random.default_rng([self._plan.seed, len(made.done)]).permutation(len(cells)):
            yield Visit(cells[place], count[cells[place]])
            count[cells[place]] += 1

    def left_s(self) -> float:
        return self._budget_s - self._made.spent_s

    def without(self, cell: Cell) -> None:
        self._cells = [other for other in self._cells if other != cell]
        self._todo = deque(visit for visit in self._todo if visit.cell != cell)


def order_of(cells: Sequence[Cell], plan: Plan, made: Made) -> Order:
    """The order that the plan asks for."""
    return ByRounds(cells, plan, made) if plan.budget_s is None else ByBudget(cells, plan, made, plan.budget_s)
