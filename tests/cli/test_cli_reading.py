"""`show`, `ls`, `verify`, `schema`, `doctor`, and the form of what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tokentape
from tokentape import Line, ScriptedSource
from tokentape.cli.checkup import ClockJitter, clock_jitter, examine
from tokentape.data.schema import SERIES

Done = Any  # code, out, err
Tape = Callable[..., Done]
MS = 1_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tapes, a damaged one, an empty one, and a file of another kind."""
    for name in ("a", "b"):
        source = ScriptedSource([Line(5 * MS, [" mat"]), Line(2 * MS, ["."])])
        tokentape.record(source, f"prompt {name}", path=tmp_path / f"{name}.tape").close()
    whole = (tmp_path / "b.tape").read_bytes()
    (tmp_path / "cut.tape").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.tape").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no tape")
    return tmp_path


def document_of(done: Done) -> dict[str, Any]:
    """Exactly one JSON document, of the current version."""
    found: dict[str, Any] = json.loads(done.out)
    assert list(found)[:2] == ["schema_version", "command"] and found["schema_version"] == 1
    return found


def test_show(tape: Tape, folder: Path) -> None:
    done = tape("show", folder / "a.tape")
    assert (done.code, done.err) == (0, "")
    assert "prompt a" in done.out and "' mat'" in done.out


def test_show_as_json(tape: Tape, folder: Path) -> None:
    found = document_of(tape("show", folder / "a.tape", "--json"))
    assert found["traces"][0]["prompt_text"] == "prompt a"
    assert found["summary"]["ttft_ns"] == [5 * MS]


def test_show_of_a_sequence_that_is_not_there(tape: Tape, folder: Path) -> None:
    done = tape("show", folder / "a.tape", "--trace", "3")
    assert done.code == 2 and "error: no sequence 3" in done.err and "why: " in done.err


def test_ls_lists_what_can_be_read_and_what_cannot(tape: Tape, folder: Path) -> None:
    done = tape("ls", folder)
    assert (done.code, done.err) == (0, "")
    rows = {line.split()[0]: line for line in done.out.splitlines()}
    assert "prompt a" in rows["a.tape"] and "complete" in rows["a.tape"]
    assert "unreadable" in rows["empty.tape"] and "unreadable" in rows["cut.tape"]
    assert "notes.txt" not in done.out


def test_ls_as_json(tape: Tape, folder: Path) -> None:
    found = {Path(entry["path"]).name: entry for entry in document_of(tape("ls", folder, "--json"))["tapes"]}
    assert found["a.tape"]["n_tokens"] == 2 and found["a.tape"]["tokens_per_s"] == pytest.approx(500)
    assert found["empty.tape"]["problem"] and found["empty.tape"]["n_tokens"] is None


def test_ls_of_an_empty_folder_says_what_to_do(tape: Tape, tmp_path: Path) -> None:
    done = tape("ls", tmp_path)
    assert (done.code, done.out) == (0, "") and "tokentape record" in done.err
    assert document_of(tape("ls", tmp_path, "--json"))["tapes"] == []


def test_ls_of_no_folder(tape: Tape, tmp_path: Path) -> None:
    assert tape("ls", tmp_path / "absent").code == 2


def test_verify_leaves_with_6_if_anything_is_wrong(tape: Tape, folder: Path) -> None:
    assert tape("verify", folder / "a.tape", folder / "b.tape").code == 0
    done = tape("verify", folder / "a.tape", folder / "cut.tape", folder / "notes.txt")
    assert done.code == 6
    assert done.out.splitlines()[0].startswith("ok") and done.out.count("problem  ") == 2
    found = document_of(tape("verify", folder / "a.tape", folder / "cut.tape", "--json"))
    assert found["ok"] is False and [entry["ok"] for entry in found["files"]] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["show", "absent.tape"], 2),
        (["show", "notes.txt"], 6),
        (["show", "empty.tape"], 6),
        (["verify", "notes.txt"], 6),
        (["verify", "absent.tape"], 2),
        (["verify"], 2),
        (["show", "--bogus"], 2),
        (["completion", "tcsh"], 2),
        (["shw"], 2),
        (["a.tape"], 2),
    ],
)
def test_errors_have_one_form_and_one_code_each(
    tape: Tape, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int
) -> None:
    monkeypatch.chdir(folder)
    done = tape(*arguments)
    assert (done.code, done.out) == (code, "")
    lines = done.err.splitlines()
    assert lines[0].startswith("error: ")
    assert all(line.startswith(("why: ", "fix: ")) for line in lines[1:])
    done = tape(*arguments, "--json")
    error = document_of(done)["error"]
    assert done.code == error["exit_code"] == code
    assert error["what"] in lines[0]


def test_command_that_is_misspelt_is_guessed(tape: Tape) -> None:
    assert "fix: tokentape show" in tape("shw", "x.tape").err
    assert "fix: tokentape show x.tape" in tape("x.tape").err


def test_file_names_act_on_no_terminal(tape: Tape, tmp_path: Path) -> None:
    (tmp_path / "a\x1b[31m.tape").write_bytes(b"")
    for done in (tape("ls", tmp_path), tape("show", tmp_path / "a\x1b[31m.tape")):
        assert "\x1b" not in done.out + done.err and "\\x1b[31m" in done.out + done.err


def test_schema_names_every_column(tape: Tape) -> None:
    done = tape("schema")
    assert done.code == 0
    assert all(column.meaning in done.out for columns in SERIES.values() for column in columns)
    found = document_of(tape("schema", "--json"))
    assert [c["name"] for c in found["series"]["step"]] == [column.name for column in SERIES["step"]]


def test_doctor_reports_and_measures(tape: Tape) -> None:
    found = document_of(tape("doctor", "--json"))
    names = {check["name"] for check in found["checks"]}
    assert {"tokentape", "python", "sqlite", "torch", "cpu", "cores", "cache", "jitter"} <= names
    assert found["clock"]["n"] > 1000
    assert 0 < found["clock"]["p50_ns"] <= found["clock"]["p9999_ns"] <= found["clock"]["worst_ns"]


def test_doctor_works_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest))
    checks = {check.name: check for check in examine(ClockJitter("perf_counter_ns", 1, 10, 1, 1, 1))}
    assert checks["torch"].state == "missing" and "tokentape[local]" in checks["torch"].fix


def test_jitter_counts_gaps_of_the_clock() -> None:
    found = clock_jitter(seconds=0.01)
    assert found.n > 10 and found.worst_ns < 60_000_000_000
