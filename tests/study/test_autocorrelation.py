"""How much independent information a series has, against series whose truth is known."""

from __future__ import annotations

import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape.study.autocorrelation import effective_n, lag_one
from tokentape.study.percentiles import percentile


def ar1(n: int, r: float, seed: int) -> list[float]:
    """A series in which each value remembers a share r of the one before."""
    noise = random.Random(seed)
    values = [noise.gauss(0, 1) / (1 - r * r) ** 0.5]
    for _ in range(n - 1):
        values.append(r * values[-1] + noise.gauss(0, 1))
    return values


def test_by_hand() -> None:
    # 1 2 3 4, mean 2.5: products 1.5 * 0.5 - 0.5 * 0.5 + 0.5 * 1.5 = 1.25 over 3 pairs; squares 5 over 4 values
    assert lag_one([[1, 2, 3, 4]]) == pytest.approx(1.25 / 3 / (5 / 4))
    # r = 1/3: 4 * (2/3) / (4/3)
    assert effective_n([[1, 2, 3, 4]]) == 2


def test_neighbours_are_of_one_series() -> None:
    # mean 2: the pairs (1, 1) and (3, 3) give 1 and 1; across the series there is none
    assert lag_one([[1, 1], [3, 3]]) == pytest.approx(1.0)
    assert effective_n([[1, 1], [3, 3]]) == 1, "two runs on two levels are no four samples"


@pytest.mark.parametrize("r", [0.3, 0.6, 0.9])
def test_mean_of_a_series_spreads_as_that_of_so_many_independent_ones(r: float) -> None:
    n, means, worth = 400, [], []
    for seed in range(300):
        values = ar1(n, r, seed)
        means.append(statistics.fmean(values))
        worth.append(effective_n([values]))
    truth = (1 / (1 - r * r)) / statistics.pvariance(means)
    assert statistics.median(worth) == pytest.approx(truth, rel=0.25)
    assert statistics.median(worth) == pytest.approx(n * (1 - r) / (1 + r), rel=0.2)


def test_a_series_that_swings_is_worth_no_more_than_its_length() -> None:
    assert effective_n([[1, -1] * 50]) == 100


@pytest.mark.parametrize(("series", "n"), [([], 0), ([[]], 0), ([[5]], 1), ([[5, 5, 5]], 3), ([[1], [2], [3]], 3)])
def test_where_nothing_is_known_each_counts(series: list[list[float]], n: int) -> None:
    assert lag_one(series) is None
    assert effective_n(series) == n


@given(st.lists(st.lists(st.integers(0, 10**12), max_size=20), max_size=5))
def test_bounds(series: list[list[int]]) -> None:
    n = sum(map(len, series))
    assert min(n, 1) <= effective_n(series) <= n


def test_percentile_needs_its_samples_independent() -> None:
    few = percentile(range(100), 90, n_effective=63)
    assert (few.value, few.at_most, few.n, few.n_effective, few.n_needed) == (None, None, 100, 63, 64)
    assert few.n_missing == 2, "64 / 63 * 100 = 101.6 values like these"
    enough = percentile(range(100), 90, n_effective=64)
    assert enough.value == 89 and enough.n_missing == 0
    # of 64 independent samples the largest bounds it: of 100 the same share, 1 / 64, is the largest
    assert enough.at_most == 99


def test_bound_is_wider_where_samples_are_alike() -> None:
    plain, alike = percentile(range(1000), 50), percentile(range(1000), 50, n_effective=100)
    assert plain.at_most is not None and alike.at_most is not None and plain.at_most < alike.at_most
    # 38 or fewer of 100 above the median have a chance of at most 1 %: at 100, so 380 of 1000
    assert alike.at_most == 1000 - 10 * (100 - percentile(range(100), 50).at_most)  # type: ignore[operator]


def test_effective_n_above_n_counts_as_n() -> None:
    assert percentile(range(20), 50, n_effective=1000) == percentile(range(20), 50)


def test_trend_leaves_little() -> None:
    assert effective_n([list(np.linspace(0, 1, 1000))]) < 10
