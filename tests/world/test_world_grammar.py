"""The three interpreters of a program agree with each other and with exhaustive enumeration."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest

from tokentape.world.grammar import (
    END,
    Content,
    Steps,
    among,
    derivations,
    draw,
    enumerate_texts,
    log_probability,
    next_words,
    silent,
    weighted,
)


def tiny() -> Steps:
    """A small program with a memory, a silent branch and two ways to say the same text."""
    yield "The "
    first = yield weighted({"cat": 0.5, "dog": 0.3, "catfish": 0.2})
    if (yield silent("saw", "met")) == "saw":
        yield " saw the "
        second = yield among(("cat", "dog", "hen"), (first,))
        yield f". The {second} was happy."
    else:
        yield weighted({" sat": 0.25, " saw the hen. The hen": 0.75})
        yield " was happy."
    return Content((first,))


def test_probabilities_of_all_texts_sum_to_one() -> None:
    texts = Counter[str]()
    for derivation in enumerate_texts(tiny):
        texts[derivation.text] += math.exp(derivation.logprob)  # type: ignore[assignment]
    assert math.fsum(texts.values()) == pytest.approx(1.0, abs=1e-12)
    for text, probability in texts.items():
        assert math.exp(log_probability(tiny, text)) == pytest.approx(probability, abs=1e-12)


def test_an_ambiguous_text_has_the_sum_of_its_derivations() -> None:
    text = "The cat saw the hen. The hen was happy."
    assert len(derivations(tiny, text)) == 2
    assert math.exp(log_probability(tiny, text)) == pytest.approx(0.5 * (0.5 * 0.5 + 0.5 * 0.75))


def test_what_cannot_be_said_has_no_probability() -> None:
    assert log_probability(tiny, "The cat saw the cat. The cat was happy.") == -math.inf
    assert log_probability(tiny, "The cat saw") == -math.inf
    assert next_words(tiny, "A cat") == {}


def test_next_words_are_marginals_of_the_enumeration() -> None:
    everything = [(item.text, math.exp(item.logprob)) for item in enumerate_texts(tiny)]
    after = next_words(tiny, "The")
    assert after == pytest.approx({" cat": 0.5, " dog": 0.3, " catfish": 0.2})
    said = "The cat saw the"
    total = math.fsum(p for text, p in everything if text.startswith(said))
    hen = math.fsum(p for text, p in everything if text.startswith(f"{said} hen"))
    assert next_words(tiny, said)[" hen"] == pytest.approx(hen / total)
    assert next_words(tiny, "The cat saw the hen. The hen was happy.") == {END: 1.0}


def test_a_prefix_is_read_as_whole_words() -> None:
    assert set(next_words(tiny, "The cat")) == {" saw", " sat"}
    assert next_words(tiny, "The catf") == {}


def test_sampling_follows_the_probabilities() -> None:
    rng, n = Random(3), 20_000
    counts = Counter(draw(tiny, rng).text for _ in range(n))
    for text, count in counts.items():
        p = math.exp(log_probability(tiny, text))
        assert abs(count - n * p) < 5 * math.sqrt(n * p * (1 - p))
