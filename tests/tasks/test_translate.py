"""Translating: the shipped model's held-out sentences, the tape that is left, languages and references that do not fit."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path
from random import Random

import pytest

import tokentape as tt
from families import causal
from tokentape.errors import PromptError, TapeExists, UsageError
from tokentape.sources.local import LocalSource
from tokentape.tasks.templates import load_template
from tokentape.tasks.translate import translate, translation_prompts
from tokentape.world import sample

N = 40


@pytest.fixture(scope="module")
def demo() -> LocalSource:
    return tt.local("demo")


def held_out(target: str) -> tuple[list[str], list[str]]:
    """Sentences and their translations into the language of that name."""
    rng = Random(7)
    documents = (sample("translation", rng, "held_out") for _ in range(10_000))
    pairs = ((re.fullmatch(r"\w+: (.*)\n(\w+):", one.prompt), one.answer.strip()) for one in documents)
    chosen = list(islice(((found[1], answer) for found, answer in pairs if found[2] == target), N))
    return [text for text, _ in chosen], [answer for _, answer in chosen]


@pytest.mark.parametrize(("from_", "to", "target"), [("en", "zh", "Chinese"), ("zh", "en", "English")])
def test_held_out_sentences_are_translated(demo: LocalSource, from_: str, to: str, target: str) -> None:
    pytest.importorskip("sacrebleu")
    texts, right = held_out(target)
    found = translate(demo, texts, from_=from_, to=to, references=right)
    exact = found.figures[0]
    assert (exact.name, exact.n) == ("exact_match", N) and exact.value >= 0.9
    assert exact.value == sum(one == other for one, other in zip(found.texts, right, strict=True)) / N
    assert exact.low < exact.value <= exact.high + 1e-9


def test_what_is_left_is_a_recording(demo: LocalSource, tmp_path: Path) -> None:
    path = tmp_path / "t.tape"
    texts = ["The cat sat on the mat.", "The old dog was happy.", "The girl went to the park."]
    told: list[tuple[int, int]] = []
    found = translate(demo, texts, from_="en", to="zh", batch_size=2, path=path, progress=lambda *n: told.append(n))
    found.tape.close()
    assert told == [(2, 3), (3, 3)]
    with tt.open(path) as tape:
        assert tape.state == "complete" and len(tape.runs) == 2
        assert tape.notes["job"] == "translate" and tape.notes["template"] == "pair"
        assert (tape.notes["from"], tape.notes["to"]) == ("en", "zh")
        assert [trace.prompt_text for trace in tape.traces] == list(found.prompts)
        assert [trace.text for trace in tape.traces] == list(found.said)
        assert all((trace.tokens["logprob"] <= 0).all() for trace in tape.traces)
    with pytest.raises(TapeExists):
        translate(demo, texts, from_="en", to="zh", path=path)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_batch_size_changes_nothing(demo: LocalSource, batch_size: int) -> None:
    texts = held_out("Chinese")[0][:5]
    plain = [tt.record(demo, f"English: {text}\nChinese:", max_new_tokens=100).traces[0].text for text in texts]
    found = translate(demo, texts, from_="en", to="zh", batch_size=batch_size)
    assert list(found.said) == plain


def test_a_text_ends_at_the_line_or_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model says what it likes: never more than the template allows, and nothing behind a line end is read."""
    source = LocalSource(causal("llama"))
    monkeypatch.setattr(
        source.causal.model.generation_config, "do_sample", True
    )  # a model's own wish does not count here
    found = translate(source, ["a", "b"], from_="en", to="zh", max_new_tokens=30)
    for trace, said, text in zip(found.tape.traces, found.said, found.texts, strict=True):
        assert len(trace.token_ids) <= 30 and text == said.partition("\n")[0].strip()
    assert found.tape.runs[0].options["stop_strings"] == ["\n"]
    assert not found.tape.runs[0].options["do_sample"]


def test_sampling_is_asked_for_and_repeated_by_its_seed() -> None:
    source = LocalSource(causal("llama"))
    draw = {"do_sample": True, "temperature": 2.0, "max_new_tokens": 8, "batch_size": 1}
    first, again, other = (
        translate(source, ["a"] * 4, from_="en", to="zh", seed=seed, **draw).said for seed in (1, 1, 2)
    )
    assert first == again != other
    assert len(set(first)) > 1, "each batch draws anew"


