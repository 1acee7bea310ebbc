"""The verdict: its arithmetic by hand, its words, and how often it errs on noise, synthetic and recorded."""

from __future__ import annotations

import importlib.util
import math
import statistics
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tokentape.errors import TooFewPoints, UsageError
from tokentape.study.verdict import (
    FASTER,
    SAME,
    SLOWER,
    UNCLEAR,
    Question,
    contrast_of_runs,
    contrast_of_steps,
    error_of_pair,
    excess_of_pairs,
    is_long_enough,
    judge,
    judge_apart,
    judge_blocks,
    pair_contrast,
    spread_of_units,
)

TEN = Question(threshold=0.03, confidence=0.99, max_pairs=10)


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "verdict.py"
    spec = importlib.util.spec_from_file_location("verdict_bench", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# the figures


def test_unit_of_steps_is_the_median_over_abba() -> None:
    a, b = [10.0, 10, 10, 10, 10, 10], [11.0, 11, 10, 10, 900, 900]
    fours = [math.log(1.1), 0.0, math.log(90)]
    assert contrast_of_steps(a, b) == pytest.approx(statistics.median(fours))
    assert contrast_of_steps([1.0, 2.0, 3.0], [1.0, 2.0]) == 0, "a step without a counterpart is left out"
    assert contrast_of_steps([1.0], [2.0]) is None


def test_unit_of_steps_cancels_a_linear_drift() -> None:
    # the clock of an ABBA: A at moments 0 and 3, B at 1 and 2, each moment 5 % slower than the one before
    drift = [1.05**moment for moment in range(4)]
    assert contrast_of_steps([drift[0], drift[3]], [drift[1], drift[2]]) == pytest.approx(0, abs=1e-12)


def test_unit_of_runs_holds_the_same_step_of_all_runs_against_each_other() -> None:
    a, b = [[10.0, 20, 40], [10.0, 20, 40]], [[11.0, 22, 44, 7], [11.0, 22, 999]]
    assert contrast_of_runs(a, b) == pytest.approx(math.log(1.1))
    assert contrast_of_runs([[1.0], []], [[1.0], [1.0]]) is None


def test_time_of_nothing_is_refused() -> None:
    with pytest.raises(TooFewPoints, match="no time"):
        contrast_of_steps([0.0, 1.0], [1.0, 1.0])


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40))
def test_pair_is_scipys_trimmed_mean(units: list[float]) -> None:
    assert pair_contrast(units) == pytest.approx(stats.trim_mean(units, 0.25), abs=1e-12)


def test_swapping_the_sides_turns_the_sign() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.lognormal(size=16), rng.lognormal(size=16)
    assert contrast_of_steps(a, b) == pytest.approx(-contrast_of_steps(b, a))


def test_spread_of_units_predicts_the_spread_of_their_trimmed_mean() -> None:
    rng = np.random.default_rng(1)
    units = rng.standard_t(3, size=(4000, 16))
    found = statistics.mean(spread_of_units(row) for row in units) / 4
    assert found == pytest.approx(np.std([pair_contrast(row) for row in units]), rel=0.1)
    assert spread_of_units([0.1]) is None


# looks and words


def test_error_is_shared_out_over_the_looks() -> None:
    for question in (TEN, Question(max_pairs=30, confidence=0.95), Question(max_pairs=3), Question(max_pairs=2)):
        looks = range(question.first_look, question.max_pairs + 1)
        assert math.fsum(question.alpha(n) for n in looks) == pytest.approx(1 - question.confidence)


def test_interval_is_students_at_what_the_look_may_take() -> None:
    values = [0.010, 0.020, 0.015, 0.012, 0.018, 0.011]
    low, high = stats.t.interval(1 - TEN.alpha(6), 5, loc=np.mean(values), scale=np.std(values, ddof=1) / math.sqrt(6))
    found = judge(values, TEN)
    assert (found.low, found.high) == (pytest.approx(math.expm1(low)), pytest.approx(math.expm1(high)))
    assert found.change == pytest.approx(math.expm1(np.mean(values)))


def around(center: float, half: float, n: int = 10) -> list[float]:
    """Contrasts whose interval at the last look is ``center`` +- ``half``."""
    raw = np.array([(-1.0) ** i for i in range(n)])
    t = stats.t.ppf(1 - TEN.alpha(n) / 2, n - 1)
    return (center + raw / raw.std(ddof=1) * half * math.sqrt(n) / t).tolist()


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (-0.029, 0.029, SAME),
        (-0.031, 0.029, UNCLEAR),
        (-0.029, 0.031, UNCLEAR),
        (0.016, 0.045, SLOWER),
        (0.014, 0.045, UNCLEAR),
        (0.016, 0.028, SAME),  # surely a difference, and surely below the size
        (-0.045, -0.016, FASTER),
        (-0.045, -0.014, UNCLEAR),
        (0.5, 0.9, SLOWER),
    ],
)
def test_word_by_where_the_interval_lies(low: float, high: float, word: str) -> None:
    size = math.log(1.03) / 0.03  # the table above is in shares, the interval in logarithms
    found = judge(around((low + high) / 2 * size, (high - low) / 2 * size), TEN)
    assert found.word == word


