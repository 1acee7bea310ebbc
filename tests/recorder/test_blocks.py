"""The tape while it grows: blocks are read as rows are, come in time, and become rows at the end."""

from __future__ import annotations

import sqlite3
import threading
import time

import pytest

import tokentape as tt
from tokentape.clock import HostClock
from tokentape.data import Request
from tokentape.data.store import TapeWriter
from tokentape.errors import DamagedTape
from tokentape.recorder.probes import tier
from tokentape.recorder.recorder import Recorder
from tokentape.recorder.rows import RowMaker
from tokentape.sources.scripted import Line, ScriptedSource
from tokentape.views.card import facts_line
from tokentape.views.screen import Screen


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokentape.recorder.recorder.FLUSH_NS", 5_000_000)
    monkeypatch.setattr("tokentape.recorder.recorder.GRACE_NS", 2_000_000)


def _counts(path) -> dict[str, int]:
    with sqlite3.connect(path) as connection:
        return {
            table: connection.execute(f"select count(*) from {table}").fetchone()[0]
            for table in ("step", "token", "block")
        }


def _seen_within(seconds: float, path, n_steps: int) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with tt.open(path) as tape:
            if len(tape) and tape.traces[0].steps.n_rows >= n_steps:
                return True
        time.sleep(0.005)
    return False


class Stalling(ScriptedSource):
    """Five quick steps, then one that lasts until it is told to end."""

    def __init__(self) -> None:
        super().__init__([Line(0, f" w{i}") for i in range(6)], clock=HostClock())
        self.may_end = threading.Event()

    def _ticks(self, n_rows):
        for index, tick in enumerate(super()._ticks(n_rows)):
            if index == 5:
                assert self.may_end.wait(30)
            yield tick


def test_what_came_before_a_step_that_takes_long_is_on_the_tape_meanwhile(tmp_path, quick) -> None:
    source, path = Stalling(), tmp_path / "a.tape"
    loop = threading.Thread(target=lambda: tt.record(source, "x", path=path).close())
    loop.start()
    while not path.exists():
        time.sleep(0.001)
    try:
        assert _seen_within(20, path, 5)
        with tt.open(path) as tape:
            assert (tape.state, tape.traces[0].text, tape.verify()) == ("recording", " w0 w1 w2 w3 w4", [])
            assert "still running" in facts_line(tape, Screen())
            assert tape.columns("token")["position"].tolist() == [1, 2, 3, 4, 5]
            early = tape
            kept = early.traces[0].steps["end_ns"].tolist()
            source.may_end.set()
            loop.join()
            # by now they are rows; who began to read before sees the moment at which it began, and nothing twice
            assert early.columns("step")["end_ns"].tolist() == kept
            assert early.candidates.ids.shape[0] == 5
    finally:
        source.may_end.set()
        loop.join()
    assert _counts(path) == {"step": 6, "token": 6, "block": 0}


def test_many_short_runs_reach_the_tape_as_they_go(tmp_path, quick) -> None:
    source = ScriptedSource([Line(500_000, " a"), Line(500_000, " b")], clock=HostClock())
    recorder = Recorder(tmp_path / "a.tape", source.setting(), tier("timing"), source.clock)
    with recorder:
        for _ in range(60):
            live = source.start(Request(("x",), {}), recorder.needs)
            recorder.begin(live)
            for tick in live.ticks:
                recorder.add(tick)
            recorder.end(["stop"])
        with tt.open(tmp_path / "a.tape") as tape:
            assert len(tape.runs) > 10
    assert len(recorder.tape.runs) == 60
    assert not recorder.tape.verify()


def test_a_killed_recorders_blocks_are_checked_and_become_rows(tmp_path) -> None:
    path = _left_in_blocks(tmp_path)
    assert _counts(path) == {"step": 0, "token": 0, "block": 1}
    with tt.open(path) as tape:
        assert (tape.state, tape.traces[0].text, tape.verify()) == ("partial", " w0 w1 w2 w3", [])
        assert "its recorder stopped before its end" in facts_line(tape, Screen())
    TapeWriter.resume(path).close("partial").close()
    assert _counts(path) == {"step": 4, "token": 4, "block": 0}
    with tt.open(path) as tape:
        assert (tape.traces[0].text, tape.verify()) == (" w0 w1 w2 w3", [])


@pytest.mark.parametrize("blob", ["steps", "tokens", "candidates", "bytes"])
def test_a_flipped_bit_in_a_block_is_found(tmp_path, blob) -> None:
    path = _left_in_blocks(tmp_path)
    with sqlite3.connect(path) as connection:
        (raw,) = connection.execute(f"select {blob} from block").fetchone()
        flipped = bytes([raw[0] ^ 1]) + raw[1:] if raw else b"\0"
        connection.execute(f"update block set {blob} = ?", (flipped,))
    with tt.open(path) as tape:
        assert any("checksum" in problem.what for problem in tape.verify())
        with pytest.raises(DamagedTape, match="damaged"):
            tape.columns("step")


def _left_in_blocks(tmp_path):
    """A tape as a recorder leaves it that is killed after its first block."""
    path = tmp_path / "killed.tape"
    source = ScriptedSource([Line(10, f" w{i}") for i in range(4)])
    recorder = Recorder(tmp_path / "a.tape", source.setting(), tier("distribution"), source.clock)
    live = source.start(Request(("x",), {}), recorder.needs)
    recorder.begin(live, own_thread=False)
    for tick in live.ticks:
        recorder.add(tick)
    recorder.flush()
    with tt.open(tmp_path / "a.tape") as growing:
        growing.save(path)
    recorder.end(["stop"])
    recorder.close()
    return path


@pytest.mark.parametrize("where", ["before the records", "after the records", "after the block"])
def test_ctrl_c_in_the_middle_of_writing_leaves_a_sound_tape(tmp_path, monkeypatch, quick, where) -> None:
    """A signal can arrive between any two lines of the recorder's, which run in the loop's own thread."""
    owner, name = (TapeWriter, "append_block") if where == "after the block" else (RowMaker, "make")
    plain, calls = getattr(owner, name), []

    def interrupted(self, *arguments, **named):
        calls.append(1)
        if len(calls) == 3 and where == "before the records":
            raise KeyboardInterrupt
        result = plain(self, *arguments, **named)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(owner, name, interrupted)
    source = ScriptedSource([Line(1_000_000, f" w{i}") for i in range(60)], clock=HostClock())
    with pytest.raises(KeyboardInterrupt):
        tt.record(source, "x", path=tmp_path / "a.tape")
    with tt.open(tmp_path / "a.tape") as tape:
        assert (tape.state, tape.traces[0].finish_reason) == ("partial", "interrupted")
        assert not tape.verify()
        assert "".join(f" w{i}" for i in range(60)).startswith(tape.traces[0].text)
        assert 0 < tape.traces[0].steps.n_rows < 60
