"""Answering: the shipped model's held-out questions, spans of a context, the last word of a text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokentape as tt
from families import causal
from tokentape.errors import PromptError, UsageError
from tokentape.sources.local import LocalSource
from tokentape.tasks.answer import answer, answer_prompts, span_grammar
from tokentape.tasks.records import read_records
from tokentape.tasks.templates import load_template
from tokentape.world import sample

N = 40
STORY = "Tom went to the park. Anna has a kite."


@pytest.fixture(scope="module")
def demo() -> LocalSource:
    return tt.local("demo")


def held_out() -> tuple[list[str], list[str], list[str]]:
    rng = Random(8)
    documents = [sample("question", rng, "held_out") for _ in range(N)]
    found = [re.fullmatch(r"Story: (.*)\nQuestion: (.*)\nAnswer:", one.prompt) for one in documents]
    return [one[1] for one in found], [one[2] for one in found], [one.answer.strip() for one in documents]


def test_held_out_questions_are_answered(demo: LocalSource) -> None:
    contexts, questions, right = held_out()
    found = answer(demo, questions, context=contexts, references=right)
    exact, squad, overlap = found.figures
    assert (exact.name, exact.n) == ("exact_match", N) and exact.value >= 0.9
    assert exact.value == sum(one == other for one, other in zip(found.texts, right, strict=True)) / N
    assert exact.value <= squad.value <= overlap.value
    assert found.tape.notes["job"] == "answer" and found.tape.notes["template"] == "story"


def test_one_context_for_all_questions(demo: LocalSource) -> None:
    found = answer(demo, ["Where is Tom?", "What does Anna have?", "Who has the kite?"], context=STORY)
    assert found.texts == ("the park", "a kite", "Anna")


def test_prompts_of_lists_and_single_texts() -> None:
    template = load_template(None, "answer")
    assert answer_prompts(template, "Q", "C") == (["C"], ["Story: C\nQuestion: Q\nAnswer:"])
    contexts, prompts = answer_prompts(template, "Q", ["C", "D"])
    assert contexts == ["C", "D"] and len(prompts) == 2 and all("Question: Q" in one for one in prompts)
    assert answer_prompts(load_template("cloze", "answer"), None, ["He sat on the"]) == (
        ["He sat on the"],
        ["He sat on the"],
    )


@pytest.mark.parametrize(
    ("template", "question", "context", "what"),
    [
        ("story", "Q", None, "no context was given"),
        ("story", None, "C", "no question was given"),
        ("question", "Q", "C", r"has no slot \{context\}"),
        ("story", ["Q", "R"], ["C"], "2 questions and 1 contexts"),
        ("story", "Q", " ", "the context is empty"),
    ],
)
def test_what_does_not_fit_together(template: str, question: object, context: object, what: str) -> None:
    with pytest.raises(UsageError, match=what) as raised:
        answer_prompts(load_template(template, "answer"), question, context)  # type: ignore[arg-type]
    assert raised.value.why and raised.value.fix


def test_a_context_that_does_not_fit() -> None:
    with pytest.raises(PromptError, match="128"):
        answer(LocalSource(causal("gpt2")), "Where?", context="a" * 300, max_new_tokens=5)


def allows(grammar: str, text: str) -> bool:
    """Whether a text is of the language, by the engine, over an alphabet of bytes."""
    llguidance = pytest.importorskip("llguidance")
    tokenizer = llguidance.LLTokenizer("byte")
    matcher = llguidance.LLMatcher(tokenizer, llguidance.LLMatcher.grammar_from_lark(grammar))
    assert not matcher.is_error(), matcher.get_error()
    ids = tokenizer.tokenize_str(text)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("span", "text", "allowed"),
    [
        ("words", " the park", True),
        ("words", " the park\n", True),
        ("words", " park. Anna has", True),
        ("words", " the par", False),
        ("words", " park the", False),
        ("words", " ", False),
        ("words", "the park", False),
        ("words", " the park\n\n", False),
        ("characters", " the par", True),
        ("characters", " xy", False),
        ("characters", " ", False),
    ],
)
def test_a_span_is_a_part_of_its_context(span: str, text: str, allowed: bool) -> None:
    assert allows(span_grammar(load_template(None, "answer"), STORY, span), text) is allowed


@settings(deadline=None, max_examples=40)
@given(st.text(alphabet='ab "\\\n{}猫é', min_size=1, max_size=20), st.data())
def test_every_part_of_any_context_is_a_span(context: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(context) - 1))
    stop = data.draw(st.integers(start + 1, len(context)))
    grammar = span_grammar(load_template(None, "answer"), context, "characters")
    assert allows(grammar, f" {context[start:stop]}")
    assert not allows(grammar, f" {context[start:stop]}z")


def test_a_span_needs_a_context_and_a_name(demo: LocalSource) -> None:
    with pytest.raises(UsageError, match="a span of no context"):
        answer(demo, "Where is Tom?", template="question", span="words")
    with pytest.raises(UsageError, match="no span of 'lines'"):
        answer(demo, "Where is Tom?", context=STORY, span="lines")


@pytest.mark.parametrize("span", ["words", "characters"])
def test_constrained_answers_are_parts_of_their_contexts(span: str) -> None:
    """A model that knows nothing has nothing else to say."""
    pytest.importorskip("llguidance")
    source = LocalSource(causal("llama"))
    contexts = ["Tom went to the park.", "Anna has a kite.", "猫坐在垫子上。"]
    found = answer(source, "Who?", context=contexts, span=span, max_new_tokens=24)
    for context, text in zip(contexts, found.texts, strict=True):
        assert text and text.rstrip("\ufffd") in context, "cut off by the limit, the last character may be half there"


def test_constrained_answers_of_the_shipped_model_are_right(demo: LocalSource) -> None:
    """Among the words of the story alone: what has no article there comes without one."""
    pytest.importorskip("llguidance")
    found = answer(demo, ["Where is Tom?", "Who has the kite?"], context=STORY, span="words")
    assert found.texts == ("the park", "Anna")


def test_the_last_word_of_a_text(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    path.write_text(json.dumps({"text": "One day the cat sat on the mat"}), encoding="utf-8")
    template = load_template("cloze", "answer")
    records = read_records(path, "answer", last_word=template.last_word)
    found = answer(
        tt.local("demo"),
        context=[one["context"] for one in records.inputs],
        template=template,
        references=records.references,
    )
    assert found.prompts == ("One day the cat sat on the",)
    assert found.texts == (re.match(r"\W*(\w+)", found.said[0])[1],)
    assert found.figures[0].n == 1


@pytest.mark.slow
@pytest.mark.material
def test_lambada_on_a_real_model(material: Path) -> None:
    """Where the greedy word is right, the right word's tokens are each the likeliest, as lm-evaluation-harness counts it."""
    import torch

    source = tt.local(str(material / "models" / "TinyStories-656K"))
    records = read_records(material / "text" / "lambada_1000.jsonl", "answer", last_word=True)
    contexts = [one["context"] for one in records.inputs[:200]]
    right = [one[0] for one in records.references[:200]]
    found = answer(source, context=contexts, template="cloze-space", references=right)
    hits = [one == other for one, other in zip(found.texts, right, strict=True)]
    assert found.figures[0].value == sum(hits) / 200
    greedy = []
    for context, word in zip(contexts, right, strict=True):
        before, ids = source.encode(context + " "), source.encode(f"{context} {word}")
        with torch.no_grad():
            best = source.causal.model(torch.tensor([ids])).logits[0].argmax(-1).tolist()
        greedy.append(ids[: len(before)] == before and best[len(before) - 1 : -1] == ids[len(before) :])
    assert all(also for hit, also in zip(hits, greedy, strict=True) if hit)
