"""From measured points to a fitted part of a law: cells, the choice of the form, the discrepancy, and its own check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tokentape.study.law.changes import MAD_TO_SD
from tokentape.study.law.discrepancy import Discrepancy, Kernel, learn
from tokentape.study.law.regression import choose, fit_relative
from tokentape.study.law.terms import Form, Loads, forms_of

__all__ = ["LEAST_CELLS", "Cells", "Check", "Estimate", "Fitted", "fit_cells"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MAX_FORMS = 5
"""So many of the forms that explain the data equally well have a say in a prediction."""

LEAST_CELLS = 4
"""Of fewer cells no law is fitted, not even to check one."""

MAX_FOLDS = 20
"""A choice of the form for each fold takes its time; with more cells each fold leaves out several."""

STRETCH = (0.7, 3.0)
"""Intervals follow what was seen on left-out cells (a conformal step: Vovk et al., Algorithmic Learning in a Random World,
2005), but shrink little: few cells say little about tails."""

LEAST_ALIKE = 8
"""So many left-out cells between others, or at the edges, make a factor of their own."""

CONFIDENCE = 0.9


@dataclass(frozen=True)
class Cells:
    """Measurements by cell: all of one context, batch and group. ``ns`` ``[n]`` is the median of a cell's ``visits``.

    ``logs`` has, for each cell, the logarithms of its visits; ``groups`` numbers the Settings.
    """

    loads: Loads
    ns: Array
    groups: Ints
    logs: tuple[Array, ...]

    def __len__(self) -> int:
        return len(self.ns)

    def take(self, rows: npt.NDArray[np.bool_]) -> Cells:
        logs = tuple(values for values, keep in zip(self.logs, rows.tolist(), strict=True) if keep)
        return Cells(self.loads.take(rows), self.ns[rows], self.groups[rows], logs)

    def surround(self, loads: Loads, groups: Ints) -> npt.NDArray[np.bool_]:
        """Which loads ``[m]`` lie between cells of their group: each quarter of the plane around one has a cell in it."""
        apart = np.round(self.loads.where[None] - loads.where[:, None], 6)
        own = self.groups[None] == groups[:, None]
        quarters = [(own & (apart * (a, b) >= 0).all(axis=-1)).any(axis=1) for a in (1, -1) for b in (1, -1)]
        return np.asarray(np.all(quarters, axis=0))

    @property
    def visit_variance(self) -> float:
        """Variance of the logarithm of one visit around its cell; 0 where no cell was visited twice.

        By the median of the deviations: the one visit in fifty that another program fell into must not widen every interval.
        """
        apart = [
            np.abs(values - np.median(values)) * np.sqrt(len(values) / (len(values) - 1))
            for values in self.logs
            if len(values) > 1
        ]
        return float((MAD_TO_SD * np.median(np.concatenate(apart))) ** 2) if apart else 0.0

    @property
    def noise(self) -> Array:
        """Variance of each cell's median."""
        return self.visit_variance / np.array([len(values) for values in self.logs], float)


@dataclass(frozen=True)
class Estimate:
    """Predicted times ``[m]`` in ns, and the standard deviation of their logarithms, for one visit."""

    ns: Array
    deviation: Array


@dataclass(frozen=True)
class Check:
    """How a fit does on cells that were left out of it, one after another: relative errors, and how many of the visits of a
    left-out cell lay in their interval. ``n`` counts the cells.
    """

    median_error: float
    mean_error: float
    p90_error: float
    coverage: float
    n: int


@dataclass(frozen=True)
class Fitted:
    """One kind of step, fitted: ``forms[0]`` is the law, the others explain the data as well and widen its intervals.

    ``stretch`` is the factor by which intervals had to grow to hold cells that were left out between others, and
    ``stretch_outside`` what was left out at the edges.
    """

    cells: Cells
    forms: tuple[Form, ...]
    coefficients: tuple[Array, ...]
    discrepancies: tuple[Discrepancy, ...]
    stretch: float = 1.0
    stretch_outside: float = 1.0
    check: Check | None = None

    @property
    def kernel(self) -> Kernel:
        return self.discrepancies[0].kernel

    def plain(self, loads: Loads) -> Array:
        """The law alone, uncorrected, ``[m]`` ns."""
        return np.asarray(self.forms[0].matrix(loads) @ self.coefficients[0])

    def estimate(self, loads: Loads, groups: Ints | None = None, *, strange: float = 0.0) -> Estimate:
        """Times for loads ``[m]``; ``groups`` None asks for a Setting that was not measured, which may be off by ``strange``
        (a standard deviation of logarithms) as a whole.
        """
        unseen = np.full(len(loads), -1) if groups is None else groups
        logs, variances = [], []
        for form, coefficients, discrepancy in zip(self.forms, self.coefficients, self.discrepancies, strict=True):
            plain, slopes = _linearised(form.matrix(loads), coefficients)
            mean, variance = discrepancy.correct(loads.where, unseen, slopes)
            logs.append(np.log(plain) + mean)
            variances.append(variance)
        spread = np.var(logs, axis=0)
        total = np.mean(variances, axis=0) + spread + self.cells.visit_variance + strange**2
        stretch = np.where(self.cells.surround(loads, unseen), self.stretch, self.stretch_outside)
        return Estimate(np.exp(np.mean(logs, axis=0)), stretch * np.sqrt(total))

    def quantile(self, confidence: float) -> float:
        """How many deviations an interval reaches to each side: Student's t with the freedom that the cells leave."""
        from scipy.stats import t

        freedom = max(len(self.cells) - int(np.sum(self.coefficients[0] > 0)), 3)
        return float(t.ppf((1 + confidence) / 2, freedom))


