"""``tokentape sweep``: what it prints, and what it says to mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tokentape as tt
from tokentape.views.sweep_text import account_text, left_out_lines, visit_text

SMALL = ("--context", "8..32", "--batch", "1,2", "--repeat", "1", "--steps", "6")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOKENTAPE_DIR", raising=False)


def test_the_path_goes_to_stdout_and_the_rest_to_stderr(tape: Callable[..., Any]) -> None:
    done = tape("sweep", "demo", *SMALL, "-o", "a.tape")
    assert done.code == 0 and done.out == "a.tape\n"
    assert "11 of 11 cells" in done.err
    assert "prefill of 32 x 2; of the first: it reads 64 tokens, and --prefill-tokens allows 32" in done.err
    assert "warning: each cell is visited once" in done.err
    assert done.err.rstrip().endswith("next: tokentape fit a.tape")
    with tt.open("a.tape") as recorded:
        assert not recorded.verify()


def test_a_document(tape: Callable[..., Any]) -> None:
    done = tape("sweep", "demo", *SMALL, "-o", "a.tape", "--json", "--no-prefill")
    found = json.loads(done.out)
    assert (found["command"], found["state"], found["interrupted"], done.err) == ("sweep", "complete", False, "")
    assert found["tape"] == "a.tape" or found["tape"].endswith("/a.tape")
    assert found["n_cells"] == found["n_visited"] == 6
    assert found["plan"]["kinds"] == ["decode"] and found["left_out"] == []


def test_a_name_is_found_for_it(tape: Callable[..., Any], tmp_path: Path) -> None:
    done = tape("sweep", "demo", "--context", "8", "--repeat", "1", "--steps", "2", "-q")
    (made,) = tmp_path.glob("demo-sweep-*.tape")
    assert done.out.strip() == made.name and done.err == ""


def test_again_and_resume_and_overwrite(tape: Callable[..., Any]) -> None:
    asked = ("sweep", "demo", *SMALL, "-o", "a.tape")
    assert tape(*asked).code == 0
    again = tape(*asked)
    assert again.code == 2 and "already holds this sweep, complete" in again.err
    assert "tokentape fit a.tape" in again.err
    assert tape(*asked, "--resume").out == "a.tape\n"
    other = tape("sweep", "demo", *SMALL, "--seed", "7", "-o", "a.tape")
    assert other.code == 2 and "seed is 7 now, 0 there" in other.err
    assert tape("sweep", "demo", *SMALL, "--seed", "7", "-o", "a.tape", "--overwrite").code == 0


def test_an_existing_tape_is_seen_before_the_model_is_loaded(tape: Callable[..., Any]) -> None:
    Path("a.tape").write_text("mine")
    done = tape("sweep", "no-such-model", *SMALL, "-o", "a.tape")
    assert done.code == 2 and "a.tape is there, and is no tape" in done.err


def test_ctrl_c_keeps_what_was_measured(tape: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import tokentape.experiment.sweep as module

    visit = module._Session._visit
    made = []

    def stops(self: Any, recorder: Any, which: Any) -> float:
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(which)
        return visit(self, recorder, which)

    with monkeypatch.context() as patched:
        patched.setattr(module._Session, "_visit", stops)
        done = tape("sweep", "demo", *SMALL, "-o", "a.tape")
    assert done.code == 130 and "--resume" in done.err and "4 visits" in done.err
    done = tape("sweep", "demo", *SMALL, "-o", "a.tape")
    assert done.code == 0 and "11 of 11 cells" in done.err


MISTAKES = {
    "no context": ((), "missing option '--context'"),
    "no range": (("--context", "64-128"), "'64-128' is neither a number nor a range"),
    "no batch": (("--context", "64", "--batch", "0"), "--batch 0 is less than 1"),
    "nothing": (("--context", "64", "--no-decode", "--no-prefill"), "nothing to measure"),
    "no time": (("--context", "64", "--budget", "soon"), "--budget soon is no time"),
    "no size": (("--context", "64", "--memory", "much"), "--memory much is no size"),
    "no tape": (("--context", "64", "--resume"), "--resume without a tape"),
    "no folder": (("--context", "64", "-o", "nowhere/a.tape"), "the folder nowhere does not exist"),
    "no memory": (("--context", "64", "--memory", "1kB", "-o", "a.tape"), "can be measured at no cell"),
    "nothing there": (("--context", "64", "-o", "a.tape", "--resume"), "there is no tape a.tape to resume"),
    "no time at all": (("--context", "64", "--budget", "0s"), "a budget of 0 s"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_say_what_to_do(mistake: str, tape: Callable[..., Any], tmp_path: Path) -> None:
    arguments, said = MISTAKES[mistake]
    done = tape("sweep", "demo", *arguments)
    assert done.code == 2 and said in done.err and "fix: " in done.err
    assert not list(tmp_path.glob("*.tape"))


def test_units(tape: Callable[..., Any]) -> None:
    from tokentape.cli.sweep import _bytes, _seconds

    assert [_seconds(text) for text in ("90", "90s", "10m", "1.5h", "10 min")] == [90, 90, 600, 5400, 600]
    assert [_bytes(text) for text in ("8GB", "8GiB", "500mb", "1000", "2k")] == [
        8 * 10**9,
        8 << 30,
        5 * 10**8,
        1000,
        2000,
    ]
    assert _seconds(None) is None and _bytes(None) is None


# what the view says


def test_a_line_of_progress() -> None:
    assert visit_text("decode of 64 x 2", 1.5e6, 3, 40, 75.4) == "visit 3 of 40, 75.4 s left; decode of 64 x 2: 1.50 ms"
    assert visit_text("decode of 64 x 2", 1.5e6, 1, None, None) == "1 visit done; decode of 64 x 2: 1.50 ms"
    assert visit_text("prefill of 64 x 2", None, 3, 40, 1.0).endswith("prefill of 64 x 2: out of memory")


def test_cells_left_out_are_gathered_by_reason() -> None:
    def one(context: int, batch: int, reason: str) -> dict[str, Any]:
        return {"kind": "decode", "context": context, "batch": batch, "reason": reason, "why": f"{reason} at {context}"}

    lines = left_out_lines([*(one(2**n, 1, "memory") for n in range(12, 5, -1)), one(9, 1, "positions")])
    assert lines == [
        "not measured: decode of 64 x 1, decode of 128 x 1, decode of 256 x 1, decode of 512 x 1 and 3 more; of the first: "
        "memory at 64",
        "not measured: decode of 9 x 1; of the first: positions at 9",
    ]


def test_the_outlook_is_a_sentence() -> None:
    outlook = [
        {"kind": "decode", "n_visited": 5, "n_cells": 9, "error": 0.0123},
        {"kind": "prefill", "n_visited": 1, "n_cells": 9, "error": None},
    ]
    text = account_text({"n_visits": 12, "n_visited": 6, "n_cells": 18, "outlook": outlook}, "a.tape")
    assert text.splitlines() == [
        "12 visits, 6 of 18 cells",
        "decode: 5 of 9 cells visited; the generic law is expected to be off by 1.2 % over all of them (one standard error)",
        "next: tokentape fit a.tape",
    ]
