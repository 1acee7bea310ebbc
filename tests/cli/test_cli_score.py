"""`tokentape score`: what comes out where, texts from everywhere, going on, two models, and what is refused before loading."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tokentape

Done = Any  # code, out, err
Tape = Callable[..., Done]
STORY = "The cat sat on the mat and looked at the dog."


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOKENTAPE_DIR", raising=False)


@pytest.fixture(scope="module")
def demo() -> Any:
    return tokentape.local("demo")


@pytest.fixture
def loads(demo: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shipped model in place of every other, loaded once; the names that were asked for."""
    names: list[str] = []

    def local(name: str, **options: Any) -> Any:
        names.append(name)
        return demo

    monkeypatch.setattr(tokentape, "local", local)
    return names


def test_figures_go_to_stdout_and_the_rest_to_stderr(tape: Tape, loads: list[str], tmp_path: Path) -> None:
    done = tape("score", "demo", STORY, "-o", "one.tape")
    assert done.code == 0 and "perplexity" in done.out and "-14.0162" in done.out
    assert "beginning-of-text" in done.out, "it says what the first token is conditioned on"
    assert "next: tokentape show one.tape" in done.err and "\x1b" not in done.out + done.err
    assert tape("score", "demo", STORY, "-q").err == ""
    assert len(list(tmp_path.glob("demo-score-*.tape"))) == 1
    assert tape("verify", "one.tape").code == 0 and tape("show", "one.tape").code == 0


def test_json_has_every_token(tape: Tape, loads: list[str]) -> None:
    done = tape("score", "demo", " the park", "--context", "Where is Tom?\nAnswer:", "--distribution", "--json")
    found = json.loads(done.out)
    (one,) = found["documents"]
    assert (found["command"], found["interrupted"], one["n_tokens"], one["n_bytes"]) == ("score", False, 2, 9)
    assert b"".join(bytes.fromhex(token["bytes_hex"]) for token in one["tokens"]) == b" the park"
    assert (
        sum(token["logprob"] for token in one["tokens"]) == pytest.approx(one["logprob"]) == found["total"]["logprob"]
    )
    assert all(token["rank"] >= 1 and len(token["candidates"]) == 5 for token in one["tokens"])


def test_texts_come_from_everywhere(tape: Tape, loads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.txt").write_text(STORY, encoding="utf-8")
    by_argument, by_option = tape("score", "demo", "a.txt", "-q"), tape("score", "demo", "-f", "a.txt", "-q")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(STORY.encode())))
    by_stdin = tape("score", "demo", "-", "-q")
    assert all("-14.0162" in done.out for done in (by_argument, by_option, by_stdin))
    Path("texts").mkdir()
    Path("texts/b.jsonl").write_text(
        '{"text": "a"}\n{"context": "The cat", "continuation": " sat"}\n', encoding="utf-8"
    )
    done = tape("score", "demo", "a.txt", "texts", "-q", "--json")
    assert [one["name"] for one in json.loads(done.out)["documents"]] == ["a.txt", "texts/b.jsonl:1", "texts/b.jsonl:2"]


def test_jsonl_and_going_on(tape: Tape, loads: list[str]) -> None:
    Path("c.jsonl").write_text(
        "".join(json.dumps({"text": STORY[: 9 + 4 * i]}) + "\n" for i in range(6)), encoding="utf-8"
    )
    words = ("score", "demo", "c.jsonl", "-o", "c.tape")
    assert tape(*words, "--jsonl", "out.jsonl").code == 0
    lines = [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [one["index"] for one in lines] == list(range(6))
    again = tape(*words)
    assert again.code == 2 and "already holds these scores" in again.err and "c.tape" in again.err
    assert len(loads) == 1, "it is refused before the model is loaded"
    assert tape(*words, "--resume").code == 0 and tape(*words, "--overwrite").code == 0
    assert tape(*words, "--window", "4").code == 2
    assert tape(*words, "--overwrite", "--jsonl", "out.jsonl").code == 0


def test_interrupted_and_gone_on_with(tape: Tape, loads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tokentape.tasks.scoring import Scorer

    Path("c.jsonl").write_text(
        "".join(json.dumps({"text": STORY[: 9 + 4 * i]}) + "\n" for i in range(6)), encoding="utf-8"
    )
    words = ("score", "demo", "c.jsonl", "-o", "c.tape", "--batch-tokens", "1")
    read, calls = Scorer._read, iter(range(100))

    def interrupted(self: Scorer, *given: Any) -> Any:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return read(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(Scorer, "_read", interrupted)
        done = tape(*words)
    assert done.code == 130 and "-o c.tape --resume" in done.err
    on = tape(*words, "--resume", "--json")
    assert on.code == 0 and len(json.loads(on.out)["documents"]) == 6


def test_two_models_side_by_side(tape: Tape, loads: list[str]) -> None:
    done = tape("score", "--compare", "one", "other", STORY, "-q")
    assert done.code == 0 and loads == ["one", "other"]
    assert "B needs 0.0000 bits a byte more than A" in done.out and "' cat'" in done.out
    found = json.loads(tape("score", "--compare", "one", "other", STORY, "--json", "-o", "both").out)["comparison"]
    assert found["difference"] == 0 and found["n_spans"] == 12 and found["n_bytes"] == len(STORY)
    assert Path("both/A.tape").exists() and Path("both/B.tape").exists()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["demo"], "no text was given"),
        (["demo", ""], "is empty"),
        (["demo", "The", "cat"], "2 arguments"),
        (["demo", "a", "-f", "b"], "together"),
        (["demo", "-f", "none.txt"], "cannot be read"),
        (["demo", "a", "--window", "4", "--stride", "5"], "stride of 5"),
        (["demo", "a", "--resume"], "without a tape"),
        (["--compare", "demo"], "with one model"),
        (["--compare", "demo", "demo", "a", "--jsonl", "x"], "--jsonl together"),
        (["demo", "a", "-o", "no/where.tape"], "does not exist"),
    ],
)
def test_refused_before_a_model_is_loaded(tape: Tape, loads: list[str], words: list[str], what: str) -> None:
    done = tape("score", *words)
    assert done.code == 2 and what in done.err and "why:" in done.err and "fix:" in done.err
    assert loads == []
