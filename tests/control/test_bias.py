"""Biases on words, as transformers' own processor takes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from tokentape.control.guidance.bias import spelled_bias
from tokentape.errors import UsageError
from tokentape.models.causal import CausalModel, load


@pytest.fixture(scope="module")
def demo() -> CausalModel:
    return load("demo", device="cpu")


def test_a_word_is_spelled_with_and_without_its_space(demo: CausalModel) -> None:
    found = spelled_bias(demo, {"mat": 2.0, " floor": -1})
    spellings = [demo.encode(text) for text in ("mat", " mat", " floor")]
    assert found == [[spellings[0], 2.0], [spellings[1], 2.0], [spellings[2], -1.0]]
    assert json.loads(json.dumps(found)) == found


def test_generate_takes_it(demo: CausalModel) -> None:
    ids = torch.tensor([demo.encode("The cat sat on the")])
    plain = demo.model.generate(ids, max_new_tokens=1, do_sample=False)
    biased = demo.model.generate(
        ids, max_new_tokens=1, do_sample=False, sequence_bias=spelled_bias(demo, {"sofa": 30.0})
    )
    assert demo.tokenizer.decode(plain[0, -1:]) == " mat"
    assert demo.tokenizer.decode(biased[0, -1:]) == " sofa"


@pytest.mark.parametrize(
    "biases", [{"": 1.0}, {"mat": float("nan")}, {"mat": float("inf")}, {"mat": "2"}, {"mat": 1.0, " mat": 2.0}]
)
def test_what_contradicts_itself_is_refused(demo: CausalModel, biases: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        spelled_bias(demo, biases)


def test_the_same_bias_twice_is_one(demo: CausalModel) -> None:
    assert spelled_bias(demo, {"mat": 1.0, " mat": 1.0}) == spelled_bias(demo, {"mat": 1.0})
