"""Streams of requests: generated, read from files of others, repeated, stretched; and what is none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tokentape.errors import UsageError
from tokentape.load.plan import Plan
from tokentape.load.workload_files import read_workload
from tokentape.load.workloads import Synthetic
from tokentape.study.simulate.arrivals import Arrivals, constant, gamma, of_schedule, poisson
from tokentape.study.simulate.streams import Stream
from tokentape.study.simulate.traffic import read_azure, read_mooncake
from tokentape.study.traffic.schedule import Schedule

S = 1_000_000_000
TRAFFIC = Path(os.environ.get("TOKENTAPE_MATERIAL", "../shared/material")) / "traffic"


def test_poisson_has_its_rate_and_its_variance() -> None:
    found = poisson(50, n=40_000, seed=1)
    gaps = np.diff(found.at_ns)
    assert found.rate == pytest.approx(50, rel=0.02)
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(1, rel=0.02)
    assert np.array_equal(poisson(50, n=100, seed=1).at_ns, poisson(50, n=100, seed=1).at_ns)
    assert not np.array_equal(poisson(50, n=100, seed=1).at_ns, poisson(50, n=100, seed=2).at_ns)


@pytest.mark.parametrize("shape", [0.25, 4.0])
def test_gamma_comes_in_bursts_below_one(shape: float) -> None:
    gaps = np.diff(gamma(10, burstiness=shape, n=40_000).at_ns)
    assert np.mean(gaps) == pytest.approx(1e8, rel=0.03)
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(shape**-0.5, rel=0.03)


def test_constant_is_even() -> None:
    assert set(np.diff(constant(4, n=9).at_ns).tolist()) == {250_000_000}


def test_lengths() -> None:
    found = poisson(1, n=20_000, n_prompt="lognormal:300,0.5", n_output="uniform:3,9", seed=5)
    assert np.median(found.n_prompt) == pytest.approx(300, rel=0.03)
    assert np.std(np.log(found.n_prompt)) == pytest.approx(0.5, rel=0.03)
    assert set(found.n_output.tolist()) == set(range(3, 10))
    assert set(poisson(1, n=50, n_prompt=[7, 11]).n_prompt.tolist()) == {7, 11}


def test_azure_times_are_exact_to_the_tenth_of_a_microsecond(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n"
        "2023-11-16 18:15:50.9951690,396,109\n"
        "2023-11-16 18:15:51.2224670,879,0\n"
        "2023-11-16 18:15:46.6805901,1,2\n"
    )
    found = read_azure(file)
    assert found.at_ns.tolist() == [0, 100, 4_314_579_000, 4_541_877_000]
    assert found.n_prompt.tolist() == [374, 1, 396, 879] and found.n_output.tolist() == [44, 2, 109, 1]


def test_mooncake(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    rows = [{"timestamp": 27, "input_length": 6755, "output_length": 500, "hash_ids": [46, 47]}]
    rows.append({"timestamp": 30, "input_length": 7319, "output_length": 490, "hash_ids": [46]})
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    found = read_mooncake(file)
    assert (found.at_ns.tolist(), found.n_prompt.tolist()) == ([0, 3_000_000], [6755, 7319])


@pytest.mark.material
@pytest.mark.skipif(not TRAFFIC.exists(), reason="no material: TOKENTAPE_MATERIAL")
def test_the_hour_of_azure_becomes_a_day() -> None:
    hour = read_azure(TRAFFIC / "AzureLLMInferenceTrace_conv.csv")
    assert len(hour) == 19_366
    day = hour.repeated()
    assert day.at_ns[-1] < 24 * 3600 * 10**9 and day.rate == pytest.approx(hour.rate, rel=0.01)
    assert np.array_equal(day.at_ns[:1000], hour.at_ns[:1000])
    # the second round is no copy of the first
    assert not np.isin(np.diff(day.at_ns[20_000:21_000]), np.diff(hour.at_ns)).mean() > 0.1


def test_at_rate_stretches_the_times_and_keeps_the_requests() -> None:
    slow = poisson(10, n=500, n_prompt="uniform:1,90").at_rate(2)
    assert slow.rate == pytest.approx(2, rel=1e-6)
    assert np.array_equal(slow.n_prompt, poisson(10, n=500, n_prompt="uniform:1,90").n_prompt)


def test_a_stream_as_asked_for() -> None:
    assert len(Stream("constant", rate=3, duration_ns=120 * S).arrivals()) == 360
    assert len(Stream(rate=3).arrivals()) == 1000
    assert Stream(rate=3).arrivals(rate=6).rate == pytest.approx(2 * Stream(rate=3).arrivals().rate, rel=1e-6)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda tmp: poisson(0, n=3), "a rate of 0 requests/s"),
        (lambda tmp: poisson(float("nan"), n=3), "a rate of nan"),
        (lambda tmp: poisson(1, n=0), "0 requests"),
        (lambda tmp: gamma(1, burstiness=0, n=3), "burstiness of 0"),
        (lambda tmp: poisson(1, n=3, n_prompt="long"), "no lengths 'long'"),
        (lambda tmp: poisson(1, n=3, n_prompt="uniform:9,3"), "no lengths"),
        (lambda tmp: Arrivals([1, 0], [1, 1], [1, 1]), "go back"),
        (lambda tmp: Arrivals([0], [0], [1]), "whose prompt has 0 tokens"),
        (lambda tmp: Arrivals([0], [1], [1, 2]), "1 times, 1 prompts, 2 answers"),
        (lambda tmp: Arrivals([], [], []), "0 times"),
        (lambda tmp: Arrivals([0, 0], [1, 1], [1, 1]).at_rate(2), "all requests come at once"),
        (lambda tmp: Stream(kind="azure").arrivals(), "no arrivals 'azure'"),
        (lambda tmp: Stream(kind="poisson").arrivals(), "poisson arrivals without a rate"),
        (lambda tmp: Stream(rate=1, duration_ns=1).arrivals(), "no request within the duration"),
        (lambda tmp: Stream(rate=1e300, duration_ns=10**18).arrivals(), "more than 100,000,000 requests"),
        (lambda tmp: of_schedule(Schedule("poisson", 1.0)), "more than 100,000,000 requests"),
        (lambda tmp: poisson(1e-12, n=3), "3 requests over more than 146 years"),
        (lambda tmp: read_azure(tmp / "none.csv"), "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_no_stream(make: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        make(tmp_path)  # type: ignore[operator]
    assert said in raised.value.what
    assert raised.value.why and raised.value.fix


@pytest.mark.parametrize("kind", ["poisson", "gamma", "constant"])
@pytest.mark.parametrize("ends", [{"requests": 40}, {"duration_ns": 9 * S}, {"requests": 40, "duration_ns": 4 * S}])
def test_generated_requests_are_those_that_a_load_sends(kind: str, ends: dict[str, int]) -> None:
    shape = 0.5 if kind == "gamma" else 1.0
    sent = Plan(rate=7.5, arrivals=kind, burstiness=shape, seed=11, **ends).schedule(Synthetic(8))
    stream = Stream(kind, 7.5, ends.get("requests"), ends.get("duration_ns"), burstiness=shape, seed=11)
    assert stream.arrivals().at_ns.tolist() == list(sent)


@pytest.mark.parametrize("rate", [None, 0.5, 3.0, 40.0])
@pytest.mark.parametrize("ends", [{}, {"requests": 20}, {"duration_ns": 5 * S}, {"requests": 9, "duration_ns": 6 * S}])
def test_recorded_requests_are_those_that_a_load_sends_until_the_file_ends(
    rate: float | None, ends: dict[str, int], tmp_path: Path
) -> None:
    file = tmp_path / "trace.jsonl"
    moments = np.cumsum(np.random.default_rng(4).integers(0, 900, 60)).tolist()
    rows = [{"timestamp": at, "input_length": 5 + i, "output_length": 1 + i % 7} for i, at in enumerate(moments)]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    sent = list(Plan(rate=rate, arrivals="trace", **ends).schedule(read_workload(file)))
    found = Stream(f"mooncake:{file}", rate, ends.get("requests"), ends.get("duration_ns")).arrivals()
    assert found.at_ns.tolist()[: len(sent)] == sent
    # only where a file has no more is it gone through again
    assert len(found) == len(sent) or len(sent) == len(moments)
