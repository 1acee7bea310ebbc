"""``view --html`` and ``record --report``: a page is written where it may be, and what it leaves out is told."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tokentape
from tokentape.cli.report import parse_size
from tokentape.errors import UsageError
from tokentape.views.page import file as page_file
from tokentape.views.page.again import record_command
from views.page.pages import data_of, spoken

Tape = Callable[..., Any]
PROMPT = "The cat sat on the"


@pytest.fixture(autouse=True)
def small_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(page_file, "bundle", lambda: ("//", "/**/"))
    monkeypatch.delenv("TOKENTAPE_LANG", raising=False)
    monkeypatch.chdir(tmp_path)


def written(path: str) -> Any:
    return data_of(Path(path).read_text("utf-8"))


def test_a_page_is_written_and_told_of(tape: Tape) -> None:
    spoken([b"a", b"b"]).save("a.tape")
    done = tape("view", "a.tape", "--html", "a.html")
    assert done.code == 0 and done.out == "a.html\n"
    assert re.fullmatch(r"a\.html: [\d.]+ KiB\n", done.err)
    found = written("a.html")
    assert found["title"] == "a.tape" and found["lang"] is None and found["dropped"] == []


def test_as_json(tape: Tape) -> None:
    spoken([b"a"] * 40).save("a.tape")
    done = tape("view", "a.tape", "--html", "a.html", "--json", "--max-bytes", "50kB")
    found = json.loads(done.out)
    assert found["html"] == "a.html" and found["bytes"] == Path("a.html").stat().st_size
    assert found["dropped"] == written("a.html")["dropped"] and done.err == ""


def test_what_is_left_out_is_told_in_the_language_of_the_terminal(tape: Tape, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken([b"a"] * 40).save("a.tape")
    monkeypatch.setenv("TOKENTAPE_LANG", "zh")
    done = tape("view", "a.tape", "--html", "a.html", "--max-bytes", "1kB")
    assert "已省略：该序列的分布" in done.err and "--max-bytes 1MB" in done.err
    assert written("a.html")["lang"] == "zh"
    tape("view", "a.tape", "--html", "a.html", "--overwrite", "--lang", "en")
    assert written("a.html")["lang"] == "en"


MISTAKES = {
    "a taken place": (["--html", "taken.html"], "already exists"),
    "no folder": (["--html", "no/a.html"], "does not exist"),
    "the tape itself": (["--html", "a.tape", "--overwrite"], "is the tape itself"),
    "no such sequence": (["--html", "a.html", "--trace", "7"], "no sequence 7"),
    "no size": (["--html", "a.html", "--max-bytes", "many"], "no size"),
    "overwrite without html": (["--overwrite"], "--overwrite without --html"),
    "json without html": (["--json"], "--json without --html"),
    "across with one tape": (["--html", "a.html", "--across", "any"], "--across with one tape"),
    "a sequence of two tapes": (["a.tape", "--html", "a.html", "--trace", "0"], "--trace with two tapes"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(tape: Tape, mistake: str) -> None:
    spoken([b"a"]).save("a.tape")
    Path("taken.html").write_text("mine")
    before = Path("a.tape").read_bytes()
    options, what = MISTAKES[mistake]
    done = tape("view", "a.tape", *options)
    assert done.code == 2 and what in done.err + done.out
    assert Path("taken.html").read_text() == "mine" and Path("a.tape").read_bytes() == before
    assert not Path("a.html").exists()


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("6MB", 6_000_000),
        ("500k", 500_000),
        ("1.5 GiB", 1_610_612_736),
        ("0", None),
        ("1024", 1024),
        ("2MiB", 2_097_152),
    ],
)
def test_sizes(text: str, n: int | None) -> None:
    assert parse_size(text) == n


@pytest.mark.parametrize("text", ["", "MB", "-1", "1TB", "nan", "1e999", "6M B6"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


def test_two_tapes_are_compared(tape: Tape) -> None:
    spoken([b"a", b"b"]).save("a.tape")
    spoken([b"a", b"c"]).save("b.tape")
    done = tape("view", "a.tape", "b.tape", "--html", "c.html")
    assert done.code == 0, done.err
    found = written("c.html")
    assert found["compare"] is not None and "a.tape" in found["title"] and "b.tape" in found["title"]


def test_record_writes_the_report_at_its_end(tape: Tape, asked: dict[str, Any]) -> None:
    done = tape("record", "paper", "x", "-o", "a.tape", "--report", "a.html")
    assert done.code == 0 and done.out == " mat.\n\n" and "a.html: " in done.err
    assert written("a.html")["tape"]["traces"][0]["symbols"]["text"][-2:] == [" mat", ".\\n"]
    done = tape("record", "paper", "x", "-o", "b.tape", "--report", "b.html", "--json")
    assert json.loads(done.out)["report"] == "b.html" and done.err == ""
    tape("record", "paper", "x", "-o", "c.tape", "--report", "c.html", "-q")
    assert Path("c.html").exists()


def test_a_taken_report_is_refused_before_a_model_is_touched(tape: Tape, asked: dict[str, Any]) -> None:
    Path("a.html").write_text("mine")
    done = tape("record", "paper", "x", "-o", "a.tape", "--report", "a.html")
    assert done.code == 2 and "a.html already exists" in done.err and "model" not in asked
    assert Path("a.html").read_text() == "mine" and not Path("a.tape").exists()


@pytest.mark.parametrize("action", ["redact", "stop", "resample"])
def test_what_a_guard_withheld_is_on_no_page_unless_asked_for(tape: Tape, action: str) -> None:
    block = ["--block", "looked at", "--on-block", action]
    done = tape("record", "demo", PROMPT, "-n", "12", *block, "-o", "g.tape", "-q")
    assert done.code == 0, done.err
    with tokentape.open("g.tape") as opened:
        trace = opened.traces[0]
        assert trace.decisions, "the guard had something to do"
        shown, whole = trace.shown or "", trace.text or ""
    assert ("looked at" in whole) == (action != "resample") and "looked at" not in shown
    tape("view", "g.tape", "--html", "g.html")
    found = written("g.html")["tape"]
    one = found["traces"][0]
    for text, data in zip(one["symbols"]["text"], one["symbols"]["hex"], strict=True):
        assert data is None or (bytes.fromhex(data).decode() in PROMPT + shown and text in PROMPT + shown)
    assert (b" looked".hex() in json.dumps(found)) == (" looked" in shown)
    assert not any(one["tokens"]["candidate_ids"]) and not any(one["tokens"]["wanted"])
    assert set(found["pieces"]) == {str(i) for i in one["symbols"]["ids"] if i is not None}
    assert one["relevance"]["run"] == one["layers"]["run"] == "tokentape view g.tape --withheld"
    tape("view", "g.tape", "--html", "all.html", "--withheld")
    assert any(written("all.html")["tape"]["traces"][0]["tokens"]["candidate_ids"])
    assert "".join(written("all.html")["tape"]["traces"][0]["symbols"]["text"]) == PROMPT + whole


@pytest.mark.parametrize(
    "options",
    [
        ["-n", "8", "--ignore-eos"],
        ["-n", "6", "-t", "0.7", "--top-p", "0.9", "--seed", "5"],
        ["-n", "6", "--repetition-penalty", "1.3", "--stop", "dog", "-g", "length_penalty=2.0"],
        ["-n", "4", "--num-return-sequences", "2", "--do-sample", "--seed", "1"],
    ],
)
def test_the_command_on_the_page_records_the_same_again(tape: Tape, options: list[str]) -> None:
    import shlex

    prompt = 'It\'s a "cat" & -dog'
    assert tape("record", "demo", prompt, *options, "-o", "a.tape", "-q").code == 0
    with tokentape.open("a.tape") as first:
        commands = [record_command(first), record_command(first, exact=True)]
        said = [trace.token_ids.tolist() for trace in first.traces]
    for number, command in enumerate(commands):
        assert command is not None and command.startswith("tokentape record demo ")
        done = tape(*shlex.split(command)[1:], "-o", f"b{number}.tape", "-q")
        assert done.code == 0, done.err
        with tokentape.open(f"b{number}.tape") as second:
            assert [trace.token_ids.tolist() for trace in second.traces] == said


def test_no_command_is_made_up_where_none_would_do(tape: Tape) -> None:
    assert record_command(spoken([b"a"])) is None, "another engine"
    tape("record", "demo", PROMPT, "-n", "3", "--no-text", "-o", "a.tape", "-q")
    tape("record", "demo", PROMPT, "-n", "3", "--choices", "yes,no", "-o", "b.tape", "-q")
    for name in ("a.tape", "b.tape"):
        with tokentape.open(name) as opened:
            assert record_command(opened) is None


def test_the_page_of_a_tape_without_text(tape: Tape) -> None:
    tape("record", "demo", PROMPT, "-n", "3", "--no-text", "-o", "a.tape", "-q")
    assert tape("view", "a.tape", "--html", "a.html").code == 0
    found = written("a.html")["tape"]
    assert found["traces"][0]["symbols"]["text"] == ["", "", ""] and found["traces"][0]["n_prompt"] == 0
    assert {"key": "page_provenance.no_text"} in found["provenance"]["notes"]
    assert " cat" not in json.dumps(found)


def test_help_is_quick_to_load() -> None:
    import subprocess
    import sys

    heavy = "{'torch', 'numpy', 'starlette', 'tokentape.data.tape', 'sqlite3'}"
    program = f"import sys, tokentape.cli.view, tokentape.cli.report; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ}, timeout=60
    )
    assert done.stdout.split() == [], done.stderr
