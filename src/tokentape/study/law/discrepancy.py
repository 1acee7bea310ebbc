"""What a law misses, smoothly: a Gaussian process over its residuals, and the variance of a prediction that uses it.

A law of few terms is wrong by some percent in a way that repeats: a library takes another routine, a cache overflows. Its
residuals in logarithms are modelled as ``d(x) + e`` with a smooth ``d``; where something was measured nearby the prediction is
corrected by it, far away it falls back to the law, and says so by its variance (Kennedy & O'Hagan, Bayesian Calibration of
Computer Models, 2001). Mean and variance are those of universal kriging, so that the uncertainty of the law's coefficients
counts where no measurement holds them (Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, section 2.7).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

__all__ = ["Discrepancy", "Kernel", "learn"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Kernel:
    """Standard deviations in logarithms, and a length in octaves.

    ``shared`` is what all groups (Settings) miss alike, ``own`` what one of them misses, ``level`` by how much one as a
    whole is off, ``nugget`` what does not repeat even nearby.
    """

    shared: float
    length: float
    own: float
    level: float
    nugget: float

    def between(self, at: Array, groups: Ints, others: Array, their_groups: Ints) -> Array:
        """Covariances ``[n, m]`` of the smooth parts at two sets of places ``[n, 2]`` and ``[m, 2]``: Matern 3/2."""
        apart = np.sqrt((((at[:, None] - others[None]) / self.length) ** 2).sum(-1)) * np.sqrt(3)
        near = (1 + apart) * np.exp(-apart)
        same = groups[:, None] == their_groups[None]
        return np.asarray(self.shared**2 * near + same * (self.own**2 * near + self.level**2))

    @property
    def variance(self) -> float:
        """Of the smooth parts, where nothing was measured."""
        return self.shared**2 + self.own**2 + self.level**2


PRIOR = {
    "shared": (0.04, 1.0),
    "length": (1.5, 0.5),
    "own": (0.02, 1.0),
    "level": (0.02, 1.0),
    "nugget": (0.015, 1.0),
}
"""Medians and logarithmic spreads of what a kernel may be before anything is measured: laws miss by some percent, over an
octave or three."""

NAMES = tuple(PRIOR)


def learn(at: Array, groups: Ints, residuals: Array, noise: Array) -> Kernel:
    """The kernel that explains residuals ``[n]`` at places ``[n, 2]`` best: the mode of its posterior.

    ``noise`` ``[n]`` is the variance of each residual as a measurement. With one group what is shared and what is its own
    cannot be told apart, and counts as shared.
    """
    from scipy.optimize import minimize

    medians = np.log([PRIOR[name][0] for name in NAMES])
    spreads = np.array([PRIOR[name][1] for name in NAMES])
    one_group = len(np.unique(groups)) == 1

    def kernel_of(logs: Array) -> Kernel:
        values = dict(zip(NAMES, np.exp(logs).tolist(), strict=True))
        if one_group:
            values["own"] = values["level"] = 0.0
        return Kernel(**values)

    def cost(logs: Array) -> float:
        kernel = kernel_of(logs)
        lower = _root(kernel.between(at, groups, at, groups), noise + kernel.nugget**2)
        white = np.linalg.solve(lower, residuals)
        prior = (((logs - medians) / spreads) ** 2).sum() / 2
        return float(white @ white / 2 + np.log(np.diag(lower)).sum() + prior)

    limits = [(-7.0, 0.0), (-0.7, 2.0), (-7.0, 0.0), (-7.0, 0.0), (-7.0, -1.0)]
    found = minimize(cost, medians, method="L-BFGS-B", bounds=limits)
    return kernel_of(found.x)


def _root(smooth: Array, noise: Array) -> Array:
    return np.asarray(np.linalg.cholesky(smooth + np.diag(noise) + 1e-12 * np.eye(len(noise))), float)


@dataclass(frozen=True)
class Discrepancy:
    """Residuals at places, a kernel, and the law's slopes there: what is needed to correct a prediction.

    ``slopes`` ``[n, k]`` are the law's terms for a coefficient of 1, each divided by the prediction: how the logarithm of a
    prediction moves with a coefficient. A term whose coefficient lies on its bound has a slope as well: that it could not
    be seen where all was small does not tell that it stays small (attention's square in short prefills).
    """

    kernel: Kernel
    at: Array
    groups: Ints
    residuals: Array
    noise: Array
    slopes: Array

    def correct(self, at: Array, groups: Ints, slopes: Array) -> tuple[Array, Array]:
        """Mean and variance ``[m]`` of the logarithmic correction at places ``[m, 2]``; the variance has the nugget in it."""
        lower = self._lower
        cross = self.kernel.between(self.at, self.groups, at, groups)
        half = np.linalg.solve(lower, cross)
        mean = half.T @ np.linalg.solve(lower, self.residuals)
        unheld = slopes.T - np.linalg.solve(lower, self.slopes).T @ half
        coefficients = np.einsum("km,kl,lm->m", unheld, self._covariance, unheld)
        smooth = self.kernel.variance - np.einsum("nm,nm->m", half, half)
        return mean, np.maximum(smooth, 0) + coefficients + self.kernel.nugget**2

    @cached_property
    def _lower(self) -> Array:
        smooth = self.kernel.between(self.at, self.groups, self.at, self.groups)
        return _root(smooth, self.noise + self.kernel.nugget**2)

    @cached_property
    def _covariance(self) -> Array:
        return self.covariance_of(self.slopes)

    def covariance_of(self, slopes: Array) -> Array:
        """Covariance ``[k, k]`` of the coefficients that ``slopes`` ``[n, k]`` belong to, by generalised least squares.

        Before anything is measured a term may be as large as the whole step at its largest (a standard deviation): terms are
        not negative and add up to the step. So what the measurements cannot tell apart stays in doubt, and the doubt is finite.
        """
        most = np.abs(slopes).max(axis=0)
        most[most == 0] = 1.0
        white = np.linalg.solve(self._lower, slopes / most)
        return np.asarray(np.linalg.inv(white.T @ white + np.eye(len(most))) / np.outer(most, most))
