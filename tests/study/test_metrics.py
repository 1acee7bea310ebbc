"""The figures against values worked out by hand, to the nanosecond."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import tokentape
from tokentape import Line
from tokentape.data.tape import Tape
from tokentape.recorder.tick import Said
from tokentape.study import metrics
from tokentape.study.metrics import Cause

MS = 1_000_000


def said(text: str, logprob: float | None = None, rank: int | None = None, row: int = 0, **more: Any) -> Said:
    return Said(row, None, text.encode(), logprob, 1.0, rank, **more)


def taped(*lines: Line, prompt: Any = "The cat", **options: Any) -> Tape:
    return tokentape.record(tokentape.ScriptedSource(lines), prompt, **options)


@pytest.fixture
def tape() -> Tape:
    """Five tokens: the third and fourth come in one step, and a step without tokens lies before the last."""
    return taped(
        Line(5 * MS, [said("a", -1.0, 2)]),
        Line(2 * MS, [said("b", -0.5, 1)]),
        Line(3 * MS, [said("c", -0.25, 1), said("d", None)]),
        Line(1 * MS, []),
        Line(4 * MS, [said("e", -2.25, 9)]),
    )


def test_times_of_a_trace(tape: Tape) -> None:
    trace = tape.traces[0]
    assert metrics.ttft_ns(trace) == 5 * MS
    assert metrics.token_gaps_ns(trace) == [2 * MS, 3 * MS, 0, 5 * MS]
    assert metrics.e2e_ns(trace) == 15 * MS
    assert metrics.step_times_ns(trace.steps) == [5 * MS, 2 * MS, 3 * MS, 1 * MS, 4 * MS]
    assert metrics.step_times_ns(trace.steps, kind=0) == [5 * MS]
    assert metrics.decode_tokens_per_s([trace]) == pytest.approx(4 / 0.010)


def test_summary(tape: Tape) -> None:
    found = metrics.summary(tape)
    assert found.ttft_ns == (5 * MS,)
    assert (found.n_tokens, found.n_steps, found.n_traces, found.n_runs) == (5, 5, 1, 1)
    assert found.n_same_step == 1
    assert found.mean_gap_ns == 2.5 * MS
    assert found.e2e_ns == 15 * MS
    assert found.decode_tokens_per_s == pytest.approx(400)
    assert found.overall_tokens_per_s == pytest.approx(5 / 0.015)
    assert [(p.q, p.value, p.n, p.n_missing) for p in found.gaps] == [
        (50, None, 4, 7),
        (95, None, 4, 126),
        (99, None, 4, 658),
    ]
    assert [p.n for p in found.step_times] == [4, 4, 4], "the prefill is no decode step"


def test_surprise_counts_only_what_is_known(tape: Tape) -> None:
    found = metrics.summary(tape)
    assert found.n_surprise == 4
    assert found.mean_surprise_nats == pytest.approx(1.0)
    assert found.mean_surprise_bits == pytest.approx(1 / math.log(2))
    assert found.perplexity == pytest.approx(math.e)
    assert found.most_surprising == metrics.SurprisingToken(0, 4, 2 + 4, 2.25, 9)


def test_slowest_token_without_covariates_has_no_cause(tape: Tape) -> None:
    slow = metrics.summary(tape).slowest
    assert slow is not None
    assert (slow.index, slow.gap_ns) == (4, 5 * MS)


def test_unknown_is_none_and_never_zero() -> None:
    found = metrics.summary(taped(Line(5 * MS, ["a"])))
    for name in ("mean_gap_ns", "decode_tokens_per_s", "mean_surprise_nats", "mean_surprise_bits", "perplexity"):
        assert getattr(found, name) is None, name
    assert found.peak_cache_bytes is None and found.peak_device_bytes is None
    assert found.slowest is None and found.most_surprising is None
    assert found.gaps[0].value is None and found.gaps[0].n == 0


def test_run_that_said_nothing() -> None:
    found = metrics.summary(taped(Line(5 * MS)))
    assert found.n_tokens == 0 and found.ttft_ns == (None,)
    assert found.e2e_ns is None and found.overall_tokens_per_s is None


def test_batch_adds_up_its_sequences() -> None:
    tape = taped(
        Line(4 * MS, [said("a", -1.0, row=0), said("x", -3.0, row=1)]),
        Line(2 * MS, [said("b", -1.0, row=0), said("y", -3.0, row=1)]),
        Line(2 * MS, [said("c", -1.0, row=0)]),
        prompt=["one", "two"],
    )
    found = metrics.summary(tape)
    assert (found.n_traces, found.n_tokens, found.n_steps) == (2, 5, 3)
    assert found.ttft_ns == (4 * MS,)
    assert found.decode_tokens_per_s == pytest.approx(3 / 0.004)
    assert found.mean_surprise_nats == pytest.approx(9 / 5)
    assert [t.decode_tokens_per_s for t in found.traces] == [pytest.approx(500), pytest.approx(500)]
    assert [t.perplexity for t in found.traces] == [pytest.approx(math.e), pytest.approx(math.e**3)]


def test_gap_that_a_batch_shares_is_one_measurement() -> None:
    tape = taped(
        Line(4 * MS, [said("a", row=0), said("x", row=1)]),
        Line(2 * MS, [said("b", row=0), said("y", row=1), said("z", row=1)]),
        Line(3 * MS, [said("c", row=0)]),
        Line(1 * MS, [said("d", row=0), said("w", row=1)]),
        prompt=["one", "two"],
    )
    assert [metrics.token_gaps_ns(trace) for trace in tape.traces] == [[2 * MS, 3 * MS, MS], [2 * MS, 0, 4 * MS]]
    assert sorted(metrics.run_gaps_ns(tape.traces)) == [0, MS, 2 * MS, 3 * MS, 4 * MS]
    assert metrics.summary(tape).gaps[0].n == 5


def test_overshoot_counts_in_no_figure() -> None:
    tape = taped(
        Line(4 * MS, [said("a", -1.0)]),
        Line(2 * MS, [said("b", -1.0)]),
        Line(2 * MS, [said("c", -9.0, overshoot=True)]),
    )
    found = metrics.summary(tape)
    assert (found.n_tokens, found.traces[0].n_overshoot) == (2, 1)
    assert found.mean_surprise_nats == pytest.approx(1.0)
    assert found.e2e_ns == 6 * MS


def test_perplexity_beyond_a_float_is_none() -> None:
    found = metrics.summary(taped(Line(MS, [said("a", -1e4)]), Line(MS, [said("b", -1e4)])))
    assert found.mean_surprise_nats == pytest.approx(1e4)
    assert found.perplexity is None


@dataclass
class Covariates:
    """As much of a trace as a cause needs: one token a step, 2 ms each, some of it of a kind."""

    gaps_ms: list[float]
    gc_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float | None] = field(default_factory=list)
    switches: list[int] = field(default_factory=list)

    @property
    def steps(self) -> dict[str, Any]:
        n = len(self.gaps_ms) + 1
        ends = np.cumsum([0, *(int(ms * MS) for ms in self.gaps_ms)])

        def column(values: list[Any], scale: int = 1) -> Any:
            filled = [0, *values] if values else [None] * n
            masked = [value is None for value in filled]
            return np.ma.MaskedArray([int((v or 0) * scale) for v in filled], mask=masked)

        return {
            "index": np.arange(n),
            "end_ns": ends,
            "gc_ns": column(self.gc_ms, MS),
            "gc_count": column([int(ms > 0) for ms in self.gc_ms]),
            "cpu_ns": column(self.cpu_ms, MS),
            "switches": column(self.switches),
        }

    @property
    def tokens(self) -> dict[str, Any]:
        return {"step": np.arange(len(self.gaps_ms) + 1)}


def cause(found: Covariates, index: int = 5) -> Cause | None:
    return metrics.cause_of_gap(found, index)  # type: ignore[arg-type]


def test_cause_is_a_collection_that_explains_half_of_the_excess() -> None:
    assert cause(Covariates([2, 2, 2, 2, 10], gc_ms=[0, 0, 0, 0, 7])) == Cause("gc", 1, 7 * MS)
    assert cause(Covariates([2, 2, 2, 2, 10], gc_ms=[0, 0, 0, 0, 3])) is None


def test_cause_is_time_off_the_processor_with_switches() -> None:
    busy = [1.9, 1.9, 1.9, 1.9, 2.0]
    assert cause(Covariates([2, 2, 2, 2, 10], cpu_ms=list(busy), switches=[0, 0, 0, 0, 3])) == Cause(
        "switches", 3, 8 * MS
    )
    assert cause(Covariates([2, 2, 2, 2, 10], cpu_ms=list(busy), switches=[0] * 5)) is None, "waited, but not preempted"
    assert cause(Covariates([2, 2, 2, 2, 10], cpu_ms=[1.9] * 4 + [9.9], switches=[0, 0, 0, 0, 3])) is None, (
        "it computed"
    )


def test_readings_of_several_gaps_tell_nothing_of_one() -> None:
    shared = [20.0, 20.0, 20.0, 20.0]
    switched = [0, 0, 0, 0, 2]
    assert cause(Covariates([2, 2, 2, 2, 10], cpu_ms=[*shared, 25.0], switches=switched)) is None, "never negative"
    assert cause(Covariates([2, 2, 2, 2, 10], cpu_ms=[*shared, 9.0], switches=switched)) is None, (
        "1 ms explains no 8, however negative the others"
    )
    assert cause(Covariates([2, 2, 2, 2, 10], cpu_ms=[*shared, 3.0], switches=switched)) == Cause("switches", 2, 7 * MS)


def test_ordinary_gap_needs_no_cause() -> None:
    assert cause(Covariates([2, 2, 2, 2, 2.5], gc_ms=[0, 0, 0, 0, 0.5])) is None


def test_null_covariates_explain_nothing() -> None:
    assert cause(Covariates([2, 2, 2, 2, 10])) is None


def test_peak_of_nothing_is_none() -> None:
    assert metrics.peak([np.ma.masked_all(3, dtype="i8")]) is None
    assert metrics.peak([np.ma.MaskedArray([5, 9], mask=[False, True]), np.ma.MaskedArray([7])]) == 7
