"""A script and a fake clock: every time on the tape is exact, whatever the steps yield."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokentape as tt
from tokentape.clock import FakeClock
from tokentape.errors import RecordingError
from tokentape.recorder.tick import Said
from tokentape.sources.scripted import Line, ScriptedSource

steps = st.tuples(
    st.integers(0, 10**12),  # ns of the step
    st.integers(0, 10**9),  # ns of pause before it
    st.sampled_from([0, 1, 4]),  # tokens
)
schedules = st.lists(steps, min_size=1, max_size=30)


def _script(schedule: list[tuple[int, int, int]]) -> list[Line]:
    return [Line(ns, [f" w{i}.{k}" for k in range(n)], pause_ns=pause) for i, (ns, pause, n) in enumerate(schedule)]


@settings(max_examples=60, deadline=None)
@given(schedule=schedules, runs=st.integers(1, 3))
def test_every_gap_is_exact(schedule: list[tuple[int, int, int]], runs: int) -> None:
    source = ScriptedSource(_script(schedule))
    for _ in range(runs):
        tape = tt.record(source, "once upon a time", probe="timing")
        trace = tape.traces[0]
        now, ends, token_times = 0, [], []
        for ns, pause, n in schedule:
            now += pause + ns
            ends.append(now)
            token_times += [now] * n
        assert trace.run.start_ns == 0
        assert trace.steps["end_ns"].tolist() == ends
        assert (trace.steps["end_ns"] - trace.steps["start_ns"]).tolist() == [ns for ns, _, _ in schedule]
        assert trace.steps["n_out"].tolist() == [n for _, _, n in schedule]
        times = trace.steps["end_ns"][np.asarray(trace.tokens["step"])]
        assert times.tolist() == token_times
        assert np.diff(np.asarray(times)).tolist() == np.diff(token_times).tolist()
        assert trace.text == "".join(f" w{i}.{k}" for i, (_, _, n) in enumerate(schedule) for k in range(n))
        assert trace.steps["kind"].tolist() == [0] + [1] * (len(schedule) - 1)
        assert not tape.verify()


def test_what_the_script_knows_is_on_the_tape() -> None:
    said = Said(0, 7, b" mat", logprob=-0.5, entropy=1.25, rank=2, candidates=((3, -0.25), (7, -0.5)), forced=True)
    tape = tt.record(ScriptedSource([Line(10, said), Line(5, Said(0, 8, b"!", overshoot=True))]), "The cat")
    trace = tape.traces[0]
    assert trace.token_ids.tolist() == [7]
    assert trace.tokens["logprob"].tolist() == [-0.5]
    assert trace.tokens["entropy"].tolist() == [1.25]
    assert trace.tokens["rank"].tolist() == [2]
    assert trace.tokens["forced"].tolist() == [1]
    assert trace.tokens["rules_logprob"].mask.tolist() == [True]
    assert trace.candidates.ids.tolist() == [[3, 7]]
    assert trace.overshoot["id"].tolist() == [8]
    assert trace.text == " mat"


def test_split_characters_are_joined() -> None:
    emoji = "🐈".encode()
    tape = tt.record(ScriptedSource([Line(1, emoji[:2]), Line(1, emoji[2:]), Line(1, "猫")]), "x")
    trace = tape.traces[0]
    assert trace.token_bytes == [emoji[:2], emoji[2:], "猫".encode()]
    assert trace.text == "🐈猫"


def test_what_breaks_in_the_middle_is_kept(tmp_path) -> None:
    script = [Line(1, " one"), Line(1, " two"), Line(1, error=RuntimeError("the power went"))]
    with pytest.raises(RuntimeError, match="the power went"):
        tt.record(ScriptedSource(script), "x", path=tmp_path / "broken.tape")
    with tt.open(tmp_path / "broken.tape") as tape:
        assert tape.state == "partial"
        assert tape.traces[0].text == " one two"
        assert tape.traces[0].finish_reason == "error"
        assert not tape.verify()


def test_interrupted_is_partial(tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        tt.record(ScriptedSource([Line(1, " one"), Line(1, error=KeyboardInterrupt())]), "x", path=tmp_path / "a.tape")
    with tt.open(tmp_path / "a.tape") as tape:
        assert (tape.state, tape.traces[0].finish_reason, tape.traces[0].text) == ("partial", "interrupted", " one")


def test_without_text_neither_words_nor_ids_are_kept(tmp_path) -> None:
    said = Said(0, 7, b" secret", logprob=-0.5, candidates=((3, -0.25),))
    tape = tt.record(ScriptedSource([Line(10, said)]), "hidden words", path=tmp_path / "a.tape", text=False)
    trace = tape.traces[0]
    assert trace.tokens["logprob"].tolist() == [-0.5]
    assert trace.tokens["position"].tolist() == [2]
    assert trace.prompt_text is None and trace.prompt_ids is None
    tape.close()
    kept = (tmp_path / "a.tape").read_bytes()
    assert b"secret" not in kept and b"hidden" not in kept


def test_a_batch_shares_its_steps() -> None:
    source = ScriptedSource([Line(10, [Said(0, 1, b"a"), Said(1, 2, b"b")]), Line(10, [Said(1, 3, b"c")])])
    tape = tt.record(source, ["x", "y z"], probe="timing")
    assert [trace.text for trace in tape.traces] == ["a", "bc"]
    assert tape.traces[0].steps["n_out"].tolist() == [2, 1]
    assert [trace.tokens["position"].tolist() for trace in tape.traces] == [[1], [2, 3]]


def test_the_tape_cannot_be_read_before_it_is_closed() -> None:
    from tokentape.recorder.probes import tier
    from tokentape.recorder.recorder import Recorder

    recorder = Recorder(None, ScriptedSource([]).setting(), tier("timing"), FakeClock())
    with pytest.raises(RecordingError):
        _ = recorder.tape
    recorder.close()
