"""Every number that decides what the demo model becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BINDING_SHARES = {"reminded": 0.45, "interview": 0.25, "question": 0.05, "story": 0.25}
"""Shares of the tokens while a cycle shows only questions and stories."""

WORLD_SHARES = {
    "story": 0.42,
    "translation": 0.22,
    "review": 0.06,
    "question": 0.12,
    "interview": 0.12,
    "reminded": 0.06,
}
"""Shares of the tokens of the whole world."""

STORY_SHARES = {
    "story": 0.72,
    "translation": 0.08,
    "review": 0.03,
    "question": 0.07,
    "interview": 0.06,
    "reminded": 0.04,
}
"""Shares of the tokens of the later cycles: stories take longest, so they get what the rest no longer needs."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """One run of the learning rate from warm-up to zero, with fresh optimisers and its own text.

    For the first `binding_steps` the text follows `BINDING_SHARES`, then `shares`; for the first
    `auxiliary_steps` the auxiliary loss is on. The rate decays over the last `decay_share` of the steps.
    """

    seed: int
    n_steps: int
    binding_steps: int
    auxiliary_steps: int
    decay_share: float
    muon_rate: float
    adam_rate: float
    shares: Mapping[str, float]
    opening_weight: float = 0.0
    """Loss weight of the first token of a document that follows another one in a packed row."""


@dataclass(frozen=True, slots=True)
class Recipe:
    seed: int = 20
    # Shape.
    width: int = 128
    n_layers: int = 4
    n_heads: int = 4
    n_positions: int = 1024
    # Data: tokens of one step, and steps between fresh corpora.
    tokens_per_step: int = 2048
    steps_per_chapter: int = 100
    packed_length: int = 256
    packed_share: float = 0.15
    # Optimisation.
    cycles: tuple[Cycle, ...] = (
        Cycle(20, 3800, 900, 1300, 0.6, muon_rate=0.02, adam_rate=3e-3, shares=WORLD_SHARES),
        Cycle(21, 2000, 0, 0, 0.9, muon_rate=0.012, adam_rate=2e-3, shares=STORY_SHARES),
        Cycle(22, 1400, 0, 0, 0.95, muon_rate=0.01, adam_rate=1.5e-3, shares=STORY_SHARES, opening_weight=1.0),
    )
    warmup_steps: int = 50
    weight_decay: float = 0.01
    clip: float = 1.0
    n_threads: int = 2
    # Loss weights.
    auxiliary_weight: float = 0.5
    prompt_weight: float = 0.3
    answer_weight: float = 3.0
