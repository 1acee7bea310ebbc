"""Direct logit attribution: the shares add up, and are those that the modules' own outputs give by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import every_family
from explain.lively import IDS, TWENTY_ONE, assert_untouched, footprint, lively, replay_of
from tokentape.data.layers import DirectAttribution
from tokentape.errors import ExplainError, UsageError
from tokentape.explain.layers.direct import direct
from tokentape.explain.layers.readout import readout_of
from tokentape.explain.layers.tail import residual_stream, tail_of
from tokentape.explain.question import Kind, Question
from tokentape.explain.replay import Replay

TARGETS = (4, 7, 10)
FOILS = {"foil": (9, 10, 11)}

# their norms and softmaxes compute in the dtype of the model; the others' in float32 whatever it is
DOUBLE = "bloom falcon mpt phi gpt2 gpt_neox gptj opt stablelm".split()


def asked(kind: Kind = "logit", targets: tuple[int, ...] = TARGETS, **more: Any) -> Question:
    return Question(targets, kind, FOILS.get(kind, ())[: len(targets)], **more)


def assert_closes(replay: Replay, question: Question, found: DirectAttribution, tolerance: float) -> None:
    """Everything written down adds up to the value, and that is the model's own."""
    with torch.no_grad():
        wanted = question.fold(question.values(replay.logits(question.targets)[0], replay.target_ids(question)))
    np.testing.assert_allclose(found.value, wanted.double().numpy(), atol=tolerance, rtol=tolerance)
    written = found.attention.filled(0) + found.mlp.filled(0) + found.other
    total = found.entry + written.sum(1) + found.bias + found.curvature
    np.testing.assert_allclose(total, found.value, atol=tolerance, rtol=0)
    np.testing.assert_allclose(found.blocks, written, atol=1e-12)
    np.testing.assert_allclose(found.value - total, found.residual, atol=1e-12)


@pytest.mark.parametrize("family", TWENTY_ONE)
def test_shares_add_up_and_every_block_is_split(family: str) -> None:
    replay = replay_of(family)
    for kind in ("logit", "foil", "logprob"):
        found = direct(replay, asked(kind))
        assert_closes(replay, asked(kind), found, 1e-4)
        assert not found.unsplit and not found.other.any()
        for column in (found.attention, found.mlp, found.heads):
            assert not np.ma.getmaskarray(column).any()
        assert np.abs(found.attention).min() > 0 and np.abs(found.mlp).min() > 0
        assert found.heads.shape == (3, 2, 4)


@pytest.mark.parametrize("family", TWENTY_ONE)
def test_shares_add_up_in_double_precision(family: str) -> None:
    replay = replay_of(family, torch.float64)
    for kind in ("logit", "foil", "logprob"):
        assert_closes(replay, asked(kind), direct(replay, asked(kind)), 1e-9 if family in DOUBLE else 1e-6)


# by hand


