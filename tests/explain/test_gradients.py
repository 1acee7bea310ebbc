"""Gradients equal those that autograd gives by hand, steer around BLOOM's trap, and add up where they must."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from lively import IDS, TWENTY_ONE, assert_untouched, footprint, lively, replay_of

import every_family
from tokentape.errors import ExplainError, UsageError
from tokentape.explain.gradients import backward, path
from tokentape.explain.gradients.attribution import input_x_gradient, integrated_gradients, saliency
from tokentape.explain.gradients.baselines import baseline_entries, entry_vectors
from tokentape.explain.gradients.choices import Unbroken
from tokentape.explain.question import Question
from tokentape.explain.replacing.standins import neutral_id
from tokentape.explain.replay import Replay

TARGETS = (3, 7, 10)


def by_hand(replay: Replay, question: Question, *, norm: bool = False) -> np.ndarray:
    """One forward and one backward pass for each target, by transformers' own inputs_embeds."""
    rows = []
    for i, target in enumerate(question.targets):
        embedded = replay.model.get_input_embeddings()(torch.tensor([replay.ids[:target]])).detach().requires_grad_()
        logits = replay.model(inputs_embeds=embedded).logits[0, -1]
        chosen = logits[replay.ids[target]]
        other = {"logit": logits.mean(), "logprob": logits.logsumexp(0)}.get(question.kind)
        (gradient,) = torch.autograd.grad(chosen - (logits[question.foils[i]] if other is None else other), embedded)
        row = np.full(question.targets[-1], np.nan)
        row[:target] = gradient.norm(dim=-1)[0] if norm else (gradient * embedded.detach()).sum(-1)[0]
        rows.append(row)
    return np.stack(rows)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "mixtral", "phi", "olmo2", "gpt_neox"])
@pytest.mark.parametrize("kind", ["logit", "foil", "logprob"])
def test_input_times_gradient_is_that_of_autograd(family: str, kind: Any) -> None:
    replay = replay_of(family, torch.float64)
    question = Question(TARGETS, kind, foils=(1, 2, 3) if kind == "foil" else ())
    found = input_x_gradient(replay, question)
    # norms of some families run in single precision whatever the model's
    np.testing.assert_allclose(found.relevance, by_hand(replay, question), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
@pytest.mark.parametrize("kind", ["logit", "foil", "logprob"])
def test_saliency_is_the_norm_of_that_of_autograd(family: str, kind: Any) -> None:
    replay = replay_of(family, torch.float64)
    question = Question(TARGETS, kind, foils=(1, 2, 3) if kind == "foil" else ())
    found = saliency(replay, question)
    np.testing.assert_allclose(found.relevance, by_hand(replay, question, norm=True), atol=2e-5, rtol=1e-5)
    words = saliency(replay, Question(TARGETS, kind, question.foils, segments=((0, 2), (2, 10))))
    np.testing.assert_allclose(words.relevance[0], [found.relevance[0, :2].sum(), found.relevance[0, 2:3].sum()])


@pytest.mark.parametrize("at_once", [1, 1000])
def test_saliency_of_an_answer_is_the_norm_of_its_gradient(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = replay_of("gpt2", torch.float64)
    monkeypatch.setattr(backward, "HEAD_BYTES", at_once * 4 * replay.causal.vocab_size)
    found = saliency(replay, Question(TARGETS, together=True))
    embedded = replay.entry(replay.ids_tensor(10)).requires_grad_()
    with torch.enable_grad():
        logits = replay.logits(TARGETS, entry=embedded)
        value = Question(TARGETS).values(logits, torch.tensor([replay.ids[target] for target in TARGETS])).sum()
    (gradient,) = torch.autograd.grad(value, embedded)
    np.testing.assert_allclose(found.relevance[0], gradient[0].norm(dim=-1).numpy(), rtol=1e-9)


def test_many_targets_are_those_of_each_alone() -> None:
    ids = tuple(int(i) for i in np.random.default_rng(0).integers(0, 250, 60))
    replay = replay_of("bloom", torch.float64, ids)
    targets = tuple(range(5, 60))
    found = input_x_gradient(replay, Question(targets))
    together = input_x_gradient(replay, Question(targets, together=True))
    for row, target in list(enumerate(targets))[::9]:
        alone = input_x_gradient(replay, Question((target,)))
        np.testing.assert_allclose(found.relevance[row, :target], alone.relevance[0], atol=1e-9)
        assert np.isnan(found.relevance[row, target:]).all()
        np.testing.assert_allclose(found.value[row], alone.value[0], atol=1e-9)
    np.testing.assert_allclose(together.relevance[0], np.nansum(found.relevance, 0), atol=1e-9)
    np.testing.assert_allclose(together.value, [found.value.sum()], atol=1e-9)


def at_the_entry(replay: Replay, question: Question) -> np.ndarray:
    """By autograd at what the entry gives, each target by itself; an oracle for models that take no inputs_embeds."""
    rows = np.full((len(question.targets), question.targets[-1]), np.nan)
    for row, target in enumerate(question.targets):
        leaf = entry_vectors(replay, replay.ids_tensor(target)).requires_grad_()
        alone = Question((target,))
        value = alone.values(replay.logits((target,), entry=leaf * 1), replay.target_ids(alone)).sum()
        (gradient,) = torch.autograd.grad(value, leaf)
        rows[row, :target] = (gradient * leaf).sum(-1)[0].detach().numpy()
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(set(every_family.FAMILIES) - {"reformer", "hrm_text"}))
def test_input_times_gradient_in_every_family(family: str) -> None:
    replay, question = Replay(every_family.tiny(family), IDS, 4), Question(TARGETS)
    found, expected = input_x_gradient(replay, question).relevance, at_the_entry(replay, question)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6 + 2e-4 * np.nanmax(np.abs(expected)))


