"""Occlusion: replace a source, and see how far each target's value falls. What is observed, nothing inferred.

Source: M. Zeiler and R. Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.2; for words J. Li et
al., "Understanding Neural Networks through Representation Erasure", 2016. Sources are replaced and never removed: a shorter
sequence has other positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tokentape.explain.question import Attribution, Question
from tokentape.explain.replacing.fallen import Change, fallen
from tokentape.explain.replacing.standins import checked_id, fills, neutral_id
from tokentape.explain.replay import Progress, Replay

__all__ = ["leave_one_out"]


@torch.no_grad()
def leave_one_out(
    replay: Replay,
    question: Question,
    *,
    replacement: str | int = "neutral",
    draws: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
) -> Attribution:
    """How far each value falls when a segment is replaced as a whole: ``value - value(replaced)``, all targets from one pass.

    ``replacement`` is ``"neutral"`` (the token that says least, see :mod:`~tokentape.explain.replacing.standins`), the id of
    another token, or ``"random"``: the mean over ``draws`` draws of ordinary tokens. What stands before a segment is computed
    once and kept as keys and values, where the model's cache can be gone on with; ``notes["prefix"]`` says whether. The
    numbers are those of a whole pass for each segment, up to rounding. Raises UsageError for a replacement that does not
    exist, OutOfMemory.
    """
    made, named = _fills(replay, replacement, draws, seed)
    n = sum(start < question.targets[-1] for start, _ in question.segments)
    changes = [Change(segment, fill, 1 / len(made)) for segment in range(n) for fill in made]
    return fallen(replay, question, changes, {"replacement": named}, progress)


def _fills(replay: Replay, replacement: str | int, draws: int, seed: int) -> tuple[list[torch.Tensor], Any]:
    """Ids ``[T]`` that stand in for those of the sequence, one tensor a draw; and what to call them."""
    device = replay.causal.device
    if isinstance(replacement, int) or replacement == "neutral":
        token = neutral_id(replay.causal) if replacement == "neutral" else checked_id(replay.causal, int(replacement))
        return [torch.full((len(replay.ids),), token, device=device)], {"id": token}
    made = fills(replay, (replacement,), draws, np.random.default_rng(seed))[replacement]
    return list(made.to(device)), {"draws": draws, "seed": seed}