def fit_cells(cells: Cells, *, max_folds: int = MAX_FOLDS) -> Fitted:
    """Choose the form, fit it, learn what it misses, and check it on cells left out, in ``max_folds`` parts at most.

    Raises nothing: whether there are enough cells is asked before.
    """
    tried = forms_of(cells.loads)
    candidates = choose(tried, cells.loads, cells.ns)[:MAX_FORMS]
    return _checked(_fit(cells, [candidate.form for candidate in candidates]), tried, max_folds)


def _fit(cells: Cells, forms: Sequence[Form]) -> Fitted:
    coefficients, discrepancies = [], []
    at = cells.loads.where
    for form in forms:
        matrix = form.matrix(cells.loads)
        found = fit_relative(matrix, cells.ns)
        plain, slopes = _linearised(matrix, found)
        residuals = np.log(cells.ns / plain)
        kernel = learn(at, cells.groups, residuals, cells.noise)
        coefficients.append(found)
        discrepancies.append(Discrepancy(kernel, at, cells.groups, residuals, cells.noise, slopes))
    return Fitted(cells, tuple(forms), tuple(coefficients), tuple(discrepancies))


def _linearised(matrix: Array, coefficients: Array) -> tuple[Array, Array]:
    """What a form gives, ``[n]`` ns, and how its logarithm moves with each coefficient, ``[n, k]``."""
    plain = np.maximum(matrix @ coefficients, 1e-9)
    return plain, matrix / plain[:, None]


def _checked(fitted: Fitted, forms: Sequence[Form], max_folds: int) -> Fitted:
    """The fit with its check: each cell predicted by a fit that never saw it, choice of the form and all."""
    cells = fitted.cells
    errors, scores, between = [], [], []
    quantile = fitted.quantile(CONFIDENCE)
    for fold in _folds(len(cells), max_folds):
        kept = cells.take(~fold)
        seen = fold & np.isin(cells.groups, kept.groups)
        if len(kept) < LEAST_CELLS or not seen.any():
            continue
        without = _fit(kept, [candidate.form for candidate in choose(forms, kept.loads, kept.ns)[:MAX_FORMS]])
        loads, groups = cells.loads.take(seen), cells.groups[seen]
        estimate = without.estimate(loads, groups)
        between += kept.surround(loads, groups).tolist()
        rows = np.flatnonzero(seen).tolist()
        for row, log, deviation in zip(rows, np.log(estimate.ns), estimate.deviation, strict=True):
            errors.append(float(np.mean(np.abs(np.exp(log - cells.logs[row]) - 1))))
            scores.append(np.abs(cells.logs[row] - log) / (deviation * quantile))
    if not errors:
        return fitted
    inside = [score for score, surrounded in zip(scores, between, strict=True) if surrounded]
    edges = [score for score, surrounded in zip(scores, between, strict=True) if not surrounded]
    stretch = _stretch(inside, cautious=False) if len(inside) >= LEAST_ALIKE else _stretch(scores, cautious=True)
    # outside nothing is surer than between cells
    several = [these for these in (inside, edges) if len(these) >= LEAST_ALIKE]
    outside = max(_stretch(these, cautious=True) for these in (scores, *several))
    held = [np.mean(score <= (stretch if where else outside)) for score, where in zip(scores, between, strict=True)]
    check = Check(
        median_error=float(np.median(errors)),
        mean_error=float(np.mean(errors)),
        p90_error=float(np.quantile(errors, 0.9)),
        coverage=float(np.mean(held)),
        n=len(errors),
    )
    return replace(fitted, stretch=stretch, stretch_outside=outside, check=check)


def _stretch(scores: Sequence[Array], *, cautious: bool) -> float:
    """The factor that makes intervals hold CONFIDENCE of the visits of left-out cells; ``scores`` has, for each cell, by how
    many half-widths each of its visits was off.

    Between cells that share is what intervals hold of new ones (simulated sweeps: 90 %). At the edges, ``cautious``, the next
    one may be the worst of n: conformal prediction holds a share of 1/n more, which makes a dozen cells hold nearly
    everything; half of it is added.
    """
    # each cell counts once, however often it was visited
    weights = np.concatenate([np.full(len(score), 1 / len(score)) for score in scores])
    share = min(1.0, CONFIDENCE * (1 + 0.5 / len(scores))) if cautious else CONFIDENCE
    return float(np.clip(_weighted_quantile(np.concatenate(scores), weights, share), *STRETCH))


def _folds(n: int, most: int) -> list[npt.NDArray[np.bool_]]:
    """Each cell in one fold; single cells where there are few."""
    n_folds = min(n, most)
    turn = np.arange(n) % n_folds
    return [turn == i for i in range(n_folds)]


def _weighted_quantile(values: Array, weights: Array, q: float) -> float:
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(share, q)), len(values) - 1)])
