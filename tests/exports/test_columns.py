"""Parquet and CSV hold what the tape holds: read with pyarrow, DuckDB and Python's csv."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from hostile import HOSTILE, hostile_tape, some_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tokentape.exports.parquet as parquet
from data.tapes import explained, explained_together, write_tape
from tokentape.data import KINDS, STEP_COLUMNS, TOKEN_COLUMNS, Tape, add_explanations, open_tape
from tokentape.errors import MissingExtra, TapeExists, UsageError
from tokentape.exports.escaping import unescaped
from tokentape.exports.exporting import export


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tape with rules, overshoot, awkward texts and two explanations."""
    path = write_tape(tmp_path_factory.mktemp("tape") / "cat.tape", ruled=True)
    add_explanations(path, [explained(), explained_together()])
    return path


def bare(column: Any) -> list[Any]:
    return np.ma.asarray(column).tolist()


def held(tape: Tape, series: str) -> dict[str, list[Any]]:
    """The columns of a series as the tape gives them, enumerations as their words, flags as booleans."""
    known = {column.name: column for column in (STEP_COLUMNS if series == "step" else TOKEN_COLUMNS)}
    found = {}
    for name, column in tape.columns(series).items():
        values = bare(column)
        if name == "kind":
            values = [KINDS[value] for value in values]
        elif name in known and known[name].unit == "bool":
            values = [bool(value) for value in values]
        found[name] = values
    return found


def raw(tape: Tape) -> list[bytes | None]:
    return [data for trace in tape.traces for part in trace.loader.symbols(trace.number) for data in part.bytes]


def pairs(tape: Tape) -> list[list[tuple[int, float]] | None]:
    found = tape.candidates
    rows = zip(bare(found.ids), bare(found.logprob), strict=True)
    return [[(i, p) for i, p in zip(ids, ps, strict=True) if i is not None] or None for ids, ps in rows]


def check_parquet(tape: Tape, folder: Path) -> None:
    for series, name in (("step", "steps"), ("token", "tokens")):
        table = pq.read_table(folder / f"{name}.parquet")
        for column, values in held(tape, series).items():
            assert table[column].to_pylist() == values, column
    tokens = pq.read_table(folder / "tokens.parquet")
    assert tokens["bytes"].to_pylist() == raw(tape)
    listed = [
        None if one is None else [(c["id"], c["logprob"]) for c in one] for one in tokens["candidates"].to_pylist()
    ]
    assert listed == pairs(tape)


def check_csv(tape: Tape, folder: Path) -> None:
    """By Python's csv, and the same by DuckDB."""
    for series, name in (("step", "steps"), ("token", "tokens")):
        path = folder / f"{name}.csv"
        assert b"\0" not in path.read_bytes() and b"\r" not in path.read_bytes()
        with path.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, strict=True))
        by_duckdb = duckdb.sql(f"from read_csv('{path}', header=true, all_varchar=true, parallel=false)")
        names, others = by_duckdb.columns, by_duckdb.fetchall()
        assert [tuple(value or None for value in row.values()) for row in rows] == [
            tuple(value or None for value in row) for row in others
        ]
        assert list(names) == (list(rows[0]) if rows else list(names))
        for column, values in held(tape, series).items():
            (head,) = [one for one in names if one in (column, f"{column}_nats")]
            assert [one[head] for one in rows] == [told(value) for value in values], column
        if name == "tokens":
            check_text(tape, rows)


