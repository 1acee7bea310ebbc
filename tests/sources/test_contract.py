"""What every source promises, whatever it is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import tokentape as tt
from families import causal
from tokentape.data.request import FINISH_REASONS, Request
from tokentape.errors import UsageError
from tokentape.recorder.tick import Source
from tokentape.sources.local import LocalSource
from tokentape.sources.scripted import Line, ScriptedSource

SOURCES: dict[str, Callable[[], Source]] = {
    "scripted": lambda: ScriptedSource([Line(9, " a"), Line(4), Line(7, [" b", " c"], pause_ns=3)]),
    "local": lambda: LocalSource(causal("gpt2")),
    "local, recurrent": lambda: LocalSource(causal("rwkv")),
    "local, running ahead": lambda: LocalSource(causal("llama"), lookahead=2),
}
REQUEST = Request(("The cat",), {"max_new_tokens": 5})


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest) -> Source:
    return SOURCES[request.param]()


def test_is_a_source(source: Source) -> None:
    assert isinstance(source, Source)
    assert source.setting().fingerprint == source.setting().fingerprint
    assert source.setting().facts


def test_the_first_step_is_the_prefill_and_time_runs_forward(source: Source) -> None:
    live = source.start(REQUEST, frozenset({"logits", "cache", "device_clock"}))
    now = source.clock.ns(live.start, since=live.start)
    kinds = []
    for tick in live.ticks:
        started, ended = (source.clock.ns(mark, since=live.start) for mark in (tick.start, tick.end))
        assert now <= started <= ended
        now = ended
        kinds.append(tick.kind)
        assert tick.batch == len(live.run.traces)
        assert (tick.ids is None) != (tick.said is None)
    assert kinds[0] == "prefill" and set(kinds[1:]) <= {"decode", "chunk"}
    reasons = live.finish_reasons()
    assert len(reasons) == len(live.run.traces)
    assert set(reasons) <= set(FINISH_REASONS)


def test_nothing_is_computed_that_nobody_keeps(source: Source) -> None:
    for tick in source.start(REQUEST, frozenset()).ticks:
        assert tick.logits is None and tick.scores is None and tick.cache is None and tick.device is None


def test_a_request_can_be_asked_again(source: Source) -> None:
    first, second = (tt.record(source, "The cat", max_new_tokens=5) for _ in range(2))
    assert first.traces[0].text == second.traces[0].text
    assert first.traces[0].token_ids.tolist() == second.traces[0].token_ids.tolist()
    assert first.setting.fingerprint == second.setting.fingerprint


def test_no_prompt_is_refused(source: Source) -> None:
    with pytest.raises(UsageError):
        source.start(Request((), {}), frozenset())


def test_tokens_follow_their_prompt_and_point_at_their_step(source: Source) -> None:
    tape = tt.record(source, "The cat", max_new_tokens=5)
    trace = tape.traces[0]
    positions = trace.tokens["position"].tolist()
    assert positions == list(range(len(trace.prompt_ids), len(trace.prompt_ids) + len(positions)))
    steps = np.asarray(trace.tokens["step"])
    assert (np.diff(steps) >= 0).all()
    assert np.bincount(steps, minlength=len(trace.steps["index"])).tolist() == trace.steps["n_out"].tolist()
    assert not tape.verify()
