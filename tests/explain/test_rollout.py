from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import taken_apart
import torch
from lively import IDS, assert_untouched, footprint, replay_of

import every_family
from tokentape.errors import ExplainError, OutOfMemory
from tokentape.explain.attention import rollout as home
from tokentape.explain.attention.rollout import last_row_attention, rollout, value_rollout
from tokentape.explain.attention.transformed import Transformed
from tokentape.explain.methods import method_named
from tokentape.explain.question import Question
from tokentape.explain.replay import Replay

QUESTION = Question((3, 7, 10))
NETWORKS = {"gpt2": taken_apart.gpt2, "llama": taken_apart.llama}


def attentions(replay: Replay) -> list[np.ndarray[Any, Any]]:
    """What transformers itself gives: weights ``[H, T, T]`` of each layer, T up to the last target."""
    model = replay.model
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        found = model(input_ids=torch.tensor([IDS[:10]]), use_cache=False, output_attentions=True).attentions
    model.set_attn_implementation(before)
    return [weights[0].double().numpy() for weights in found]


def rows_before(targets: tuple[int, ...], matrix: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Rows before the targets, null from the target on."""
    found = matrix[[t - 1 for t in targets]].astype(np.float64)
    for row, target in enumerate(targets):
        found[row, target:] = np.nan
    return found


@pytest.mark.parametrize("family", ["llama", "bloom", "gpt2", "gpt_oss", "gemma2"])
def test_rollout_is_the_product_of_the_layers(family: str) -> None:
    replay = replay_of(family)
    product = np.eye(10)
    for weights in attentions(replay):
        layer = weights.mean(0) / 2 + np.eye(10) / 2
        product = layer / layer.sum(-1, keepdims=True) @ product
    found = rollout(replay, QUESTION)
    np.testing.assert_allclose(found.relevance, rows_before(QUESTION.targets, product), atol=1e-6)
    np.testing.assert_allclose(np.nansum(found.relevance, 1), 1, atol=1e-6)
    with torch.no_grad():
        value = QUESTION.values(replay.logits(QUESTION.targets)[0], replay.target_ids(QUESTION))
    np.testing.assert_allclose(found.value, value.numpy(), atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "bloom", "gpt2", "gpt_oss"])
def test_last_row_is_the_mean_over_heads_and_layers(family: str) -> None:
    replay = replay_of(family)
    mean = np.mean([weights.mean(0) for weights in attentions(replay)], 0)
    found = last_row_attention(replay, QUESTION)
    np.testing.assert_allclose(found.relevance, rows_before(QUESTION.targets, mean), atol=1e-6)


@pytest.mark.parametrize("family", NETWORKS)
def test_value_rollout_is_that_of_the_weights(family: str) -> None:
    replay = replay_of(family, torch.float64)
    with torch.no_grad():
        network = NETWORKS[family](replay.model, IDS[:10])
    product = taken_apart.rolled([taken_apart.lengths(layer) for layer in network.layers]).numpy()
    found = value_rollout(replay, QUESTION)
    exact = 1e-12 if family == "gpt2" else 1e-6
    np.testing.assert_allclose(found.relevance, rows_before(QUESTION.targets, product), atol=exact)
    assert found.notes == {"vectors": "behind the output projection"}


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "qwen3"])
def test_sources_sent_one_by_one_give_the_same(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values sent through the output once and weighed later, against every source sent by itself."""
    replay = replay_of(family, torch.float64)
    at_once = value_rollout(replay, QUESTION)
    monkeypatch.setattr(Transformed, "_scales", lambda self: None)
    # what a norm behind the output makes of a bias differs by row, and these have none there
    one_by_one = value_rollout(replay, QUESTION)
    assert one_by_one.notes == at_once.notes
    np.testing.assert_allclose(one_by_one.relevance, at_once.relevance, atol=1e-10)


@pytest.mark.parametrize("elements", [1, 1000])
def test_pieces_of_sources_give_the_same(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = replay_of("bloom")
    whole = value_rollout(replay, QUESTION)
    monkeypatch.setattr("tokentape.explain.attention.transformed.ELEMENTS", elements)
    np.testing.assert_allclose(value_rollout(replay, QUESTION).relevance, whole.relevance, atol=1e-6)


@pytest.mark.parametrize("family", ["longcat_flash", "gemma3n_text"])
def test_where_the_output_cannot_be_followed_values_stand_alone(family: str) -> None:
    found = value_rollout(Replay(every_family.tiny(family), IDS, 4), QUESTION)
    assert found.notes["vectors"] == "values"
    assert found.notes["because"]
    np.testing.assert_allclose(np.nansum(found.relevance, 1), 1, atol=1e-6)


@pytest.mark.parametrize("name", ["attention", "rollout", "value_rollout"])
def test_segments_and_answers_are_sums(name: str) -> None:
    replay, method = replay_of("bloom"), method_named(name)
    single = method(replay, QUESTION)
    grouped = method(replay, Question(QUESTION.targets, segments=((0, 2), (2, 5), (5, 10))))
    sums = [[np.nansum(row[a:b]) if a < t else np.nan for a, b in ((0, 2), (2, 5), (5, 10))] for row, t in
            zip(single.relevance, QUESTION.targets, strict=True)]  # fmt: skip
    np.testing.assert_allclose(grouped.relevance, sums, atol=1e-7)
    together = method(replay, Question(QUESTION.targets, together=True))
    np.testing.assert_allclose(together.relevance[0], np.nansum(single.relevance, 0), atol=1e-6)
    np.testing.assert_allclose(together.value, single.value.sum(), atol=1e-5)


@pytest.mark.parametrize("name", ["attention", "rollout", "value_rollout"])
def test_cost_is_what_the_table_says(name: str) -> None:
    replay, method = replay_of("llama"), method_named(name)
    method(replay, QUESTION)
    estimate = method.passes(QUESTION.n_rows, len(IDS), QUESTION.n_segments)
    assert (replay.passes.forward, replay.passes.backward) == estimate


@pytest.mark.parametrize("method", [last_row_attention, rollout, value_rollout])
def test_recurrence_has_no_attention(method: Any) -> None:
    with pytest.raises(ExplainError, match="has no attention"):
        method(Replay(every_family.tiny("mamba"), IDS, 4), QUESTION)


@pytest.mark.parametrize(
    ("family", "because"),
    [
        ("jamba", "layers 0 do not attend"),
        ("falcon_h1", "its first token still reaches later ones"),
        ("granite_swa", "its first token still reaches later ones"),
    ],
)
def test_tokens_that_meet_elsewhere_are_refused(family: str, because: str) -> None:
    replay = Replay(every_family.tiny(family), IDS, 4)
    for method in (rollout, value_rollout):
        with pytest.raises(ExplainError, match=because):
            method(replay, QUESTION)
    assert np.isfinite(last_row_attention(replay, QUESTION).relevance[0, :3]).all()


def test_values_that_hold_their_neighbours_are_refused() -> None:
    replay = Replay(every_family.tiny("zaya"), IDS, 4)
    rollout(replay, QUESTION)
    with pytest.raises(ExplainError, match="hold neighbouring tokens"):
        value_rollout(replay, QUESTION)


def test_too_many_tokens_are_refused_with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "MAX_BYTES", 4 * (4 * 4 + 4) * 8 * 8)
    replay = replay_of("llama")
    rollout(replay, Question((8,)))
    with pytest.raises(OutOfMemory, match="before position 8"):
        rollout(replay, Question((9,)))


@pytest.mark.parametrize("method", [last_row_attention, rollout, value_rollout])
def test_model_is_left_as_it_was(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = replay_of("gemma2")
    model = replay.model
    before, implementation = footprint(model), model.config._attn_implementation
    method(replay, QUESTION)
    assert_untouched(before, model)
    assert model.config._attn_implementation == implementation

    def broken(*_: Any) -> None:
        raise KeyError("in the middle of a pass")

    monkeypatch.setattr(home.Rolled, "through", broken)
    monkeypatch.setattr(home._Layers, "add", broken)
    with pytest.raises(KeyError):
        method(replay, QUESTION)
    assert_untouched(before, model)
    assert model.config._attn_implementation == implementation


def test_parameters_that_ask_for_gradients_change_nothing() -> None:
    replay = replay_of("gpt2")
    found = value_rollout(replay, QUESTION)
    replay.model.requires_grad_(True)
    np.testing.assert_array_equal(value_rollout(replay, QUESTION).relevance, found.relevance)
    assert all(parameter.requires_grad for parameter in replay.model.parameters())
