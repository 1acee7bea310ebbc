"""Change points against brute force, on noise of many kinds, and the warm-up at the start of a series."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape.study.law.changes import EXACT, _pelt, change_points, warm_up

Floats = npt.NDArray[np.float64]


def cost_of(series: Floats, cuts: tuple[int, ...], penalty: float) -> float:
    edges = [0, *cuts, len(series)]
    parts = [series[a:b] for a, b in itertools.pairwise(edges)]
    return sum(float(((part - part.mean()) ** 2).sum()) for part in parts) + penalty * len(cuts)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9), st.floats(0.01, 10))
def test_the_segments_are_those_that_brute_force_finds(values: list[float], penalty: float) -> None:
    series = np.array(values)
    n = len(series)
    everything = (cuts for k in range(n) for cuts in itertools.combinations(range(1, n), k))
    best = min(cost_of(series, cuts, penalty) for cuts in everything)
    assert cost_of(series, tuple(_pelt(series, penalty)), penalty) == pytest.approx(best, abs=1e-9)


def test_steps_are_found_where_they_are() -> None:
    rng = np.random.default_rng(1)
    levels = np.repeat([0.0, 4.0, 1.0], [60, 40, 100])
    found = change_points(levels + rng.normal(size=200) * 0.5)
    assert found == [60, 100]


def test_a_series_on_paper() -> None:
    assert change_points([5.0] * 10 + [3.0] * 10) == [10]
    assert change_points([5.0] * 20) == []
    assert change_points([0.0] * 20) == []
    assert change_points([5.0] * 10 + [9.0] + [5.0] * 10) == [], "one outlier is no change of level"
    assert change_points([1.0, 9.0, 1.0, 9.0, 1.0]) == [], "too few to say"
    assert change_points([]) == []


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        change_points([1.0] * 10 + [float("nan")])
    with pytest.raises(ValueError, match="positive"):
        warm_up([1.0] * 10 + [0.0])


def correlated(rng: np.random.Generator, n: int, r: float) -> Floats:
    noise = rng.normal(size=n)
    series = np.empty(n)
    series[0] = noise[0] / np.sqrt(1 - r * r)
    for i in range(1, n):
        series[i] = r * series[i - 1] + noise[i]
    return series


NOISE = {
    "normal": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.random(n),
    "heavy tails": lambda rng, n: rng.standard_t(3, n),
    "correlated": lambda rng, n: correlated(rng, n, 0.5),
    "with outliers": lambda rng, n: rng.normal(size=n) + 20 * (rng.random(n) < 0.02),
}


@pytest.mark.parametrize("noise", NOISE)
def test_noise_has_no_change_points(noise: str) -> None:
    alarms = sum(bool(change_points(NOISE[noise](np.random.default_rng(i), 1000))) for i in range(40))
    assert alarms <= 3


@pytest.mark.parametrize("n", [8, 17, 50, 200])
def test_a_series_that_begins_as_it_goes_on_has_no_warm_up(n: int) -> None:
    alarms = 0
    for i in range(300):
        rng = np.random.default_rng(i)
        alarms += warm_up(np.exp(0.03 * rng.normal(size=n))) > 0
    assert alarms <= 300 * (0.08 if n < 10 else 0.03)


def test_a_change_far_out_in_a_long_series() -> None:
    rng = np.random.default_rng(2)
    series = rng.normal(size=100_000)
    series[40_000:] += 3
    found = change_points(series)
    assert len(found) == 1 and abs(found[0] - 40_000) <= 5
    assert len(series) > EXACT


@given(
    st.floats(1e-6, 1e6), st.floats(-100, 100), st.integers(0, 1000), st.sampled_from([(5, 0.0), (7, 3.0), (60, 6.0)])
)
def test_unit_and_origin_do_not_matter(unit: float, origin: float, seed: int, step: tuple[int, float]) -> None:
    series = np.random.default_rng(seed).normal(size=100)
    series[step[0] :] += step[1]
    assert change_points(series * unit + origin * unit) == change_points(series)
    times = np.exp(0.05 * series)
    assert warm_up(times * unit) == warm_up(times)


def test_a_compilation_and_a_copied_cache() -> None:
    rng = np.random.default_rng(3)
    settled = np.exp(0.02 * rng.normal(size=40))
    compiled = settled.copy()
    compiled[:2] *= [27.0, 6.5]
    assert warm_up(compiled) == 2
    paged_in = settled.copy()
    paged_in[:6] *= 1.25
    assert warm_up(paged_in) == 6
    decaying = settled * (1 + 0.8 * np.exp(-np.arange(40) / 2.0))
    assert 4 <= warm_up(decaying) <= 9, "until it is within a few per cent"
    assert warm_up(settled) == 0


def test_steps_of_a_small_model_as_they_were_measured() -> None:
    first = [2.93, 2.08, 1.8, 1.77, 1.45, 1.38, 1.41, 1.42, 1.34, 1.4, 1.39, 1.32, 1.37, 1.31, 1.35, 1.37, 1.44]
    later = [1.69, 1.44, 1.4, 1.45, 1.41, 1.33, 1.41, 1.34, 1.33, 1.4, 1.42, 1.43, 1.4, 1.34, 1.35, 1.41, 1.32]
    assert warm_up(first) == 4
    assert warm_up(later) == 1


def test_only_a_slow_start_is_a_warm_up() -> None:
    rng = np.random.default_rng(4)
    settled = np.exp(0.02 * rng.normal(size=60))
    slow_middle, fast_start, slow_end = settled.copy(), settled.copy(), settled.copy()
    slow_middle[20:25] *= 2
    fast_start[:10] *= 0.5
    slow_end[40:] *= 2
    assert warm_up(slow_middle) == warm_up(fast_start) == warm_up(slow_end) == 0


def test_no_more_than_half_is_left_out() -> None:
    assert warm_up([9.0] * 30 + [1.0] * 10) <= 20
    assert warm_up([2.0, 1.0]) == 0


def test_growth_within_a_series_is_no_warm_up() -> None:
    """Decode steps grow with the context."""
    rng = np.random.default_rng(5)
    assert warm_up(np.linspace(1.0, 1.5, 200) * np.exp(0.02 * rng.normal(size=200))) == 0
