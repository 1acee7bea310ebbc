"""Each tool's numbers of one tape, worked out by hand. Times in the comments are milliseconds; the tape is ``paper.FIVE``.

A: t0 0, messages 10 (0 tokens), 20 (1), 26 (3), 30 (0), 35 (2). B: t0 40, 48 (1). C, failed: t0 50, 54 (1), 60 (1).
D, cut short: t0 60, 65 (1). E: t0 70, 80 (2), 90 (2), 92 (0).
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paper import FIVE, MS, Take, paper, said, step

from tokentape.errors import UsageError
from tokentape.sources.scripted import Line
from tokentape.study.answers import answers
from tokentape.study.dialects import DIALECTS, dialect
from tokentape.study.metrics import Slo, metrics
from tokentape.study.readings import Reading, quantile

SLO = Slo(ttft_ns=10 * MS, gap_ns=4 * MS, e2e_ns=25 * MS)


@pytest.fixture(scope="module")
def read() -> dict[str, Reading]:
    tape = paper(*FIVE)
    return {name: metrics(tape, dialect=name, slo=SLO) for name in DIALECTS}


# name: (n, mean, std, {q: value}) in milliseconds
HAND: dict[str, dict[str, tuple[int, Any, Any, dict[float, Any]]]] = {
    "vllm": {
        # A 10 - 0, B 48 - 40, E 80 - 70; deviations from 28/3: 2/3, -4/3, 2/3
        "ttft": (3, Fraction(28, 3), math.sqrt(8 / 9), {50: 10, 99: 10}),
        # A (35 - 10) / 5 = 5, E (92 - 80) / 3 = 4; B has one token. p99: 4 + 0.99
        "tpot": (2, 4.5, 0.5, {50: 4.5, 99: 4.99}),
        # A 10, 6, 4, 5; E 10, 2. Sorted 2 4 5 6 10 10: p50 between 5 and 6, p99 at place 4.95
        "itl": (6, Fraction(37, 6), None, {50: 5.5, 99: 10}),
        # 35, 8, 22; p99 at place 1.98: 22 + 0.98 * 13
        "e2el": (3, Fraction(65, 3), None, {50: 22, 99: 34.74}),
    },
    "sglang": {
        "ttft": (3, Fraction(38, 3), None, {50: 10}),  # 20, 8, 10
        "tpot": (2, 3.5, 0.5, {50: 3.5, 90: 3.9}),  # (35 - 20) / 5 = 3, (92 - 80) / 3 = 4
        # A 6/3 three times, (35 - 26)/2 twice: the empty message at 30 ends no gap; E 10/2 twice
        "itl": (7, Fraction(25, 7), None, {50: 4.5, 95: 5}),
        "e2e_latency": (3, Fraction(65, 3), None, {50: 22}),
    },
    "aiperf": {
        "time_to_first_token": (3, Fraction(38, 3), None, {50: 10, 25: 9}),
        "time_to_second_token": (2, 8, 2, {50: 8}),  # 6, 10
        "time_to_first_output_token": (3, Fraction(38, 3), None, {50: 10}),  # no reasoning: the same
        "inter_token_latency": (2, Fraction(19, 6), None, {50: Fraction(19, 6)}),  # 15/5 = 3, 10/3
        "inter_chunk_latency": (3, Fraction(25, 3), None, {50: 9, 25: 7.5}),  # 6, 9, 10
        "request_latency": (3, 21, None, {50: 20}),  # 35, 8, 90 - 70: the closing message is no response
    },
    "genai-perf": {
        "time_to_first_token": (5, 9.4, None, {50: 8}),  # 20, 8, 4, 5, 10: failed ones too
        "time_to_second_token": (3, Fraction(22, 3), None, {50: 6}),  # 6, C 6, 10
        # A 3, C 6, E 10/3 to the nanosecond
        "inter_token_latency": (3, Fraction(12_333_333, 3 * MS), None, {50: 3.333333}),
        "request_latency": (5, 15.6, None, {50: 10}),  # 35, 8, 10, 5, 20
    },
    "guidellm": {
        "time_to_first_token_ms": (3, Fraction(38, 3), None, {50: 10, 99: 20}),
        "time_to_first_output_token_ms": (3, Fraction(38, 3), None, {50: 10, 99: 20}),
        # A 35/6 weighs 6, B 8 weighs 1, E 20/4 = 5 weighs 4. Weight up to 5: 4, to 35/6: 10, to 8: 11.
        # p50 wants 5.5, p25 2.75, p90 9.9, p99 10.89
        "time_per_output_token_ms": (
            11,
            Fraction(63, 11),
            None,
            {50: Fraction(35, 6), 25: 5, 90: Fraction(35, 6), 99: 8},
        ),
        # A 3 weighs 5, E 10/3 weighs 3: mean (15 + 10) / 8
        "inter_token_latency_ms": (8, 3.125, None, {50: 3, 75: Fraction(10, 3)}),
        "request_latency": (3, Fraction(65, 3), None, {50: 22}),
    },
    "inference-perf": {
        "time_to_first_token": (2, 15, 5, {50: 15}),  # 20, 10: a request of one token has none
        "time_per_output_token": (2, Fraction(19, 6), None, {50: Fraction(19, 6)}),
        # A 6 0 0 9 0, E 0 10 0. Sorted 0 0 0 0 0 6 9 10: p50 0, p90 at place 6.3
        "inter_token_latency": (8, 3.125, None, {50: 0, 90: 9.3}),
        # 35/6, 8, 22/4
        "normalized_time_per_output_token": (3, Fraction(58, 9), None, {50: Fraction(35, 6)}),
        "request_latency": (3, Fraction(65, 3), None, {50: 22}),
    },
    "mlperf": {
        # 20, 8, C 4, 10; deviations from 10.5 squared: 90.25 + 6.25 + 42.25 + 0.25 = 139, over n - 1; p50 is the lower
        "ttft_ns": (4, 10.5, math.sqrt(139 / 3), {50: 8}),
        "tpot_ns": (2, 4.5, math.sqrt(4.5), {50: 3, 99: 3}),  # 15 / (6 - 1) = 3, 12 / (4 - 2) = 6
        "sample_latency_ns": (4, 18.75, None, {50: 10, 99: 22}),  # 35, 8, 10, 22
    },
    # 35, 8, 22; deviations from 65/3 squared: (1600 + 1681 + 1) / 9 = 3282 / 9, over n - 1
    "llama-bench": {"avg_ns": (3, Fraction(65, 3), math.sqrt(3282 / 18), {})},
}

# tokens/s, requests/s: n over milliseconds
TOTALS = {
    "vllm": ((11, 92), (3, 92)),  # A 6, B 1, E 4 tokens; from 0 to 92, failed ones in it
    "sglang": ((11, 92), (3, 92)),
    "aiperf": ((11, 90), (3, 90)),  # to the last token
    "genai-perf": ((14, 90), (5, 90)),
    "guidellm": ((11, 92), (3, 92)),
    "inference-perf": ((11, 92), (3, 92)),
    "mlperf": ((11, 92), (4, 92)),
}


@pytest.mark.parametrize(("name", "figure"), [(name, figure) for name in HAND for figure in HAND[name]])
def test_figure_is_the_value_by_hand(read: dict[str, Reading], name: str, figure: str) -> None:
    (found,) = [one for one in read[name].figures if one.name == figure]
    n, mean, std, percentiles = HAND[name][figure]
    assert found.n == n
    assert found.mean == float(Fraction(str(mean)) * MS)
    if std is not None:
        assert found.std == pytest.approx(std * MS, rel=1e-12)
    told = dict(found.percentiles)
    assert {q: told[q] for q in percentiles} == {q: float(Fraction(str(v)) * MS) for q, v in percentiles.items()}


@pytest.mark.parametrize("name", list(DIALECTS))
def test_every_figure_has_been_worked_out(read: dict[str, Reading], name: str) -> None:
    assert {one.name for one in read[name].figures if one.n is not None} == set(HAND[name])


@pytest.mark.parametrize("name", list(TOTALS))
def test_totals(read: dict[str, Reading], name: str) -> None:
    for kind, (n, ms) in zip(("tokens/s", "requests/s"), TOTALS[name], strict=True):
        found = read[name].figure(kind)
        assert found is not None and found.mean == float(Fraction(n * 1000, ms)), kind


def test_failures_are_treated_as_each_tool_does(read: dict[str, Reading]) -> None:
    counted = {name: reading.n_counted for name, reading in read.items()}
    assert counted == {
        "vllm": 3,
        "sglang": 3,
        "aiperf": 3,
        "genai-perf": 5,
        "guidellm": 3,
        "inference-perf": 3,
        "mlperf": 4,
        "llama-bench": 3,
    }
    assert {reading.n_requests for reading in read.values()} == {5}


def test_goodput_of_each_tool(read: dict[str, Reading]) -> None:
    found = {name: reading.goodput for name, reading in read.items()}
    # A: tpot 5 > 4. B: one token, tpot taken as 0. E: 10, 4, 22
    assert found["vllm"] == {"n_good": 2, "requests_per_s": float(Fraction(2000, 92))}
    # A: ttft 20. B: no inter token latency is a miss. E: 10, 10/3, 20
    assert found["aiperf"] == {"n_good": 1, "requests_per_s": float(Fraction(1000, 90))}
    # paired in order, whosever they are: (20, 3, 35), (8, 6, 8), (4, 10/3, 10)
    assert found["genai-perf"] == {"n_good": 1, "requests_per_s": float(Fraction(1000, 90))}
    # B: no ttft is a miss. E: 10, 10/3, 22
    assert found["inference-perf"] == {"n_good": 1, "requests_per_s": float(Fraction(1000, 92))}
    # B: no inter token latency, undetermined. A: 20, 3, 35. E: 10, 10/3, 22
    assert found["guidellm"] == {"n_good": 1, "requests_per_s": float(Fraction(1000, 92))}
    assert found["sglang"] is None and found["mlperf"] is None and found["llama-bench"] is None


def test_batch_sends_each_request_its_own_messages() -> None:
    script = [
        Line(4 * MS, [said("a", row=0), said("x", row=1)]),
        Line(2 * MS, [said("b", row=0)]),
        Line(3 * MS, []),
        Line(1 * MS, [said("y", row=1), said("z", row=1)]),
    ]
    found = answers(paper(Take(script, ["stop", "error"], prompts=("one", "two"))))
    assert [[(m.at_ns // MS, m.n_tokens) for m in one.messages] for one in found] == [
        [(4, 1), (6, 1)],
        [(4, 1), (9, 0), (10, 2)],
    ]
    assert [one.outcome for one in found] == ["ended", "failed"]


def test_what_a_model_computes_past_the_end_is_sent_to_nobody() -> None:
    script = [step(4, 1), Line(2 * MS, [said("b", overshoot=True)]), step(1, 0)]
    (found,) = answers(paper(Take(script)))
    assert [m.at_ns // MS for m in found.messages] == [4]


def test_answer_without_a_token() -> None:
    tape = paper(Take([step(4, 0), step(2, 0)]))
    vllm, guidellm, aiperf = (metrics(tape, dialect=name) for name in ("vllm", "guidellm", "aiperf"))
    assert vllm.n_counted == 1 and vllm.figure("ttft").mean == 4 * MS, "its empty message counts"  # type: ignore[union-attr]
    assert guidellm.n_counted == 1 and guidellm.figure("ttft").n == 0  # type: ignore[union-attr]
    assert aiperf.n_counted == 0 and aiperf.figure("ttft").mean is None  # type: ignore[union-attr]
    assert aiperf.figure("tokens/s").mean is None  # type: ignore[union-attr]


def test_empty_tape_tells_nothing() -> None:
    tape = paper(Take([step(1, 1)], None))
    for name in DIALECTS:
        reading = metrics(tape, dialect=name)
        if name != "genai-perf":
            assert reading.n_counted == 0
            assert all(figure.mean in (None, 0) for figure in reading.figures if figure.kind != "requests/s")


def test_unknown_dialect_is_guessed() -> None:
    with pytest.raises(UsageError, match="no dialect 'guide-llm'") as caught:
        dialect("guide-llm")
    assert "guidellm" in caught.value.fix and "mlperf" in caught.value.why


@pytest.mark.parametrize("method", ["linear", "lower"])
@given(
    values=st.lists(st.integers(0, 10**9), min_size=1, max_size=30), q=st.sampled_from([0.1, 1, 25, 50, 90, 99, 99.9])
)
def test_percentile_is_numpys(method: str, values: list[int], q: float) -> None:
    found = quantile(values, q, method)
    assert found == pytest.approx(float(np.percentile(values, q, method=method)), rel=1e-12, abs=1e-6)


@given(values=st.lists(st.integers(0, 100), min_size=1, max_size=30), q=st.sampled_from([1, 25, 50, 75, 90, 99]))
def test_cumulative_percentile_is_the_least_with_its_share(values: list[int], q: int) -> None:
    found = quantile(values, q, "cumulative")
    assert sum(v <= found for v in values) * 100 >= q * len(values)
    assert sum(v < found for v in values) * 100 < q * len(values)


SCRIPTS = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 4)), min_size=1, max_size=12)


@settings(deadline=None)
@given(scripts=st.lists(SCRIPTS, min_size=1, max_size=3))
def test_twins_by_brute_force(scripts: list[list[tuple[int, int]]]) -> None:
    """Sums that hold whatever the schedule, restated without the tables."""
    tape = paper(*(Take([step(ms, k) for ms, k in script]) for script in scripts))
    found = {name: metrics(tape, dialect=name) for name in DIALECTS}
    ttfts, itls, tokens = [], [], 0
    for script in scripts:
        at, first, before = 0, None, None
        last = max((i for i, (_, k) in enumerate(script) if k), default=len(script) - 1)
        for ms, k in script[: last + 1]:
            at += ms
            tokens += k
            ttfts += [at] if first is None else []
            first = at if first is None else first
            itls += [] if before is None else [at - before]
            before = at
    vllm = found["vllm"]
    assert vllm.figure("ttft").mean == float(Fraction(sum(ttfts) * MS, len(ttfts)))  # type: ignore[union-attr]
    itl = vllm.figure("itl")
    assert itl is not None and itl.n == len(itls)
    assert itl.mean == (float(Fraction(sum(itls) * MS, len(itls))) if itls else None)
    # a gap is shared among the tokens of its chunk, or belongs to its first: the sum is the same
    sglang, inference_perf = found["sglang"].figure("itl"), found["inference-perf"].figure("itl")
    assert sglang is not None and inference_perf is not None
    assert (sglang.mean or 0) * (sglang.n or 0) == pytest.approx((inference_perf.mean or 0) * (inference_perf.n or 0))
    assert sum(one.n_tokens for one in answers(tape)) == tokens == metrics(tape).n_tokens
