"""Schedules: their rates and distributions against scipy, their bounds, and the ramp against its own integral."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tokentape.errors import UsageError
from tokentape.study.traffic.schedule import LAST_NS, Schedule, expected, scaled

S = 1_000_000_000


def gaps_s(arrivals, n):
    times = list(itertools.islice(arrivals, n))
    return np.diff([0, *times]) / S


@pytest.mark.parametrize("rate", [0.5, 7.0, 900.0])
@pytest.mark.parametrize(("kind", "shape"), [("poisson", 1.0), ("gamma", 0.25), ("gamma", 4.0)])
def test_gaps_have_the_distribution_asked_for(kind, shape, rate):
    gaps = gaps_s(Schedule(kind, rate, burstiness=shape, seed=3), 4000)
    law = stats.gamma(shape, scale=1 / (shape * rate))
    assert stats.kstest(gaps, law.cdf).pvalue > 0.001
    assert stats.kstest(gaps, stats.expon(scale=1 / rate).cdf).pvalue > 0.001 or shape != 1
    assert np.mean(gaps) == pytest.approx(1 / rate, rel=4 / math.sqrt(4000 * shape))
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(1 / math.sqrt(shape), rel=0.12)


def test_a_gamma_that_is_bursty_is_no_poisson():
    gaps = gaps_s(Schedule("gamma", 5.0, burstiness=0.25), 2000)
    assert stats.kstest(gaps, stats.expon(scale=0.2).cdf).pvalue < 1e-6


def test_constant_arrivals_are_exact():
    assert list(Schedule("constant", 4.0, requests=5)) == [0, 250_000_000, 500_000_000, 750_000_000, S]


def test_a_ramp_rises_in_a_straight_line():
    # at constant arrivals the k-th request stands where the integral of the rate is k
    times = np.array(list(Schedule("constant", 10.0, ramp_ns=4 * S, requests=200))) / S
    ramp = times <= 4
    assert ramp.sum() == 21  # 0..20: half of what 4 s at the full rate have
    np.testing.assert_allclose(10 * times[ramp] ** 2 / 8, np.arange(21), atol=1e-6)
    np.testing.assert_allclose(np.diff(times[~ramp]), 0.1, atol=1e-6)


def test_a_ramp_keeps_the_distribution():
    times = np.array(list(itertools.islice(Schedule("poisson", 50.0, ramp_ns=30 * S, seed=5), 3000))) / S
    inner = np.where(times < 30, 50 * times**2 / 60, 50 * (times - 15))
    assert stats.kstest(np.diff(inner), stats.expon().cdf).pvalue > 0.001


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["constant", "poisson", "gamma"]),
    rate=st.floats(0.1, 1e4),
    ramp_ns=st.integers(0, 20 * S),
    seed=st.integers(0, 2**31),
    duration_ns=st.integers(1, 30 * S),
    requests=st.integers(1, 300),
)
def test_a_schedule_is_ordered_bounded_and_the_same_again(kind, rate, ramp_ns, seed, duration_ns, requests):
    one = Schedule(kind, rate, ramp_ns=ramp_ns, seed=seed, duration_ns=duration_ns, requests=requests)
    times = list(one)
    assert times == sorted(times) == list(one)
    assert len(times) <= requests
    assert all(0 <= at < duration_ns for at in times)
    longer = Schedule(kind, rate, ramp_ns=ramp_ns, seed=seed, duration_ns=2 * duration_ns, requests=2 * requests)
    assert list(longer)[: len(times)] == times


@pytest.mark.parametrize("ramp_s", [0, 3, 100])
def test_the_number_expected_is_that_of_the_schedule(ramp_s):
    one = Schedule("constant", 20.0, ramp_ns=ramp_s * S, duration_ns=10 * S)
    assert abs(expected(one) - len(list(one))) <= 1


def test_another_seed_is_another_schedule():
    assert list(Schedule("poisson", 5.0, requests=5, seed=1)) != list(Schedule("poisson", 5.0, requests=5, seed=2))


def test_what_is_due_beyond_all_clocks_has_a_time_too():
    assert list(Schedule("constant", 1e-300, requests=3)) == [0, LAST_NS, LAST_NS]


def test_a_trace_is_scaled():
    times = [5 * S, 7 * S, 11 * S, 15 * S]
    assert scaled(times) == [0, 2 * S, 6 * S, 10 * S]
    assert scaled(times, time_scale=0.5) == [0, S, 3 * S, 5 * S]
    # two requests in a second: the third of the trace comes when the second is over
    assert scaled(times, rate=2, duration_ns=S) == [0, round(2 / 6 * S)]
    assert list(Schedule("trace", times_ns=scaled(times), duration_ns=6 * S)) == [0, 2 * S]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10**13), min_size=3, max_size=80, unique=True), st.floats(0.1, 1000))
def test_a_trace_at_a_rate_has_it_on_the_whole(times, rate):
    times.sort()
    found = scaled(times, rate=rate)
    assert len(found) == len(times) and found[0] == 0
    assert (len(found) - 1) / (found[-1] / S) == pytest.approx(rate, rel=1e-6)
    ratios = np.diff(found) / np.maximum(np.diff(times), 1)
    assert np.allclose(ratios, ratios[np.argmax(np.diff(times))], atol=np.max(1 / np.diff(times)))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"rate": 0}, "a rate of 0 requests/s"),
        ({"rate": -1.0}, "a rate of -1"),
        ({"rate": math.nan}, "a rate of nan"),
        ({}, "poisson arrivals without a rate"),
        ({"kind": "poison", "rate": 1}, "no arrivals 'poison'"),
        ({"kind": "gamma", "rate": 1, "burstiness": 0}, "a burstiness of 0"),
        ({"kind": "poisson", "rate": 1, "burstiness": 0.5}, "a burstiness of 0.5 with poisson arrivals"),
        ({"kind": "trace"}, "arrivals as in a trace, without a trace"),
        ({"kind": "trace", "times_ns": (0, 1), "ramp_ns": 5}, "a ramp over the times of a trace"),
        ({"rate": 1, "requests": 0}, "0 requests"),
        ({"rate": 1, "duration_ns": 0}, "a time below 0"),
    ],
)
def test_what_is_no_schedule_is_refused(asked, says):
    with pytest.raises(UsageError) as error:
        Schedule(**asked)
    assert says in error.value.what and error.value.why and error.value.fix


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"time_scale": 0.0}, "a time scale of 0"),
        ({"time_scale": 1.0, "rate": 2.0}, "together"),
        ({"rate": 0.0}, "a rate of 0"),
    ],
)
def test_a_scale_that_is_none_is_refused(asked, says):
    with pytest.raises(UsageError, match=says):
        scaled([0, 1, 2], **asked)
    with pytest.raises(UsageError, match="all requests come at once"):
        scaled([5, 5, 5], rate=1.0)
