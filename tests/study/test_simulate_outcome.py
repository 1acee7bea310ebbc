"""The figures of a simulated run: the same as the study of a recorded one gives, Little's law, the largest rate."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_by_one import serve

import tokentape as tt
from tokentape.errors import UsageError
from tokentape.study.metrics import spread
from tokentape.study.percentiles import _above, _above_many
from tokentape.study.simulate.arrivals import Arrivals, poisson
from tokentape.study.simulate.outcome import Gaps, Level, spread_of
from tokentape.study.simulate.rates import largest_rate
from tokentape.study.simulate.scheduler import Scheduler
from tokentape.study.simulate.servers import Server
from tokentape.study.simulate.simulation import simulate
from tokentape.study.simulate.step_times import FS, LinearTimes
from tokentape.study.slo import Slo, goodput, parse_slo

MS = 1_000_000
TIMES = LinearTimes(step_ns=8 * MS, sequence_ns=20_000, position_ns=40, token_ns=20_000)

segments = st.lists(
    st.tuples(st.integers(0, 500), st.integers(-3, 9), st.integers(1, 30), st.integers(1, 5)), min_size=1, max_size=30
)


@given(segments)
def test_gaps_are_the_sample_that_they_stand_for(rows: list[tuple[int, int, int, int]]) -> None:
    rows = [(first + 100, growth, k, n) for first, growth, k, n in rows]
    every = sorted(first + i * growth for first, growth, k, n in rows for i in range(k) for _ in range(n))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    gaps = Gaps(columns[0].astype(float), columns[1].astype(float), columns[2], columns[3])
    assert len(gaps) == len(every) and gaps.n_steps == sum(row[2] for row in rows)
    assert gaps.total_ns == pytest.approx(sum(every))
    assert [gaps.at(i) for i in range(len(every))] == every


def test_gaps_are_put_in_order_slice_by_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokentape.study.simulate.outcome.SLICE", 7)
    gaps = Gaps(np.array([100.0, 5.0, 40.0]), np.array([2.0, 0.0, -1.0]), np.array([20, 3, 11]), np.array([2, 1, 3]))
    every = sorted([100 + 2 * i for i in range(20)] * 2 + [5] * 3 + [40 - i for i in range(11)] * 3)
    assert [gaps.at(i) for i in range(len(every))] == every


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=800))
def test_spread_is_that_of_the_metrics(values: list[float]) -> None:
    ours, theirs = asdict(spread_of(np.array(values))), asdict(spread([values]))
    assert ours.pop("mean") == pytest.approx(theirs.pop("mean"))
    assert ours == theirs


@pytest.mark.parametrize("q", [50, 90, 99, 99.9])
@pytest.mark.parametrize("n", [5, 700, 12_345, 19_999])
def test_bounds_of_many_samples_are_those_of_the_sum(n: int, q: float) -> None:
    assert _above_many(n, q, 0.01) == _above(n, q, 0.01)


@settings(deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["chunked", "prefill-first", "decode-first", "one-at-a-time"]))
def test_goodput_is_that_of_the_answers(seed: int, policy: str) -> None:
    arrivals = poisson(60, n=60, n_prompt="uniform:1,900", n_output="uniform:1,40", seed=seed)
    slo = Slo(ttft_ns=60 * MS, gap_ns=9 * MS, e2e_ns=600 * MS)
    found = simulate(TIMES, arrivals, Scheduler(policy, max_seqs=8, kv_tokens=900), slo=slo)
    assert found.goodput == goodput(found.outcome.answers(), slo, found.window_ns)
    assert found.n_refused == sum(one.outcome == "failed" for one in found.outcome.answers())


def test_figures_against_the_twin() -> None:
    arrivals = poisson(40, n=300, n_prompt="uniform:1,900", n_output="uniform:1,60", seed=4)
    scheduler = Scheduler(max_seqs=6, max_batched_tokens=300, kv_tokens=3000)
    found, plain = tt.simulate(TIMES, arrivals, scheduler), serve(arrivals, TIMES, scheduler)
    ttft = [q.tokens[0] // FS - q.at // FS for q in plain.sequences]
    assert found.ttft == spread([ttft])
    assert found.e2e == spread([[q.tokens[-1] // FS - q.at // FS for q in plain.sequences]])
    assert found.queued.mean == pytest.approx(np.mean([q.admitted[0] / FS - q.at / FS for q in plain.sequences]), abs=1)
    gaps = sorted(plain.gaps)
    assert found.token_gap.n == len(gaps) and found.token_gap.mean == pytest.approx(np.mean(gaps) / FS)
    for p in found.token_gap.percentiles:
        exact = gaps[int(np.ceil(p.q * len(gaps) / 100)) - 1]
        assert p.value == -(-exact // FS)
    assert found.n_preemptions == sum(q.n_preempted for q in plain.sequences) > 0
    assert found.load.max_running <= 6
    assert found.load.kv_peak <= 3000


@pytest.mark.parametrize("policy", ["chunked", "prefill-first", "one-at-a-time"])
def test_littles_law_holds_to_a_percent(policy: str) -> None:
    rate = 0.8 if policy == "one-at-a-time" else 30
    arrivals = poisson(rate, n=20_000, n_prompt="lognormal:300,0.8", n_output="lognormal:60,0.7", seed=2)
    found = simulate(TIMES, arrivals, Scheduler(policy, max_seqs=64))
    assert found.little.ratio == pytest.approx(1, abs=0.01)
    # and not because both sides are the same sum
    assert found.little.ratio != 1
    assert found.load.keeps_up


def test_a_server_that_falls_behind_says_so() -> None:
    found = simulate(TIMES, poisson(200, n=2000), Scheduler(max_seqs=8))
    assert found.load.keeps_up is False and found.load.queue_growth > 0.5


def test_levels() -> None:
    level = Level.counted(np.array([0, 10, 10, 30]), np.array([20, 30, 40]))
    # 1 until 10, 3 until 20, 2 until 30 where one leaves and one comes, then 2, then 1
    assert level.integral([10, 20, 30, 40, 50]).tolist() == [10, 40, 60, 80, 90]
    assert level.mean(10, 30) == 2.5 and level.value.max() == 3
    assert level.means(np.array([0.0, 10.0, 20.0])).tolist() == [1, 3]


def test_the_largest_rate_lies_between_one_that_keeps_the_promise_and_one_that_does_not() -> None:
    def at_rate(rate: float) -> Arrivals:
        return poisson(rate, n=400, n_prompt=200, n_output=50)

    server = Server(TIMES, "coefficients")
    limit = largest_rate(server, at_rate, Scheduler(max_seqs=16), parse_slo("ttft=200ms,gap=20ms"))
    assert limit.rate is not None and limit.above is not None
    assert limit.rate < limit.above <= limit.rate * 1.02
    # 16 sequences at most, each step some 8.7 ms: 50 steps and a prefill each
    assert 20 < limit.rate < 16 / (50 * 8.3e-3)
    assert largest_rate(server, at_rate, Scheduler(), parse_slo("gap=1ms")).rate is None
    with pytest.raises(UsageError):
        largest_rate(server, at_rate, Scheduler(), parse_slo("gap=1ms"), attained=0)


def test_as_dict_is_plain_and_has_the_course() -> None:
    found = simulate(TIMES, poisson(10, n=50), Scheduler(), slo=parse_slo("ttft=1s")).as_dict()
    assert len(found["series"]["waiting"]) == len(found["series"]["at_ns"]) == 120
    assert found["server"]["coefficients"]["step_ns"] == 8 * MS
    assert "outcome" not in found


def test_one_request_and_nothing_served() -> None:
    one = simulate(TIMES, Arrivals([5], [3], [1]), Scheduler(), slo=parse_slo("gap=1ms"))
    assert one.goodput is not None and one.goodput.n_without_gap == 1
    assert one.token_gap.n == 0 and one.token_gap.mean is None and one.little.ratio is None
    none = simulate(TIMES, Arrivals([5], [300], [1]), Scheduler(kv_tokens=16))
    assert none.n_refused == 1 and none.ttft.n == 0 and none.requests_per_s is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"policy": "fifo"}, "no policy 'fifo'"),
        ({"max_seqs": 0}, "max seqs is 0"),
        ({"max_batched_tokens": 100}, "100 tokens a step for 256 sequences"),
        ({"kv_tokens": 5}, "5 tokens of key-value memory in blocks of 16"),
        ({"watermark": 1.0}, "a watermark of 1"),
    ],
)
def test_what_no_scheduler_is(given: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        Scheduler(**given)  # type: ignore[arg-type]
    assert said in raised.value.what
