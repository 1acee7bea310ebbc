"""Baselines: where a path of integrated gradients begins.

A baseline of zeros is none: norms divide by the length of what they read, so that a model is at its steepest there, and
singular at zero itself. A token is a place where the model was built to be.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from tokentape.errors import UsageError
from tokentape.explain.replacing.standins import CHUNK, checked_id, fills, neutral_id
from tokentape.explain.replay import Passes, Replay

__all__ = ["BASELINES", "Baseline", "baseline_entries", "entry_vectors"]

Baseline = str | int
BASELINES = ("token", "mean", "random", "zero")
"""A neutral token everywhere; the mean over the vocabulary; tokens drawn at random; zeros. A number is that token's id."""

SAMPLE = 256
"""Tokens that stand for the vocabulary where a token's vector also depends on its position."""


@torch.no_grad()
def baseline_entries(replay: Replay, baseline: Baseline, stop: int, *, draws: int, seed: int) -> torch.Tensor:
    """What the model's entry gives for the first ``stop`` positions of a neutral sequence: ``[K, stop, D]``, K > 1 for
    ``random`` alone.

    The neutral tokens stand at the positions of the original ones, so that position embeddings that are added before
    the entry are the same in both. Raises UsageError for a baseline that does not exist.
    """
    if isinstance(baseline, int):
        return entry_vectors(replay, torch.full((1, stop), checked_id(replay.causal, baseline)))
    if baseline == "token":
        return entry_vectors(replay, torch.full((1, stop), neutral_id(replay.causal)))
    if baseline == "random":
        return entry_vectors(replay, fills(replay, ("random",), draws, np.random.default_rng(seed))["random"][:, :stop])
    if baseline == "zero":
        return torch.zeros_like(entry_vectors(replay, replay.ids_tensor(stop)))
    if baseline == "mean":
        return _mean_entry(replay, stop)
    raise UsageError(f"no baseline {baseline!r}", why=f"there are {', '.join(BASELINES)}", fix="baseline='token'")


def entry_vectors(replay: Replay, ids: torch.Tensor) -> torch.Tensor:
    """:meth:`Replay.entry`, not counted among the passes: embeddings alone are none."""
    return replace(replay, passes=Passes()).entry(ids)


def _mean_entry(replay: Replay, stop: int) -> torch.Tensor:
    """The mean over the vocabulary of what the entry gives, at each position: ``[1, stop, D]``."""
    n = replay.causal.vocab_size
    same = entry_vectors(replay, torch.full((1, stop), neutral_id(replay.causal)))
    if torch.equal(same, same[:, :1].expand_as(same)):
        tokens, length = torch.arange(n), 1
    else:
        tokens, length = torch.linspace(0, n - 1, min(SAMPLE, n)).long(), stop
    rows = tokens[:, None].expand(-1, length).split(max(1, CHUNK // length))
    total = torch.cat([entry_vectors(replay, some).float().sum(0, keepdim=True) for some in rows]).sum(0, keepdim=True)
    return (total / len(tokens)).to(same.dtype).expand_as(same)
