"""Predictions: rooflines by hand, rates, limits, and a law in the roofline's place."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape.errors import UsageError
from tokentape.study.cost.counting import workload
from tokentape.study.cost.figure import KINDS
from tokentape.study.cost.hardware import Hardware
from tokentape.study.cost.memory import memory_needed
from tokentape.study.cost.prediction import predict
from tokentape.study.cost.roofline import roof
from tokentape.study.cost.timing import over_steps
from tokentape.study.cost.work import Work

CONFIG = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 1000, "dtype": "bfloat16", "max_position_embeddings": 4096,
}  # fmt: skip
MACHINE = Hardware("toy", {"bfloat16": 2.0}, 0.01, 100.0, 10.0, 50.0, "made up, 2026")


def test_roofline_by_hand() -> None:
    work = Work(
        layers=4, weight_bytes=900, kv_bytes=90, kv_write_bytes=10, flops=3000, attention_flops=1000, reduce_bytes=20
    )
    found = roof(work, MACHINE, "bfloat16", 2)
    assert found.memory_ns == pytest.approx(1000 / 200)  # bytes over two times 100 bytes a ns
    assert found.compute_ns == pytest.approx(4000 / 4000)
    assert found.link_ns == pytest.approx(20 / 10)
    assert found.ns == pytest.approx(5 + 2) and found.bound == "bandwidth"


def test_the_floor_and_the_rate_of_one_row() -> None:
    slow = Hardware(
        "toy", {"bfloat16": 2.0}, 1, 100.0, None, None, "x", layer_floor_ns=7.0, one_row_gb_s={"bfloat16": 10.0}
    )
    work = Work(4, weight_bytes=1000, kv_bytes=500, kv_write_bytes=0, flops=0, attention_flops=0)
    assert roof(work, slow, "bfloat16").ns == pytest.approx(15 + 28)
    assert roof(work, slow, "bfloat16", rows=1).ns == pytest.approx(100 + 5 + 28)
    assert roof(work, slow, "bfloat16", rows=2).bound == "floor"
    assert roof(Work(1, 1, 0, 0, 0, 0, reduce_bytes=5), slow, "bfloat16", 2).link_ns is None


def test_figures_by_hand() -> None:
    p = predict(CONFIG, hardware=MACHINE, context=100, batch=2, new_tokens=3)
    work = workload(CONFIG, pairs="seen")
    read, steps = work.prefill(100, 2), [work.decode(101, 2), work.decode(102, 2)]
    assert p["request_flops"] == pytest.approx(sum(w.flops + w.attention_flops for w in (read, *steps)))
    times = [roof(w, MACHINE, "bfloat16").ns for w in (read, *steps)]
    assert (p["prefill_ns"], p["decode_ns"]) == pytest.approx(tuple(times[:2]))
    assert p["request_ns"] == pytest.approx(sum(times))
    assert p["energy_j"] == pytest.approx(50 * sum(times) / 1e9)
    assert p["tokens_per_s"] == pytest.approx(2e9 / times[1])
    assert p["prefill_bound"] == "compute" and p["decode_bound"] == "bandwidth"
    assert p["parameters"] == work.architecture.parameters


def test_largest_batch_and_context_are_where_it_just_fits() -> None:
    p = predict(CONFIG, hardware=MACHINE, context=100, batch=2, new_tokens=3)
    work = workload(CONFIG)

    def fits(context: int, batch: int) -> bool:
        return memory_needed(work, context, batch, 3).peak_bytes <= 1e7

    most, longest = p["largest_batch"], p["largest_context"]
    assert p["fits"] is True and fits(100, most) and not fits(100, most + 1)
    assert fits(longest, 2) and not fits(longest + 1, 2)
    assert predict(CONFIG, hardware=MACHINE, context=longest + 1, batch=2, new_tokens=3)["fits"] is False


@given(st.integers(1, 3000), st.integers(1, 3000), st.floats(0, 1e6), st.floats(0, 1e3))
def test_a_straight_cost_is_summed_exactly(context: int, new_tokens: int, a: float, b: float) -> None:
    expected = sum(a + b * (context + i) for i in range(1, new_tokens))
    assert over_steps(lambda at: a + b * at, context, new_tokens) == pytest.approx(expected)


def test_without_a_machine_times_are_unavailable() -> None:
    p = predict(CONFIG, context=10)
    assert p["decode_ns"] is None and p.figures["decode_ns"].kind == "unavailable" and p.figures["decode_ns"].why
    cpu = predict(CONFIG, hardware="epyc", context=10)
    assert cpu["fits"] is None and "memory" in cpu.figures["fits"].why and cpu["decode_ns"] > 0
    assert predict(CONFIG, hardware="v5e", context=10)["energy_j"] is None


def test_every_figure_says_what_it_is() -> None:
    for p in (predict(CONFIG, context=10), predict(CONFIG, hardware="h100", context=10, tensor_parallel=2)):
        for name, figure in p.figures.items():
            assert figure.kind in KINDS, name
            assert (figure.value is None) == (figure.kind == "unavailable") and (
                figure.why or figure.value is not None
            ), name
    json.dumps(p.as_dict(), allow_nan=False)


class FakeLaw:
    """A law that makes a decode step 100 ns a sequence and a prefill 1 ns a byte of cache, give or take a tenth."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Work]] = []

    def time_of(self, kind: str, workload: Any, context: float, batch: float) -> tuple[float, float, float]:
        work = getattr(workload, kind)(context, batch)
        self.asked.append((kind, work))
        ns = {"decode": work.flops / 1000, "prefill": work.kv_write_bytes}[kind]
        return ns, 0.9 * ns, 1.1 * ns


