"""``tokentape export`` from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.tapes import write_tape

Tape = Callable[..., Any]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_tape(tmp_path / "cat.tape")


@pytest.mark.parametrize(
    ("to", "name"),
    [("perfetto", "cat.perfetto.json"), ("otlp", "cat.otlp.json"), ("parquet", "cat-parquet"), ("csv", "cat-csv")],
)
def test_it_is_put_beside_the_tape(tape: Tape, file: Path, to: str, name: str) -> None:
    done = tape("export", file, "--to", to)
    place = file.parent / name
    assert done.code == 0 and place.exists() and str(place) in done.out and "next" in done.err
    again = tape("export", file, "--to", to)
    assert again.code == 2 and "already exists" in again.err and "--overwrite" in again.err
    assert tape("export", file, "--to", to, "--overwrite").code == 0


def test_as_json(tape: Tape, file: Path) -> None:
    found = json.loads(tape("export", file, "--to", "csv", "--json").out)
    assert (found["command"], found["to"], found["text"]) == ("export", "csv", True)
    for one in found["files"]:
        assert Path(one["path"]).stat().st_size == one["bytes"]


def test_content_is_out_unless_asked_for(tape: Tape, file: Path) -> None:
    out = file.parent / "o.json"
    assert tape("export", file, "--to", "otlp", "-o", out).code == 0
    assert "prompt 0" not in out.read_text("utf-8")
    assert tape("export", file, "--to", "otlp", "-o", out, "--overwrite", "--content", "--tokens").code == 0
    assert "prompt 0" in out.read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--to", "csv", "--content"], "--content together with --to csv"),
        (["--to", "perfetto", "--tokens"], "--tokens together with --to perfetto"),
        (["--to", "otlp", "--content", "--no-text"], "--content together with --no-text"),
        (["--to", "csv", "--trace", "9"], "no sequence 9"),
        (["--to", "perfetto", "-o", "nowhere/at/all.json"], "does not exist"),
        ([], "missing option"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    tape: Tape, file: Path, words: list[str], what: str
) -> None:
    done = tape("export", file, *words)
    assert done.code == 2 and what in done.err and "fix: " in done.err
    assert [one.name for one in file.parent.iterdir()] == ["cat.tape"]


def test_one_sequence(tape: Tape, file: Path) -> None:
    out = file.parent / "o.json"
    assert tape("export", file, "--to", "otlp", "--trace", 1, "-o", out).code == 0
    assert sum(" demo" in line for line in out.read_text("utf-8").splitlines()) == 1
