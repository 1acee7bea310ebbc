"""Steering moves the sentiment of the demo's reviews, and what that costs: the figures of docs/explanation/guidance.md.

``pytest tests/control/test_steering_measured.py -s`` prints them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import pytest
import torch

from tokentape.control.guidance.direction import Direction, steering_direction
from tokentape.control.guidance.steering import Steering
from tokentape.models.anatomy import inputs_of
from tokentape.models.causal import CausalModel, load
from tokentape.models.padding import left_padded, pad_id_of
from tokentape.world.review import NEGATIVE, POSITIVE, TOPICS

STRENGTHS = (-2.0, -1.0, 0.0, 1.0, 2.0)
N_PAIRS = 24
N_EACH = 16
"""Sequences of each noun that no pair has."""

NOUNS = [noun for nouns in TOPICS.values() for noun in nouns]


@dataclass(frozen=True)
class Measured:
    """``sentiment``: positive less negative adjectives a review; ``perplexity`` of what was said, of the unsteered model;
    ``expected``: the share of positive adjectives less that of negative ones in the first word's distribution."""

    strength: float
    sentiment: float
    perplexity: float
    expected: float


@pytest.fixture(scope="module")
def demo() -> CausalModel:
    return load("demo", device="cpu")


def of_pairs(causal: CausalModel, layer: int) -> tuple[Direction, list[str]]:
    """A direction from reviews that differ in their adjective alone, and prompts about other things, without one."""
    rng = Random(0)
    used = rng.sample(NOUNS, N_PAIRS)
    pairs = [(noun, rng.choice(POSITIVE), rng.choice(NEGATIVE)) for noun in used]
    positive = [f"Review: The {noun} was {word}" for noun, word, _ in pairs]
    negative = [f"Review: The {noun} was {word}" for noun, _, word in pairs]
    prompts = [f"Review: The {noun} was" for noun in NOUNS if noun not in used]
    return steering_direction(causal, positive, negative, layer), prompts


def measured(causal: CausalModel, direction: Direction, strength: float, prompts: list[str]) -> Measured:
    rows = [causal.encode(prompt) for prompt in prompts for _ in range(N_EACH)]
    ids, mask = left_padded(rows, pad_id_of(causal))
    rule = Steering(direction, strength).bound(causal)
    torch.manual_seed(1)
    with rule.attached(causal.model):
        found = causal.model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            max_new_tokens=8,
            logits_processor=[rule],
            return_dict_in_generate=True,
            output_logits=True,
        )
    score = surprise = n_said = 0.0
    for row, sequence in zip(rows, found.sequences.tolist(), strict=True):
        said = sequence[ids.shape[1] :]
        said = said[: said.index(2) + 1] if 2 in said else said
        words = causal.tokenizer.decode(said).replace(".", " ").split()
        score += sum(word in POSITIVE for word in words) - sum(word in NEGATIVE for word in words)
        surprise += surprise_of(causal, row, said)
        n_said += len(said)
    shares = [mass(causal, found.logits[0], words) for words in (POSITIVE, NEGATIVE)]
    expected = (shares[0] - shares[1]) / (shares[0] + shares[1])
    return Measured(strength, score / len(rows), math.exp(surprise / n_said), float(expected.mean()))


def surprise_of(causal: CausalModel, prompt: list[int], said: list[int]) -> float:
    """-ln p of what was said, under the model as it is, by one pass without a cache."""
    with torch.no_grad():
        inputs = inputs_of(causal.model, torch.tensor([[*prompt, *said]]))
        logits = causal.model(**inputs, use_cache=False).logits[0, len(prompt) - 1 : -1]
    return -float(logits.log_softmax(-1)[range(len(said)), said].sum())


def mass(causal: CausalModel, logits: torch.Tensor, words: list[str]) -> torch.Tensor:
    """``[B]``: the probability of words, each of which is one token."""
    spelled = [causal.encode(f" {word}") for word in words]
    assert all(len(ids) == 1 for ids in spelled)
    return logits.softmax(-1)[:, [ids[0] for ids in spelled]].sum(-1)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [2, 3])
def test_sentiment_rises_with_strength_at_a_cost_in_perplexity(demo: CausalModel, layer: int) -> None:
    direction, prompts = of_pairs(demo, layer)
    found = [measured(demo, direction, strength, prompts) for strength in STRENGTHS]
    print(f"\nlayer {layer}, length {direction.vectors[layer].norm():.1f}, {len(prompts) * N_EACH} reviews each")
    for one in found:
        print(f"{one.strength:+.0f}  {one.sentiment:+.3f}  {one.expected:+.3f}  {one.perplexity:.2f}")
    for name in ("sentiment", "expected"):
        values = [getattr(one, name) for one in found]
        assert all(lower < higher for lower, higher in pairwise(values)), (name, values)
    lowest, _, plain, _, highest = (one.perplexity for one in found)
    assert lowest > 1.05 * plain and highest > 1.05 * plain, "what is steered far is said against the model's own odds"
    assert max(lowest, highest) < 2 * plain, "and it is still a review"


def test_the_odds_of_the_first_word_rise_with_strength(demo: CausalModel) -> None:
    """The same without sampling, for every prompt by itself."""
    direction, prompts = of_pairs(demo, 2)
    rows = []
    for strength in STRENGTHS:
        rule = Steering(direction, strength).bound(demo)
        ids, mask = left_padded([demo.encode(prompt) for prompt in prompts], pad_id_of(demo))
        with rule.attached(demo.model), torch.no_grad():
            logits = demo.model(ids, attention_mask=mask).logits[:, -1]
        rows.append(mass(demo, logits, POSITIVE).log() - mass(demo, logits, NEGATIVE).log())
    odds = torch.stack(rows)
    assert (odds.diff(dim=0) > 0.1).all(), odds
