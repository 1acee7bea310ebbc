"""Series against values by hand, and what holds of each of them."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from paper import FIVE, MS, Take, paper, said, step

from tokentape import Line
from tokentape.data.trace import Trace
from tokentape.errors import UsageError
from tokentape.study.series import AXES, SERIES, series_named


@pytest.fixture
def trace() -> Trace:
    script = [
        Line(5 * MS, [said("a", -1.0, 2)], context=3),
        Line(2 * MS, [said("b", None), said("c", -0.5, 1)], pause_ns=MS, context=5),
        Line(3 * MS, []),
        Line(4 * MS, [said("d", -3.0, 9)], context=6),
    ]
    (found,) = paper(Take(script, after_ns=7 * MS)).traces
    return found


def values(name: str, trace: Trace) -> list[object]:
    return SERIES[name].of(trace)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("time", [5 * MS, 8 * MS, 8 * MS, 15 * MS]),
        ("gap", [None, 3 * MS, 0, 7 * MS]),
        ("logprob", [-1.0, None, -0.5, -3.0]),
        ("surprise", [1.0, None, 0.5, 3.0]),
        ("rank", [2, None, 1, 9]),
        ("entropy", [1.0, 1.0, 1.0, 1.0]),
        ("rules_logprob", [None] * 4),
        ("step_time", [5 * MS, 2 * MS, 3 * MS, 4 * MS]),
        ("pause", [0, MS, 0, 0]),
        ("forward_time", [5 * MS, 2 * MS, 3 * MS, 4 * MS]),
        ("device_time", [None] * 4),
        ("context", [3, 5, None, 6]),
        ("tokens", [1, 2, 0, 1]),
        ("cache", [None] * 4),
        ("chunk_gap", [None, 3 * MS, 3 * MS, 4 * MS]),
        ("chunk_tokens", [1, 2, 0, 1]),
        ("ttft", [5 * MS]),
        ("mean_gap", [10 * MS / 3]),
        ("e2e", [15 * MS]),
        ("normalised_latency", [15 * MS / 4]),
        ("n_tokens", [4]),
    ],
)
def test_values_by_hand(trace: Trace, name: str, expected: list[object]) -> None:
    assert values(name, trace) == expected


def test_probability_and_running_perplexity(trace: Trace) -> None:
    assert values("probability", trace) == [math.exp(-1), None, math.exp(-0.5), math.exp(-3)]
    # the unknown token changes nothing: means 1, 1, 0.75, 1.5
    assert values("perplexity", trace) == pytest.approx([math.exp(m) for m in (1, 1, 0.75, 1.5)])


def test_share_of_the_processor_is_over_the_time_since_the_reading_before(trace: Trace) -> None:
    steps = {
        "cpu_ns": np.ma.MaskedArray([4, 0, 6], mask=[False, True, False]),
        "end_ns": np.ma.MaskedArray([5, 7, 15]) + (trace.run.start_ns or 0),
    }
    shared = SimpleNamespace(run=trace.run, steps=steps)
    assert SERIES["cpu_share"].of(shared) == [4 / 5, None, 6 / 10]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(SERIES))
def test_one_value_for_each_member_of_its_axis(name: str) -> None:
    one = SERIES[name]
    assert one.axis in AXES and one.meaning and one.name == name
    for trace in paper(*FIVE).traces:
        sizes = {"token": len(trace.tokens["step"]), "step": len(trace.steps["index"]), "trace": 1}
        found = one.of(trace)
        assert len(found) == sizes.get(one.axis, len(SERIES["chunk_tokens"].of(trace)))
        assert all(value is None or isinstance(value, int | float) for value in found)


@pytest.mark.parametrize("name", list(SERIES))
def test_trace_without_a_token_has_series_too(name: str) -> None:
    (trace,) = paper(Take([step(1, 0)])).traces
    assert len(SERIES[name].of(trace)) == {"token": 0}.get(SERIES[name].axis, 1)


def test_names_are_found_with_or_without_their_unit() -> None:
    assert [one.name for one in series_named(["gap_ns", "entropy", "gap"])] == ["gap", "entropy"]
    assert [one.name for one in series_named(["all"])] == list(SERIES)


def test_unknown_name_is_guessed() -> None:
    with pytest.raises(UsageError, match="no series 'entropi'") as caught:
        series_named(["gap", "entropi"])
    assert caught.value.fix == "did you mean entropy?"
    assert all(name in caught.value.why for name in SERIES)
