"""Which measurement narrows the law most for the time that it takes.

The law of a kind is linear in :func:`terms_of`, and its errors are relative. So a visit to a cell adds ``w f f'`` to the
information ``M``, with ``f`` the terms over the time of a step there; the average relative variance of predictions over the
grid is ``trace(A inv(M))``, ``A`` the mean of ``f f'`` over it: V-optimality (A. C. Atkinson, A. N. Donev, R. D. Tobias, "Optimum
Experimental Designs, with SAS", 2007, chapter 10). Cells are chosen one by one, each the one whose visit lowers that most for
each second.

A design that is optimal for exactly this law would visit a few corners over and over, and never see that the law is another.
Two things keep it from that. There are terms of doubt beside, each expected to be small against the time (W. DuMouchel, B. Jones,
"A simple Bayesian modification of D-optimal designs to reduce dependence on an assumed model", Technometrics 36, 1994). And a cell
has an error of its own, as large as that of a visit, which no repetition averages out: ``w`` is what the visit adds to
``n / (1 + n)``, where ``n`` counts the visits of its cell.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tokentape.experiment.grid import Cell
from tokentape.study.law.changes import MAD_TO_SD

__all__ = [
    "Chosen",
    "CostLaw",
    "average_variance",
    "best_next",
    "choose",
    "outlook",
    "prior_of",
    "relative_terms",
    "terms_of",
]

Floats = npt.NDArray[np.float64]

N_TERMS = 3
DOUBT = 0.05
"""How large the terms of doubt are thought to be at most, relative to the time of a step (one standard deviation)."""
NOISE = 0.03
"""The relative error of one visit, as long as none was repeated."""
OPEN = 1e3
"""The same for the terms of the law: nothing is known of them."""


def terms_of(cell: Cell) -> Floats:
    """The terms of the generic law at a cell: of decode ``(1, batch, batch*context)``, of prefill ``(1, length*batch,
    length^2*batch)``.
    """
    tokens = cell.context * cell.batch
    if cell.kind == "decode":
        return np.array([1.0, cell.batch, tokens])
    return np.array([1.0, tokens, cell.context * tokens])


def _doubts_of(cell: Cell) -> Floats:
    """What may be in the law beside: curvature in batch and in tokens, and a share of the context alone."""
    tokens = float(cell.context * cell.batch)
    if cell.kind == "decode":
        return np.array([cell.context, cell.batch**2, tokens**2])
    return np.array([cell.batch, tokens**0.5, tokens**2])


def relative_terms(cells: Sequence[Cell], seconds: Floats) -> Floats:
    """Terms of the law and of doubt over the time of a step, ``[n, 6]``, each column scaled to at most 1."""
    rows = np.array([np.concatenate([terms_of(cell), _doubts_of(cell)]) for cell in cells]) / seconds[:, None]
    scaled: Floats = rows / np.abs(rows).max(axis=0)
    return scaled


def prior_of(noise: float) -> Floats:
    """The information ``[6, 6]`` before the first visit, in units of a visit whose relative error is ``noise``."""
    sizes = np.array([OPEN] * N_TERMS + [DOUBT] * (6 - N_TERMS))
    return np.diag((noise / sizes) ** 2)


def average_variance(rows: Floats, information: Floats) -> float:
    """The mean over ``rows`` of the relative variance of a prediction, in units of that of a visit."""
    return float(np.einsum("ij,ji->", rows, np.linalg.solve(information, rows.T)) / len(rows))


def weight(n_visits: Floats | int) -> Any:
    """The weight of a cell that was visited so often: 0, 1/2, 2/3, ..., in units of a visit without an error of the cell's own."""
    return n_visits / (1 + n_visits)


def best_next(rows: Floats, information: Floats, weights: Floats, costs: Floats) -> tuple[int, float]:
    """The row which, added with its weight, lowers :func:`average_variance` over all ``rows`` most for its cost, and by how
    much for each second; rows of infinite cost are not chosen.
    """
    solved = np.linalg.solve(information, rows.T)  # [p, n]
    mean = rows.T @ rows / len(rows)
    spread = np.einsum("ni,in->n", rows, solved)
    lowered = weights * np.einsum("in,ij,jn->n", solved, mean, solved) / (1 + weights * spread)
    worth = np.where(np.isfinite(costs), lowered / costs, -np.inf)
    place = int(np.argmax(worth))
    return place, float(worth[place])


