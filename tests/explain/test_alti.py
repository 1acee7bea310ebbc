from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import taken_apart
import torch
from lively import IDS, TWENTY_ONE, assert_untouched, footprint, replay_of

import every_family
from tokentape.errors import ExplainError
from tokentape.explain.affine.graph import frozen_norms
from tokentape.explain.attention import alti as home
from tokentape.explain.attention.alti import alti_logit
from tokentape.explain.attention.stream import Addition, Stream
from tokentape.explain.attention.transformed import Transformed
from tokentape.explain.attention.watching import watching
from tokentape.explain.question import Question
from tokentape.explain.replay import Replay

QUESTION = Question((3, 7, 10))
NETWORKS = {"gpt2": taken_apart.gpt2, "llama": taken_apart.llama}
FOILS = (60, 61, 62)


@pytest.mark.parametrize("mlp", [True, False])
@pytest.mark.parametrize("kind", ["logit", "foil", "logprob"])
@pytest.mark.parametrize("family", NETWORKS)
def test_equals_the_network_taken_apart_by_hand(family: str, kind: Any, mlp: bool) -> None:
    replay = replay_of(family, torch.float64)
    question = Question(QUESTION.targets, kind, foils=FOILS if kind == "foil" else ())
    found = alti_logit(replay, question, mlp=mlp)
    with torch.no_grad():
        network = NETWORKS[family](replay.model, IDS[:10])
        logits = replay.logits(question.targets)[0]
        exact = 1e-11 if family == "gpt2" else 1e-5
        for row, target in enumerate(question.targets):
            reads = network.reads[target - 1]
            other = {
                "logit": reads.mean(0),
                "foil": reads[FOILS[row]],
                "logprob": logits[row].softmax(-1) @ reads,
            }[kind]
            want = taken_apart.alti_logit(network, target - 1, reads[IDS[target]] - other, mlp).numpy()
            np.testing.assert_allclose(found.relevance[row, :target], want[:target], atol=exact)
            np.testing.assert_allclose(want[target:], 0, atol=exact)
    assert np.isnan(found.relevance[0, 3:]).all()


@pytest.mark.parametrize("family", TWENTY_ONE)
def test_what_a_block_adds_is_the_sum_of_its_additions(family: str) -> None:
    """The stream behind a block is that before it and what was shown; attention and MLP are both seen, in their order."""
    replay = replay_of(family)
    states: list[tuple[torch.Tensor, torch.Tensor]] = []

    def note(_: Any, args: Any, kwargs: Any, output: Any) -> None:
        given = next(a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor) and a.is_floating_point())
        states.append((given.detach().clone()[0], (output[0] if isinstance(output, tuple) else output).detach()[0]))

    handles = [block.register_forward_hook(note, with_kwargs=True) for block in replay.anatomy.blocks]
    additions: list[Addition] = []
    with torch.enable_grad(), frozen_norms():
        stream = Stream(family, len(IDS), len(handles), additions.append)
        with watching(replay.model, stream):
            replay.model(input_ids=torch.tensor([IDS]), use_cache=False)
    for handle in handles:
        handle.remove()
    assert len(states) == len(handles)
    for number, (given, gave) in enumerate(states):
        mine = [addition for addition in additions if addition.block == number]
        assert sum(addition.attention is not None for addition in mine) == 1
        added = sum(
            addition.other + (0 if addition.attention is None else addition.attention.detach()) for addition in mine
        )
        torch.testing.assert_close(given + added, gave, atol=1e-5, rtol=1e-5)
        first = mine[0]
        torch.testing.assert_close(first.stream, given, atol=0, rtol=0)


@pytest.mark.parametrize("family", [family for family in TWENTY_ONE if family != "gemma2"])
def test_tokens_biases_and_constants_are_the_value(family: str) -> None:
    """Nothing of a logit is lost: beside tokens and attention's biases there are those of the final norm and head alone."""
    dtype = torch.float64
    replay = replay_of(family, dtype)
    found = alti_logit(replay, QUESTION)
    norm, head = replay.anatomy.final_norm, replay.anatomy.head
    assert norm is not None and isinstance(head, torch.nn.Linear)
    bias = getattr(norm, "bias", None)
    with torch.no_grad():
        logits = head(torch.zeros(head.in_features, dtype=dtype) if bias is None else bias)
        constants = QUESTION.values(logits.expand(3, -1), replay.target_ids(QUESTION)).numpy()
    # norms of RMS kind compute in float32 whatever the model's type is
    np.testing.assert_allclose(found.notes["rest"], constants, atol=1e-6)
    total = np.nansum(found.relevance, 1) + found.notes["biases"] + found.notes["rest"]
    np.testing.assert_allclose(total, found.value, atol=1e-9)


def test_a_soft_cap_leaves_what_its_gradient_does_not_say() -> None:
    found = alti_logit(replay_of("gemma2", torch.float64), QUESTION)
    assert 1e-6 < np.abs(found.notes["rest"]).max() < 1e-3


