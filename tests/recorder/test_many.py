"""Many runs at once into one tape: in any order, with nothing lost, and without words where none are to be kept."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import served_tapes
from served_tapes import CLIENT, KINDS, ORIGIN, SETTING, Served, moved, passed, served_tape, ticks, words, write_served
from tokentape.data import Run, TraceHead, open_tape, verify
from tokentape.data.exchange import Exchange, Scrape
from tokentape.recorder.many import ManyRuns
from tokentape.recorder.tick import LiveRun

MS = served_tapes.MS


def live_of(one, at_ns):
    heads = tuple(TraceHead(row, None, None, "p") for row in range(one.n_traces))
    return LiveRun(Run(heads), ORIGIN + at_ns, iter(()), lambda: one.reasons)


def said_by(trace):
    return trace.text, trace.tokens["id"].tolist(), trace.tokens["position"].tolist(), trace.steps["end_ns"].tolist()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_runs_in_any_order_say_what_they_say_one_after_another(data):
    """Begins, chunks, flushes and ends of several requests, shuffled: each trace is as if it had been alone."""
    chosen = [
        replace(one, exchange=replace(moved(one.exchange, 5 * MS), retry_of=None)) for one in KINDS if not one.cut
    ]
    alone = {}
    for one in chosen:
        with ManyRuns(None, SETTING, ORIGIN) as many:
            many.begin(0, live_of(one, 5 * MS))
            many.add(0, ticks(one, 5 * MS))
            many.end(0, one.reasons, one.exchange)
            with many.close() as tape:
                alone[one.name] = [said_by(trace) for trace in tape.traces]
    left = {
        key: [("begin", None), *(("add", t) for t in ticks(one, 5 * MS)), ("end", None)]
        for key, one in enumerate(chosen)
    }
    number = {}
    with ManyRuns(None, SETTING, ORIGIN) as many:
        while left:
            key = data.draw(st.sampled_from(sorted(left)))
            what, tick = left[key].pop(0)
            if what == "begin":
                number[key] = many.begin(key, live_of(chosen[key], 5 * MS))
            elif what == "add":
                many.add(key, [tick])
            else:
                many.end(key, chosen[key].reasons, chosen[key].exchange)
                del left[key]
            if data.draw(st.booleans()):
                many.flush()
        with many.close() as tape:
            assert tape.state == "complete" and tape.verify() == []
            for key, one in enumerate(chosen):
                mine = [trace for trace in tape.traces if trace.run.number == number[key]]
                assert [said_by(trace) for trace in mine] == alone[one.name], one.name
                assert mine[0].exchange == replace(one.exchange, run=number[key])


def test_every_kind_of_request_comes_back(tmp_path):
    path = served_tape(tmp_path / "cat.tape")
    assert verify(path) == []
    with open_tape(path) as tape:
        assert tape.state == "partial"  # one request did not come to its end
        by_name = {one.name: [t for t in tape.traces if t.run.number == i] for i, one in enumerate(KINDS)}
        for number, one in enumerate(KINDS):
            traces = by_name[one.name]
            assert [trace.finish_reason for trace in traces] == list(one.reasons)
            expected = None if one.cut else replace(moved(one.exchange, 10 * MS + number * 25 * MS), run=number)
            assert traces[0].exchange == expected
            said = [(row, text) for _, tokens in one.chunks for row, text, _ in tokens]
            for row, trace in enumerate(traces):
                assert trace.text == "".join(text for of, text in said if of == row)
        steps = by_name["exact"][0].steps
        assert steps["n_out"].tolist() == [0, 1, 2, 1] and steps["kind"].tolist() == [2] * 4
        assert (steps["read_ns"] - steps["end_ns"]).tolist() == [1_000] * 4
        assert (steps["parsed_ns"] - steps["read_ns"]).tolist() == [3_000] * 4
        assert by_name["reasoning"][0].tokens["channel"].tolist() == [1, 1, 1, 0]
        assert by_name["tool"][0].tokens["channel"].tolist() == [2, 2]
        assert by_name["coarse"][0].tokens["id"].mask.all() and by_name["exact"][0].tokens["channel"].mask.all()
        assert tape.notes["client"] == CLIENT and len(tape.scrapes) == 2 * (len(KINDS) // 2 + 1)


def test_what_was_open_is_interrupted_and_the_tape_partial(tmp_path):
    one = Served("open", ((MS, words(" a")), (MS, words(" b"))))
    with pytest.raises(RuntimeError), ManyRuns(tmp_path / "cat.tape", SETTING, ORIGIN) as many:
        for key in range(3):
            many.begin(key, live_of(one, 0))
            many.add(key, ticks(one, 0))
        many.end(1, ["stop"], Exchange(label="exact"))
        raise RuntimeError("the load fell over")
    with open_tape(tmp_path / "cat.tape") as tape:
        assert tape.state == "partial" and tape.verify() == []
        assert [trace.finish_reason for trace in tape.traces] == ["interrupted", "stop", "interrupted"]
        assert [trace.text for trace in tape.traces] == [" a b"] * 3 and list(tape.exchanges) == [1]


def test_without_text_no_word_is_in_the_file(tmp_path):
    secret, path = "Xylophone", tmp_path / "cat.tape"
    asked = {
        "messages": [{"role": "user", "content": secret}],
        "prompt": secret,
        "stop": [secret],
        "tools": [{"function": {"name": secret}}],
        "extra_body": {"guided_regex": secret},
        "max_tokens": 16,
        "model": "demo",
    }
    exchange = passed(
        0,
        8 * MS,
        20 * MS,
        label="exact",
        fault="error_event",
        error=f"cannot answer: {secret}",
        usage={"completion_tokens": 2, "quoted": secret, "details": {"n": 1, "said": [secret]}},
        server={"prompt_ms": 1.5, "generation_settings": {"prompt": secret, "n": 3}},
    )
    one = Served("secret", ((9 * MS, words(f" {secret}", secret)),), exchange, ("error",))
    with ManyRuns(path, SETTING, ORIGIN, text=False) as many:
        live = LiveRun(Run((TraceHead(0, 3, (1, 2, 77_777), secret),), asked), ORIGIN, iter(()), lambda: one.reasons)
        many.begin(0, live)
        many.add(0, ticks(one, 0))
        many.flush()
        many.end(0, one.reasons, exchange)
        many.close().close()
    assert secret.encode() not in path.read_bytes() and b"77777" not in path.read_bytes()
    with open_tape(path) as tape:
        (trace,) = tape.traces
        assert trace.tokens["id"].mask.all() and trace.text is None and trace.tokens.n_rows == 2
        assert trace.candidates.ids.shape[1] == 0 and trace.prompt_ids is None and trace.n_prompt == 3
        assert trace.run.options["max_tokens"] == 16 and trace.run.options["model"] == "demo"
        found = trace.exchange
        assert (found.fault, found.error, found.label) == ("error_event", None, "exact")
        assert found.usage == {"completion_tokens": 2, "details": {"n": 1}}
        assert found.server == {"prompt_ms": 1.5, "generation_settings": {"n": 3}}
        assert tape.notes["text"] is False and tape.verify() == []


# killed in the middle

LOADER = """
import os, sys
sys.path.insert(0, sys.argv[2])
from served_tapes import *
from tokentape.recorder.many import ManyRuns
many = ManyRuns(sys.argv[1], SETTING, ORIGIN)
one = Served("endless", tuple((MS, words(f" w{i}")) for i in range(40)))
heads = (TraceHead(0, None, None, "p"),)
chunks = ticks(one, 0)
for key in range(5):
    many.begin(key, LiveRun(Run(heads), ORIGIN, iter(()), lambda: ("stop",)))