def test_few_pairs_are_unclear_and_say_how_many_it_takes() -> None:
    found = judge([0.5] * 4, TEN)
    assert (found.word, found.change, found.low, found.n) == (UNCLEAR, None, None, 4)
    assert "4 of the 5 pairs" in found.reason
    assert judge([0.5, 0.5], Question(max_pairs=2)).word == SLOWER


def test_more_pairs_than_were_asked_for_are_refused() -> None:
    with pytest.raises(UsageError, match="11 pairs"):
        judge([0.0] * 11, TEN)


@pytest.mark.parametrize(
    "wrong", [{"threshold": 0}, {"threshold": 3}, {"confidence": 1}, {"confidence": 0.2}, {"max_pairs": 1}]
)
def test_nonsense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Question(**wrong)


def test_apart_is_welchs_interval_and_says_that_it_was_not_interleaved() -> None:
    a, b = [0.0, 0.01, 0.02, 0.01], [0.10, 0.14, 0.12]
    low, high = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.99)
    found = judge_apart(a, b, TEN)
    assert (found.low, found.high) == (pytest.approx(math.expm1(low)), pytest.approx(math.expm1(high)))
    assert not found.interleaved and not judge_blocks([0.0, 0.001, 0.002], TEN).interleaved
    assert judge_apart([0.1], [0.2, 0.3], TEN).word == UNCLEAR


def test_equal_times_are_the_same_and_divide_by_nothing() -> None:
    assert judge([0.0] * 5, TEN).word == SAME
    assert judge_apart([0.0, 0.0], [0.0, 0.0], TEN).word == SAME


# how much to measure


def test_pair_is_as_long_as_its_noise_asks() -> None:
    rng = np.random.default_rng(2)
    quiet, loud = rng.normal(0, 0.002, 400).tolist(), rng.normal(0, 0.04, 400).tolist()
    assert not is_long_enough(quiet[:15], TEN) and is_long_enough(quiet[:16], TEN), "16 are the least"
    n = next(n for n in range(16, 400) if is_long_enough(loud[:n], TEN))
    assert 25 < n < 100, "about (0.04 / 0.0078)^2, and more for not knowing the 0.04"
    assert error_of_pair(loud[:n]) <= TEN.spread
    assert not is_long_enough([], TEN) and error_of_pair([0.1]) is None


def test_length_of_a_pair_does_not_depend_on_its_sign() -> None:
    units = np.random.default_rng(4).standard_t(3, 64) * 0.02
    for n in range(16, 65):
        assert is_long_enough(units[:n], TEN) == is_long_enough(0.03 - units[:n], TEN)


def test_pairs_that_lie_further_apart_than_their_units_say_make_the_next_longer() -> None:
    assert excess_of_pairs([0.02, -0.02, 0.02], [0.01] * 3) == pytest.approx(
        statistics.stdev([0.02, -0.02, 0.02]) / 0.01
    )
    assert excess_of_pairs([0.001, -0.001, 0.001], [0.01] * 3) == 1, "never shorter"
    assert excess_of_pairs([0.2, -0.2, 0.2], [0.01] * 3) == 3, "one stall is no reason for a hundred times as many"
    assert excess_of_pairs([0.2, -0.2], [0.01] * 2) == excess_of_pairs([1.0, 2.0, 3.0], [0.0] * 3) == 1
    units = np.random.default_rng(5).normal(0, 0.02, 24)
    assert is_long_enough(units, TEN) and not is_long_enough(units, TEN, excess=2.5)


def test_spread_aimed_at_finds_the_size() -> None:
    """Monte Carlo: at that spread a shift of the size is found with the planned power, by the looks as they are."""
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(400):
        values = rng.normal(TEN.size, TEN.spread, 10)
        found += any(judge(values[:n], TEN).word == SLOWER for n in range(5, 11))
    assert found / 400 > 0.85


# how often it errs


@pytest.mark.slow
@pytest.mark.parametrize("turns", ["steps", "runs"])
@pytest.mark.parametrize("name", ["recorded, alone", "recorded, beside other work"])
def test_false_alarms_on_recorded_noise(bench: ModuleType, name: str, turns: str) -> None:
    n = 500 if turns == "steps" else 60
    found = bench.row(name, bench.kinds()[name], 0.0, n, turns, TEN)
    assert found.shares[FASTER] + found.shares[SLOWER] <= 0.02


@pytest.mark.parametrize("name", ["recorded, alone", "AR(1) 0.999, 10 %", "t with 2 degrees, 3 %", "switching x2"])
def test_verdicts_on_noise_by_steps(bench: ModuleType, name: str) -> None:
    noise = bench.kinds()[name]
    same, little, much = (bench.row(name, noise, shift, 25, "steps", TEN) for shift in (0.0, 0.01, 0.03))
    assert same.shares[FASTER] + same.shares[SLOWER] == 0
    assert little.shares[SLOWER] + little.shares[FASTER] == 0
    assert much.shares[SLOWER] >= 0.8 and much.mean_pairs <= 10