def told(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def check_text(tape: Tape, rows: list[dict[str, str]]) -> None:
    for row, data, some in zip(rows, raw(tape), pairs(tape), strict=True):
        assert unescaped(row["text"].removeprefix("'")) == (data or b"")
        assert bytes.fromhex(row["bytes_hex"]) == (data or b"")
        listed = json.loads(row["candidates"] or "null")
        assert (None if listed is None else [(i, float(np.float32(p))) for i, p in listed]) == some


@pytest.mark.parametrize(("to", "check"), [("parquet", check_parquet), ("csv", check_csv)])
def test_columns_are_those_of_the_tape(file: Path, tmp_path: Path, to: Any, check: Any) -> None:
    with open_tape(file) as tape:
        done = export(tape, tmp_path / "out", to=to, withheld=True)
        assert [one.stem for one in done.files] == ["runs", "traces", "steps", "tokens", "relevance"]
        check(tape, tmp_path / "out")


@pytest.mark.parametrize(("to", "check"), [("parquet", check_parquet), ("csv", check_csv)])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tokens=st.lists(some_bytes, min_size=1, max_size=8))
def test_hostile_tokens(tmp_path: Path, to: Any, check: Any, tokens: list[bytes]) -> None:
    with hostile_tape(tokens) as tape:
        export(tape, tmp_path / "out", to=to, overwrite=True)
        check(tape, tmp_path / "out")


@pytest.mark.parametrize(("to", "check"), [("parquet", check_parquet), ("csv", check_csv)])
def test_every_hostile_token_at_once(tmp_path: Path, to: Any, check: Any) -> None:
    with hostile_tape(HOSTILE) as tape:
        export(tape, tmp_path / "out", to=to)
        check(tape, tmp_path / "out")


def test_nulls_are_null_and_types_are_types(file: Path, tmp_path: Path) -> None:
    export(file, tmp_path / "out", to="parquet")
    schema = pq.read_schema(tmp_path / "out" / "tokens.parquet")
    types = {name: str(schema.field(name).type) for name in ("position", "logprob", "rank", "forced", "text", "bytes")}
    assert types == {
        "position": "int64", "logprob": "double", "rank": "int32", "forced": "bool", "text": "string", "bytes": "binary",
    }  # fmt: skip
    assert schema.field("logprob").metadata[b"unit"] == b"nats"
    facts = json.loads(schema.metadata[b"tokentape"])
    with open_tape(file) as tape:
        assert facts["fingerprint"] == tape.setting.fingerprint and facts["setting"] == dict(tape.setting.facts)
        assert facts["notes"]["origin_unix_ns"] == 10**18
        nulls = sum(value is None for value in bare(tape.columns("token")["rules_logprob"]))
    (counted, nan) = duckdb.sql(
        "select count(*) filter (rules_logprob is null), count(*) filter (isnan(rules_logprob)) "
        f"from '{tmp_path}/out/tokens.parquet'"
    ).fetchall()[0]
    assert (counted, nan) == (nulls, 0) and nulls


def test_runs_traces_and_relevance(file: Path, tmp_path: Path) -> None:
    export(file, tmp_path / "p", to="parquet")
    export(file, tmp_path / "c", to="csv")
    with open_tape(file) as tape:
        traces = pq.read_table(tmp_path / "p" / "traces.parquet").to_pylist()
        for row, trace in zip(traces, tape.traces, strict=True):
            assert (row["trace"], row["run"], row["finish_reason"]) == (
                trace.number,
                trace.run.number,
                trace.finish_reason,
            )
            told = None if trace.guarded else trace.text
            assert (row["prompt_text"], row["text"], row["shown"]) == (trace.prompt_text, told, trace.shown)
            assert row["prompt_ids"] == trace.prompt_ids.tolist() and row["n_tokens"] == trace.tokens.n_rows
        runs = pq.read_table(tmp_path / "p" / "runs.parquet").to_pylist()
        assert [json.loads(row["options"]) for row in runs] == [dict(run.options) for run in tape.runs]
        assert [row["seed"] for row in runs] == [run.seed for run in tape.runs]
        cells = [
            (one.number, None if one.together else int(one.targets[r]), float(one.value[r]), source.start, part)
            for one in tape.explanations
            for r in range(len(one.value))
            for source, part in zip(one.sources, bare(one.relevance[r]), strict=True)
        ]
    found = pq.read_table(tmp_path / "p" / "relevance.parquet").to_pylist()
    keys = ("explanation", "target", "value", "source_start", "relevance")
    assert [tuple(row[key] for key in keys) for row in found] == cells
    assert any(row["relevance"] is None for row in found)
    with (tmp_path / "c" / "relevance.csv").open(encoding="utf-8", newline="") as lines:
        spelt = [row["relevance"] for row in csv.DictReader(lines)]
    assert [float(one) if one else None for one in spelt] == [cell[4] for cell in cells]