@pytest.mark.parametrize("family", ["bloom", "mixtral", "mamba"])
def test_batches_of_backward_passes_are_those_one_by_one(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replay, question = replay_of(family, torch.float64), Question(TARGETS)
    together = input_x_gradient(replay, question).relevance
    monkeypatch.setattr(backward, "BATCH_TOKENS", 1)
    monkeypatch.setattr(backward, "BLOCK", 1)
    np.testing.assert_allclose(together, input_x_gradient(replay, question).relevance, rtol=1e-5, atol=1e-6)


def test_rounds_that_a_model_leaves_out_of_its_graph_count() -> None:
    """This family computes most of its rounds without gradients, so that autograd by hand is not the slope of its values."""
    replay, question = Replay(every_family.tiny("hrm_text"), IDS, 4), Question((10,))
    entry = entry_vectors(replay, replay.ids_tensor(10))
    with torch.no_grad():
        values = [
            question.values(replay.logits((10,), entry=entry * scale), replay.target_ids(question)).item()
            for scale in (0.995, 1.005)
        ]
    slope = (values[1] - values[0]) / 0.01
    assert input_x_gradient(replay, question).relevance.sum() == pytest.approx(slope, rel=0.02)
    assert at_the_entry(replay, question).sum() != pytest.approx(slope, rel=0.05)


@pytest.mark.parametrize("method", [input_x_gradient, integrated_gradients, saliency])
def test_a_model_that_refuses_gradients_says_so(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = replay_of("llama")
    perceptron = type(replay.model.model.layers[1].mlp)
    before, run = footprint(replay.model), perceptron.forward

    def refuse(module: Any, states: Any) -> Any:
        assert not torch.is_grad_enabled(), "only in training"
        return run(module, states)

    with monkeypatch.context() as patch:
        patch.setattr(perceptron, "forward", refuse)
        with pytest.raises(ExplainError, match="gives no gradients"):
            method(replay, Question(TARGETS))
    assert_untouched(before, replay.model)


@pytest.mark.parametrize("family", TWENTY_ONE)
def test_integrated_gradients_add_up_to_the_change(family: str) -> None:
    replay = replay_of(family)
    question = Question(TARGETS)
    found = integrated_gradients(replay, question)
    assert found.notes["converged"], found.notes
    change = found.value - found.notes["baseline_value"]
    np.testing.assert_allclose(np.nansum(found.relevance, 1), change, rtol=0.01, atol=1e-3)
    assert max(found.notes["completeness"]) <= 0.01
    neutral = torch.full((1, len(IDS)), neutral_id(replay.causal))
    # a row's own baseline ends where the row does, and a causal model cannot tell
    expected = [found.value, found.notes["baseline_value"]]
    for value, ids in zip(expected, (replay.ids_tensor(), neutral), strict=True):
        with torch.no_grad():
            plain = question.values(replay.logits(TARGETS, ids=ids), replay.target_ids(question))[0]
        if ids is not neutral or not found.notes["choices_kept"]:
            np.testing.assert_allclose(value, plain.double().numpy(), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(set(every_family.FAMILIES) - set(TWENTY_ONE) - {"reformer"}))
def test_integrated_gradients_add_up_in_every_family(family: str) -> None:
    found = integrated_gradients(Replay(every_family.tiny(family), IDS, 4), Question((10,)))
    assert found.notes["converged"], found.notes


@pytest.mark.parametrize("family", ["mixtral", "phimoe"])
def test_choices_of_experts_are_kept_along_the_way(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value jumps where experts change, and no gradient tells: without keeping them, no number of points would do."""
    replay = replay_of(family)
    found = integrated_gradients(replay, Question(TARGETS), baseline="mean")
    assert found.notes["converged"] and found.notes["choices_kept"]
    monkeypatch.setattr(path, "Kept", lambda choices: Unbroken())
    loose = integrated_gradients(replay, Question(TARGETS), baseline="mean", max_steps=200)
    assert not loose.notes["converged"]
    np.testing.assert_allclose(loose.value, found.value, atol=1e-4)


@pytest.mark.parametrize("baseline", ["token", "mean", "random", 7])
def test_every_baseline_adds_up(baseline: Any) -> None:
    found = integrated_gradients(replay_of("bloom"), Question((10,)), baseline=baseline)
    assert found.notes["converged"]
    expected = found.value[0] - found.notes["baseline_value"][0]
    assert np.nansum(found.relevance) == pytest.approx(expected, rel=0.01)


def test_the_way_is_exact_where_the_model_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = replay_of("llama", torch.float64)
    direction = torch.linspace(-1, 1, 32, dtype=torch.float64)

    def line(positions: Any, *, ids: Any = None, entry: Any = None) -> torch.Tensor:
        vectors = replay.entry(replay.ids_tensor(max(positions))) if entry is None else entry
        scores = torch.cumsum(vectors @ direction, 1)[:, [p - 1 for p in positions]]
        replay.passes.forward += len(scores)
        return torch.stack([scores * (v + 1) for v in range(250)], -1)

    monkeypatch.setattr(replay, "logits", line)
    question = Question((10,))
    found = integrated_gradients(replay, question, steps=1)
    with torch.no_grad():
        vectors = replay.entry(replay.ids_tensor(10))
        base = replay.entry(torch.full((1, 10), neutral_id(replay.causal)))
        weight = (IDS[10] + 1) - np.mean([v + 1 for v in range(250)])
        expected = ((vectors - base) @ direction)[0].numpy() * weight
    np.testing.assert_allclose(found.relevance[0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", [input_x_gradient, integrated_gradients])
def test_swapping_target_and_foil_flips_the_sign(method: Any) -> None:
    causal = lively("llama")
    one, other = IDS[10], 8
    asked = method(Replay(causal, (*IDS[:10], one), 4), Question((10,), "foil", (other,)))
    swapped = method(Replay(causal, (*IDS[:10], other), 4), Question((10,), "foil", (one,)))
    np.testing.assert_allclose(asked.relevance, -swapped.relevance, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", [input_x_gradient, integrated_gradients, saliency])
@pytest.mark.parametrize("family", ["bloom", "mixtral"])
def test_the_model_is_left_as_it_was(method: Any, family: str) -> None:
    replay = replay_of(family)
    before = footprint(replay.model)
    method(replay, Question(TARGETS))
    assert_untouched(before, replay.model)
    with pytest.raises(UsageError):
        method(replay, Question((400,)))
    assert_untouched(before, replay.model)


def test_options_are_checked() -> None:
    replay = replay_of("llama")
    with pytest.raises(UsageError, match="no baseline 'grey'"):
        integrated_gradients(replay, Question((10,)), baseline="grey")
    with pytest.raises(UsageError, match="each is at least 1"):
        integrated_gradients(replay, Question((10,)), steps=0)


def test_too_few_points_are_told() -> None:
    found = integrated_gradients(replay_of("gemma2"), Question((10,)), baseline="zero", steps=2)
    assert not found.notes["converged"] and found.notes["completeness"][0] > 0.01


def test_the_most_average_token_is_neutral_where_no_other_is() -> None:
    causal = lively("llama")
    assert neutral_id(causal) == causal.tokenizer.unk_token_id
    tokenizer = copy.deepcopy(causal.tokenizer)
    tokenizer.unk_token, tokenizer.pad_token = tokenizer.eos_token, None  # as GPT-2 has it
    bare = replace(lively("llama"), tokenizer=tokenizer)
    weight = bare.model.get_input_embeddings().weight
    far = (weight - weight.mean(0)).norm(dim=1)[:256]  # the bytes; specials follow
    assert neutral_id(bare) == int(far.argmin())


@pytest.mark.parametrize("family", ["llama", "bloom", "roberta"])
def test_the_mean_baseline_is_that_of_the_vocabulary(family: str) -> None:
    replay = replay_of(family)
    found = baseline_entries(replay, "mean", 5, draws=1, seed=0)
    every = entry_vectors(replay, torch.arange(replay.causal.vocab_size)[:, None].expand(-1, 5)).mean(0, keepdim=True)
    # where the entry knows positions, some of the vocabulary stands for all of it
    torch.testing.assert_close(found, every, rtol=0.02, atol=0.02 if family == "roberta" else 1e-5)


@pytest.mark.parametrize("method", [input_x_gradient, integrated_gradients, saliency])
def test_progress_is_told(method: Any) -> None:
    seen: list[tuple[int, int]] = []
    method(replay_of("gemma2"), Question(tuple(range(1, 11))), progress=lambda done, of: seen.append((done, of)))
    assert seen[-1][0] == seen[-1][1] and seen == sorted(seen)
