"""Tokens joined to words, sentences and parts: whole tokens, in order, nothing lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import families
from tokentape.data.explanation import SOURCE_KINDS
from tokentape.errors import UsageError
from tokentape.explain.units import sources_of, token_labels
from tokentape.models.causal import load

STORY = "Story: Tom went to the park. Anna has a kite.\nQuestion: Where is Tom?\nAnswer:"


def labels(text: str, unit: Any, said: str = "") -> list[str]:
    causal = load("demo")
    prompt = causal.encode(text)
    ids = prompt + (causal.encode(said) if said else [])
    return [source.label for source in sources_of(causal, ids, len(prompt), unit)]


def test_words_carry_the_space_before_them() -> None:
    found = labels("Tom went to the park.", "word")
    assert found == ["Tom", " went", " to", " the", " park", "."]


def test_a_word_of_several_tokens_is_one_source() -> None:
    causal = load("demo")
    ids = causal.encode(" excellently unbelievable kite")
    found = sources_of(causal, ids, len(ids), "word")
    assert [source.label for source in found] == [" excellently", " unbelievable", " kite"]
    assert max(source.stop - source.start for source in found) > 1


def test_sentences_end_at_marks_and_line_ends() -> None:
    assert labels(STORY, "sentence") == [
        "Story: Tom went to the park.",
        " Anna has a kite.\n",
        "Question: Where is Tom?\n",
        "Answer:",
    ]


def test_a_number_with_a_point_is_no_end_of_sentence() -> None:
    assert labels("It is 3.5 km. Yes.", "sentence") == ["It is 3.5 km.", " Yes."]


def test_parts_are_the_lines_of_the_prompt_and_the_answer() -> None:
    found = labels(STORY, "part", " the park.\nNext")
    assert [label.split(":")[0] for label in found] == ["Story", "Question", "Answer", " the park.\nNext"]


def test_chinese_characters_are_words_and_drawn_whole() -> None:
    found = labels("Chinese: 猫坐在垫子上。\nEnglish:", "word")
    assert "猫" in "".join(found) and all("\\x" not in label for label in found)


def test_a_character_over_several_tokens_is_drawn_once() -> None:
    causal = families.causal("llama")  # every byte is a token
    ids = causal.encode("猫 a")
    assert [source.label for source in sources_of(causal, ids, len(ids))] == ["\\xe7", "\\x8c", "猫", " ", "a"]
    assert [source.label for source in sources_of(causal, ids, len(ids), "word")] == ["猫", " a"]


def test_a_special_token_is_a_source_by_itself() -> None:
    causal = load("demo")
    ids = [*causal.encode("Tom"), 1, *causal.encode(" went")]
    found = [source.label for source in sources_of(causal, ids, len(ids), "word")]
    assert found == ["Tom", causal.pieces.piece(1).token, " went"]
    assert token_labels([b"", b"a"], ["</s>", "a"]) == ["</s>", "a"]


def test_unknown_units_are_refused() -> None:
    with pytest.raises(UsageError, match="token, word, sentence, part"):
        labels("Tom", "clause")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.integers(0, 60), st.sampled_from(SOURCE_KINDS))
def test_units_cover_every_position_once(text: str, n_prompt: int, unit: Any) -> None:
    causal = load_once()
    ids = causal.encode("x" + text)
    found = sources_of(causal, ids, min(n_prompt, len(ids)), unit)
    covered = [p for source in found for p in range(source.start, source.stop)]
    assert covered == list(range(len(ids)))


def load_once() -> Any:
    return families.causal("llama")
