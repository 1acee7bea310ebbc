"""Means over items with their intervals: what a sample of items says about all of their kind."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tokentape.errors import UsageError

__all__ = ["CONFIDENCE", "RESAMPLES", "Estimate", "Paired", "bootstrapped", "paired", "rank_correlation", "wilson"]

CONFIDENCE = 0.95
RESAMPLES = 2000

Floats = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """A mean over ``n`` items with its interval; all three are None where no item has a value, the interval also for one."""

    mean: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Paired:
    """The mean difference of one figure between two methods over the ``n`` items that both have it.

    ``low`` to ``high`` is its bootstrap interval and ``p`` the two-sided bootstrap p-value of no difference; None where
    fewer than two items are shared.
    """

    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int


def bootstrapped(values: Floats, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """The mean of values ``[n]`` with its BCa bootstrap interval; NaN are left out, and ``n`` counts the rest.

    Source: B. Efron, "Better bootstrap confidence intervals", JASA 82 (1987).
    """
    known = values[~np.isnan(values)]
    mean = float(known.mean()) if len(known) else None
    found = _resampled(known, seed, resamples)
    low, high = (None, None) if found is None else found[:2]
    return Estimate(mean, low, high, len(known))


def paired(a: Floats, b: Floats, *, seed: int = 0, resamples: int = RESAMPLES) -> Paired:
    """The mean of ``a - b`` ``[n]``, items resampled as pairs; items where either is NaN are left out.

    p is how often a resampled mean, shifted to a mean difference of zero, lies as far from it as the one that was seen,
    with 1 added to both counts. Source: B. Efron and R. Tibshirani, "An introduction to the bootstrap", 1993, chapter 16.
    Raises UsageError where the two are not of the same items.
    """
    if a.shape != b.shape:
        raise UsageError(
            f"{len(a)} and {len(b)} values cannot be paired",
            why="a paired difference is taken item by item",
            fix="evaluate both methods on the same items",
        )
    differences = (a - b)[~np.isnan(a - b)]
    mean = float(differences.mean()) if len(differences) else None
    found = _resampled(differences, seed, resamples)
    if mean is None or found is None:
        return Paired(mean, None, None, None, len(differences))
    low, high, means = found
    # means of differences that are all alike differ in their last digit
    slack = 1e-12 * float(np.abs(differences).max())
    farther = int((np.abs(means - mean) >= abs(mean) - slack).sum())
    return Paired(mean, low, high, (1 + farther) / (1 + len(means)), len(differences))


def wilson(hits: Floats, confidence: float = CONFIDENCE) -> Estimate:
    """The share of ones among zeros and ones ``[n]`` with Wilson's score interval; NaN are left out.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    known = hits[~np.isnan(hits)]
    n = len(known)
    if not n:
        return Estimate(None, None, None, 0)
    share, z = float(known.mean()), NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Estimate(share, max(middle - half, 0.0), min(middle + half, 1.0), n)


def rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation over the places where both ``[n]`` are known, ties at their mean rank.

    NaN where fewer than two are known, or one of them is the same everywhere.
    """
    from scipy.stats import rankdata

    both = ~(np.isnan(a) | np.isnan(b))
    if both.sum() < 2 or np.ptp(a[both]) == 0 or np.ptp(b[both]) == 0:
        return math.nan
    return float(np.corrcoef(rankdata(a[both]), rankdata(b[both]))[0, 1])


def _resampled(values: Floats, seed: int, resamples: int) -> tuple[float, float, Floats] | None:
    """BCa interval of the mean, and the resampled means; None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    mean, apart = values.mean(), values - values.mean()
    if float(np.ptp(values)) <= 1e-12 * float(np.abs(values).max()):  # nothing varies, and nothing is skewed
        return float(mean), float(mean), np.full(resamples, mean)
    rng, chunk = np.random.default_rng(seed), max(1, 2**20 // n)
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    means = np.concatenate([values[rng.integers(n, size=(size, n))].mean(1) for size in sizes])
    # bias: how far the middle of the resampled means lies beside the mean; acceleration: their skew, by the jackknife
    below = float((means < mean).mean() + (means == mean).mean() / 2)
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(below, 0.5 / resamples), 1 - 0.5 / resamples))
    acceleration = float((apart**3).sum() / (6 * (apart**2).sum() ** 1.5))
    ends = []
    for share in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2):
        z = bias + normal.inv_cdf(share)
        ends.append(normal.cdf(bias + z / (1 - acceleration * z)))
    low, high = np.quantile(means, ends)
    return float(low), float(high), means
