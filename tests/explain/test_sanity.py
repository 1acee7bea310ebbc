"""Shuffled parameters and exchanged foils, with methods of which it is known whether they pass."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import every_family
import families
from tokentape.errors import UsageError
from tokentape.explain.judging.estimates import rank_correlation
from tokentape.explain.judging.sanity import foil_swap, parameter_randomisation, randomised, stages_of
from tokentape.explain.question import Attribution, Question
from tokentape.explain.replay import Replay


def items(family: str, n: int = 6, length: int = 24) -> list[tuple[Replay, Question]]:
    causal = families.causal(family)
    rng = np.random.default_rng(0)
    made = []
    for _ in range(n):
        ids = tuple(int(token) for token in rng.integers(0, 256, length))
        made.append((Replay(causal, ids, length - 1), Question((length - 1,), "foil", (int(rng.integers(0, 256)),))))
    return made


def gradient(replay: Replay, question: Question) -> Attribution:
    """Input x gradient, written for these tests."""
    entry = replay.entry(replay.ids_tensor(question.targets[-1])).requires_grad_(True)
    values = question.values(replay.logits(question.targets, entry=entry), replay.target_ids(question))[0]
    rows = [torch.autograd.grad(value, entry, retain_graph=True)[0] for value in values]
    per_token = torch.stack([(row * entry.detach()).sum(-1)[0] for row in rows])
    return Attribution(question.by_segment(per_token.numpy()), values.detach().numpy())


def where_it_stands(replay: Replay, question: Question) -> Attribution:
    """The later, the more relevant, whatever the model: what the first check is there to catch."""
    ramp = np.tile(np.arange(question.n_segments, dtype=float), (question.n_rows, 1))
    return Attribution(np.where(question.visible(), ramp, np.nan), np.zeros(question.n_rows))


def sink(replay: Replay, question: Question) -> Attribution:
    """Noise of the model's own, and position 0 above everything."""
    found = gradient(replay, question)
    found.relevance[:, 0] = 1e6
    return found


def size_of_gradient(replay: Replay, question: Question) -> Attribution:
    found = gradient(replay, question)
    return Attribution(np.abs(found.relevance), found.value)


# shuffled parameters


@pytest.mark.parametrize("family", ["bloom", "gpt2", "llama", "rwkv"])
def test_the_model_itself_is_not_touched(family: str) -> None:
    ((replay, question),) = items(family, 1)
    causal = replay.causal
    before = {name: value.clone() for name, value in causal.model.state_dict().items()}
    there = {name: value.data_ptr() for name, value in causal.model.state_dict().items()}
    logits = replay.logits(question.targets)
    parameter_randomisation([(replay, question)], [where_it_stands], seeds=(0,), cascading=True)
    other = randomised(causal, 0)
    assert {name: value.data_ptr() for name, value in causal.model.state_dict().items()} == there
    for name, value in causal.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(replay.logits(question.targets), logits)
    assert replay.causal is causal and other.model is not causal.model
    for name, value in other.model.named_parameters():
        varies = bool((value != value.flatten()[0]).any())
        assert torch.equal(value, before[name]) != varies, name
        assert torch.equal(value.flatten().sort().values, before[name].flatten().sort().values), name


def test_a_seed_gives_one_model() -> None:
    causal = families.causal("bloom")
    one, two, other = (randomised(causal, seed).model.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_shared_weights_stay_shared() -> None:
    other = randomised(families.causal("bloom"), 0).model
    assert other.get_output_embeddings().weight is other.get_input_embeddings().weight


@pytest.mark.parametrize("family", ["bloom", "llama", "gemma2", "mixtral", "phi3"])
def test_stages_hold_every_parameter_once(family: str) -> None:
    causal = every_family.tiny(family)
    stages = stages_of(causal)
    held = [id(parameter) for _, parameters in stages for parameter in parameters]
    assert sorted(held) == sorted(id(parameter) for parameter in causal.model.parameters())
    names = [name for name, _ in stages]
    n = causal.config.num_hidden_layers
    assert names[0] == "head"
    assert [name for name in names if name.startswith("block")] == [f"block {i}" for i in reversed(range(n))]


def test_a_cascade_begins_at_the_head() -> None:
    causal = families.causal("llama")
    names = [name for name, _ in stages_of(causal)]
    assert names == ["head", "final norm", "block 1", "block 0", "embedding"]
    before = causal.model.state_dict()
    for depth, untouched in ((1, "model."), (3, "model.layers.0."), (4, "model.embed_tokens")):
        after = randomised(causal, 0, depth).model.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before if name.startswith(untouched))
        assert not torch.equal(after["lm_head.weight"], before["lm_head.weight"])
    assert not torch.equal(
        randomised(causal, 0, 3).model.state_dict()["model.layers.1.mlp.up_proj.weight"],
        before["model.layers.1.mlp.up_proj.weight"],
    )