def test_a_law_takes_the_place_of_the_roofline() -> None:
    law = FakeLaw()
    p = predict(CONFIG, context=100, batch=2, new_tokens=5, law=law)
    work = workload(CONFIG)
    assert law.asked[0] == ("prefill", work.prefill(100, 2)), "all pairs, as the law was fitted to"
    step, read = p.figures["decode_ns"], p.figures["prefill_ns"]
    assert step.value == work.decode(101, 2).flops / 1000 and (step.low, step.high) == pytest.approx(
        (0.9 * step.value, 1.1 * step.value)
    )
    whole = p.figures["request_ns"]
    assert whole.value == pytest.approx(read.value + 4 * step.value)
    assert whole.low == pytest.approx(0.9 * whole.value) and whole.high == pytest.approx(1.1 * whole.value)
    rate = p.figures["tokens_per_s"]
    assert rate.low < rate.value < rate.high
    assert predict(CONFIG, hardware=MACHINE, context=100, law=law)["fits"] is True


def test_a_law_is_carried_over_to_another_machine_by_the_ratio_of_their_rooflines() -> None:
    half = replace(
        MACHINE,
        name="slow",
        tflops={dtype: peak / 2 for dtype, peak in MACHINE.tflops.items()},
        bandwidth_gb_s=MACHINE.bandwidth_gb_s / 2,
    )
    here = predict(CONFIG, context=100, law=FakeLaw())
    there = predict(CONFIG, context=100, law=FakeLaw(), hardware=MACHINE, measured_on=half)
    assert there["decode_ns"] == pytest.approx(here["decode_ns"] / 2)
    assert there["prefill_ns"] == pytest.approx(here["prefill_ns"] / 2)
    figure = there.figures["decode_ns"]
    assert figure.high / figure.low > 1.3 * here.figures["decode_ns"].high / here.figures["decode_ns"].low
    with pytest.raises(UsageError, match="measured on"):
        predict(CONFIG, context=100, measured_on=half)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"context": 0}, "context is 0"),
        ({"context": -5}, "context is -5"),
        ({"context": 1.5}, "context is 1.5"),
        ({"batch": 0}, "batch is 0"),
        ({"new_tokens": 0}, "new tokens is 0"),
        ({"dtype": "float12"}, "no dtype 'float12'"),
        ({"tensor_parallel": 3}, "3 devices cannot share 8 heads"),
        ({"tensor_parallel": 0}, "0 devices"),
        ({"hardware": "abacus"}, "no machine 'abacus'"),
        ({"depth": 3}, "no size 'depth'"),
        ({"heads": 0}, "heads is 0"),
    ],
)
def test_impossible_questions(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        predict(CONFIG, **{"context": 10, **given})
    assert says in caught.value.what and caught.value.why and caught.value.fix


def test_what_is_assumed_is_said() -> None:
    bare = {name: value for name, value in CONFIG.items() if name != "dtype"}
    assert any("names no dtype: float32" in note for note in predict(bare, context=10).notes)
    assert any("5,000 positions are more than the 4,096" in note for note in predict(CONFIG, context=4999).notes)
    assert any(
        "no rate for bfloat16: that of float32" in note for note in predict(CONFIG, hardware="v100", context=10).notes
    )
    assert any("link" in note for note in predict(CONFIG, hardware="m1", context=10, tensor_parallel=2).notes)
    assert predict(CONFIG, hardware="h100", context=10).notes == ()
