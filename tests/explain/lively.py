"""Tiny models whose one-dimensional parameters (norms, biases, scales) are drawn too: as they are made, most are 0 or 1."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch

import every_family
from tokentape.explain.replay import Replay
from tokentape.models.causal import CausalModel

IDS = (5, 80, 17, 200, 33, 99, 41, 7, 120, 66, 3)
N_PROMPT = 4

TWENTY_ONE = (
    "bloom falcon mpt gemma gemma2 gemma3_text mixtral olmo olmo2 phi phi3 gpt2 gpt_neox gptj llama mistral qwen2 qwen3 opt "
    "stablelm cohere"
).split()


def drawn(model: Any, noise: float) -> Any:
    """The model with noise on everything that has one dimension: biases, norms' weights, sinks."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # decays of state space models have to keep their sign
            if parameter.ndim == 1 and parameter.is_floating_point() and "A_log" not in name:
                parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
    return model


def lively(family: str, dtype: torch.dtype = torch.float32, noise: float = 0.3) -> CausalModel:
    """A copy of the family's tiny model, nothing of it neutral."""
    tiny = every_family.tiny(family)
    model = drawn(copy.deepcopy(tiny.model), noise)
    if dtype == torch.float64 and hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # the grouped one has no double precision
    return replace(tiny, model=model.to(dtype))


def replay_of(family: str, dtype: torch.dtype = torch.float32, ids: tuple[int, ...] = IDS) -> Replay:
    """A replay of fixed ids on the lively model of a family."""
    return Replay(lively(family, dtype), ids, N_PROMPT)


def footprint(model: Any) -> dict[str, Any]:
    """What must be the same before and after an explanation."""
    hooks = [
        (name, list(module._forward_hooks), list(module._forward_pre_hooks), list(module._backward_hooks))
        for name, module in model.named_modules()
    ]
    kinds = [(name, type(module), module.forward.__func__, module.training) for name, module in model.named_modules()]
    wishes = [(name, p.requires_grad, p.grad is None, p._version) for name, p in model.named_parameters()]
    return {"hooks": hooks, "kinds": kinds, "wishes": wishes, "weights": copy.deepcopy(model.state_dict())}


def assert_untouched(before: dict[str, Any], model: Any) -> None:
    """Hooks, modules, parameters and their values are those of ``before``."""
    after = footprint(model)
    assert {name: before[name] for name in ("hooks", "kinds", "wishes")} == {
        name: after[name] for name in ("hooks", "kinds", "wishes")
    }
    assert before["weights"].keys() == after["weights"].keys()
    assert all(torch.equal(value, after["weights"][name]) for name, value in before["weights"].items())
