"""The recorder when things go wrong: full disks, rows that no tape can hold, observers that fail, runs left in the middle."""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
import threading

import pytest

import tokentape as tt
from tokentape.clock import FakeClock, HostClock
from tokentape.data.store import TapeWriter
from tokentape.errors import RecordingError, TapeExists, UsageError
from tokentape.recorder.tick import Said
from tokentape.sources.scripted import Line, ScriptedSource


def _script(n: int) -> ScriptedSource:
    return ScriptedSource([Line(1000, f" w{i}") for i in range(n)])


def _text(n: int) -> str:
    return "".join(f" w{i}" for i in range(n))


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch) -> None:
    """Every write fails from the second on, as on a disk that has filled up: the whole tape is saved elsewhere."""
    plain, calls = TapeWriter.append_block, []

    def append(self, run, draft, *beside):
        calls.append(self.path)
        if self.path.parent == tmp_path and len(calls) > 1:
            raise RecordingError(f"{self.path} could not be written", why="the disk is full", fix="make room")
        return plain(self, run, draft, *beside)

    monkeypatch.setattr(TapeWriter, "append_block", append)
    monkeypatch.setattr("tokentape.recorder.recorder.FLUSH_NS", 10_000_000)
    source = ScriptedSource([Line(2_000_000, f" w{i}") for i in range(40)], clock=HostClock())
    with pytest.raises(RecordingError) as caught:
        tt.record(source, "x", path=tmp_path / "a.tape")
    assert "disk is full" in caught.value.why
    place = caught.value.fix.split("is at ")[1].split(";")[0]
    with tt.open(place) as tape:
        assert tape.traces[0].text == _text(40)
        assert not tape.verify()
    with tt.open(tmp_path / "a.tape") as tape:
        assert tape.state == "partial"
        assert _text(40).startswith(tape.traces[0].text)


def test_a_disk_that_is_full_from_the_start_loses_nothing(tmp_path, monkeypatch) -> None:
    """Not even the head of the run can be written where the tape was to be."""
    plain = TapeWriter.begin

    def begin(self, run):
        if self.path.parent == tmp_path:
            raise RecordingError(f"{self.path} could not be written", why="the disk is full", fix="make room")
        return plain(self, run)

    monkeypatch.setattr(TapeWriter, "begin", begin)
    with pytest.raises(RecordingError) as caught:
        tt.record(_script(9), "x", path=tmp_path / "a.tape")
    with tt.open(caught.value.fix.split("is at ")[1].split(";")[0]) as tape:
        assert tape.traces[0].text == _text(9)
        assert tape.traces[0].finish_reason == "stop"
        assert not tape.verify()


