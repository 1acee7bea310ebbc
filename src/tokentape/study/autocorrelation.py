"""How many independent samples a series is worth.

Values that follow one another resemble each other: a machine that is slow now is slow a moment later. ``n`` of them tell as
much of their mean as ``n (1 - r) / (1 + r)`` independent ones, ``r`` being the autocorrelation at lag 1. That is exact for a
series in which each value remembers only the one before (AR(1)) and the usual first approximation for others. A negative ``r``
would make more of the values than there are, so it counts as 0.

Source: G. V. Bayley, J. M. Hammersley, "The 'effective' number of independent observations in an autocorrelated time series",
Journal of the Royal Statistical Society, Supplement 8 (1946).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

__all__ = ["effective_n", "lag_one"]

_ROUNDING = 1e-9
"""What is a whole number but for the rounding of floats, counts as that number."""


def lag_one(series: Iterable[Sequence[float]]) -> float | None:
    """The autocorrelation at lag 1 of one or several series in the order of time; None where nothing varies.

    Neighbours are neighbours within a series; the mean is that of all values together, so that series which differ in their
    level count as what they are, not independent. The mean product of neighbours over the mean square.
    """
    arrays = [np.asarray(values, np.float64) for values in series if len(values)]
    if not arrays:
        return None
    together = np.concatenate(arrays)
    mean = together.mean()
    n_pairs = sum(len(values) - 1 for values in arrays)
    variance = float(np.mean((together - mean) ** 2))
    if n_pairs == 0 or variance == 0:
        return None
    products = sum(float(np.dot(values[1:] - mean, values[:-1] - mean)) for values in arrays)
    return products / n_pairs / variance


def effective_n(series: Iterable[Sequence[float]]) -> int:
    """How many independent samples all values of the series together are worth: between 1 and as many as they are; 0 of none."""
    groups = list(series)
    n = sum(len(values) for values in groups)
    r = lag_one(groups)
    if r is None or r <= 0:
        return n
    if r >= 1:
        return 1
    return max(1, math.floor(n * (1 - r) / (1 + r) + _ROUNDING))
