"""Percentiles that say nothing when too few were measured.

The rule is the early stopping of MLPerf's LoadGen. Of ``n`` latencies, the number above the true ``q``-th percentile
is binomial with probability ``1 - q/100``. If ``t`` or fewer above it would be seen with a chance of at most ``1 -
confidence``, then, with that confidence, the true percentile lies no higher than the ``t``-th largest latency. Below
the ``n`` that allows ``t = 1`` nothing can be said: at 99 % that takes 11 samples for p50, 64 for p90, 130 for p95,
662 for p99, 6,636 for p99.9.

The binomial counts independent samples. Where the values follow one another in time, ``n`` of them tell no more than
:func:`tokentape.study.autocorrelation.effective_n` independent ones, and it is that number that has to suffice.

Source: V. J. Reddi et al., "MLPerf Inference Benchmark", ISCA 2020; mlcommons/inference, ``loadgen/early_stopping.cc``;
mlcommons/endpoints, ``docs/early_stopping.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

__all__ = ["CONFIDENCE", "Percentile", "percentile", "ranks", "samples_needed"]

CONFIDENCE = 0.99

MANY = 20_000
"""From so many samples on, adding up the terms of a binomial one by one takes too long."""


@dataclass(frozen=True, slots=True)
class Percentile:
    """The ``q``-th percentile of ``n`` values, in their unit.

    ``value`` is one of the values measured (nearest rank), never an interpolation. ``at_most`` is what the true
    percentile does not exceed at 99 % confidence. Both are None where ``n_effective`` is below ``n_needed``, which counts
    independent samples; ``n_missing`` says how many more values like these are needed, else it is 0.
    """

    q: float
    value: float | None
    at_most: float | None
    n: int
    n_needed: int
    n_missing: int
    n_effective: int


def percentile(values: Iterable[float], q: float, n_effective: int | None = None) -> Percentile:
    """The ``q``-th percentile (``0 < q < 100``) of ``values``, with its honest ``n``.

    ``n_effective`` is how many independent samples the values are worth, at most as many as they are; None means that each
    is one.
    """
    ordered = sorted(values)
    n = len(ordered)
    worth = n if n_effective is None else min(n, n_effective)
    needed = samples_needed(q)
    if worth < needed:
        wanted = math.ceil(Fraction(needed * n, worth)) if worth > 0 else needed
        return Percentile(q, None, None, n, needed, wanted - n, worth)
    place, bound = ranks(n, q, worth)
    return Percentile(q, ordered[place], ordered[bound], n, needed, 0, worth)


def ranks(n: int, q: float, worth: int) -> tuple[int, int]:
    """Where, among ``n`` ordered values worth at least ``samples_needed(q)``, the percentile and its bound are, counted from 0."""
    rank = math.ceil(Fraction(str(q)) * n / 100)
    above = _above(worth, q, 1 - CONFIDENCE) * n // worth  # the same share of the values as of the independent samples
    return rank - 1, n - above


@lru_cache
def samples_needed(q: float, confidence: float = CONFIDENCE) -> int:
    """The smallest number of samples from which the ``q``-th percentile can be told with ``confidence``.

    Raises ValueError for a ``q`` or a ``confidence`` outside their open intervals (0, 100) and (0, 1).
    """
    if not 0 < q < 100 or not 0 < confidence < 1:
        raise ValueError(f"no percentile {q} at confidence {confidence}: 0 < q < 100 and 0 < confidence < 1")
    low, high = 1, 2
    while _above(high, q, 1 - confidence) < 1:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if _above(middle, q, 1 - confidence) < 1:
            low = middle
        else:
            high = middle
    return high


def _above(n: int, q: float, chance: float) -> int:
    """The largest ``t`` such that ``t`` or fewer of ``n`` samples lie above the percentile with at most ``chance``.

    -1 where even ``t = 0`` is likelier. The terms of the binomial are carried as logarithms: the first ones are far
    below the smallest float where ``n`` is large. Of very many samples the sum is asked of the incomplete beta function.
    """
    if n > MANY:
        return _above_many(n, q, chance)
    above = float(100 - Fraction(str(q))) / 100
    step = math.log(above) - math.log1p(-above)
    log_term = n * math.log1p(-above)
    total = math.exp(log_term)
    t = -1
    while total <= chance and t < n - 1:
        t += 1
        log_term += math.log((n - t) / (t + 1)) + step
        total += math.exp(log_term)
    return t


def _above_many(n: int, q: float, chance: float) -> int:
    from scipy.special import bdtr

    above = float(100 - Fraction(str(q))) / 100
    low, high = -1, n
    while high - low > 1:
        middle = (low + high) // 2
        if bdtr(middle, n, above) <= chance:
            low = middle
        else:
            high = middle
    return low