def test_a_disk_that_gets_room_again_is_no_failure(tmp_path, monkeypatch) -> None:
    plain, failures = TapeWriter.append_block, iter([True, True])

    def append(self, run, draft, *beside):
        if next(failures, False):
            raise RecordingError("full", why="the disk is full", fix="make room")
        return plain(self, run, draft, *beside)

    monkeypatch.setattr(TapeWriter, "append_block", append)
    monkeypatch.setattr("tokentape.recorder.recorder.FLUSH_NS", 5_000_000)
    source = ScriptedSource([Line(2_000_000, f" w{i}") for i in range(30)], clock=HostClock())
    tape = tt.record(source, "x", path=tmp_path / "a.tape")
    assert (tape.state, tape.traces[0].text) == ("complete", _text(30))
    assert not tape.verify()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_small_file_system_that_really_fills_up(tmp_path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("this system does not let us mount a tmpfs")
    try:
        said = Said(0, 1, b" word" * 60, logprob=-1.0, candidates=tuple((i, -1.0) for i in range(50)))
        with pytest.raises(RecordingError) as caught:
            tt.record(ScriptedSource([Line(1, said)] * 2000), "x", path=small / "a.tape")
        assert "disk is full" in caught.value.why
        with tt.open(caught.value.fix.split("is at ")[1].split(";")[0]) as tape:
            assert len(tape.traces[0].token_ids) == 2000
            assert not tape.verify()
        with tt.open(small / "a.tape") as left:
            assert left.state == "partial"
            assert not left.verify()
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_value_that_no_tape_can_hold_is_told(tmp_path) -> None:
    source = ScriptedSource([Line(1, " ok"), Line(1, Said(0, 2, b" bad", logprob=math.nan))])
    with pytest.raises(UsageError, match="NaN"):
        tt.record(source, "x", path=tmp_path / "a.tape")
    with tt.open(tmp_path / "a.tape") as tape:
        assert tape.state == "partial"


def test_an_existing_file_is_left_alone(tmp_path) -> None:
    tt.record(_script(3), "x", path=tmp_path / "a.tape").close()
    before = (tmp_path / "a.tape").read_bytes()
    with pytest.raises(TapeExists):
        tt.record(_script(5), "x", path=tmp_path / "a.tape")
    assert (tmp_path / "a.tape").read_bytes() == before
    tape = tt.record(_script(5), "x", path=tmp_path / "a.tape", overwrite=True)
    assert tape.traces[0].text == _text(5)


def test_no_file_is_made_for_a_request_that_is_refused(tmp_path) -> None:
    with pytest.raises(UsageError):
        tt.record(_script(3), [], path=tmp_path / "a.tape")
    with pytest.raises(UsageError):
        tt.record(_script(3), "x", path=tmp_path / "a.tape", probe="everything")
    assert not list(tmp_path.iterdir())


def test_the_observer_sees_the_text_grow(tmp_path) -> None:
    seen: list[tuple[str, int, int]] = []
    thread: set[str] = set()

    def observe(progress) -> None:
        seen.append((progress.text, progress.n_tokens, progress.n_steps))
        thread.add(threading.current_thread().name)

    emoji = "🐈".encode()
    source = ScriptedSource([Line(1, " a"), Line(1, emoji[:2]), Line(1, emoji[2:])])
    tt.record(source, "x", path=tmp_path / "a.tape", observer=observe)
    assert seen[-1] == (" a🐈", 3, 3)


def test_nothing_of_the_recorder_stays_behind(tmp_path) -> None:
    gc.collect()  # tapes of earlier tests
    before = set(threading.enumerate()), list(gc.callbacks), len(os.listdir("/proc/self/fd"))
    for i in range(3):
        tt.record(_script(4), "x", path=tmp_path / f"{i}.tape").close()
    assert (set(threading.enumerate()), list(gc.callbacks), len(os.listdir("/proc/self/fd"))) == before


def test_collections_and_memory_are_told(tmp_path) -> None:
    class Collecting(FakeClock):
        def mark(self) -> int:
            gc.collect()
            return super().mark()

    tape = tt.record(ScriptedSource([Line(1, "a"), Line(1, "b")], clock=Collecting()), "x", probe="timing")
    steps = tape.traces[0].steps
    assert steps["gc_count"].min() >= 1
    assert steps["gc_ns"].min() > 0
    assert steps["cpu_ns"].min() > 0
    assert steps["rss_bytes"][0] > 10_000_000
    assert steps["device_ns"].mask.all() and steps["device_bytes"].mask.all() and steps["cache_bytes"].mask.all()


def test_the_time_that_making_the_file_takes_is_not_the_models(tmp_path, monkeypatch) -> None:
    clock, plain = FakeClock(), TapeWriter.create.__func__

    def slow(cls, *arguments, **options):
        clock.advance(10**9)
        return plain(cls, *arguments, **options)

    class Prepared(ScriptedSource):
        def start(self, request, needs):
            live = super().start(request, needs)
            clock.advance(30)
            live.prepared = clock.mark()
            return live

    monkeypatch.setattr(TapeWriter, "create", classmethod(slow))
    tape = tt.record(Prepared([Line(5, "a")], clock=clock), "x", path=tmp_path / "a.tape")
    trace = tape.traces[0]
    assert trace.steps["end_ns"][0] - trace.run.start_ns == 35


def test_an_observer_that_fails_does_not_spoil_the_tape(tmp_path) -> None:
    def observe(progress) -> None:
        raise RuntimeError("nobody looks")

    with pytest.raises(RuntimeError, match="nobody looks"):
        tt.record(_script(6), "x", path=tmp_path / "a.tape", observer=observe)
    with tt.open(tmp_path / "a.tape") as tape:
        assert (tape.state, tape.traces[0].text) == ("complete", _text(6))
