"""`tokentape show` of several loads: the table that a sweep printed, again, and what is no sweep."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from served_tapes import MS, Served, passed, served_tape, usage, words
from tokentape.data import open_tape
from tokentape.load.account import account_of
from tokentape.load.knee import knee_of, step_of
from tokentape.mock.script import Script
from tokentape.mock.serving import MockServer
from tokentape.study.slo import Slo

Tape = Callable[..., Any]
PLAN = {"loop": "open", "kind": "poisson", "rate": 1.0, "concurrency": None, "duration_ns": 10**10, "calibrated": [1]}


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def load(path: Path, *, n: int = 6, ttft_ms: int = 20, late_ms: int = 0, **told: Any) -> Path:
    """A load of ``n`` requests, each answered with two tokens 5 ms apart."""
    known = passed(0, MS, (ttft_ms + 6) * MS, label="exact", finish="stop", scheduled_ns=-late_ms * MS, **usage(5, 2))
    kinds = [Served("", ((ttft_ms * MS, words(" a")), (5 * MS, words(" b"))), known)] * n
    path.parent.mkdir(exist_ok=True)
    return served_tape(path, kinds=kinds, scrapes=(), notes={"load": {**PLAN, **told}})


@pytest.fixture
def sweep(tmp_path: Path) -> list[Path]:
    """At 4 requests a second all is well; at 8 the answers are late, and at 16 they were sent late."""
    facts = [(4.0, 20, 0), (8.0, 60, 0), (16.0, 20, 90)]
    return [
        load(tmp_path / f"s-{rate:g}.tape", rate=rate, ttft_ms=ttft, late_ms=late, calibrated=[rate])
        for rate, ttft, late in facts
    ]


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_the_table_is_of_the_account_of_each_tape(tape: Tape, sweep: list[Path]) -> None:
    done = tape("show", *reversed(sweep), "--slo", "ttft=50ms")
    assert (done.code, done.err) == (0, "")
    rows = cells(done.out)
    assert [row[0] for row in rows[1:4]] == ["4", "8", "16"] and [row[-1] for row in rows[1:4]] == [
        p.name for p in sweep
    ]
    assert "mean 60.0 ms  max 60.0 ms" in done.out and "gap p50" in done.out
    assert "ttft=50ms is met up to 4.00 requests/s (measured; 100 % of the requests) and not at 8.00" in done.out
    found = json.loads(tape("show", *sweep, "--slo", "ttft=50ms", "--json").out)["sweeps"][0]
    steps = []
    for step, path in zip(found["steps"], sweep, strict=True):
        with open_tape(path) as one:
            account = account_of(one, Slo(ttft_ns=50 * MS))
        steps.append(step_of(step["rate"], account))
        assert (step["ttft"], step["gap"], step["goodput"]) == (
            account["ttft_from_due"],
            account["token_gap"],
            account["goodput"],
        )
        assert (step["n_good"], step["share"]) == (account["goodput"]["n_good"], account["goodput"]["share"])
    assert found["knee"] == knee_of(steps) and (found["by"], found["since"]) == ("rate", "due")


def test_the_promise_is_asked_from_when_requests_were_due(tape: Tape, sweep: list[Path]) -> None:
    sent, due = (
        json.loads(tape("show", *sweep, "--slo", "ttft=70ms", "--from", since, "--json").out)["sweeps"][0]
        for since in ("start", "due")
    )
    assert [step["share"] for step in sent["steps"]] == [1, 1, 1] and [step["share"] for step in due["steps"]] == [
        1,
        1,
        0,
    ]
    assert due["largest"]["good"] == 8 and due["steps"][2]["ttft"]["max"] == 110 * MS
    told = "counted from when requests were due"
    assert told in tape("show", *sweep).out and told in tape("show", *sweep, "--from", "due").out
    assert told not in tape("show", *sweep, "--from", "start").out


def test_a_sweep_is_found_by_its_name_and_in_its_folder(tape: Tape, sweep: list[Path], tmp_path: Path) -> None:
    load(tmp_path / "s-other.tape", rate=99.0, duration_ns=1)  # none of its names, and another load
    table = tape("show", *sweep).out
    assert tape("show", tmp_path / "s.tape").out == table
    assert tape("show", tmp_path).out == table
    users = [load(tmp_path / f"u-{n}.tape", loop="closed", rate=None, concurrency=n) for n in (1, 2)]
    (tmp_path / "broken.tape").write_bytes(b"no tape")
    both = tape("show", tmp_path)
    assert both.out.strip().split("\n\n")[0] == table.strip() and both.out.count("tokens/s  ") == 2
    assert both.out.split("\n\n")[1].startswith("at a time") and "left out: " in both.err and "broken" in both.err
    assert tape("show", *users).out.strip() == both.out.split("\n\n")[1].strip()
    load(tmp_path / "s.tape")
    assert "request" in tape("show", tmp_path / "s.tape").out.splitlines()[0], "a tape of that name is what is shown"


def test_what_is_no_sweep_is_refused(tape: Tape, sweep: list[Path], tmp_path: Path) -> None:
    other = load(tmp_path / "other" / "a.tape", rate=4.0, duration_ns=5 * 10**9)
    done = tape("show", sweep[1], other)
    assert done.code == 2 and "the loads differ in rate 8 | 4; duration 10 s | 5 s" in done.err
    none = served_tape(tmp_path / "other" / "b.tape", kinds=[], scrapes=())
    done = tape("show", sweep[0], none)
    assert done.code == 2 and "b.tape is no load" in done.err
    done = tape("show", tmp_path / "other")
    assert done.code == 2 and "has no sweep" in done.err and "tokentape ls" in done.err
    for option in (["--rows", "3"], ["--trace", "0"], ["--step", "0"], ["--dialect", "vllm"], ["--series", "gap"]):
        done = tape("show", *sweep, *option)
        assert done.code == 2 and f"{option[0]} of several tapes" in done.err
    load(tmp_path / "lone-4.tape")
    for name in ("nothing.tape", "lone.tape"):
        assert f"there is no file {tmp_path / name}" in tape("show", tmp_path / name).err


def test_record_says_how_to_have_its_table_again(tape: Tape) -> None:
    quick = Script.steady(5, ttft_us=2_000, gap_us=500)
    with MockServer(quick) as server:
        options = ("--prompt-tokens", "10", "-n", "5", "--requests", "6", "-o", "s.tape", "--slo", "e2e=10s")
        done = tape("record", "--endpoint", server.url, "--rate", "40,80", *options)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].startswith("next: tokentape show s.tape (this table again)")
    again = tape("show", "s.tape", "--slo", "e2e=10s")
    assert again.code == 0
    assert [row[0] for row in cells(again.out)[1:3]] == ["40", "80"]
    printed = [line for line in done.out.splitlines() if line.startswith(("knee", "the knee", "e2e="))]
    assert all(line in again.out.splitlines() for line in printed) and len(printed) == 2
