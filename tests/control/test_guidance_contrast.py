"""Contrastive experts against a loop written by hand that reads everything again at every step."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from families import causal as family
from tokentape.control.guidance.contrast import Contrast, Contrasted
from tokentape.control.rule import Control, Rule
from tokentape.errors import UsageError
from tokentape.models.anatomy import inputs_of
from tokentape.models.causal import CausalModel, load
from tokentape.models.padding import left_padded

PROMPTS = [
    "Review: The soup was",
    "The cat",
    "Story: Tom went to the park. Anna has a kite.\nQuestion: Where is Tom?\nAnswer:",
]
PAD, END = 3, 2


@pytest.fixture(scope="module")
def demo() -> CausalModel:
    return load("demo", device="cpu")


def shaken(causal: CausalModel, seed: int, size: float = 0.1) -> CausalModel:
    """The model with noise on its weights: what it knows is blurred."""
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(causal.config).eval()
    made.load_state_dict(causal.model.state_dict())
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * size * parameter.std().nan_to_num())
    return dataclasses.replace(causal, model=made, name=f"shaken {seed}")


@pytest.fixture(scope="module")
def expert(demo: CausalModel) -> CausalModel:
    return shaken(demo, 1, 0.2)


@pytest.fixture(scope="module")
def amateur(demo: CausalModel) -> CausalModel:
    return shaken(demo, 2, 0.4)


def log_probabilities(causal: CausalModel, ids: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        return (
            causal.model(**inputs_of(causal.model, torch.tensor([ids])), use_cache=False).logits[0, -1].log_softmax(-1)
        )


def by_hand(
    causal: CausalModel, seconds: dict[str, CausalModel], strength: float, alpha: float, ids: Sequence[int]
) -> torch.Tensor:
    """The formulas of the papers: DExperts' product, and the plausible set of contrastive decoding."""
    own = log_probabilities(causal, ids)
    score = own.clone()
    if "expert" in seconds:
        score += strength * log_probabilities(seconds["expert"], ids)
    if "amateur" in seconds:
        score -= strength * log_probabilities(seconds["amateur"], ids)
    plausible = own.exp() >= alpha * own.exp().max()
    return torch.where(plausible, score, -torch.inf)


CASES = {
    "contrastive decoding": (("amateur",), 1.0, 0.1),
    "DExperts": (("expert", "amateur"), 1.5, 0.0),
    "an expert alone": (("expert",), 0.7, 0.0),
    "both, among plausible tokens": (("expert", "amateur"), 3.0, 0.3),
}


@pytest.mark.parametrize("case", CASES)
def test_a_batch_says_what_the_loop_by_hand_says(
    demo: CausalModel, expert: CausalModel, amateur: CausalModel, case: str
) -> None:
    roles, strength, alpha = CASES[case]
    seconds = {role: {"expert": expert, "amateur": amateur}[role] for role in roles}
    ids, mask = left_padded([demo.encode(prompt) for prompt in PROMPTS], PAD)
    found = demo.model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=12,
        do_sample=False,
        pad_token_id=PAD,
        eos_token_id=END,
        return_dict_in_generate=True,
        output_scores=True,
        logits_processor=[Contrast(**seconds, strength=strength, alpha=alpha).bound(demo)],
    )
    plain = demo.model.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=PAD)
    assert not torch.equal(found.sequences, plain[:, : found.sequences.shape[1]]), "the case was to change something"
    for row, prompt in enumerate(PROMPTS):
        said = demo.encode(prompt)
        for step, chosen in enumerate(found.sequences[row, ids.shape[1] :].tolist()):
            expected = by_hand(demo, seconds, strength, alpha, said)
            assert chosen == int(expected.argmax())
            torch.testing.assert_close(found.scores[step][row], expected, rtol=1e-4, atol=1e-3)
            said.append(chosen)
            if chosen == END:
                break


def test_log_probabilities_give_the_distribution_of_logits(
    demo: CausalModel, expert: CausalModel, amateur: CausalModel
) -> None:
    """DExperts adds logits; the distribution is that of this rule."""
    ids = torch.tensor([demo.encode(PROMPTS[0])])
    with torch.no_grad():
        z, plus, minus = (one.model(ids).logits[:, -1] for one in (demo, expert, amateur))
    found = Contrast(expert, amateur, strength=1.5, alpha=0.0).bound(demo)(ids, z)
    torch.testing.assert_close(found.softmax(-1), (z + 1.5 * (plus - minus)).softmax(-1), rtol=1e-4, atol=1e-6)


def test_strength_zero_is_the_identity_and_costs_no_pass(demo: CausalModel, amateur: CausalModel) -> None:
    passes: list[int] = []
    handle = amateur.model.register_forward_hook(lambda *_: passes.append(1))
    scores = torch.randn(1, demo.vocab_size)
    found = Contrast(amateur=amateur, strength=0.0).bound(demo)(torch.tensor([[5, 6]]), scores)
    handle.remove()
    assert found is scores and passes == []


