"""`tokentape translate`, `classify` and `answer`: what comes out where, and what is refused before a model is loaded."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tokentape

pytest.importorskip("sacrebleu")

Done = Any  # code, out, err
Tape = Callable[..., Done]
STORY = "Tom went to the park. Anna has a kite."


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOKENTAPE_DIR", raising=False)


def put(name: str, *lines: Any) -> str:
    text = "".join((line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)) + "\n" for line in lines)
    Path(name).write_text(text, encoding="utf-8")
    return name


def test_translate_one_text(tape: Tape) -> None:
    done = tape("translate", "demo", "The cat sat on the mat.", "--from", "en", "--to", "zh", "-o", "t.tape")
    assert (done.code, done.out) == (0, "猫坐在垫子上。\n")
    assert "tokentape show t.tape" in done.err
    with tokentape.open("t.tape") as found:
        assert found.notes["job"] == "translate" and found.traces[0].text == " 猫坐在垫子上。"


def test_translate_a_file_with_references(tape: Tape) -> None:
    put(
        "pairs.jsonl",
        {"source": "The cat sat on the mat.", "target": "猫坐在垫子上。"},
        {"source": "The old dog was happy.", "target": "狗"},
    )
    done = tape("translate", "demo", "--file", "pairs.jsonl", "--from", "en", "--to", "zh")
    assert done.code == 0 and done.out.splitlines() == ["猫坐在垫子上。", "老狗很高兴。"]
    assert "exact match  50.0 %" in done.err and "chrF" in done.err and "tok:zh" in done.err
    assert [path.name.startswith("demo-translate-") for path in Path().glob("*.tape")] == [True]


def test_references_of_lines(tape: Tape) -> None:
    put("en.txt", "The cat sat on the mat.", "The old dog was happy.")
    put("zh.txt", "猫坐在垫子上。", "老狗很高兴。")
    done = tape(
        "translate", "demo", "--file", "en.txt", "--references", "zh.txt", "--from", "en", "--to", "zh", "--json"
    )
    found = json.loads(done.out)
    assert (found["schema_version"], found["command"], found["state"]) == (1, "translate", "complete")
    assert found["figures"][0] == {
        "name": "exact_match",
        "value": 1.0,
        "low": pytest.approx(0.342, abs=1e-3),
        "high": 1.0,
        "n": 2,
        "how": "Wilson",
        "label": None,
        "unit": "share",
    }
    assert found["items"][1]["references"] == ["老狗很高兴。"] and done.err == ""


def test_classify_one_text_and_a_file(tape: Tape) -> None:
    done = tape("classify", "demo", "The soup was really excellent.", "--labels", "positive,negative")
    assert (done.code, done.out) == (0, "positive\n")
    assert "margin" in done.err and "log-probability" in done.err
    put("r.tsv", "text\tlabel", "The soup was really excellent.\tfood", "The song is dull.\tmusic")
    done = tape("classify", "demo", "--file", "r.tsv", "--template", "topic")
    assert done.out == "food\nmusic\n"
    assert (
        "accuracy" in done.err and "100.0 %" in done.err and "F1 music" in done.err and "calibration error" in done.err
    )
    found = json.loads(tape("classify", "demo", "--file", "r.tsv", "--template", "topic", "--json").out)
    assert [item["label"] for item in found["items"]] == ["food", "music"]


def test_answer_by_a_context_in_a_file(tape: Tape, monkeypatch: pytest.MonkeyPatch) -> None:
    put("story.txt", STORY)
    done = tape("answer", "demo", "Where is Tom?", "--context", "story.txt", "--quiet")
    assert (done.code, done.out, done.err) == (0, "the park\n", "")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(STORY.encode() + b"\n")))
    assert tape("answer", "demo", "What does Anna have?", "--context", "-", "-q").out == "a kite\n"
    put("q.txt", "Where is Tom?", "Who has the kite?")
    assert tape("answer", "demo", "--file", "q.txt", "--context", "story.txt", "-q").out == "the park\nAnna\n"
    put("q.jsonl", {"question": "Where is Tom?", "context": STORY, "answers": ["park", "the park"]})
    done = tape("answer", "demo", "--file", "q.jsonl")
    assert done.out == "the park\n" and "SQuAD F1" in done.err


def test_a_text_from_stdin(tape: Tape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("猫坐在垫子上。\n".encode())))
    done = tape("translate", "demo", "-", "--from", "zh", "--to", "en", "-q")
    assert done.out == "The cat sat on the mat.\n"


@pytest.mark.parametrize(
    ("arguments", "prompt"),
    [
        (["translate", "nobody/nothing", "Hi.", "--from", "en", "--to", "fr"], "English: Hi.\nFrench:\n"),
        (["classify", "nobody/nothing", "Hi."], "Review: Hi.\nSentiment:\n"),
        (["answer", "nobody/nothing", "Who?", "--context", "c.txt"], "Story: It is I.\nQuestion: Who?\nAnswer:\n"),
    ],
)
def test_the_prompt_is_shown_without_a_model(tape: Tape, arguments: list[str], prompt: str) -> None:
    put("c.txt", "It is I.")
    done = tape(*arguments, "--show-prompt")
    assert (done.code, done.out, done.err) == (0, prompt, "")
    assert not list(Path().glob("*.tape"))


def test_several_prompts_are_headed(tape: Tape) -> None:
    put("t.txt", "a", "b")
    done = tape("classify", "demo", "--file", "t.txt", "--show-prompt")
    assert done.out == "==> 0 <==\nReview: a\nSentiment:\n==> 1 <==\nReview: b\nSentiment:\n"


@pytest.mark.parametrize(("job", "default"), [("translate", "pair"), ("classify", "sentiment"), ("answer", "story")])
def test_templates_are_listed_and_a_copy_is_taken(tape: Tape, job: str, default: str) -> None:
    from tokentape.tasks.templates import FOLDER, shipped

    done = tape(job, "--template", "list")
    assert done.code == 0 and f"{default} (default)" in done.out
    assert str(FOLDER) in " ".join(done.out.split())
    assert all(template.name in done.out for template in shipped(job))
    Path("own.toml").write_text((FOLDER / f"{default}.toml").read_text(encoding="utf-8"), encoding="utf-8")
    more = {"translate": ["--from", "en", "--to", "zh"], "classify": [], "answer": ["--context", put("c.txt", STORY)]}[
        job
    ]
    shown = [tape(job, "demo", "x", *more, "--show-prompt", *own).out for own in ([], ["--template", "own.toml"])]
    assert shown[0] == shown[1] != ""


def test_options_of_generate(tape: Tape) -> None:
    languages = ["--from", "en", "--to", "zh"]
    done = tape("translate", "demo", "The cat sat on the mat.", *languages, "-n", "2", "-o", "short.tape", "--json")
    (item,) = json.loads(done.out)["items"]
    assert item["finish_reason"] == "length"
    done = tape(
        "translate", "demo", "The cat.", *languages, "-g", "temperature=1.5", "--seed", "3", "-o", "s.tape", "-q"
    )
    assert done.code == 0
    with tokentape.open("s.tape") as found:
        assert found.runs[0].options["do_sample"] and found.runs[0].seed == 3


def test_a_tape_that_is_there_stays(tape: Tape) -> None:
    arguments = ["translate", "demo", "Hi.", "--from", "en", "--to", "zh", "-o", "x.tape", "-q"]
    assert tape(*arguments).code == 0
    done = tape(*arguments)
    assert done.code == 2 and "already exists" in done.err
    assert tape(*arguments, "--overwrite").code == 0


PAIR = ["--from", "en", "--to", "zh"]
MISTAKES: dict[str, tuple[list[str], str]] = {
    "no text": (["translate", "demo", *PAIR], "no text was given"),
    "no text to classify": (["classify", "demo"], "no text was given"),
    "no question": (["answer", "demo", "--context", "story.txt"], "no question was given"),
    "no context": (["answer", "demo", "Where?"], "no context was given"),
    "several words": (["translate", "demo", "Hi", "you", *PAIR], "came as 2 arguments"),
    "text and file": (["translate", "demo", "Hi", "--file", "two.txt", *PAIR], "TEXT and --file together"),
    "context twice": (["answer", "demo", "--file", "q.jsonl", "--context", "story.txt"], "has its own"),
    "context of some": (["answer", "demo", "--file", "some.jsonl"], "1 of 2 records have a context"),
    "references twice": (["translate", "demo", "--file", "p.jsonl", "--references", "two.txt", *PAIR], "has its own"),
    "references of another length": (
        ["translate", "demo", "--file", "three.txt", "--references", "two.txt", *PAIR],
        "two.txt: 2 references for 3 inputs",
    ),
    "a reference that is no label": (
        ["classify", "demo", "--file", "three.txt", "--references", "three.txt"],
        "reference 0 is",
    ),
    "an empty file": (["classify", "demo", "--file", "empty.txt"], "empty.txt is empty"),
    "an empty context": (["answer", "demo", "Where?", "--context", "empty.txt"], "empty.txt is empty"),
    "an unknown language": (["translate", "demo", "Hi", "--from", "en", "--to", "xx"], "unknown language code 'xx'"),
    "no language": (["translate", "demo", "Hi", "--to", "zh"], "no from was given"),
    "equal labels": (["classify", "demo", "Hi", "--labels", "a,b,a"], "'a' is given twice"),
    "one label": (["classify", "demo", "Hi", "--labels", "a"], "1 labels"),
    "an empty label": (["classify", "demo", "Hi", "--labels", "a,"], "an empty label"),
    "an unknown template": (["classify", "demo", "Hi", "--template", "pear"], "no template 'pear'"),
    "a template of another job": (["classify", "demo", "Hi", "--template", "pair"], "is for translate"),
    "malformed TOML": (["classify", "demo", "Hi", "--template", "bad.toml"], "bad.toml: not TOML"),
    "a missing slot": (["translate", "demo", "Hi", "--template", "slot.toml", *PAIR], "no slot {text}"),
    "beams": (["translate", "demo", "Hi", *PAIR, "-g", "num_beams=4"], "beam search is not recorded"),
    "options of generation where nothing is generated": (
        ["classify", "demo", "Hi", "--seed", "1"],
        "no such option: --seed",
    ),
    "a span of nothing": (
        ["answer", "demo", "Hi", "--template", "question", "--context", "story.txt"],
        "no slot {context}",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_before_a_model_is_loaded(tape: Tape, mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put("story.txt", STORY)
    put("two.txt", "a", "b")
    put("three.txt", "a", "b", "c")
    Path("empty.txt").write_text("\n")
    put("q.jsonl", {"question": "Where?", "context": STORY})
    put("some.jsonl", {"question": "Where?", "context": STORY}, {"question": "Who?"})
    put("p.jsonl", {"source": "a", "target": "b"}, {"source": "a", "target": "b"})
    put("bad.toml", "job = translate")
    put("slot.toml", 'job = "translate"', 'prompt = "{from} {to}"')

    def local(*given: Any, **options: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(tokentape, "local", local)
    arguments, words = MISTAKES[mistake]
    done = tape(*arguments)
    assert done.code == 2, done.err
    assert words in done.err
    assert all(part in done.err for part in ("error: ", "why: ", "fix: "))
    assert done.out == "" and not list(Path().glob("*.tape"))