@pytest.mark.parametrize("to", ["parquet", "csv"])
def test_without_text_there_are_no_words_and_no_ids(tmp_path: Path, to: Any) -> None:
    with hostile_tape([b"secret", b" words", b"!"]) as tape:
        export(tape, tmp_path / "out", to=to, text=False)
    path = tmp_path / "out" / f"tokens.{to}"
    (rows, gone) = duckdb.sql(f"select count(*), count(id) + count(text) + count(candidates) from '{path}'").fetchall()[
        0
    ]
    assert (rows, gone) == (3, 0)
    for one in (tmp_path / "out").iterdir():
        assert b"secret" not in one.read_bytes()


@pytest.mark.parametrize("to", ["parquet", "csv", "perfetto"])
def test_what_a_guard_withheld_stays_out(file: Path, tmp_path: Path, to: Any) -> None:
    out = tmp_path / ("out" if to != "perfetto" else "out.json")
    export(file, out, to=to)
    if to == "perfetto":
        instants = [event for event in json.loads(out.read_text("utf-8"))["traceEvents"] if event["ph"] == "i"]
        silent = [event for event in instants if "id" not in event["args"]]
        assert len(silent) == 9 and len(instants) > 9 and all(one["name"].startswith("token at") for one in silent)
        return
    found = duckdb.sql(
        f"select trace, count(*), count(id), count(text), count(candidates) from '{out}/tokens.{to}' group by trace"
    ).fetchall()
    with open_tape(file) as tape:
        guarded = {trace.number for trace in tape.traces if trace.guarded}
        shown = [trace.shown for trace in tape.traces if trace.guarded]
    assert {row[0] for row in found if row[2:] == (0, 0, 0)} == guarded and len(guarded) == 2 < len(found)
    if to == "parquet":
        rows = [row for row in pq.read_table(out / "traces.parquet").to_pylist() if row["trace"] in guarded]
        assert [row["shown"] for row in rows] == shown and [row["text"] for row in rows] == [None, None]


def test_only_the_sequences_asked_for(file: Path, tmp_path: Path) -> None:
    export(file, tmp_path / "out", to="parquet", traces=[3, 2])
    assert set(pq.read_table(tmp_path / "out" / "tokens.parquet")["trace"].to_pylist()) == {2, 3}
    assert set(pq.read_table(tmp_path / "out" / "steps.parquet")["run"].to_pylist()) == {1}
    with pytest.raises(UsageError, match="no sequence 99"):
        export(file, tmp_path / "none", to="parquet", traces=[99])
    assert not (tmp_path / "none").exists()


def test_nothing_is_overwritten_unasked_and_nothing_stale_is_left(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(file, out, to="csv")
    (out / "mine.txt").write_text("mine")
    with pytest.raises(TapeExists, match="already exists"):
        export(file, out, to="csv")
    with hostile_tape([b"a"]) as tape:
        export(tape, out, to="csv", overwrite=True)  # which has no explanations
    assert sorted(one.name for one in out.iterdir()) == [
        "mine.txt",
        "runs.csv",
        "steps.csv",
        "tokens.csv",
        "traces.csv",
    ]


def test_without_pyarrow_it_says_what_to_install(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match="pyarrow"):
        parquet.refuse_no_pyarrow()
    with pytest.raises(MissingExtra):
        export(file, tmp_path / "out", to="parquet")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_tables_is_no_file(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="named like a file"):
        export(file, tmp_path / "tokens.parquet", to="parquet")
    (tmp_path / "taken").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        export(file, tmp_path / "taken", to="csv")
    with pytest.raises(UsageError, match="does not exist"):
        export(file, tmp_path / "no" / "where", to="csv")