for i, chunk in enumerate(chunks):
    for key in range(5):
        many.add(key, [chunk])
    if i % 10 == 9:
        many.flush()
    if i == 14:
        many.end(4, ["stop"], Exchange(label="exact", ended_ns=2**40))
        many.scraped([Scrape("server", 1, 2, {"running": 4.0})])
        many.begin(4, LiveRun(Run(heads), ORIGIN, iter(()), lambda: ("stop",)))
    if i == 25:
        print("now", flush=True)
        sys.stdin.readline()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals")
def test_killed_in_the_middle_loses_what_was_not_flushed_and_no_more(tmp_path):
    path = tmp_path / "cat.tape"
    process = subprocess.Popen(
        [sys.executable, "-c", LOADER, str(path), str(Path(__file__).parents[1])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "now\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with open_tape(path) as tape:
        assert tape.state == "partial" and tape.verify() == []
        n_tokens = [trace.tokens.n_rows for trace in tape.traces]
        # flushed after 10 and 20 chunks; the fifth request ended with its 15th, and another began in its place
        assert n_tokens == [20, 20, 20, 20, 15, 5]
        assert [trace.finish_reason for trace in tape.traces] == [None] * 4 + ["stop", None]
        assert dict(tape.exchanges) == {4: Exchange(4, label="exact", ended_ns=2**40)}
        assert tape.scrapes == [Scrape("server", 1, 2, {"running": 4.0})]


def test_a_key_can_be_used_again_once_its_run_is_over():
    one = Served("short", ((MS, words(" a")),), Exchange(label="exact"))
    with ManyRuns(None, SETTING, ORIGIN) as many:
        for _ in range(3):
            write_served(many, "slot 0", one, 0)
        with many.close() as tape:
            assert [trace.text for trace in tape.traces] == [" a"] * 3 and len(tape.exchanges) == 3
            assert all(a.run.number < b.run.number for a, b in itertools.pairwise(tape.traces))
