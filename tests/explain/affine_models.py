"""Tiny models of every family whose vectors are all drawn: a bias that is zero would be booked rightly by any code."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch

import every_family
from tokentape.explain.replay import Replay
from tokentape.models.causal import CausalModel

IDS = (5, 9, 30, 41, 77, 80, 99, 3, 17, 60, 2, 200, 13)
N_PROMPT = 6


def drawn(model: Any) -> Any:
    """The model with noise on everything that has one dimension: biases, norms' weights, sinks."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # decays of state space models have to keep their sign
            if parameter.ndim == 1 and parameter.is_floating_point() and "A_log" not in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def causal(family: str, dtype: torch.dtype = torch.float32) -> CausalModel:
    """A model of the family, its own: nothing else in the test run sees what is done to it."""
    shared = every_family.tiny(family)
    model = drawn(copy.deepcopy(shared.model)).to(dtype)
    if dtype == torch.float64 and getattr(model.config, "_experts_implementation", None):
        model.set_experts_implementation("eager")  # grouped products exist in smaller types alone
    return dataclasses.replace(shared, model=model)


def replay(family: str, dtype: torch.dtype = torch.float32) -> Replay:
    return Replay(causal(family, dtype), IDS, N_PROMPT)
