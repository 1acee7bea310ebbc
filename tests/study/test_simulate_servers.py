"""Whose steps are simulated: by law, by prediction, by coefficients, by what clients of a server saw."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from one_by_one import serve

import tokentape as tt
from served_tapes import ORIGIN, SETTING, Served, passed, usage, words, write_served
from tokentape.errors import TooFewPoints, UsageError
from tokentape.recorder.many import ManyRuns
from tokentape.study.law.gathering import Subject
from tokentape.study.law.laws import Law, fit_points
from tokentape.study.law.points import Point
from tokentape.study.simulate.arrivals import Arrivals, of_tape, poisson
from tokentape.study.simulate.calibration import Seen, calibrate
from tokentape.study.simulate.scheduler import Scheduler
from tokentape.study.simulate.servers import server_of
from tokentape.study.simulate.simulation import simulate
from tokentape.study.simulate.step_times import FS, LinearTimes, TabulatedTimes, parse_times

MS = 1_000_000
LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "torch_dtype": "bfloat16",
}  # fmt: skip
ONE = Scheduler("one-at-a-time")


def law_of(batches: tuple[int, ...] = (1, 2, 4, 8)) -> Law:
    points = [
        Point("decode", context, batch, 8e6 + 5e4 * batch + 60 * batch * context)
        for context in (64, 128, 256, 512, 1024)
        for batch in batches
    ]
    points += [Point("prefill", n, 1, 6e6 + 2e4 * n + 0.5 * n * n) for n in (64, 128, 256, 512, 1024)]
    return fit_points(points, (Subject("paper", "x"),))


def test_a_law_gives_the_steps() -> None:
    times = server_of(law_of(), Scheduler(max_seqs=8)).times
    for n, context in ((1, 100), (3, 300), (8, 1000)):
        took = times.decode(n, n * context).first_fs / FS
        assert took == pytest.approx(8e6 + 5e4 * n + 60 * n * context, rel=0.01)
    assert times.reading(0, 0, 500, 500**2, 1) / FS == pytest.approx(6e6 + 2e4 * 500 + 0.5 * 500**2, rel=0.02)
    # two prompts in one pass: the constant once
    both = times.reading(0, 0, 300, 100**2 + 200**2, 2) / FS
    assert both == pytest.approx(6e6 + 2e4 * 300 + 0.5 * (100**2 + 200**2), rel=0.03)
    # beside running sequences what both have in common is paid once
    mixed = times.reading(4, 4 * 500, 300, 300**2, 1) / FS
    alone = times.reading(0, 0, 300, 300**2, 1) / FS + times.decode(4, 4 * 500).first_fs / FS
    assert mixed == pytest.approx(alone - 6e6, rel=0.02)


def test_a_law_that_never_saw_a_batch_is_not_asked_for_one() -> None:
    law = law_of(batches=(1,))
    with pytest.raises(TooFewPoints):
        server_of(law, Scheduler(max_seqs=2))
    assert server_of(law, ONE).origin == "law"


def test_a_prediction_gives_the_steps_of_predict() -> None:
    server = server_of(LLAMA, Scheduler(), hardware="h100")
    for batch, context in ((1, 512), (32, 1448)):
        told = tt.predict(LLAMA, hardware="h100", context=context - 1, batch=batch)["decode_ns"]
        assert server.times.decode(batch, batch * context).first_fs / FS == pytest.approx(told, rel=0.005)
    told = tt.predict(LLAMA, hardware="h100", context=2000)["prefill_ns"]
    assert server.times.reading(0, 0, 2000, 2000**2, 1) / FS == pytest.approx(told, rel=0.01)
    slower = server_of(LLAMA, Scheduler(), hardware="h100", efficiency=0.5)
    assert slower.times.decode(1, 512).first_fs == pytest.approx(2 * server.times.decode(1, 512).first_fs, rel=1e-6)
    # 80 GB, 90 % of it, less 16 GB of weights, at 128 KiB a token
    assert server.kv_tokens == pytest.approx((0.9 * 80e9 - 16.06e9) / 131_072, rel=0.1)
    found = simulate(server, poisson(2, n=30), Scheduler())
    assert found.scheduler.kv_tokens == server.kv_tokens


def test_lines_meet_the_function_at_their_ends() -> None:
    times = TabulatedTimes(lambda c, n: 100.0 + n * c, lambda c, b: c * b)
    for positions in (3, 10, 333, 4096, 10**6):
        line = times.decode(3, positions)
        assert line.first_fs / FS == pytest.approx(100 + positions, rel=1e-6)
        assert line.until >= positions


# a server as its clients see it


def seen_of_run(times: LinearTimes, arrivals: Arrivals, scheduler: Scheduler, delay: int = 0) -> list[Seen]:
    return [
        Seen(q.at // FS, q.n_prompt, tuple(at // FS + delay for at in q.tokens))
        for q in serve(arrivals, times, scheduler).sequences
    ]


TRUE = LinearTimes(step_ns=3 * MS, position_ns=900, prefill_ns=5 * MS, token_ns=40_000, pair_ns=20)


def test_calibration_finds_the_coefficients_of_a_server_that_serves_one_by_one() -> None:
    arrivals = poisson(4, n=200, n_prompt="uniform:5,600", n_output="uniform:5,60", seed=1)
    found = calibrate(seen_of_run(TRUE, arrivals, ONE))
    assert found.one_at_a_time and found.in_flight > 2
    assert found.times.prefill_ns == pytest.approx(5 * MS, rel=0.03)
    assert found.times.token_ns == pytest.approx(40_000, rel=0.03)
    assert found.times.pair_ns == pytest.approx(20, rel=0.05)
    assert found.times.step_ns == pytest.approx(3 * MS, rel=0.02)
    assert found.times.position_ns == pytest.approx(900, rel=0.05)
    assert found.delay_ns == pytest.approx(0, abs=20_000)
    assert any("second sequence" in what for what in found.unknown)


def test_calibration_finds_what_passes_before_the_queue() -> None:
    # the delay is on the way in: those who wait do not feel it, those who are alone do
    arrivals = poisson(4, n=300, n_prompt="uniform:5,600", n_output="uniform:5,60", seed=2)
    late = Arrivals(arrivals.at_ns + 2 * MS, arrivals.n_prompt, arrivals.n_output)
    seen = [Seen(one.start_ns - 2 * MS, one.n_prompt, one.tokens_ns) for one in seen_of_run(TRUE, late, ONE)]
    found = calibrate(seen)
    assert found.delay_ns == pytest.approx(2 * MS, rel=0.05)
    again = simulate(found, arrivals, ONE, noise=False)
    assert again.ttft.mean == pytest.approx(np.mean([one.tokens_ns[0] - one.start_ns for one in seen]), rel=0.02)


def test_calibration_finds_what_a_batch_costs() -> None:
    true = LinearTimes(step_ns=3 * MS, sequence_ns=200_000, position_ns=900, prefill_ns=5 * MS, token_ns=40_000)
    alone = poisson(0.5, n=60, n_prompt="uniform:5,600", n_output=20, seed=3)
    loaded = poisson(12, n=300, n_prompt="uniform:5,600", n_output="uniform:5,60", seed=4)
    both = Arrivals(
        np.concatenate([alone.at_ns, alone.at_ns[-1] + 10**10 + loaded.at_ns]),
        np.concatenate([alone.n_prompt, loaded.n_prompt]),
        np.concatenate([alone.n_output, loaded.n_output]),
    )
    found = calibrate(seen_of_run(true, both, Scheduler("prefill-first")))
    assert found.at_once > 3 and not found.one_at_a_time and not found.unknown
    assert found.times.step_ns == pytest.approx(3 * MS, rel=0.1)
    assert found.times.sequence_ns == pytest.approx(200_000, rel=0.2)
    twice = poisson(20, n=500, n_prompt="uniform:5,600", n_output="uniform:5,60", seed=5)
    said = simulate(found, twice, Scheduler("prefill-first"), noise=False)
    true_run = simulate(true, twice, Scheduler("prefill-first"))
    assert said.ttft.mean == pytest.approx(true_run.ttft.mean, rel=0.1)
    assert said.token_gap.mean == pytest.approx(true_run.token_gap.mean, rel=0.1)


def test_noise_is_drawn_from_what_was_measured() -> None:
    rng = np.random.default_rng(0)
    seen, at = [], 0
    for _ in range(150):
        n = int(rng.integers(10, 300))
        moments = at + 5 * MS + n * 10_000 + np.cumsum(rng.lognormal(0, 0.4, 30) * 3 * MS)
        seen.append(Seen(at, n, tuple(int(m) for m in moments)))
        at = seen[-1].tokens_ns[-1] + MS
    measured = np.array([b - a for one in seen for a, b in pairwise(one.tokens_ns)])
    found = calibrate(seen)
    arrivals = Arrivals(range(0, 150 * 10**9, 10**9), [one.n_prompt for one in seen], [30] * 150)
    told = simulate(found, arrivals, ONE, seed=1)
    for p in told.token_gap.percentiles:
        if p.value is not None:
            assert p.value == pytest.approx(np.percentile(measured, p.q), rel=0.08)
    assert simulate(found, arrivals, ONE, seed=1).ttft == told.ttft
    assert simulate(found, arrivals, ONE, seed=2).ttft != told.ttft
    still = simulate(found, arrivals, ONE, noise=False)
    assert still.token_gap.max < 1.3 * still.token_gap.min


def test_too_little_seen_is_refused_and_what_cannot_be_known_is_said() -> None:
    with pytest.raises(TooFewPoints) as raised:
        calibrate([Seen(0, 5, (10, 20, 30))])
    assert "12 of each are needed" in raised.value.why
    arrivals = poisson(1, n=40, n_prompt=50, n_output=4)
    found = calibrate(seen_of_run(TRUE, arrivals, ONE))
    assert any("longer prompt" in what for what in found.unknown)
    assert any("longer context" in what for what in found.unknown)
    assert found.times.token_ns == 0


def test_the_tape_of_an_endpoint_is_simulated_again(tmp_path: Path) -> None:
    arrivals = poisson(5, n=120, n_prompt="uniform:5,600", n_output="uniform:5,40", seed=9)
    run = serve(arrivals, TRUE, ONE)
    with ManyRuns(tmp_path / "served.tape", SETTING, ORIGIN) as many:
        for q in run.sequences:
            start, moments = q.at // FS, [at // FS for at in q.tokens]
            chunks = tuple((b - a, words("a")) for a, b in pairwise([start, *moments]))
            known = {"label": "exact", "finish": "length", **usage(q.n_prompt, q.n_output)}
            exchange = passed(0, moments[0] - start, moments[-1] - start, **known)
            write_served(many, q.number, Served("", chunks, exchange, ("length",)), start)
        many.close().close()
    with tt.open(tmp_path / "served.tape") as tape:
        again = of_tape(tape)
        assert np.array_equal(again.at_ns, arrivals.at_ns - arrivals.at_ns[0])
        assert np.array_equal(again.n_prompt, arrivals.n_prompt) and np.array_equal(again.n_output, arrivals.n_output)
        told, recorded = tt.simulate(tape, again, ONE, noise=False), tt.metrics(tape)
    assert told.server.origin == "calibration" and told.server.calibration.one_at_a_time
    assert told.ttft.mean == pytest.approx(recorded.ttft.mean, rel=0.02)
    assert told.token_gap.mean == pytest.approx(recorded.token_gap.mean, rel=0.02)
    # twice the rate is another matter
    assert simulate(told.server, again.at_rate(2 * again.rate), ONE).ttft.mean > 2 * told.ttft.mean


def test_coefficients() -> None:
    told = parse_times("step=8ms, sequence=20us,position=40ps,prefill=1ms,prompt=2us,token=3us,pair=5ps")
    assert told == LinearTimes(8e6, 2e4, 0.04, 1e6, 2e3, 3e3, 0.005)
    assert server_of("step=8ms", Scheduler()).origin == "coefficients"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: parse_times("step=8"), "no coefficient 'step=8'"),
        (lambda: parse_times("token=8us"), "no coefficient step"),
        (lambda: parse_times("step=0ms"), "takes no time"),
        (lambda: LinearTimes(step_ns=-1), "step_ns is -1"),
        (lambda: server_of(LLAMA, Scheduler()), "a model without a machine"),
        (lambda: server_of(LLAMA, Scheduler(), hardware="h100", efficiency=0), "an efficiency of 0"),
        (lambda: server_of({**LLAMA, "num_hidden_layers": 400}, Scheduler(), hardware="h100"), "leaves no memory"),
    ],
)
def test_what_no_server_is(make: object, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        make()  # type: ignore[operator]
    assert said in raised.value.what
