"""A percentile is one of the values measured, or nothing where too few were."""

from __future__ import annotations

import math

import pytest

from tokentape.study.percentiles import percentile, samples_needed


@pytest.mark.parametrize(("q", "n"), [(50, 11), (75, 24), (90, 64), (95, 130), (99, 662), (99.9, 6636)])
def test_samples_needed_is_the_table_of_loadgen(q: float, n: int) -> None:
    assert samples_needed(q) == n


@pytest.mark.parametrize("q", [50, 75, 90, 95, 99])
def test_samples_needed_is_the_smallest_that_the_binomial_allows(q: float) -> None:
    def chance_of_one_or_none_above(n: int) -> float:
        above = 1 - q / 100
        return (1 - above) ** n + n * above * (1 - above) ** (n - 1)

    n = samples_needed(q)
    assert chance_of_one_or_none_above(n) <= 0.01 < chance_of_one_or_none_above(n - 1)


@pytest.mark.parametrize("q", [50, 90, 95, 99])
def test_one_sample_too_few_gives_no_value(q: float) -> None:
    n = samples_needed(q)
    few, enough = percentile(range(n - 1), q), percentile(range(n), q)
    assert (few.value, few.at_most, few.n, few.n_missing) == (None, None, n - 1, 1)
    assert enough.value is not None and enough.n_missing == 0
    assert enough.at_most == n - 1, "at the least n the bound is the largest value"


def test_value_is_the_nearest_rank_whatever_the_order() -> None:
    values = [7 * i % 1000 for i in range(1000)]  # 0 to 999, shuffled
    assert percentile(values, 50).value == 499
    assert percentile(values, 95).value == 949
    assert percentile(values, 99).value == 989


def test_bound_agrees_with_the_worked_example_of_mlperf_endpoints() -> None:
    # 40,000 queries at p99: 353 are set aside (mlcommons/endpoints, docs/early_stopping.md)
    assert percentile(range(40_000), 99).at_most == 40_000 - 353


def test_bound_is_never_below_the_value() -> None:
    for n in (11, 64, 130, 662, 2000):
        for q in (50, 90, 95, 99):
            found = percentile(range(n), q)
            assert found.value is None or (found.at_most is not None and found.at_most >= found.value)


def test_large_n_does_not_underflow() -> None:
    found = percentile(range(200_000), 50)
    assert found.at_most is not None
    assert 0 < found.at_most - 100_000 < 5 * math.sqrt(200_000)


def test_none_of_nothing() -> None:
    assert percentile([], 50).value is None
    assert percentile([], 50).n_missing == 11


@pytest.mark.parametrize("q", [0, 100, -1, 101])
def test_q_outside_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="no percentile"):
        percentile([1, 2, 3], q)
