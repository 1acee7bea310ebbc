"""The timeline is what the trace event format says, and says what the tape says."""

from __future__ import annotations

import gzip
import json
import math
import os
import shutil
from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import HOSTILE, hostile_tape, some_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.tapes import SETTING, step, token, write_tape
from study.paper import Take, paper, said
from tokentape.data import KINDS, Run, Tape, TapeWriter, TraceHead, open_tape
from tokentape.errors import TapeExists, UsageError
from tokentape.exports.exporting import export
from tokentape.exports.perfetto import microseconds
from tokentape.sources.scripted import Line


def written(tape: Tape | Path, folder: Path, **more: Any) -> list[dict[str, Any]]:
    path = folder / "t.json"
    export(tape, path, to="perfetto", overwrite=True, **more)
    events = json.loads(path.read_text("utf-8"), parse_constant=lambda word: pytest.fail(word))["traceEvents"]
    check_format(events)
    return events


def check_format(events: list[dict[str, Any]]) -> None:
    """The rules of the format that its readers rely on."""
    processes = {event["pid"] for event in events}
    threads: dict[int, int] = {}
    for event in events:
        assert (
            isinstance(event["pid"], int) and event["ph"] in "MXiC" and isinstance(event["name"], str) and event["name"]
        )
        if event["ph"] != "C" and event["tid"]:
            assert threads.setdefault(event["tid"], event["pid"]) == event["pid"]  # a number of a thread is its own
            assert event["tid"] not in processes
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "process_sort_index", "thread_name", "thread_sort_index")
            assert event["args"]
        else:
            assert math.isfinite(event["ts"])
        if event["ph"] == "X":
            assert event["dur"] >= 0 and event["tid"] in threads
        if event["ph"] == "i":
            assert event["s"] == "t"
        if event["ph"] == "C":
            assert event["args"] and all(math.isfinite(value) for value in event["args"].values())
    check_nesting(events)


def check_nesting(events: list[dict[str, Any]]) -> None:
    """On one track, two slices are apart or one is inside of the other."""
    tracks = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            start = read(event["ts"])
            tracks[event["tid"]].append((start, start + read(event["dur"])))
    for slices in tracks.values():
        open_until: list[int] = []
        for start, end in sorted(slices, key=lambda slice_: (slice_[0], -slice_[1])):
            while open_until and open_until[-1] <= start:
                open_until.pop()
            assert not open_until or end <= open_until[-1]
            open_until.append(end)


def read(us: float) -> int:
    """Nanoseconds as both kinds of readers have them: some cut off, some round."""
    assert int(us * 1000.0) == round(us * 1000.0)
    return int(us * 1000.0)


@given(st.integers(0, 10**15))
def test_no_reader_loses_a_nanosecond(ns: int) -> None:
    us = microseconds(ns)
    assert int(us * 1000.0) == round(us * 1000.0) == ns
    assert json.loads(json.dumps(us)) == us
    assert abs(Fraction(us) * 1000 - ns) < 1


def test_steps_and_tokens_are_those_of_the_tape(tmp_path: Path) -> None:
    file = write_tape(tmp_path / "cat.tape")
    events = written(file, tmp_path)
    with open_tape(file) as tape:
        steps = tape.columns("step")
        found = [event for event in events if event.get("cat") in KINDS and event["ph"] == "X"]
        assert [event["name"] for event in found] == [KINDS[kind] for kind in steps["kind"].tolist()]
        assert [read(event["ts"]) for event in found] == steps["start_ns"].tolist()
        assert [read(event["dur"]) for event in found] == (steps["end_ns"] - steps["start_ns"]).tolist()
        assert [event["pid"] for event in found] == (steps["run"] + 1).tolist()
        # null is absent, never 0
        assert [event["args"].get("cpu_ns") for event in found] == steps["cpu_ns"].tolist()
        assert [event["args"].get("device_ns") for event in found] == steps["device_ns"].tolist()
        tokens = tape.columns("token")
        instants = [event for event in events if event["ph"] == "i"]
        assert [event["args"]["position"] for event in instants] == tokens["position"].tolist()
        assert [event["args"].get("id") for event in instants] == tokens["id"].tolist()
        assert [event["args"].get("rules_logprob") for event in instants] == tokens["rules_logprob"].tolist()
        assert [event["cat"] == "overshoot" for event in instants] == (tokens["overshoot"] == 1).tolist()
        rss = [event["args"]["bytes"] for event in events if event["name"] == "process memory"]
        assert rss == steps["rss_bytes"].compressed().tolist()
        surprise = [event["args"]["nats"] for event in events if event["name"].startswith("surprise")]
        kept = tokens["logprob"][tokens["overshoot"] == 0]
        assert surprise == (-kept.compressed() + 0.0).tolist()
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {"run 0: demo", "run 1: demo"}