def outputs(replay: Replay, names: list[str]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What modules of the model are given, and what they give, at the rows before the targets."""
    given: dict[str, torch.Tensor] = {}
    gives: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            rows = [p - 1 for p in TARGETS]
            read = args[0] if args else kwargs["hidden_states"]
            value = output[0] if isinstance(output, tuple) else output
            given[name] = read.reshape(len(IDS), -1)[rows]
            gives[name] = value.reshape(len(IDS), -1)[rows]

        return hook

    with torch.no_grad(), ExitStack() as stack:
        for name in names:
            module = replay.model.get_submodule(name)
            stack.callback(module.register_forward_hook(keep(name), with_kwargs=True).remove)
        replay.model(input_ids=torch.tensor([IDS]), use_cache=False)
    return given, gives


def test_gpt2_by_hand() -> None:
    """Every figure from the modules' outputs and the formula of LayerNorm, without the code under test."""
    replay = replay_of("gpt2", torch.float64)
    model = replay.model
    layers = [f"transformer.h.{i}" for i in range(2)]
    parts = [f"{layer}.{part}" for layer in layers for part in ("attn", "mlp", "attn.c_proj")]
    given, gives = outputs(replay, [*layers, *parts, "transformer.ln_f"])
    final, norm = given["transformer.ln_f"], model.transformer.ln_f
    sigma = (final.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    head = model.lm_head.weight
    rows = head[[IDS[p] for p in TARGETS]] - head.mean(0)

    def read(part: torch.Tensor) -> np.ndarray:
        return (rows * norm.weight * (part - part.mean(-1, keepdim=True)) / sigma).sum(-1).detach().numpy()

    found = direct(replay, asked())
    close = {"atol": 1e-12, "rtol": 0}
    np.testing.assert_allclose(found.entry, read(given["transformer.h.0"]), **close)
    np.testing.assert_allclose(found.bias, (rows * norm.bias).sum(-1).detach().numpy(), **close)
    np.testing.assert_allclose(found.curvature, 0, **close)
    for i, layer in enumerate(layers):
        np.testing.assert_allclose(found.attention[:, i], read(gives[f"{layer}.attn"]), **close)
        np.testing.assert_allclose(found.mlp[:, i], read(gives[f"{layer}.mlp"]), **close)
        projection = model.get_submodule(f"{layer}.attn.c_proj")
        for h in range(4):
            slice_h = slice(8 * h, 8 * h + 8)
            one = given[f"{layer}.attn.c_proj"][:, slice_h] @ projection.weight[slice_h]
            np.testing.assert_allclose(found.heads[:, i, h], read(one), **close)
        offset = read(projection.bias.expand(3, -1))
        np.testing.assert_allclose(found.attention[:, i] - found.heads[:, i].sum(-1), offset, **close)


BRANCHES = {
    # family: the module that gives attention's part of the sum, and the MLP's; a minus takes away what it adds itself
    "cohere": ("model.layers.{}.self_attn", "model.layers.{}.mlp"),
    "falcon": ("transformer.h.{}.self_attention", "transformer.h.{}.mlp"),
    "gemma2": ("model.layers.{}.post_attention_layernorm", "model.layers.{}.post_feedforward_layernorm"),
    "gptj": ("transformer.h.{}.attn", "transformer.h.{}.mlp"),
    "llama": ("model.layers.{}.self_attn", "model.layers.{}.mlp"),
    "mamba": ("backbone.layers.{}.mixer", ""),
    "mixtral": ("model.layers.{}.self_attn", "model.layers.{}.mlp"),
    "olmo2": ("model.layers.{}.post_attention_layernorm", "model.layers.{}.post_feedforward_layernorm"),
    "opt": ("model.decoder.layers.{}.self_attn", "model.decoder.layers.{}.fc2"),
    "qwen2_moe": ("model.layers.{}.self_attn", "model.layers.{}.mlp"),
}


@pytest.mark.parametrize("family", BRANCHES)
def test_parts_are_what_the_modules_of_their_names_give(family: str) -> None:
    replay = replay_of(family)
    attention, mlp = BRANCHES[family]
    _, gives = outputs(replay, [name.format(i) for name in (attention, mlp) if name for i in range(2)])
    stream = residual_stream(replay, TARGETS)
    tail = tail_of(replay, stream)
    ids = replay.target_ids(asked())
    gradient = readout_of(tail, stream.states[-1], asked(), ids, every_family.VOCAB).gradient
    found = direct(replay, asked())
    for name, column in ((attention, found.attention), (mlp, found.mlp)):
        if not name:
            assert np.ma.getmaskarray(column).all()
            continue
        wanted = torch.stack([(gives[name.format(i)].double() * gradient).sum(-1) for i in range(2)], 1)
        np.testing.assert_allclose(column.filled(np.nan), wanted.numpy(), atol=1e-6)


def test_bloom_adds_the_stream_inside_of_its_modules() -> None:
    """Its attention and MLP give the stream with their part in it: the part is what they add."""
    replay = replay_of("bloom", torch.float64)
    names = [f"transformer.h.{i}.{part}" for i in range(2) for part in ("self_attention", "mlp")]
    blocks = [f"transformer.h.{i}" for i in range(2)]
    given, gives = outputs(replay, [*names, *blocks])
    stream = residual_stream(replay, TARGETS)
    ids = replay.target_ids(asked())
    gradient = readout_of(tail_of(replay, stream), stream.states[-1], asked(), ids, every_family.VOCAB).gradient
    found = direct(replay, asked())
    for i in range(2):
        before, between, after = given[blocks[i]], gives[names[2 * i]], gives[names[2 * i + 1]]
        wanted = [((one - other) * gradient).sum(-1).numpy() for one, other in ((between, before), (after, between))]
        np.testing.assert_allclose(found.attention[:, i], wanted[0], atol=1e-12)
        np.testing.assert_allclose(found.mlp[:, i], wanted[1], atol=1e-12)


@pytest.mark.parametrize("family", ["gemma2", "olmo2", "qwen3_next", "granite"])
def test_heads_are_seen_through_what_follows_their_projection(family: str) -> None:
    """A norm, a gate or a factor stands beside or behind the projection; without biases the heads are all of attention."""
    found = direct(replay_of(family), asked())
    seen = ~np.ma.getmaskarray(found.heads).all(-1)
    assert seen.any() and not np.ma.getmaskarray(found.attention)[seen].any()
    np.testing.assert_allclose(found.heads.sum(-1)[seen], found.attention[seen], atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_share_is_what_the_value_loses_without_the_part(family: str) -> None:
    """Brute force: take the MLP of one layer out of the final state, the norm's divisor held, and look at the value."""
    replay = replay_of(family, torch.float64)
    name, norm_name = {
        "gpt2": ("transformer.h.0.mlp", "transformer.ln_f"),
        "llama": ("model.layers.0.mlp", "model.norm"),
    }[family]
    given, gives = outputs(replay, [name, norm_name])
    norm, final = replay.model.get_submodule(norm_name), given[norm_name]
    centred = final - final.mean(-1, keepdim=True) if family == "gpt2" else final
    scale = (norm(final) - getattr(norm, "bias", 0)) / norm.weight / centred

    def value(state: torch.Tensor) -> torch.Tensor:
        state = state - state.mean(-1, keepdim=True) if family == "gpt2" else state
        logits = replay.model.lm_head(state * scale * norm.weight + getattr(norm, "bias", 0))
        return asked("foil").values(logits, replay.target_ids(asked()))

    lost = value(final) - value(final - gives[name])
    found = direct(replay, asked("foil"))
    np.testing.assert_allclose(found.mlp[:, 0], lost.detach().numpy(), atol=1e-6)


# kinds of questions


def test_swapping_target_and_foil_flips_every_sign() -> None:
    replay = replay_of("gemma2")
    other = replace(replay, ids=(*IDS[:-1], 9))
    one = direct(replay, Question((10,), "foil", (9,)))
    two = direct(other, Question((10,), "foil", (IDS[10],)))
    for name in ("value", "entry", "blocks", "attention", "mlp", "heads", "bias"):
        np.testing.assert_array_equal(np.ma.filled(getattr(one, name), 0), -np.ma.filled(getattr(two, name), 0))


def test_of_a_logprob_the_entropy_is_apart() -> None:
    replay = replay_of("llama")
    found = direct(replay, asked("logprob"))
    with torch.no_grad():
        logp = replay.logits(TARGETS)[0].double().log_softmax(-1)
    np.testing.assert_allclose(found.curvature, (logp.exp() * logp).sum(-1).numpy(), atol=1e-5)


def test_targets_together_are_their_sum() -> None:
    replay = replay_of("phi")
    each, sum_ = direct(replay, asked()), direct(replay, asked(together=True))
    assert sum_.value.shape == (1,) and sum_.heads.shape == (1, 2, 4)
    for name in ("value", "entry", "blocks", "attention", "mlp", "heads", "bias", "residual"):
        np.testing.assert_allclose(getattr(sum_, name)[0], getattr(each, name).sum(0), atol=1e-12)


@pytest.mark.parametrize("family", ["bloom", "gemma2"])
def test_the_second_token_of_a_sequence_can_be_asked_about(family: str) -> None:
    replay = replay_of(family, ids=IDS[:2])
    question = Question((1,))
    found = direct(replay, question)
    assert_closes(replay, question, found, 1e-5)
    assert not found.unsplit and not np.ma.getmaskarray(found.heads).any()


def test_many_targets_go_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    import tokentape.explain.layers.readout as readout_module

    replay = replay_of("gptj")
    whole = direct(replay, asked("foil"))
    monkeypatch.setattr(readout_module, "ELEMENTS", 2 * every_family.VOCAB)
    parts = direct(replay, asked("foil"))
    np.testing.assert_allclose(parts.blocks, whole.blocks, atol=1e-6)
    np.testing.assert_allclose(parts.bias, whole.bias, atol=1e-6)


def test_a_value_that_is_not_finite_is_refused() -> None:
    replay = replay_of("gptj")
    with torch.no_grad():
        replay.model.lm_head.bias[9] = -torch.inf
    with pytest.raises(ExplainError, match="cannot be shared out"):
        direct(replay, asked("foil"))
    assert_closes(replay, asked("logprob"), direct(replay, asked("logprob")), 1e-4)


def test_inference_mode_of_the_caller_changes_nothing() -> None:
    replay = replay_of("gemma2")
    wanted = direct(replay, asked())
    with torch.inference_mode():
        found = direct(replay, asked())
    np.testing.assert_array_equal(found.blocks, wanted.blocks)
    np.testing.assert_array_equal(found.heads, wanted.heads)


def test_no_such_token() -> None:
    with pytest.raises(UsageError, match="no token at position 11"):
        direct(replay_of("gpt2"), Question((11,)))


# other families


@pytest.mark.parametrize("family", ["beam", "doge", "gemma4_text"])
def test_a_stream_that_is_scaled_on_its_way(family: str) -> None:
    """What an early layer wrote reaches the head scaled by every block behind it."""
    replay = replay_of(family)
    found = direct(replay, asked())
    assert_closes(replay, asked(), found, 1e-4)
    assert not found.unsplit and not np.ma.getmaskarray(found.heads).any()


def test_weights_that_change_are_looked_at_anew() -> None:
    replay = replay_of("doge")
    direct(replay, asked())
    with torch.no_grad():
        for name, parameter in replay.model.named_parameters():
            if name.endswith("residual"):
                parameter.mul_(-0.5)
    assert_closes(replay, asked(), direct(replay, asked()), 1e-4)


@pytest.mark.parametrize("family", ["bitnet", "diffllama"])
def test_heads_that_are_mixed_before_their_projection_are_null(family: str) -> None:
    """A norm over all heads, or over pairs of them, lets every slice answer to several heads."""
    found = direct(replay_of(family), asked())
    assert np.ma.getmaskarray(found.heads).all() and not np.ma.getmaskarray(found.attention).any()


def test_what_happens_between_two_blocks_is_in_the_books() -> None:
    replay = replay_of("llama", torch.float64)
    added = torch.linspace(-1, 1, 32, dtype=torch.float64)
    block = replay.anatomy.blocks[1]
    handle = block.register_forward_pre_hook(lambda _, args: (args[0] + added, *args[1:]))
    try:
        found = direct(replay, asked())
        assert_closes(replay, asked(), found, 1e-6)
    finally:
        handle.remove()
    assert np.abs(found.other[:, 0]).min() > 1e-3 and np.abs(found.other[:, 1]).max() < 1e-12


def test_a_constant_belongs_to_what_it_is_added_to() -> None:
    """The last block of this family adds the bias of its attention by itself."""
    found = direct(replay_of("gpt_neox_japanese"), asked())
    assert not found.unsplit and not found.other.any()


@pytest.mark.parametrize("family", ["openai-gpt", "gemma3n_text", "deepseek_v4"])
def test_a_block_that_cannot_be_split_is_one_term(family: str) -> None:
    replay = replay_of(family)
    found = direct(replay, asked())
    assert_closes(replay, asked(), found, 1e-4)
    assert set(found.unsplit) == set(range(found.n_layers)) and all(found.unsplit.values())
    assert np.ma.getmaskarray(found.attention).all() and np.ma.getmaskarray(found.mlp).all()
    assert np.array_equal(found.other, found.blocks) and np.abs(found.blocks).min() > 0


def test_recurrence_stands_in_the_place_of_attention() -> None:
    replay = replay_of("jamba")  # a block of Mamba, then one of attention, each with an MLP
    found = direct(replay, asked())
    assert not np.ma.getmaskarray(found.attention).any() and not np.ma.getmaskarray(found.mlp).any()
    assert np.ma.getmaskarray(found.heads)[0].all(-1).tolist() == [True, False]


def test_a_tail_that_bends_the_stream_in_an_unknown_way_is_refused() -> None:
    replay = replay_of("big_bird")
    before = footprint(replay.model)
    with pytest.raises(ExplainError, match="do not add up"):
        direct(replay, asked())
    assert_untouched(before, replay.model)


@pytest.mark.slow
@pytest.mark.parametrize("family", [f for f in every_family.FAMILIES if f != "reformer"])
def test_every_family_closes_or_is_refused(family: str) -> None:
    replay = Replay(lively(family), IDS, 4)
    if family in {"big_bird", "hrm_text", "inkling2_text", "longcat_flash", "xlm"}:
        with pytest.raises(ExplainError):
            direct(replay, asked())
    else:
        assert_closes(replay, asked(), direct(replay, asked()), 1e-4)


@pytest.mark.parametrize("family", ["bloom", "mixtral"])
def test_nothing_of_the_model_is_changed(family: str) -> None:
    replay = replay_of(family)
    before = footprint(replay.model)
    direct(replay, asked())
    assert_untouched(before, replay.model)


def test_parameters_that_want_gradients_change_nothing_and_get_none() -> None:
    replay = replay_of("gemma2")
    wanted = direct(replay, asked())
    replay.model.requires_grad_(True)
    found = direct(replay, asked())
    np.testing.assert_array_equal(found.blocks, wanted.blocks)
    np.testing.assert_array_equal(found.bias, wanted.bias)
    assert all(p.grad is None and p.requires_grad for p in replay.model.parameters())


def test_half_precision() -> None:
    replay = replay_of("llama", torch.bfloat16)
    found = direct(replay, asked())
    assert not np.ma.getmaskarray(found.heads).any()
    assert (np.abs(found.residual) < 0.01 * (np.abs(found.value) + np.abs(found.blocks).sum(1))).all()


def test_it_survives_json() -> None:
    for family, kind in (("jamba", "foil"), ("openai-gpt", "logit")):
        found = direct(replay_of(family), asked(kind))
        again = DirectAttribution.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
        for name in ("value", "entry", "blocks", "other", "bias", "curvature", "residual", "targets", "target_ids"):
            assert np.array_equal(getattr(found, name), getattr(again, name))
        for name in ("attention", "mlp", "heads"):
            mine, other = getattr(found, name), getattr(again, name)
            assert np.array_equal(np.ma.getmaskarray(mine), np.ma.getmaskarray(other))
            assert np.array_equal(mine.compressed(), other.compressed())
        assert (again.unsplit, again.kind, again.pieces) == (found.unsplit, found.kind, found.pieces)
