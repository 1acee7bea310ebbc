"""The engine that skips from event to event gives what taking every step by itself gives, to the last femtosecond."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_by_one import serve

from tokentape.study.simulate.arrivals import Arrivals
from tokentape.study.simulate.engine import Engine
from tokentape.study.simulate.log import Log
from tokentape.study.simulate.scheduler import Scheduler
from tokentape.study.simulate.step_times import FS, LinearTimes, StepTimes, TabulatedTimes, steps_until


def gaps_of(log: Log) -> Counter[int]:
    found: Counter[int] = Counter()
    for first, growth, k, n in log.gaps:
        for i in range(k):
            found[first + i * growth] += n
    return found


def same(arrivals: Arrivals, times: StepTimes, scheduler: Scheduler) -> None:
    log, plain = Engine(arrivals, times, scheduler).run(), serve(arrivals, times, scheduler)
    assert log.refused == plain.refused
    assert log.first == [q.tokens[0] if q.tokens else None for q in plain.sequences]
    assert {one: at for at, one in log.ended} == {q.number: q.tokens[-1] for q in plain.sequences if q.tokens}
    assert Counter(one for _, one in log.preempted) == Counter(
        {q.number: q.n_preempted for q in plain.sequences if q.n_preempted}
    )
    admitted: dict[int, list[int]] = {}
    for at, one in log.admitted:
        admitted.setdefault(one, []).append(at)
    assert admitted == {q.number: q.admitted for q in plain.sequences if q.admitted}
    assert gaps_of(log) == Counter(plain.gaps)
    assert (log.n_steps, log.busy_fs) == (plain.n_steps, plain.busy)
    assert log.memory[-1][1:] == (0, 0)


def bent(contexts: np.ndarray, batch: int) -> np.ndarray:
    """Memory first, then arithmetic: a bend, and a dip that only noise would make."""
    return np.maximum(900.0 + 7 * batch, 5.0 * batch * contexts) - 40.0 * (contexts == 4)


TIMES = [
    LinearTimes(step_ns=1000, sequence_ns=10, position_ns=0.5, prefill_ns=700, prompt_ns=30, token_ns=20, pair_ns=0.01),
    LinearTimes(step_ns=1000),
    LinearTimes(step_ns=0, sequence_ns=3, position_ns=0.000123, token_ns=1),
    TabulatedTimes(bent, lambda contexts, batches: 800 + 11 * contexts * batches),
]

requests = st.lists(st.tuples(st.integers(0, 40_000), st.integers(1, 70), st.integers(1, 40)), min_size=1, max_size=25)


@st.composite
def schedulers(draw: st.DrawFn) -> Scheduler:
    max_seqs = draw(st.integers(1, 8))
    block = draw(st.sampled_from([1, 3, 16]))
    return Scheduler(
        policy=draw(st.sampled_from(["chunked", "prefill-first", "decode-first", "one-at-a-time"])),
        max_seqs=max_seqs,
        max_batched_tokens=max_seqs + draw(st.integers(0, 60)),
        kv_tokens=draw(st.one_of(st.none(), st.integers(block, 240))),
        block_size=block,
        watermark=draw(st.sampled_from([0.0, 0.1])),
    )


def stream(rows: list[tuple[int, int, int]]) -> Arrivals:
    at, prompts, outputs = zip(*sorted(rows), strict=True)
    return Arrivals(np.array(at), np.array(prompts), np.array(outputs))


@settings(max_examples=400, deadline=None)
@given(requests, schedulers(), st.sampled_from(range(len(TIMES))))
def test_skipping_equals_stepping(rows: list[tuple[int, int, int]], scheduler: Scheduler, which: int) -> None:
    same(stream(rows), TIMES[which], scheduler)


@given(st.integers(1, 10**12), st.integers(1, 10**6), st.integers(-50, 10**4), st.integers(1, 10**4))
def test_steps_until_counts(ahead: int, first: int, growth: int, most: int) -> None:
    def lasts(k: int) -> int:
        return k * first + growth * (k * (k - 1) // 2)

    if first + growth * (most - 1) < 1 or lasts(most) < ahead:
        return
    k = steps_until(ahead, first, growth, most)
    assert 1 <= k <= most
    assert lasts(k) >= ahead
    assert k == 1 or lasts(k - 1) < ahead


@pytest.mark.parametrize("policy", ["chunked", "prefill-first", "decode-first"])
def test_skipping_equals_stepping_where_memory_is_short(policy: str) -> None:
    n_preempted = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(5, 30))
        arrivals = Arrivals(np.sort(rng.integers(0, 40_000, n)), rng.integers(1, 70, n), rng.integers(1, 40, n))
        scheduler = Scheduler(
            policy=policy,
            max_seqs=int(rng.integers(2, 8)),
            max_batched_tokens=int(rng.integers(8, 60)),
            kv_tokens=int(rng.integers(100, 240)),
            block_size=int(rng.choice([1, 3, 16])),
            watermark=float(rng.choice([0.0, 0.05])),
        )
        same(arrivals, TIMES[seed % len(TIMES)], scheduler)
        n_preempted += len(Engine(arrivals, TIMES[seed % len(TIMES)], scheduler).run().preempted)
    assert n_preempted > 100


def test_one_request_alone() -> None:
    times = LinearTimes(step_ns=100, position_ns=1, prefill_ns=50, token_ns=2)
    log = Engine(Arrivals([10], [7], [3]), times, Scheduler()).run()
    first = 10 + 50 + 2 * 7
    assert log.first == [first * FS]
    # the second token attends the prompt and the first one, the third one position more
    assert log.ended == [((first + 100 + 8 + 100 + 9) * FS, 0)]


def test_a_prompt_stalls_the_running_under_prefill_first_and_not_under_chunks() -> None:
    arrivals = Arrivals([0, 500], [10, 1000], [50, 2])
    times = LinearTimes(step_ns=100, prefill_ns=100, token_ns=1)
    longest = {}
    for policy in ("prefill-first", "chunked", "decode-first"):
        log = Engine(arrivals, times, Scheduler(policy, max_seqs=8, max_batched_tokens=64)).run()
        longest[policy] = max(first + growth * (k - 1) for first, growth, k, _ in log.gaps) // FS
    assert longest == {"prefill-first": 100 + 1000 + 100, "chunked": 100 + 63, "decode-first": 100}


def test_decode_first_begins_no_batch_before_the_last_one_is_done() -> None:
    times = LinearTimes(step_ns=10, token_ns=1)
    log = Engine(Arrivals([0, 16], [5, 5], [20, 2]), times, Scheduler("decode-first")).run()
    admitted = {one: at for at, one in log.admitted}
    ended = {one: at for at, one in log.ended}
    assert admitted[1] == ended[0]


def test_what_memory_cannot_hold_alone_is_refused_and_the_rest_goes_on() -> None:
    log = Engine(
        Arrivals([0, 0, 0], [10, 90, 10], [5, 20, 5]), LinearTimes(step_ns=10), Scheduler(kv_tokens=96, block_size=16)
    ).run()
    assert log.refused == [1]
    assert sorted(one for _, one in log.ended) == [0, 2]


def test_the_last_admitted_is_preempted_and_reads_again_what_it_wrote() -> None:
    times = LinearTimes(step_ns=10, token_ns=1)
    log = Engine(Arrivals([0, 0], [8, 8], [6, 6]), times, Scheduler("prefill-first", kv_tokens=20, block_size=1)).run()
    assert [one for _, one in log.preempted] == [1]
    again = [at for at, one in log.admitted if one == 1][1]
    # 16 read, then 2 steps of a token each; the third finds no room for the second one
    assert log.preempted[0][0] == (10 + 16 + 2 * 10) * FS
    assert again == next(at for at, one in log.ended if one == 0)
    # prompt and 3 tokens are read, which gives the fourth; two more follow
    assert next(at for at, one in log.ended if one == 1) == again + (10 + 11 + 2 * 10) * FS


def test_a_queue_served_one_by_one_waits_as_pollaczek_and_khinchine_say() -> None:
    # F. Pollaczek 1930, A. Khinchine 1932: with constant service the mean wait is rho s / (2 (1 - rho))
    n, service = 200_000, 1_000_000
    rng = np.random.default_rng(3)
    times = LinearTimes(step_ns=service)
    for rho in (0.5, 0.8):
        at = np.cumsum(rng.exponential(service / rho, n)).astype(np.int64)
        log = Engine(Arrivals(at, np.ones(n), np.ones(n)), times, Scheduler("one-at-a-time")).run()
        begun = np.array([0] * n, float)
        for moment, one in log.admitted:
            begun[one] = moment / FS
        assert np.mean(begun - at) == pytest.approx(rho * service / (2 * (1 - rho)), rel=0.03)