def test_phases_pauses_and_collections(tmp_path: Path) -> None:
    """Paper: a forward call is the whole step there; 2 us pass before the second step."""
    with paper(Take([Line(10_001, [said()]), Line(5_000, [said()], pause_ns=2_003)])) as tape:
        events = written(tape, tmp_path)
    slices = {
        (event["cat"], event["name"], read(event["ts"]), read(event["dur"])) for event in events if event["ph"] == "X"
    }
    assert slices == {
        ("prefill", "prefill", 0, 10_001),
        ("decode", "decode", 12_004, 5_000),
        ("phase", "forward", 0, 10_001),
        ("phase", "forward", 12_004, 5_000),
        ("pause", "pause", 10_001, 2_003),
    }


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tokens=st.lists(some_bytes, min_size=1, max_size=8))
def test_hostile_tokens(tmp_path: Path, tokens: list[bytes]) -> None:
    with hostile_tape(tokens) as tape:
        events = written(tape, tmp_path)
    instants = [event for event in events if event["ph"] == "i"]
    assert len(instants) == len(tokens)
    assert all(event["name"].isprintable() and len(event["name"]) <= 81 for event in instants)


def test_a_token_is_named_by_its_text(tmp_path: Path) -> None:
    with hostile_tape(HOSTILE) as tape:
        names = [event["name"] for event in written(tape, tmp_path) if event["ph"] == "i"]
    assert names[0] == "</script><script>alert(1)</script>"
    assert "\\n" in names and "\\u202e" in names and "\\xF0\\x9F" in names and "🐈" in names and "(empty)" in names


def test_without_text_there_are_no_words_and_no_ids(tmp_path: Path) -> None:
    with hostile_tape([b"secret", b"words"]) as tape:
        events = written(tape, tmp_path, text=False)
    assert "secret" not in json.dumps(events)
    instants = [event for event in events if event["ph"] == "i"]
    assert [event["name"] for event in instants] == ["token at 1", "token at 2"]
    assert not any("id" in event["args"] for event in instants)


def test_device_time_and_collections_have_their_tracks(tmp_path: Path) -> None:
    """Steps of 10 ns every 20, with 25 ns of device time and 25 of collections each: none is drawn over another."""
    writer = TapeWriter.create(tmp_path / "cat.tape", SETTING)
    begun = writer.begin(Run((TraceHead(0, 3, None, None),), {}, start_ns=90))
    for i in range(6):
        known = {"device_ns": 25 if i else None, "gc_ns": 25, "gc_count": 1}
        writer.append([step(begun.number, i, 1, **known)], [token(begun.trace_numbers[0], 3 + i, i)])
    writer.end(begun.number, ["stop"])
    writer.close().close()
    events = written(tmp_path / "cat.tape", tmp_path)
    device = [event for event in events if event.get("cat") == "device"]
    assert [(read(event["ts"]), read(event["dur"])) for event in device] == [(120 + 25 * i, 25) for i in range(5)]
    assert [event["args"]["step"] for event in device] == [1, 2, 3, 4, 5]
    collections = [event for event in events if event.get("cat") == "gc"]
    assert [(read(event["ts"]), read(event["dur"])) for event in collections] == [(90 + 25 * i, 25) for i in range(6)]


def test_a_name_that_ends_in_gz_is_compressed_and_the_same_again(tmp_path: Path) -> None:
    with hostile_tape(HOSTILE) as tape:
        for name in ("a.json", "a.json.gz", "b.json.gz"):
            export(tape, tmp_path / name, to="perfetto")
        with pytest.raises(TapeExists):
            export(tape, tmp_path / "a.json", to="perfetto")
        with pytest.raises(UsageError, match="in memory"):
            export(tape, to="perfetto")
        with pytest.raises(UsageError, match="is a folder"):
            export(tape, tmp_path, to="perfetto")
    assert gzip.decompress((tmp_path / "a.json.gz").read_bytes()) == (tmp_path / "a.json").read_bytes()
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.json", "a.json.gz", "b.json.gz"]  # no draft is left


def test_a_tape_is_never_overwritten(tmp_path: Path) -> None:
    file = write_tape(tmp_path / "cat.tape")
    before = file.read_bytes()
    with pytest.raises(TapeExists, match="already exists"):
        export(file, file, to="perfetto", overwrite=True)
    assert file.read_bytes() == before


def test_the_trace_processor_reads_it(tmp_path: Path) -> None:
    """The program behind Perfetto's page. Its Python package would fetch it from the network; no test does."""
    program = os.environ.get("TRACE_PROCESSOR") or shutil.which("trace_processor_shell")
    if program is None:
        pytest.skip("no trace_processor_shell at hand; TRACE_PROCESSOR may name one")
    processor = pytest.importorskip("perfetto.trace_processor")
    file = write_tape(tmp_path / "cat.tape")
    events = written(file, tmp_path)
    config = processor.TraceProcessorConfig(bin_path=program)
    opened = processor.TraceProcessor(trace=str(tmp_path / "t.json"), config=config)
    with opened as found:
        wanted = "select ts, dur, name from slice where category in ('prefill', 'decode') order by ts"
        rows = [(row.ts, row.dur, row.name) for row in found.query(wanted)]
        mine = [event for event in events if event.get("cat") in ("prefill", "decode")]
        assert rows == [(read(event["ts"]), read(event["dur"]), event["name"]) for event in mine]
        errors = [row.name for row in found.query("select name from stats where severity = 'error' and value > 0")]
        assert errors == []
        counted = np.array([row.value for row in found.query("select value from counter")])
        assert len(counted) == sum(event["ph"] == "C" for event in events)
