from __future__ import annotations

import dataclasses
from typing import Any

import affine_models
import affine_twin
import numpy as np
import pytest
import torch
from affine_models import IDS, N_PROMPT, replay
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import every_family
import families
from tokentape.errors import ExplainError
from tokentape.explain.affine.graph import AffineReplay, Shares, frozen_norms
from tokentape.explain.question import Question
from tokentape.explain.replay import Replay
from tokentape.models.causal import CausalModel

# some models of transformers are compiled by it when they are imported
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")

QUESTION = Question(targets=(6, 9, 12))

FAMILIES = (
    "bloom falcon mpt gemma gemma2 gemma3_text mixtral olmo olmo2 phi phi3 gpt2 gpt_neox gptj llama mistral qwen2 qwen3 "
    "qwen3_moe opt stablelm starcoder2 cohere granite gpt_oss nemotron deepseek_v3 mamba rwkv"
).split()
# These compute in float64 throughout; the others raise their norms, angles or softmax to float32 and no further.
IN_DOUBLE = "gpt2 opt phi falcon gpt_neox stablelm starcoder2 nemotron persimmon gpt_bigcode rwkv".split()
# The same but for their softmax, which CP-LRP holds.
IN_DOUBLE_BUT_FOR_SOFTMAX = "bloom mpt gptj codegen gpt_neo".split()
# The entry that is found for these is a norm beside the way from ids to logits, and reformer wants other position ids.
NOT_FOLLOWED = {"gemma3n_text", "gemma4_text", "reformer"}


def left(graph: AffineReplay, shares: Shares) -> float:
    """What the ledger leaves of the values, as a part of the largest of them."""
    values = graph.values.detach().double().numpy()
    return float(np.abs(values - shares.tokens - sum(shares.books.values())).max() / np.abs(values).max())


def plain_values(played: Replay, question: Question = QUESTION) -> np.ndarray:
    with torch.no_grad():
        values = question.values(played.logits(question.targets), played.target_ids(question))[0]
    return values.double().numpy()


def check_ledger(family: str, dtype: torch.dtype, held: bool, bound: float) -> Shares:
    played = replay(family, dtype)
    graph = AffineReplay(played, QUESTION, hold_softmax=held)
    shares = graph.by_rows()
    assert left(graph, shares) < bound
    plain = plain_values(played)
    # the map has the model's own value, whatever is booked
    np.testing.assert_allclose(graph.values.detach().double().numpy(), plain, atol=1e-5 * np.abs(plain).max(), rtol=0)
    return shares