def test_maps_of_the_model_change_and_others_do_not() -> None:
    pairs = items("bloom")
    seen: list[tuple[int, int]] = []
    found = parameter_randomisation(
        pairs, [gradient, where_it_stands, sink], progress=lambda *told: seen.append(told), seeds=(0, 1)
    )
    ours, ramp, sunk = found
    assert [row.method for row in found] == ["gradient", "where_it_stands", "sink"]
    assert {row.stage for row in found} == {"all"}
    assert seen == [(1, 2), (2, 2)]
    assert ours.changed and ours.rho.n == len(pairs)
    assert not ramp.changed
    assert ramp.rho.mean == pytest.approx(1) and ramp.rho_rest.mean == pytest.approx(1)
    assert sunk.rho.mean is not None and sunk.rho_rest.mean is not None
    assert sunk.rho.mean > sunk.rho_rest.mean + 0.05, "a sink makes maps alike, and is told apart"
    assert sunk.rho_rest == ours.rho_rest
    assert ours.chance == pytest.approx(math.sqrt(2 / math.pi / 22))
    assert ours.size.mean is not None and ours.size.mean >= abs(ours.rho.mean or 0)


def test_size_by_chance_is_that_of_unrelated_maps() -> None:
    """The mean |rho| of two random orders of 23 sources, from 4,000 of them."""
    rng = np.random.default_rng(0)
    sizes = [abs(rank_correlation(rng.random(23), rng.random(23))) for _ in range(4000)]
    (row,) = parameter_randomisation(items("bloom", 1), [where_it_stands], seeds=(0,))
    assert row.chance == pytest.approx(np.mean(sizes), rel=0.05)


def test_cascade_tells_each_stage() -> None:
    found = parameter_randomisation(items("llama", 2), [gradient], seeds=(0,), cascading=True)
    assert [row.stage for row in found] == ["head", "final norm", "block 1", "block 0", "embedding"]


def test_constant_maps_have_no_correlation_and_do_not_pass() -> None:
    def flat(replay: Replay, question: Question) -> Attribution:
        return Attribution(np.where(question.visible(), 0.0, np.nan), np.zeros(question.n_rows))

    (row,) = parameter_randomisation(items("bloom", 2), [flat], seeds=(0,))
    assert row.rho == (None, None, None, 0)
    assert not row.changed


def test_items_of_two_models_are_refused() -> None:
    with pytest.raises(UsageError, match="items of 2 models"):
        parameter_randomisation(items("bloom", 1) + items("llama", 1), [where_it_stands])
    with pytest.raises(UsageError, match="items of 0 models"):
        parameter_randomisation([], [where_it_stands])


# foils


def test_exchanging_target_and_foil_turns_the_sign() -> None:
    two = (families.causal("bloom"), tuple(range(40, 64)))
    pairs = [*items("bloom", 3), (Replay(*two, 20), Question((20, 23), "foil", (7, 9), ((0, 5), (5, 20), (22, 23))))]
    contrastive, unsigned, blind = foil_swap(pairs, [gradient, size_of_gradient, where_it_stands])
    assert contrastive.n == 5
    assert contrastive.flipped and contrastive.largest <= 1e-6
    assert not unsigned.flipped and unsigned.largest == pytest.approx(2)
    assert not blind.flipped and not blind.exact


def test_a_sign_that_turns_to_the_bit_says_so() -> None:
    def difference(replay: Replay, question: Question) -> Attribution:
        ids = replay.target_ids(question).numpy()[:, None] - np.array(question.foils)[:, None]
        return Attribution(np.where(question.visible(), ids / 7.0, np.nan), ids[:, 0])

    (found,) = foil_swap(items("bloom", 2), [difference])
    assert (found.exact, found.largest, found.flipped) == (True, 0.0, True)


def test_the_context_of_a_swap_stays() -> None:
    read = []

    def reads(replay: Replay, question: Question) -> Attribution:
        read.append((replay.ids[:-1], replay.ids[-1], question.foils[0]))
        return where_it_stands(replay, question)

    causal = families.causal("bloom")
    foil_swap([(Replay(causal, (10, 11, 12, 13), 1), Question((1, 3), "foil", (50, 51)))], [reads])
    assert read == [
        ((10,), 11, 50),
        ((10,), 50, 11),
        ((10, 11, 12), 13, 51),
        ((10, 11, 12), 51, 13),
    ]


def test_a_question_without_foil_is_refused() -> None:
    causal = families.causal("bloom")
    with pytest.raises(UsageError, match="no foil"):
        foil_swap([(Replay(causal, (10, 11, 12), 1), Question((2,)))], [where_it_stands])