def test_examples_are_those_in_both_languages() -> None:
    template = load_template("pair-examples", "translate")
    (prompt,) = translation_prompts(template, ["Good night."], "en", "fr")
    assert prompt.startswith("English: Where is the station?\nFrench: Où est la gare ?\n\nEnglish: I bought")
    assert prompt.endswith("froid aujourd'hui.\n\nEnglish: Good night.\nFrench:")
    with pytest.raises(UsageError, match="no example from en to it"):
        translation_prompts(template, ["Good night."], "en", "it")


@pytest.mark.parametrize(
    ("from_", "to", "what"),
    [
        ("en", "xx", "unknown language code 'xx'"),
        ("en", "en", "from en to en"),
        ("en", None, "no to was given"),
        (None, "zh", "no from was given"),
    ],
)
def test_languages_that_do_not_fit(from_: str | None, to: str | None, what: str) -> None:
    with pytest.raises(UsageError, match=what) as raised:
        translation_prompts(load_template(None, "translate"), ["a"], from_, to)
    assert raised.value.fix


def test_a_template_for_one_pair_needs_no_codes(tmp_path: Path) -> None:
    path = tmp_path / "fr.toml"
    path.write_text('job = "translate"\nprompt = "Into French: {text} ="', encoding="utf-8")
    template = load_template(path, "translate")
    assert translation_prompts(template, ["a"], None, None) == ["Into French: a ="]
    with pytest.raises(UsageError, match=r"has no slot \{to\}"):
        translation_prompts(template, ["a"], None, "fr")


def test_what_cannot_be_done_is_refused_before_a_tape_is_made(demo: LocalSource, tmp_path: Path) -> None:
    path = tmp_path / "no.tape"
    with pytest.raises(UsageError, match="1 references for 2 inputs"):
        translate(demo, ["a", "b"], from_="en", to="zh", references=["c"], path=path)
    with pytest.raises(UsageError, match="batch_size=0"):
        translate(demo, "a", from_="en", to="zh", batch_size=0, path=path)
    with pytest.raises(PromptError, match=r"input 1: .*128"):
        translate(LocalSource(causal("gpt2")), ["a", "b" * 200], from_="en", to="zh", max_new_tokens=5, path=path)
    assert not path.exists()


def test_as_plain_values(demo: LocalSource) -> None:
    pytest.importorskip("sacrebleu")
    found = translate(demo, "The cat sat on the mat.", from_="en", to="zh", references=["猫坐在垫子上。"]).as_dict()
    assert found["items"] == [
        {
            "trace": 0,
            "prompt": "English: The cat sat on the mat.\nChinese:",
            "said": " 猫坐在垫子上。",
            "text": "猫坐在垫子上。",
            "finish_reason": "stop",
            "references": ["猫坐在垫子上。"],
        }
    ]
    assert [figure["name"] for figure in found["figures"]] == ["exact_match", "chrf", "bleu"]


@pytest.mark.slow
@pytest.mark.material
def test_real_sentences_on_a_real_model_have_honest_figures(material: Path) -> None:
    """A model of English stories cannot translate; the figures say so."""
    pytest.importorskip("sacrebleu")
    lines = [
        (material / "text" / f"tatoeba.cmn-eng.{end}").read_text(encoding="utf-8").splitlines()[:50]
        for end in ("eng", "cmn")
    ]
    source = tt.local(str(material / "models" / "TinyStories-656K"))
    found = translate(source, lines[0], from_="en", to="zh", references=lines[1], max_new_tokens=20)
    exact, chrf, _ = found.figures
    assert (exact.value, exact.n) == (0, 50) and exact.high > 0.05
    assert chrf.value < 5


def test_nothing_that_a_guard_withheld_is_an_answer(demo: LocalSource) -> None:
    """Neither in what was said nor in what the template read of it; the tape has it."""
    guard = tt.Guard(phrases=["垫子"], action="redact")
    found = tt.translate(demo, "The cat sat on the mat.", from_="en", to="zh", rules=[guard])
    assert "垫子" not in found.said[0] + found.texts[0] and "[...]" in found.texts[0]
    assert "垫子" in (found.tape.traces[0].text or "")
