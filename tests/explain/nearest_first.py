"""A method of one's own, as docs/how-to/add-a-method.md shows it: one file with one function."""

from __future__ import annotations

import numpy as np
import torch

from tokentape.explain.question import Attribution, Question
from tokentape.explain.replay import Replay


def nearest_first(replay: Replay, question: Question, half_life: float = 4.0) -> Attribution:
    """Relevance that halves every ``half_life`` positions before the target: a floor to hold other methods against."""
    with torch.no_grad():
        value = question.fold(question.values(replay.logits(question.targets), replay.target_ids(question))[0])
    distance = np.array(question.targets)[:, None] - np.arange(len(replay.ids))[None, :]
    per_token = question.fold(np.where(distance > 0, 0.5 ** (distance / half_life), 0.0))
    return Attribution(question.by_segment(per_token), value.double().cpu().numpy(), notes={"half_life": half_life})
