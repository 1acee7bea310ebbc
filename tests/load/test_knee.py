"""The knee and the largest rate, against queues whose answer is known."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tokentape.errors import UsageError
from tokentape.load.knee import Step, knee_of, largest_of, read_rates, step_of, sweep_rates, wilson

S = 1_000_000_000


def queue(rate, *, capacity=100.0, target_s=0.05, n=1000):
    """An M/M/1 queue: mean time in it is ``1 / (capacity - rate)``, exponentially distributed."""
    if rate >= capacity:
        return Step(rate, n, n, capacity, capacity, None, None, 1000 * S, 0)
    mean_s = 1 / (capacity - rate)
    good = round(n * (1 - math.exp(-target_s / mean_s)))
    return Step(rate, n, n, rate, rate, mean_s * S, None, mean_s * S, good)


def test_the_knee_of_a_queue_lies_at_half_its_capacity():
    found = knee_of([queue(rate) for rate in range(5, 100, 5)])
    assert found["verdict"] == "found" and found["rate"] == 50 and found["between"] == [45, 55]


@given(st.floats(10, 1000), st.integers(5, 40))
def test_the_knee_is_between_the_neighbours_that_are_told(capacity, n):
    rates = [capacity * (i + 1) / (n + 1) for i in range(n)]
    found = knee_of([queue(rate, capacity=capacity) for rate in rates])
    low, high = found["between"]
    assert low <= capacity / 2 <= high


def test_where_there_is_no_knee_that_is_said():
    assert knee_of([queue(rate) for rate in (60, 70, 80)])["verdict"] == "below"
    assert knee_of([queue(rate) for rate in (10, 20, 30)])["verdict"] == "none"
    assert knee_of([queue(10), queue(20)])["verdict"] == "few"


def test_the_largest_rate_is_found_between_two_that_were_measured():
    # 90 % within 50 ms: 1 - exp(-0.05 (100 - r)) = 0.9 at r = 100 - 20 ln 10
    true = 100 - 20 * math.log(10)
    asked = []

    def measure(rate):
        asked.append(rate)
        return queue(rate, n=100_000)

    swept = sweep_rates(measure, [10, 20, 40, 80], slo="e2e=50ms", refine=8)
    found = swept.as_dict()["largest"]
    assert found["good"] <= true < found["bad"]
    assert found["bad"] / found["good"] < 1.01 and found["sure"] in (True, False)
    assert len(asked) == 12 and [one.rate for one in swept.steps] == sorted(asked)


def test_a_rate_above_one_that_failed_is_not_the_largest():
    steps = [queue(10), queue(20), Step(30, 100, 100, 30, 30, None, None, S, 50), queue(40)]
    found = largest_of(steps)
    assert (found["good"], found["bad"]) == (20, 30)


def test_few_requests_are_not_sure():
    found = largest_of([Step(1, 10, 10, 1, 1, None, None, S, 10), Step(2, 10, 10, 2, 2, None, None, S, 8)])
    assert found["good"] == 1 and found["bad"] == 2 and not found["sure"]


def test_an_interrupted_sweep_keeps_what_it_has():
    swept = sweep_rates(lambda rate: queue(rate) if rate < 3 else None, [1, 2, 4, 8], slo="e2e=1s")
    assert swept.interrupted and [one.rate for one in swept.steps] == [1, 2]


@given(st.integers(1, 500), st.data())
def test_the_interval_is_wilsons(n, data):
    k = data.draw(st.integers(0, n))
    expected = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("8", [8]),
        ("4,1,2.5", [1, 2.5, 4]),
        ("1..8", [1, 2, 4, 8]),
        ("1..10", [1, 2, 4, 8, 10]),
        ("0.5..2", [0.5, 1, 2]),
        ("1..100/3", [1, 10, 100]),
    ],
)
def test_rates_are_read(text, rates):
    assert read_rates(text) == pytest.approx(rates)


@pytest.mark.parametrize(
    "text", ["0", "-1", "", "1,,2", "fast", "2..1", "0..4", "1..4/1", "1..4/1000", "nan", "2,2", "1e400"]
)
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(UsageError):
        read_rates(text)


def account(**client):
    spread = {"mean": None, "p99": None, "max": None, "n": 0}
    counts = {"n_requests": 4, "n_retries": 0, "n_unsent": 0, "n_ended": 4, "since": "start"}
    counts |= dict.fromkeys(("requests_per_s", "tokens_per_s", "offered_per_s"), 1)
    times = dict.fromkeys(("ttft", "token_gap", "chunk_gap", "e2e"), spread)
    return {**counts, **times, "goodput": None, "client": client, "server_behind": False}


@pytest.mark.parametrize(
    ("client", "late"),
    [
        ({"bottleneck": True}, True),
        ({"bottleneck": False, "late": True, "off": [{"figure": "gap", "ns": 1, "share": 0.2}]}, True),
        ({"bottleneck": False, "late": True, "off": [{"figure": "gap", "ns": 1, "share": 0.02}]}, False),
        ({"bottleneck": False, "late": False, "off": [{"figure": "gap", "ns": 1, "share": 0.2}]}, False),
        ({}, False),
    ],
)
def test_a_step_is_marked_where_its_figures_may_be_the_clients(client, late):
    assert step_of(8, account(**client)).client_late is late