def test_scores_are_not_written_into(demo: CausalModel, amateur: CausalModel) -> None:
    scores = torch.randn(1, demo.vocab_size)
    before = scores.clone()
    Contrast(amateur=amateur).bound(demo)(torch.tensor([[5, 6]]), scores)
    assert torch.equal(scores, before)


def test_what_one_model_has_no_row_for_or_rules_out_is_not_chosen(demo: CausalModel) -> None:
    """A second model whose rows end earlier, or go on for longer: padding of the vocabulary, not tokens."""
    torch.manual_seed(0)
    scores = torch.randn(1, demo.vocab_size)
    scores[0, 7] = -torch.inf
    for rows in (demo.vocab_size - 5, demo.vocab_size + 5):
        config = type(demo.config).from_dict({**demo.config.to_dict(), "vocab_size": rows})
        other = dataclasses.replace(demo, model=AutoModelForCausalLM.from_config(config).eval(), vocab_size=rows)
        found = Contrast(amateur=other, alpha=0.0).bound(demo)(torch.tensor([[5, 6]]), scores)
        shared = min(rows, demo.vocab_size)
        assert found.shape == scores.shape and found[0, 7] == -torch.inf
        assert (found[0, shared:] == -torch.inf).all()
        rest = torch.cat([found[0, :7], found[0, 8:shared]])
        assert rest.isfinite().all()


def test_another_vocabulary_is_refused(demo: CausalModel) -> None:
    with pytest.raises(UsageError, match="does not share the vocabulary") as caught:
        Contrast(amateur=family("bloom")).bound(demo)
    assert "1581 and 260 entries" in caught.value.why
    tokenizer = copy.deepcopy(demo.tokenizer)
    tokenizer.add_tokens(["<new>"])
    with pytest.raises(UsageError, match="does not share the vocabulary") as caught:
        Contrast(expert=dataclasses.replace(demo, tokenizer=tokenizer)).bound(demo)
    assert caught.value.why.startswith("1 of their")
    with pytest.raises(UsageError, match="does not share the vocabulary") as caught:
        Contrast(expert=dataclasses.replace(demo, tokenizer=None)).bound(demo)
    assert "no tokenizer" in caught.value.why


def test_as_many_words_with_other_ids_are_another_vocabulary(
    demo: CausalModel, amateur: CausalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = demo.tokenizer.get_vocab()
    first, second = list(words)[500:502]
    tokenizer = copy.deepcopy(demo.tokenizer)
    monkeypatch.setattr(tokenizer, "get_vocab", lambda: {**words, first: words[second], second: words[first]})
    with pytest.raises(UsageError, match="does not share the vocabulary") as caught:
        Contrast(amateur=dataclasses.replace(amateur, tokenizer=tokenizer)).bound(demo)
    assert caught.value.why.startswith("2 of their")


def test_a_second_model_is_loaded_once(demo: CausalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    import tokentape.control.guidance.contrast as contrast

    asked: list[Any] = []

    def loading(name: str, *, device: str) -> CausalModel:
        asked.append((name, device))
        return demo

    monkeypatch.setattr(contrast, "load", loading)
    control = Contrast(amateur="demo", strength=0.5)
    rules = [control.bound(demo), control.bound(demo)]
    assert asked == [("demo", "cpu")]
    assert rules[0] is not rules[1]


def test_it_is_a_control_whose_rule_tells_what_it_is(demo: CausalModel, amateur: CausalModel) -> None:
    control = Contrast(amateur=amateur, strength=0.5)
    rule = control.bound(demo)
    assert isinstance(control, Control) and isinstance(rule, Rule) and isinstance(rule, Contrasted)
    assert (rule.name, rule.believes, rule.masks) == ("contrast", True, False)
    told = rule.describe()
    assert json.loads(json.dumps(told)) == told
    assert (told["strength"], told["alpha"], told["amateur"]["model"]) == (0.5, 0.1, "shaken 2")
    assert "expert" not in told


@pytest.mark.parametrize(
    "asked",
    [{}, {"strength": 2.0}, {"amateur": "demo", "strength": -1}, {"amateur": "demo", "strength": math.nan},
     {"expert": "demo", "alpha": 1.0}, {"expert": "demo", "alpha": -0.1}, {"expert": "demo", "alpha": "0.1"}],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Contrast(**asked)


@pytest.mark.material
def test_another_checkpoint_of_the_same_family(material: Path) -> None:
    """A model against itself: what both believe alike cancels out, and the plausible tokens are even."""
    causal = load(material / "models" / "TinyStories-656K", device="cpu")
    ids = causal.encode("Once upon a time")
    logits = log_probabilities(causal, ids)[None]
    found = Contrast(amateur=str(material / "models" / "TinyStories-656K")).bound(causal)(torch.tensor([ids]), logits)
    left = found[0].isfinite()
    assert left.sum() == (logits[0].exp() >= 0.1 * logits[0].exp().max()).sum()
    torch.testing.assert_close(found[0][left], torch.zeros(int(left.sum())), rtol=0, atol=1e-4)
