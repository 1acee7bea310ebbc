"""Least squares to relative error with coefficients that are never negative, and the choice of a form by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tokentape.study.law.changes import MAD_TO_SD
from tokentape.study.law.terms import Form, Loads

__all__ = ["Candidate", "choose", "fit_relative"]

Array = npt.NDArray[np.float64]

GROSS = 4.0
"""A residual counts as gross from so many robust standard deviations on; beyond, its weight falls as its size grows."""

LEAST_SPREAD = 0.005
"""Residuals that agree better than this are not taken for the spread of those that may be gross."""

REWEIGHED = 4

ERRORS_APART = 2.0
"""Standard errors of a difference by which a form has to be worse to be dropped."""

SAME_ERROR = 0.002
"""Errors that differ by less than this are the same: no clock on a machine that does other things too tells more."""

WORST = 1.0
"""No single fold counts for more than this logarithmic error: one impossible guess must not decide alone."""


def fit_relative(matrix: Array, ns: Array) -> Array:
    """Coefficients ``[k]``, none negative, that minimise the squared relative error of ``matrix @ c`` ``[n]`` to ``ns``.

    Non-negative least squares (Lawson & Hanson, Solving Least Squares Problems, 1974, ch. 23) on rows divided by their
    measurement. Gross residuals are weighed down (Huber, Robust Estimation of a Location Parameter, 1964).
    """
    from scipy.optimize import nnls

    relative = matrix / ns[:, None]
    scale = np.linalg.norm(relative, axis=0)
    scale[scale == 0] = 1.0
    relative = relative / scale
    now = np.ones(len(ns))
    found = np.zeros(matrix.shape[1])
    for _ in range(REWEIGHED):
        found = nnls(relative * now[:, None], now)[0]
        error = np.abs(relative @ found - 1)
        spread = max(MAD_TO_SD * float(np.median(error)), LEAST_SPREAD)
        now = np.sqrt(np.minimum(1.0, GROSS * spread / np.maximum(error, 1e-12)))
    return np.asarray(found / scale, float)


@dataclass(frozen=True)
class Candidate:
    """A form, and its error on what was left out: the mean of ``|ln|`` over folds."""

    form: Form
    error: float


def choose(forms: Sequence[Form], loads: Loads, ns: Array) -> list[Candidate]:
    """The forms that explain the data as well as any, the plainest first.

    Each form is fitted without a fold and asked for it. Folds are each single setting, and each level of context, and of
    batch, as a whole: the outermost level shows how a form extrapolates. Kept are the forms whose error exceeds the
    smallest one by no more than two standard errors of the difference, fold by fold: the rule of one standard error (Breiman et
    al., Classification and Regression Trees, 1984, section 3.4.3) on paired differences, which are smaller, and with one more
    since the best of some fifty forms is best by luck as well.
    """
    folds = _folds(loads)
    usable = [form for form in forms if len(form.terms) < len(ns)]
    if not usable:
        usable = [min(forms, key=lambda form: len(form.terms))]
    errors = [_errors(form, loads, ns, folds) for form in usable]
    means = [float(np.mean(error)) for error in errors]
    best = errors[int(np.argmin(means))]
    kept = []
    for form, error, mean in zip(usable, errors, means, strict=True):
        slack = float(np.std(error - best)) / np.sqrt(len(folds))
        if mean <= float(np.mean(best)) + max(ERRORS_APART * slack, SAME_ERROR):
            kept.append(Candidate(form, mean))
    return sorted(kept, key=lambda candidate: (len(candidate.form.terms), candidate.error))


def _folds(loads: Loads) -> list[npt.NDArray[np.bool_]]:
    n = len(loads)
    folds = [np.arange(n) == i for i in range(n)]
    for axis in (np.round(np.log2(loads.context) * 2), loads.batch):
        levels = np.unique(axis)
        if len(levels) > 2:
            folds += [axis == level for level in levels if np.sum(axis == level) > 1]
    return folds


def _errors(form: Form, loads: Loads, ns: Array, folds: Sequence[npt.NDArray[np.bool_]]) -> Array:
    """For each fold the mean of ``|ln(predicted / measured)|`` over it. Some hundred thousand small fits: kept bare."""
    from scipy.optimize import nnls

    relative = form.matrix(loads) / ns[:, None]
    relative /= np.maximum(np.linalg.norm(relative, axis=0), 1e-300)
    ones = np.ones(len(ns))
    found = []
    for fold in folds:
        rest = ~fold
        rows = relative[rest]
        ratio = np.maximum(relative[fold] @ nnls(rows, ones[: len(rows)])[0], 1e-12)
        found.append(min(float(np.abs(np.log(ratio)).sum()) / len(ratio), WORST))
    return np.array(found)
