"""Documents: exact probabilities, splits, evidence, determinism."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokentape.world import (
    KINDS,
    Document,
    Kind,
    Split,
    held_out_combinations,
    lexicon,
    log_probability,
    next_words,
    parse,
    question_program,
    review,
    sample,
)
from tokentape.world.grammar import WORD, derivations

HELD_OUT_TRANSLATION = "Chinese: 农民看见了黄色的钟。\nEnglish: The farmer saw the yellow clock."
HELD_OUT_QUESTION = (
    "Story: Lucas bought a lamp. Simon went to the village. Sam is at the forest. Lucy is in the school."
    "\nQuestion: Who is in the school?\nAnswer: Lucy"
)

seeds = st.integers(0, 2**32)
kinds = st.sampled_from(KINDS)


@settings(deadline=None, max_examples=60)
@given(kinds, seeds, st.sampled_from(["train", "held_out"]))
def test_a_sampled_document_parses_back_to_itself(kind: Kind, seed: int, split: Split) -> None:
    document = sample(kind, Random(seed), split)
    assert document.text == document.prompt + document.answer
    assert log_probability(kind, document.text) == pytest.approx(document.logprob, abs=1e-9)
    again = parse(kind, document.text)
    assert (again.prompt, again.answer, again.evidence) == (document.prompt, document.answer, document.evidence)


@settings(deadline=None, max_examples=100)
@given(kinds, seeds)
def test_training_never_shows_a_held_out_combination(kind: Kind, seed: int) -> None:
    rng = Random(seed)
    assert held_out_combinations(kind, sample(kind, rng, "train").text) == ()
    assert held_out_combinations(kind, sample(kind, rng, "held_out").text) != ()


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_training_questions_of_every_shape_keep_the_split(seed: int) -> None:
    program = question_program(3, 3, 2)
    text = sample("question", Random(seed), program=program).text
    (derivation, *_) = derivations(program, text)
    for combination in derivation.content.combinations:
        name, value = combination.split(" ", 1)
        story = f"Story: {name} {'has a' if value in lexicon.THINGS else 'is in the'} {value}."
        question = f"{story}\nQuestion: {'Who has' if value in lexicon.THINGS else 'Who is in'} the {value}?"
        assert held_out_combinations("question", f"{question}\nAnswer: {name}") == ()


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_documents(kind: Kind) -> None:
    first, second = ([sample(kind, rng) for _ in range(5)] for rng in (Random(7), Random(7)))
    assert first == second


def test_the_split_never_changes() -> None:
    assert sample("translation", Random(1), "held_out").text == HELD_OUT_TRANSLATION
    assert sample("question", Random(1), "held_out").text == HELD_OUT_QUESTION


@settings(deadline=None, max_examples=6)
@given(kinds, seeds)
def test_the_chain_of_next_words_is_the_probability_of_the_text(kind: Kind, seed: int) -> None:
    document = sample(kind, Random(seed))
    position, total = 0, 0.0
    while position < len(document.text):
        following = next_words(document.text[:position], kind)
        assert math.fsum(following.values()) == pytest.approx(1.0)
        match = WORD.match(document.text, position)
        assert match is not None
        total += math.log(following[match.group()])
        position = match.end()
    assert total + math.log(next_words(document.text, kind)[""]) == pytest.approx(document.logprob, abs=1e-9)


def test_next_words_agree_with_sampling() -> None:
    rng, n = Random(5), 4000
    firsts = Counter(sample("story", rng).text.split(" ", 1)[0] for _ in range(n))
    expected = next_words("")
    for word, count in firsts.items():
        p = expected[word]
        # Rejection by the split moves these probabilities by far less than the spread allowed here.
        assert abs(count - n * p) < 5 * math.sqrt(n * p)


def test_the_mode_after_the_cat_sat_on_the() -> None:
    text = "The cat sat on the"
    for expected in (" mat", " and", " looked", " at", " the", " dog", "."):
        following = next_words(text)
        assert max(following, key=following.__getitem__) == expected
        text += expected


def _evidence(document: Document) -> list[str]:
    return [document.prompt[start:end] for start, end in document.evidence]


def _answer_of(prompt: str, kind: Kind) -> str:
    """The only answer the grammar has for a prompt, word by word."""
    text = prompt
    while word := max((following := next_words(text, kind)), key=following.__getitem__):
        assert following[word] == pytest.approx(1.0)
        text += word
    return text[len(prompt) :]


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([kind for kind in KINDS if kind != "story"]), seeds)
def test_the_answer_follows_from_the_prompt(kind: Kind, seed: int) -> None:
    document = sample(kind, Random(seed))
    assert _answer_of(document.prompt, kind) == document.answer


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([kind for kind in KINDS if kind != "story"]), seeds)
def test_another_word_in_place_of_the_evidence_changes_the_answer(kind: Kind, seed: int) -> None:
    document = sample(kind, Random(seed))
    for (start, end), word in zip(document.evidence, _evidence(document), strict=True):
        other = _another(kind, word, document)
        changed = document.prompt[:start] + other + document.prompt[end:]
        assert _answer_of(changed, kind) != document.answer


def _another(kind: Kind, word: str, document: Document) -> str:
    """A word that the grammar allows in place of `word` and that means something else."""
    if kind == "review":
        if word in review.POSITIVE:
            return review.NEGATIVE[0]
        if word in review.NEGATIVE:
            return review.POSITIVE[0]
        return next(nouns[0] for nouns in review.TOPICS.values() if word not in nouns)
    tables = [table for name, table in vars(lexicon).items() if name.endswith("_ZH") and isinstance(table, dict)]
    columns = [tuple(table) for table in tables] + [tuple(table.values()) for table in tables] + [lexicon.NAMES]
    column = next(column for column in columns if word in column)
    return next(other for other in column if other not in document.prompt)


def test_stories_have_no_answer() -> None:
    story = sample("story", Random(0))
    assert (story.prompt, story.answer, story.evidence) == (story.text, "", ())


def test_unknown_words_are_refused() -> None:
    with pytest.raises(ValueError, match="no kind 'poem'"):
        sample("poem", Random(0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no split 'test'"):
        sample("story", Random(0), "test")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot say"):
        parse("review", "Review: The soup was blue.\nSentiment: positive")
