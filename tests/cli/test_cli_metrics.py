"""`show --series`, `--dialect`, `--slo`: what is printed, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tokentape
from served_tapes import MS, Served, passed, served_tape, words
from tokentape import Line, ScriptedSource
from tokentape.recorder.tick import Said
from tokentape.study.dialects import OF_SERVERS
from tokentape.study.series import SERIES

Show = Callable[..., Any]


@pytest.fixture
def show(tape: Callable[..., Any], tmp_path: Path) -> Show:
    """Four tokens, two of them in one step, in the tape ``a.tape``."""
    script = [
        Line(5 * MS, [Said(0, None, b" a\tb", -0.5, 1.25, 1)]),
        Line(2 * MS, [Said(0, None, b" c", -1.5, 0.5, 2), Said(0, None, b" d", None)]),
        Line(4 * MS, [Said(0, None, b".", -0.25, 0.125, 1)]),
    ]
    tokentape.record(ScriptedSource(script), "x", path=tmp_path / "a.tape").close()
    return lambda *arguments: tape("show", tmp_path / "a.tape", *arguments)


def test_series_are_columns_that_cut_and_awk_can_read(show: Show) -> None:
    done = show("--series", "gap,entropy")
    assert (done.code, done.err) == (0, "")
    rows = [[cell.strip() for cell in line.split("\t")] for line in done.out.splitlines()]
    assert rows[0] == ["trace", "index", "position", "gap_ns", "entropy_nats", "token"]
    assert [row[3] for row in rows[1:]] == ["n/a", "2000000", "0", "4000000"]
    assert [row[4] for row in rows[1:]] == ["1.25", "0.5", "n/a", "0.125"]
    assert rows[1][5] == r"' a\tb'", "a tab in a token parts no columns"
    assert len({len(line) for line in done.out.splitlines()[1:] if line.endswith("'.'")}) == 1


def test_series_of_several_axes_are_tables_of_their_own(show: Show) -> None:
    tables = show("--series", "gap,step_time,ttft,chunk_tokens").out.split("\n\n")
    assert [table.split("\n")[0].split() for table in tables] == [
        ["trace", "index", "position", "gap_ns", "token"],
        ["run", "step", "step_time_ns"],
        ["trace", "chunk", "chunk_tokens"],
        ["trace", "ttft_ns"],
    ]


def test_series_as_json(show: Show) -> None:
    found = json.loads(show("--series", "gap,step_time", "--json").out)
    assert found["columns"]["token"]["gap"] == [None, 2 * MS, 0, 4 * MS]
    assert found["columns"]["token"]["position"] == [1, 2, 3, 4]
    assert found["columns"]["step"] == {"run": [0] * 3, "step": [0, 1, 2], "step_time": [5 * MS, 2 * MS, 4 * MS]}
    assert found["series"][0] == {
        "name": "gap",
        "axis": "token",
        "unit": "ns",
        "meaning": SERIES["gap"].meaning,
    }


def test_series_show_every_row_unless_told(show: Show) -> None:
    done = show("--series", "gap", "--rows", "1")
    assert len(done.out.splitlines()) == 3 and "3 more: --rows 0" in done.out
    assert len(show("--series", "gap").out.splitlines()) == 5


def test_series_are_listed(show: Show) -> None:
    done = show("--series", "list")
    assert all(one.meaning in done.out for one in SERIES.values())
    assert [one["name"] for one in json.loads(show("--series", "list", "--json").out)["series"]] == list(SERIES)


def test_series_that_is_misspelt_is_guessed(show: Show) -> None:
    done = show("--series", "gap,entrpy")
    assert done.code == 2 and "fix: did you mean entropy?" in done.err and "cpu_share" in done.err


def test_dialect_says_its_numbers_formulas_and_source(show: Show) -> None:
    done = show("--dialect", "vllm")
    assert done.code == 0 and "(mM - m1) / (N - 1)" in done.out and "vllm/benchmarks/serve.py" in done.out
    row = next(line.split() for line in done.out.splitlines() if line.startswith("tpot"))
    assert row[:5] == ["tpot", "1", "2.000", "0.000", "2.000?"], "(11 - 5) / 3, of one request"
    found = json.loads(show("--dialect", "vllm", "--json").out)["metrics"]
    assert next(f for f in found["figures"] if f["name"] == "tpot")["mean"] == 2 * MS


def test_all_dialects_side_by_side(show: Show) -> None:
    done = show("--dialect", "all")
    header = done.out.splitlines()[0].split()
    assert header == ["ms", "tokentape", *OF_SERVERS]
    row = next(line.split() for line in done.out.splitlines() if line.startswith("ITL, mean"))
    values = dict(zip(header[1:], row[2:], strict=True))
    # 2, 0, 4 between tokens; chunk gaps 2, 4; shared 1, 1, 4; one a request 6/3
    assert values == {
        "tokentape": "2.000",
        "vllm": "3.000",
        "sglang": "2.000",
        "aiperf": "2.000",
        "genai-perf": "2.000",
        "guidellm": "2.000",
        "inference-perf": "2.000",
        "mlperf": "n/a",
    }
    assert set(json.loads(show("--dialect", "all", "--json").out)["dialects"]) == set(values)


def test_objectives(show: Show) -> None:
    done = show("--slo", "ttft=5ms,gap=2ms")
    assert done.code == 0 and "1 of 1 (100.0%)" in done.out and "0 of 4 deadlines missed" in done.out
    assert "missed by 1 late" in show("--slo", "e2e=10ms").out
    found = json.loads(show("--slo", "e2e=10ms", "--json").out)["metrics"]
    assert found["goodput"]["n_late"] == 1 and found["slo"]["e2e_ns"] == 10 * MS
    assert json.loads(show("--slo", "ttft=5ms", "--dialect", "vllm", "--json").out)["metrics"]["goodput"]["n_good"] == 1


def test_own_metrics_by_their_name(show: Show) -> None:
    done = show("--dialect", "tokentape")
    assert "independent samples that a percentile takes" in done.out and "p99 662" in done.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--dialect", "vlm"], "did you mean vllm?"),
        (["--slo", "ttft=3"], "number with its unit"),
        (["--slo", ""], "there are ttft"),
        (["--series", ""], "no series ''"),
        (["--series", "gap", "--dialect", "vllm"], "--series with --dialect"),
        (["--dialect", "vllm", "--trace", "0"], "--trace with --dialect"),
        (["--slo", "gap=1ms", "--rows", "3"], "--rows with --dialect"),
    ],
)
def test_what_cannot_be_is_refused(show: Show, arguments: list[str], told: str) -> None:
    done = show(*arguments)
    assert (done.code, done.out) == (2, "") and told in done.err
    assert all(line.split(":")[0] in {"error", "why", "fix"} for line in done.err.splitlines())


def test_requests_of_an_open_loop_are_judged_from_when_they_were_due(tape: Callable[..., Any], tmp_path: Path) -> None:
    chunks = ((20 * MS, words(" a")), (10 * MS, words(" b")))
    late = [
        Served("late", chunks, passed(0, MS, 40 * MS, label="exact", finish="stop", scheduled_ns=-by * 10 * MS))
        for by in range(10)
    ]
    path = served_tape(tmp_path / "load.tape", kinds=late, scrapes=())
    sent = tape("show", path, "--slo", "ttft=55ms", "--from", "start")
    assert "10 of 10 (100.0%)" in sent.out and "--from due counts from there" in sent.out
    due = tape("show", path, "--slo", "ttft=55ms")
    assert due.out == tape("show", path, "--slo", "ttft=55ms", "--from", "due").out
    assert "4 of 10 (40.0%); missed by 6 late" in due.out and "--from due" not in due.out
    assert any(line.startswith("from  ") and "each request was due" in line for line in due.out.splitlines())
    found = {
        since: json.loads(tape("show", path, "--json", "--from", since).out)["metrics"] for since in ("start", "due")
    }
    assert {since: one["since"] for since, one in found.items()} == {"start": "start", "due": "due"}
    assert found["due"]["ttft"]["max"] - found["start"]["ttft"]["max"] == 90 * MS
    assert found["due"]["n_scheduled"] == 10


def test_a_moment_that_is_not_on_the_tape_is_refused(show: Show, tape: Callable[..., Any], tmp_path: Path) -> None:
    done = show("--slo", "ttft=5ms", "--from", "due")
    assert done.code == 1 and "no request was due at a moment of its own" in done.err and "--rate R" in done.err
    for dialect in ("vllm", "all"):
        done = show("--dialect", dialect, "--from", "due")
        assert done.code == 2 and f"{dialect} from when requests were due" in done.err
    done = show("--series", "gap", "--from", "due")
    assert done.code == 2 and "--series with --dialect, --slo or --from" in done.err
    assert show("--dialect", "tokentape", "--from", "start").code == 0
