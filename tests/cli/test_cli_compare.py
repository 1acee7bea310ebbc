"""`compare`: two tapes, two runs, the gate's exit code, and what a user gets wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tokentape
from tokentape import Line, ScriptedSource
from tokentape.recorder.tick import Said

MS = 1_000_000
Run = Callable[..., Any]


def taped(path: Path, ms: float = 2, text: str = "abcdefghijklmnopqrstuvwx", **facts: Any) -> Path:
    said = [Said(0, ord(c), c.encode(), -0.5, 1.0, 1, candidates=((ord(c), -0.5), (120, -1.5))) for c in text]
    script = [Line(round(ms * MS), [one], context=5 + i) for i, one in enumerate(said)]
    source = ScriptedSource(script, facts={"model": "paper", "tokenizer": "x", **facts})
    tokentape.record(source, "The cat", path=path).close()
    return path


def test_two_tapes(tape: Run, tmp_path: Path) -> None:
    a, b = taped(tmp_path / "a.tape"), taped(tmp_path / "b.tape", 2.4, text="abcdeXghijklmnopqrstuvwx")
    done = tape("compare", a, b)
    assert done.code == 0 and done.err == ""
    first = done.out.splitlines()[0]
    assert first.startswith("SLOWER at 3 %: B takes 20.0 % longer a step than A")
    assert "cannot be told from a difference" in " ".join(done.out.split())
    assert "parts at token 5, position 7" in done.out
    says = next(line for line in done.out.splitlines() if "A says" in line)
    assert says.split() == ["A", "says", "'f'", "60.7", "%", "<", "22", "%"]


def test_json_and_markdown(tape: Run, tmp_path: Path) -> None:
    a, b = taped(tmp_path / "a.tape"), taped(tmp_path / "b|c.tape", text="abc<b>ghijklmnopqrstuvwx")
    found = json.loads(tape("compare", a, b, "--json").out)
    assert found["comparison"]["verdict"]["word"] == "SAME"
    assert found["comparison"]["alignments"][0]["n_common"] == 3
    assert found["gate"] is None
    text = tape("compare", a, b, "--markdown").out
    assert text.startswith("### SAME at 3 %\n")
    assert "b\\|c.tape" in text and "&lt;" in text and "<b" not in text


def test_gate_exits_with_3(tape: Run, tmp_path: Path) -> None:
    a, b = taped(tmp_path / "a.tape"), taped(tmp_path / "b.tape", 2.4)
    done = tape("compare", a, b, "--fail-over", "5%")
    assert done.code == 3 and done.err == "regression: SLOWER by more than 5 %\n"
    done = tape("compare", a, b, "--fail-over", "0.25", "--json")
    assert (done.code, json.loads(done.out)["gate"]) == (0, {"fail_over": 0.25, "failed": False})
    assert tape("compare", b, a, "--fail-over", "5%").code == 0


def test_other_machine_is_refused_until_it_is_the_question(tape: Run, tmp_path: Path) -> None:
    a, b = taped(tmp_path / "a.tape", processor="x"), taped(tmp_path / "b.tape", processor="y")
    done = tape("compare", a, b)
    assert done.code == 1
    assert "error: A and B differ in processor (x | y)" in done.err and "--across processor" in done.err
    done = tape("compare", a, b, "--across", "machine")
    assert done.code == 0 and "question  processor: x | y" in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.tape"], "1 tape given"),
        ([], "0 tapes given"),
        (["a.tape", "b.tape", "--run", "demo"], "tapes together with --run"),
        (["a.tape", "b.tape", "--pairs", "3"], "--pairs without --run"),
        (["--run", "demo"], "1 --run"),
        (["--run", "demo", "--run", "demo --bogus"], "--run demo --bogus: No such option"),
        (["--run", "demo", "--run", "demo 'x"], "No closing quotation"),
        (["--run", "demo", "--run", "demo -o x.tape"], "-o inside of a run"),
        (["--run", "demo", "--run", "demo -"], "--run reads stdin"),
        (["--run", "demo", "--run", "demo", "--budget", "soon"], "--budget soon is no time"),
        (["--run", "demo", "--run", "demo", "--threshold", "3"], "--threshold 3"),
        (["--run", "demo", "--run", "demo", "--pairs", "1"], "1 pairs at most"),
        (["--run", "demo", "--run", "demo", "--across", "dtype"], "--across with --run"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(tape: Run, asked: Any, arguments: list[str], said: str) -> None:
    done = tape("compare", *arguments)
    assert done.code == 2 and said in done.err, done.err
    assert "model" not in asked


def test_runs_take_turns_and_leave_two_tapes(tape: Run, asked: dict[str, Any]) -> None:
    asked["script"] = [Line(2 * MS, [Said(0, i, b"x", -0.5, 1.0, 1)], context=5 + i) for i in range(17)]
    done = tape("compare", "--run", "demo", "--run", "record demo --no-text", "-o", "out", "--seed", "1", "-q")
    assert done.code == 0 and done.err == ""
    assert done.out.startswith("SAME at 3 %: B takes as long a step as A (+0.0 to +0.0 % at 99 % confidence, 5 pairs).")
    assert "cannot be told" not in done.out
    for name in "AB":
        with tokentape.open(Path("out") / f"{name}.tape") as found:
            assert (found.state, found.notes["turns"]["side"], found.notes["turns"]["turns"]) == (
                "complete",
                name,
                "steps",
            )
            assert found.runs[0].options["max_new_tokens"] == 64, "what a run without a prompt goes on for"
    again = tape("compare", "out/A.tape", "out/B.tape")
    assert again.code == 0 and again.out.splitlines()[0] == done.out.splitlines()[0]
    assert tape("compare", "--run", "demo", "--run", "demo", "-o", "out").code == 2, "nothing is overwritten unasked"


@pytest.mark.slow
def test_demo_against_itself_and_a_slower_it(tape: Run, tmp_path: Path) -> None:
    same = ["--run", "demo", "--run", "demo", "-o", tmp_path / "same", "--budget", "8s", "-q", "--json"]
    assert json.loads(tape("compare", *same).out)["comparison"]["verdict"]["word"] in ("SAME", "UNCLEAR")
    batch = "demo --prompts " + str(tmp_path / "many.txt") + " -n 48 --ignore-eos"
    (tmp_path / "many.txt").write_text("The cat sat on the\n" * 24)
    one = "demo 'The cat sat on the' -n 48 --ignore-eos"
    done = tape(
        "compare",
        "--run",
        one,
        "--run",
        batch,
        "-o",
        tmp_path / "o",
        "--budget",
        "30s",
        "-q",
        "--json",
        "--fail-over",
        "20%",
    )
    found = json.loads(done.out)
    assert (done.code, found["comparison"]["verdict"]["word"]) == (3, "SLOWER")