@dataclass(slots=True)
class CostLaw:
    """How long something takes at each cell, learnt from visits: non-negative coefficients of :func:`terms_of`, fitted to the
    relative error, for each kind.
    """

    seen: dict[str, list[tuple[Cell, float]]] = field(default_factory=dict)
    _fitted: dict[str, Floats] = field(default_factory=dict)

    def learn(self, cell: Cell, seconds: float) -> None:
        """One visit took so long."""
        self.seen.setdefault(cell.kind, []).append((cell, max(seconds, 1e-9)))
        self._fitted.pop(cell.kind, None)

    def seconds(self, cell: Cell) -> float | None:
        """What a visit takes; None where no visit of the kind was made yet."""
        if cell.kind not in self.seen:
            return None
        if cell.kind not in self._fitted:
            self._fitted[cell.kind] = _fitted(self.seen[cell.kind])
        return float(self._fitted[cell.kind] @ terms_of(cell))

    def at_most(self, cell: Cell) -> float | None:
        """What a visit does not exceed: no term grows by more than the largest ratio of terms to a cell that was seen. With
        three cells seen the fitted law, and half of it on top, is believed where it says less.
        """
        seen = self.seen.get(cell.kind)
        if not seen:
            return None
        here = terms_of(cell)
        bound = min(seconds * max(1.0, float((here / terms_of(other)).max())) for other, seconds in seen)
        if len({other for other, _ in seen}) >= N_TERMS:
            bound = min(bound, 1.5 * (self.seconds(cell) or 0.0))
        return bound

    def seconds_of(self, cells: Iterable[Cell]) -> float | None:
        """What visits of all the cells take together; kinds not seen yet count as the others do on average."""
        known = [self.seconds(cell) for cell in cells]
        told = [seconds for seconds in known if seconds is not None]
        return sum(told) * len(known) / len(told) if told else None if known else 0.0

    def noise(self, kind: str) -> float | None:
        """The relative standard deviation of a visit about the fitted law, judged by the median, which a few visits that were
        disturbed do not move; None where no visit is left over to tell it.
        """
        seen = self.seen.get(kind, ())
        free = len(seen) - min(N_TERMS, len({cell for cell, _ in seen}))
        if free <= 0:
            return None
        off = [abs(math.log(seconds / (self.seconds(cell) or seconds))) for cell, seconds in seen]
        return MAD_TO_SD * float(np.median(off)) * math.sqrt(len(seen) / free)


def _fitted(seen: Sequence[tuple[Cell, float]]) -> Floats:
    from scipy.optimize import nnls

    rows = np.array([terms_of(cell) / seconds for cell, seconds in seen])
    scale = rows.max(axis=0)
    found: Floats = nnls(rows / scale, np.ones(len(rows)))[0] / scale
    return found


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is known of a kind: the relative standard error that predictions over the grid are expected to have."""

    kind: str
    n_visited: int
    n_cells: int
    error: float | None


def choose(cells: Sequence[Cell], steps: CostLaw, visits: CostLaw, left_s: float, most: int) -> list[Cell]:
    """Up to ``most`` cells to visit next, the most useful first, which together take no longer than ``left_s``.

    ``steps`` has learnt how long a step takes, ``visits`` how long a visit. Of a kind that was never visited the cell of the
    fewest tokens comes first: nobody knows yet what the others would take.
    """
    kinds = sorted({cell.kind for cell in cells})
    new = [kind for kind in kinds if kind not in visits.seen]
    if new:
        return [min((c for c in cells if c.kind == kind), key=lambda c: c.context * c.batch) for kind in new]
    states = [_State(kind, [cell for cell in cells if cell.kind == kind], steps, visits) for kind in kinds]
    found: list[Cell] = []
    while len(found) < most:
        state, place, worth = max(((state, *state.best(left_s)) for state in states), key=lambda one: one[2])
        if worth <= 0:
            break
        found.append(state.cells[place])
        left_s -= state.add(place)
    return found


class _State:
    """The information about one kind, as it grows while cells are chosen."""

    def __init__(self, kind: str, cells: list[Cell], steps: CostLaw, visits: CostLaw) -> None:
        self.cells = cells
        self._rows = relative_terms(cells, np.array([steps.seconds(cell) or 1e-9 for cell in cells]))
        self._costs = np.array([visits.seconds(cell) or 1e-9 for cell in cells])
        self._at_most = np.array([visits.at_most(cell) or 1e-9 for cell in cells])
        count = Counter(cell for cell, _ in steps.seen[kind])
        self._n_visits = np.array([count[cell] for cell in cells])
        noise = max(steps.noise(kind) or NOISE, 1e-3)
        self._information = prior_of(noise) + (self._rows.T * weight(self._n_visits)) @ self._rows

    def best(self, left_s: float) -> tuple[int, float]:
        costs = np.where(self._at_most <= left_s, self._costs, np.inf)
        return best_next(self._rows, self._information, self._adds(), costs)

    def _adds(self) -> Floats:
        found: Floats = weight(self._n_visits + 1) - weight(self._n_visits)
        return found

    def add(self, place: int) -> float:
        row = self._rows[place]
        self._information += self._adds()[place] * np.outer(row, row)
        self._n_visits[place] += 1
        return float(self._at_most[place])

    def variance(self) -> float:
        return average_variance(self._rows[:, :N_TERMS], self._information[:N_TERMS, :N_TERMS])


def outlook(cells: Sequence[Cell], steps: CostLaw, visits: CostLaw) -> list[Chosen]:
    """For each kind how much of the grid was visited, and the relative standard error to be expected over all of it.

    The error is that of the law's own terms, as far as the law holds; None where no visit was repeated or left over.
    """
    found = []
    for kind in sorted({cell.kind for cell in cells}):
        of_kind = [cell for cell in cells if cell.kind == kind]
        visited = {cell for cell, _ in steps.seen.get(kind, ())}
        noise = steps.noise(kind)
        enough = noise is not None and len(visited) >= N_TERMS
        error = noise * float(np.sqrt(_State(kind, of_kind, steps, visits).variance())) if noise and enough else None
        found.append(Chosen(kind, len(visited & set(of_kind)), len(of_kind), error))
    return found