@pytest.mark.parametrize("family", ["bloom", "falcon", "cohere", "gptj", "olmo2", "mixtral", "openai-gpt"])
def test_all_targets_at_once_are_each_by_itself(family: str) -> None:
    replay = replay_of(family)
    found = alti_logit(replay, QUESTION)
    for row, target in enumerate(QUESTION.targets):
        alone = alti_logit(replay, Question((target,)))
        np.testing.assert_allclose(found.relevance[row, :target], alone.relevance[0], atol=2e-5)
    together = alti_logit(replay, dataclasses.replace(QUESTION, together=True))
    np.testing.assert_allclose(together.relevance[0], np.nansum(found.relevance, 0), atol=1e-6)
    np.testing.assert_allclose(together.notes["rest"], [sum(found.notes["rest"])], atol=1e-6)


def test_target_and_foil_exchanged_turn_the_sign() -> None:
    target, foil = IDS[10], 60
    one = alti_logit(replay_of("llama"), Question((10,), "foil", foils=(foil,)))
    other = alti_logit(replay_of("llama", ids=(*IDS[:10], foil)), Question((10,), "foil", foils=(target,)))
    np.testing.assert_allclose(one.relevance, -other.relevance, atol=1e-6)
    assert np.abs(one.relevance).max() > 1e-3


@pytest.mark.parametrize("family", ["cohere", "gptj"])
def test_an_mlp_beside_attention_reads_the_layer_below(family: str) -> None:
    """Written in either order, it is shared out as the block's input is mixed: in the first block, that is its own token."""
    replay = replay_of(family, torch.float64)
    row = QUESTION.targets[-1] - 1
    question = Question((row + 1,))
    states: list[torch.Tensor] = []

    def keep(_: Any, args: Any, output: Any) -> Any:
        # the one place where the value is to be differentiated by: behind the last block
        states.append((output[0] if isinstance(output, tuple) else output).detach().requires_grad_())
        return (states[-1], *output[1:]) if isinstance(output, tuple) else states[-1]

    handle = replay.anatomy.blocks[-1].register_forward_hook(keep)
    with torch.enable_grad(), frozen_norms():
        value = question.values(replay.logits(question.targets)[0], replay.target_ids(question))
        (gradient,) = torch.autograd.grad(value.sum(), states[0])
    handle.remove()

    mlps: list[torch.Tensor] = []
    mixing: list[torch.Tensor] = []
    stream: list[torch.Tensor] = []

    def added(addition: Addition) -> None:
        stream.append(addition.stream)
        if bool(addition.other.any()):
            mlps.append(addition.other[row] @ gradient[0, row])
        if addition.attention is not None:
            mixing.append(Transformed(addition, family).contributions(home._nearness))

    with torch.enable_grad(), frozen_norms(), watching(replay.model, Stream(family, row + 1, 2, added)):
        replay.model(input_ids=torch.tensor([IDS[: row + 1]]), use_cache=False)
    want = mlps[1] * mixing[0][row]
    want[row] += mlps[0] + stream[0][row] @ gradient[0, row]
    with_mlps, without = (alti_logit(replay, question, mlp=mlp).relevance[0] for mlp in (True, False))
    np.testing.assert_allclose(with_mlps - without, want.detach().numpy(), atol=1e-7)


@pytest.mark.parametrize(
    ("family", "because"),
    [
        ("jamba", "layers 0 do not attend"),
        ("zaya", "hold neighbouring tokens"),
        ("longcat_flash", "no plain list of blocks"),
        ("gemma3n_text", "something else than one state for each token"),
        ("bert", "more than a norm and projections"),
        ("mamba", "softmax over positions"),
    ],
)
def test_families_that_do_not_fit_say_why(family: str, because: str) -> None:
    with pytest.raises(ExplainError, match=because):
        alti_logit(Replay(every_family.tiny(family), IDS, 4), QUESTION)


def test_half_precision_stays_near() -> None:
    exact = alti_logit(replay_of("llama"), QUESTION).relevance
    rough = alti_logit(replay_of("llama", torch.bfloat16), QUESTION).relevance
    assert np.nanmax(np.abs(rough - exact)) < 0.1 * np.nanmax(np.abs(exact))


def test_cost_is_two_passes_and_one_backward() -> None:
    replay = replay_of("llama")
    alti_logit(replay, QUESTION)
    assert (replay.passes.forward, replay.passes.backward) == (2, 1)


def test_model_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = replay_of("gemma2")
    model = replay.model
    before, implementation = footprint(model), model.config._attn_implementation
    alti_logit(replay, QUESTION)
    assert_untouched(before, model)

    def broken(*_: Any) -> None:
        raise KeyError("in the middle of a pass")

    monkeypatch.setattr(home._Decomposed, "add", broken)
    with pytest.raises(KeyError):
        alti_logit(replay, QUESTION)
    assert_untouched(before, model)
    assert model.config._attn_implementation == implementation
