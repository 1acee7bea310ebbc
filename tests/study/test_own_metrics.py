"""Our own metrics of ``paper.FIVE`` (see test_dialects), by hand, and what holds of any schedule."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper import FIVE, MS, Take, paper, said, step

import tokentape
from tokentape import Line
from tokentape.data.tape import Tape
from tokentape.study.metrics import Metrics, Slo, Spread, metrics
from tokentape.study.surprise import bits_per_byte, perplexity
from tokentape.study.times import chunk_gaps_ns, token_gaps_ns, token_times_ns


@pytest.fixture(scope="module")
def found() -> Metrics:
    return metrics(paper(*FIVE), slo=Slo(ttft_ns=10 * MS, gap_ns=4 * MS))


def figures(spread: Spread) -> tuple[int, float | None, float | None, float | None]:
    def ms(value: float | None) -> float | None:
        return None if value is None else value / MS

    return spread.n, ms(spread.mean), ms(spread.min), ms(spread.max)


def test_times_by_hand(found: Metrics) -> None:
    assert figures(found.ttft) == (5, 9.4, 4, 20)  # 20 8 4 5 10
    assert figures(found.token_gap) == (9, pytest.approx(31 / 9), 0, 10)  # A 6 0 0 9 0, C 6, E 0 10 0
    assert figures(found.chunk_gap) == (4, 7.75, 6, 10)  # A 6 9, C 6, E 10
    assert figures(found.step_time) == (8, 6.625, 2, 10)  # A 10 6 4 5, C 6, E 10 10 2; no prefill
    assert figures(found.mean_gap) == (3, pytest.approx(37 / 9), 3, 6)  # A 15/5, C 6, E 10/3
    assert figures(found.e2e) == (3, 21, 8, 35)  # A 35, B 8, E 20
    assert figures(found.normalised_latency) == (3, pytest.approx((35 / 6 + 8 + 5) / 3), 5, 8)


def test_rates_and_counts_by_hand(found: Metrics) -> None:
    assert (found.n_requests, found.n_failed, found.n_cut_short, found.n_tokens) == (5, 1, 1, 14)
    assert found.window_ns == 92 * MS
    assert found.tokens_per_s == float(Fraction(14_000, 92))
    assert found.requests_per_s == float(Fraction(3000, 92))
    # (n - 1) over the spans: A 5 in 15, C 1 in 6, E 3 in 10
    assert found.decode_tokens_per_s == pytest.approx(9 / 0.031)
    assert found.goodput is not None and found.goodput.n_good == 2
    assert found.fluidity is not None and found.fluidity.index == 1 - 5 / 13


def test_what_is_not_asked_is_none() -> None:
    plain = metrics(paper(*FIVE))
    assert (plain.slo, plain.goodput, plain.fluidity) == (None, None, None)
    assert (plain.mean_surprise_nats, plain.perplexity, plain.bits_per_byte) == (None, None, None)


def test_value_is_json(found: Metrics) -> None:
    plain = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert plain["token_gap"]["n_effective"] == found.token_gap.n_effective
    assert plain["goodput"]["share"] == 0.4


def test_requests_of_a_batch_are_worth_one_run() -> None:
    rows = 12
    script = [Line((2 + i % 2) * MS, [said(row=row) for row in range(rows)]) for i in range(3)]
    found = metrics(paper(Take(script, prompts=("x",) * rows)))
    assert (found.ttft.n, found.ttft.n_effective) == (12, 1)
    assert found.ttft.percentiles[0].value is None, "p50 would need 11"
    assert found.token_gap.n == found.chunk_gap.n == 2, "one measurement of time each"


def test_slow_drift_takes_samples_away() -> None:
    # one step a token, 100 of 2 ms and then 100 of 4 ms: each is like the one before
    drift = tokentape.summary(paper(Take([step(2, 1)] * 101 + [step(4, 1)] * 100)))
    assert drift.gaps[0].n == 200 and drift.gaps[0].n_effective < 5
    assert drift.gaps[0].value is None and drift.gaps[0].n_missing > 200
    swing = tokentape.summary(paper(Take([step(2, 1), step(4, 1)] * 100)))
    assert swing.gaps[0].n_effective == swing.gaps[0].n == 199
    assert swing.gaps[0].value == 4 * MS


def text_tape() -> Tape:
    script = [
        Line(MS, [said("ab", -1.0)]),
        Line(MS, [said("", -3.0)]),  # end of text: no bytes, but a surprise
        Line(MS, [said("猫", None)]),  # unknown: neither counts
        Line(MS, [said("猫", -2.0)]),
    ]
    return paper(Take(script))


def test_bits_per_byte_by_hand() -> None:
    # (1 + 3 + 2) nats over 2 + 0 + 3 bytes
    assert metrics(text_tape()).bits_per_byte == pytest.approx(6 / math.log(2) / 5)
    assert metrics(text_tape()).perplexity == pytest.approx(math.exp(2))


def test_bits_per_byte_of_a_tape_without_text_is_none() -> None:
    tape = tokentape.record(tokentape.ScriptedSource([Line(MS, [said("a", -1.0)])]), "x", text=False)
    assert bits_per_byte(tape.traces) is None
    assert bits_per_byte([]) is None


def test_perplexity_of_the_unknown_and_the_absurd() -> None:
    assert perplexity(None) is None and perplexity(1e4) is None
    assert perplexity(0.0) == 1.0


SCRIPTS = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 4)), min_size=1, max_size=20)


@given(script=SCRIPTS)
def test_gaps_add_up(script: list[tuple[int, int]]) -> None:
    (trace,) = paper(Take([step(ms, k) for ms, k in script])).traces
    times = token_times_ns(trace)
    span = times[-1] - times[0] if times else 0
    assert sum(token_gaps_ns(trace)) == sum(chunk_gaps_ns(trace)) == span
    assert len(times) == sum(k for _, k in script)