@pytest.mark.parametrize("held", [False, True], ids=["attn_lrp", "cp_lrp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_ledger_closes(family: str, held: bool) -> None:
    shares = check_ledger(family, torch.float32, held, 1e-5)
    if held:
        assert np.abs(shares.books["leaks"]).max() == 0  # the network is affine in its token vectors


@pytest.mark.parametrize("held", [False, True], ids=["attn_lrp", "cp_lrp"])
@pytest.mark.parametrize("family", IN_DOUBLE)
def test_the_ledger_closes_in_double(family: str, held: bool) -> None:
    check_ledger(family, torch.float64, held, 1e-12)


@pytest.mark.parametrize("family", IN_DOUBLE_BUT_FOR_SOFTMAX)
def test_the_ledger_closes_in_double_where_softmax_is_held(family: str) -> None:
    check_ledger(family, torch.float64, True, 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("held", [False, True], ids=["attn_lrp", "cp_lrp"])
@pytest.mark.parametrize("family", sorted(set(every_family.FAMILIES) - set(FAMILIES) - NOT_FOLLOWED))
def test_the_ledger_closes_on_every_family(family: str, held: bool) -> None:
    check_ledger(family, torch.float32, held, 1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_alibi_and_learned_positions_are_told_from_biases(attention: str) -> None:
    config = every_family.config_of("falcon")
    config.alibi, config.new_decoder_architecture = True, False
    shared = every_family.tiny("falcon")
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval().requires_grad_(False)
    alibi = dataclasses.replace(shared, model=affine_models.drawn(model))
    for causal, learned in (
        (alibi, False),
        (affine_models.causal("gpt2"), True),
        (affine_models.causal("llama"), None),
    ):
        graph = AffineReplay(Replay(causal, IDS, N_PROMPT), QUESTION, hold_softmax=False)
        shares = graph.by_rows()
        assert left(graph, shares) < 1e-5
        positions = shares.by_block["positions"]
        assert positions[:, 0].any() == (learned is True)
        assert positions[:, 1:].any() == (learned is False)
        # attention's remainder is left where there is attention, and norms' offsets where there are norms
        assert not shares.by_block["leaks"][:, [0, -1]].any()
        assert shares.by_block["leaks"][:, 1:-1].all()
        assert shares.by_block["biases"][:, -1].all() == (learned is not None)


@pytest.mark.parametrize("family", ["gpt2", "bloom", "qwen3_moe", "gemma2", "mamba", "gpt_oss"])
def test_rows_batches_and_segments_agree(family: str) -> None:
    question = Question(targets=(5, 6, 9, 12))
    graph = AffineReplay(replay(family), question, hold_softmax=False)
    single, batched = graph.by_rows(1), graph.by_rows(3)
    segments = [(0, 3), (4, 11)]
    parts, few = graph.by_segments(segments), graph.by_segments(segments, 2)
    scale = np.abs(single.relevance).max()
    np.testing.assert_allclose(batched.relevance, single.relevance, atol=1e-5 * scale, rtol=0)
    summed = np.stack([single.relevance[:, start:stop].sum(1) for start, stop in segments], axis=1)
    for other in (parts, few):
        np.testing.assert_allclose(other.relevance, summed, atol=1e-5 * scale, rtol=0)
        np.testing.assert_allclose(other.tokens, single.tokens, atol=1e-5 * scale, rtol=0)
        for kind, owed in single.books.items():
            np.testing.assert_allclose(other.books[kind], owed, atol=1e-5 * scale, rtol=0)
    # a target rests on nothing that comes after it
    assert not single.relevance[0, 5:].any()


def test_targets_asked_together_are_the_sum_of_their_rows() -> None:
    played = replay("gpt2", torch.float64)
    rows = AffineReplay(played, QUESTION, hold_softmax=False).by_rows()
    whole = AffineReplay(played, dataclasses.replace(QUESTION, together=True), hold_softmax=False).by_rows()
    np.testing.assert_allclose(whole.relevance, rows.relevance.sum(0, keepdims=True), rtol=1e-10)


def test_passes_are_counted() -> None:
    played = replay("gpt2")
    graph = AffineReplay(played, QUESTION, hold_softmax=False)
    assert (played.passes.forward, played.passes.backward) == (1, 0)
    graph.by_rows()
    assert played.passes.backward == 3
    graph.by_segments([(0, 4), (4, 12)])
    assert played.passes.backward == 3 + 1 + 2 + 4


def one_block(family: str) -> CausalModel:
    sizes = {"n_layer": 1} if family == "gpt2" else {"num_hidden_layers": 1}
    config = CONFIG_MAPPING[family](**{**families._COMMON, **families.CONFIGS[family], **sizes})
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4) if parameter.ndim > 1 else parameter.add_(0.3 * torch.randn(parameter.shape))
    return CausalModel(model.requires_grad_(False), None, family, None, None, 128, families.VOCAB)


def twin_of(played: Replay, graph: AffineReplay, *, held: bool) -> affine_twin.Twin:
    weights = {name: part.double().numpy() for name, part in played.model.state_dict().items()}

    def network(frozen: affine_twin.Frozen, x: Any) -> Any:
        if "transformer.wpe.weight" in weights:
            return affine_twin.gpt2(frozen, weights, x, 4)
        return affine_twin.llama(frozen, weights, x, 4, 2)

    def value(logits: Any) -> Any:
        rows = logits[[target - 1 for target in QUESTION.targets]]
        return rows[np.arange(3), [IDS[target] for target in QUESTION.targets]] - rows.mean(1)

    return affine_twin.Twin(network, value, graph.entry.double().numpy(), held)


@pytest.mark.parametrize("held", [False, True], ids=["attn_lrp", "cp_lrp"])
@pytest.mark.parametrize(("family", "tolerance"), [("gpt2", 1e-11), ("llama", 2e-6)])  # Llama's norms are float32
def test_the_map_is_that_of_a_network_frozen_by_hand(family: str, tolerance: float, held: bool) -> None:
    played = Replay(one_block(family), IDS, N_PROMPT)
    graph = AffineReplay(played, QUESTION, hold_softmax=held)
    twin = twin_of(played, graph, held=held)
    near = {"atol": tolerance * np.abs(twin.values).max(), "rtol": 0}
    np.testing.assert_allclose(twin.values, plain_values(played), **near)
    np.testing.assert_allclose(twin.at(twin.entry), twin.values, **near)  # frozen, it has the same value
    shares = graph.by_rows()
    np.testing.assert_allclose(shares.relevance, twin.relevance(), **near)
    np.testing.assert_allclose(sum(shares.books.values()), twin.at(np.zeros_like(twin.entry)), **near)
    # away from the point, however far, the gradient says what the frozen network does
    away = np.random.default_rng(0).normal(size=twin.entry.shape)
    for row in range(3):
        gradient, _ = graph.vjp(torch.eye(3, dtype=torch.float64)[row])
        change = (twin.at(twin.entry + away) - twin.values)[row]
        np.testing.assert_allclose((gradient.numpy() * away).sum(), change, atol=10 * near["atol"], rtol=0)


def state_of(model: nn.Module) -> dict[str, Any]:
    """All that a replay might leave behind."""
    return {
        "modules": [
            (name, id(module), type(module), module.forward.__func__) for name, module in model.named_modules()
        ],
        "hooks": [
            (dict(module._forward_hooks), dict(module._forward_pre_hooks), dict(module._backward_hooks))
            for module in model.modules()
        ],
        "gradients": [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()],
        "training": [module.training for module in model.modules()],
        "attention": model.config._attn_implementation,
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "weights": [parameter.clone() for parameter in model.parameters()],
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    weights = zip(before.pop("weights"), after.pop("weights"), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)
    assert before == after


@pytest.mark.parametrize("family", families.CONFIGS)
def test_the_model_is_left_as_it_was(family: str) -> None:
    causal = families.causal(family)
    played = Replay(causal, IDS, N_PROMPT)
    assert any(parameter.requires_grad for parameter in causal.model.parameters())
    with torch.no_grad():
        outputs = played.logits(QUESTION.targets)
    before = state_of(causal.model)
    AffineReplay(played, QUESTION, hold_softmax=False).by_rows()
    assert_same(before, state_of(causal.model))
    with torch.no_grad():
        assert torch.equal(played.logits(QUESTION.targets), outputs)
    assert torch.overrides._get_current_function_mode() is None


def test_the_model_is_left_as_it_was_by_an_error_in_the_middle() -> None:
    causal = affine_models.causal("llama")
    causal.model.requires_grad_(True)
    causal.model.set_attn_implementation("flex_attention")
    played = Replay(causal, IDS, N_PROMPT)
    before = state_of(causal.model)

    def broken(module: nn.Module, inputs: Any) -> None:
        raise RuntimeError("in the middle")

    handle = causal.model.model.layers[1].mlp.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="in the middle"):
        AffineReplay(played, QUESTION, hold_softmax=True)
    handle.remove()
    assert_same(before, state_of(causal.model))
    assert torch.overrides._get_current_function_mode() is None


def test_the_choice_of_attention_does_not_matter() -> None:
    causal = affine_models.causal("llama")
    played = Replay(causal, IDS, N_PROMPT)
    found = []
    for attention in ("eager", "sdpa", "flex_attention"):
        causal.model.set_attn_implementation(attention)
        graph = AffineReplay(played, QUESTION, hold_softmax=False)
        shares = graph.by_rows()
        assert left(graph, shares) < 1e-5
        found.append(shares.relevance)
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
    np.testing.assert_allclose(found[2], found[0], atol=1e-6)


def test_half_precision_closes_as_far_as_it_goes() -> None:
    graph = AffineReplay(replay("llama", torch.bfloat16), QUESTION, hold_softmax=False)
    assert left(graph, graph.by_rows()) < 0.02


def test_a_value_that_cannot_be_followed_back_is_refused() -> None:
    causal = affine_models.causal("gpt2")
    handle = causal.model.lm_head.register_forward_hook(lambda module, inputs, output: output.detach())
    with pytest.raises(ExplainError, match="cannot be followed back"):
        AffineReplay(Replay(causal, IDS, N_PROMPT), QUESTION, hold_softmax=False)
    handle.remove()


@pytest.mark.parametrize("family", ["bloom", "llama", "olmo2", "gemma2", "dbrx", "mpt", "xlstm"])
def test_frozen_norms_change_no_value(family: str) -> None:
    played = replay(family)
    plain = plain_values(played)
    with frozen_norms():
        np.testing.assert_allclose(plain_values(played), plain, atol=1e-5 * np.abs(plain).max())
    assert torch.overrides._get_current_function_mode() is None


@pytest.mark.parametrize("family", ["llama", "olmo2", "gpt2", "bloom", "cohere"])
def test_a_frozen_norm_is_linear(family: str) -> None:
    """A norm is blind to its input's scale, so that input x gradient is zero (Euler); a frozen one gives all of its output."""
    causal = affine_models.causal(family)
    norm = Replay(causal, IDS, N_PROMPT).anatomy.final_norm
    assert norm is not None
    given = torch.randn(1, 5, 32, requires_grad=True)
    seed = torch.randn(1, 5, 32)
    offset = seed * getattr(norm, "bias", None) if getattr(norm, "bias", None) is not None else torch.zeros(())

    def along() -> float:
        (gradient,) = torch.autograd.grad(norm(given), given, seed)
        return float((gradient * given.detach()).sum())

    assert abs(along()) < 1e-3
    with frozen_norms():
        whole = float((norm(given.detach()) * seed - offset).detach().sum())
        assert along() == pytest.approx(whole, abs=1e-4)
        assert abs(whole) > 0.1
