"""Input marginalization: what if another token had come, one that the model itself expected there?

Source: L. Zintgraf et al., "Visualizing Deep Neural Network Decisions: Prediction Difference Analysis", ICLR 2017; S. Kim et al.,
"Interpretation of NLP Models through Input Marginalization", EMNLP 2020; D. Harbecke and C. Alt, "Considering Likelihood in NLP
Classification Explanations with Occlusion and Language Modeling", ACL SRW 2020. There a masked model says what might have
stood in a place; here the causal model that is explained does, from what stands before.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from tokentape.errors import UsageError
from tokentape.explain.question import Attribution, Question
from tokentape.explain.replacing.fallen import Change, fallen
from tokentape.explain.replacing.standins import fills
from tokentape.explain.replay import HEAD_BYTES, Progress, Replay

__all__ = ["input_marginalization"]


@torch.no_grad()
def input_marginalization(
    replay: Replay,
    question: Question,
    *,
    candidates: int = 16,
    least: float = 0.01,
    draws: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> Attribution:
    """How far each value falls, on average, if a token is drawn again from what the model expected in its place.

    ``v(x) - sum_c p(c | x_<s) v(x with c at s)``, over the recorded token and the ``candidates`` most likely others, their
    probabilities made to sum to one and those below ``least`` left out. A token that could hardly have been another has
    next to no part in the answer, however much would break without it, and no input is asked about that the model would
    not expect. A first token that opens every sequence has none either; another first token, which nothing predicts, is
    drawn ``draws`` times among the ordinary ones. A segment has the sum of its tokens.

    Raises UsageError for options that cannot be, OutOfMemory.
    """
    if candidates < 1 or draws < 1 or not 0 <= least < 1:
        raise UsageError(
            f"candidates {candidates}, draws {draws}, least {least}",
            why="at least one token is drawn, and a probability lies in 0 .. 1",
            fix="--option candidates=16",
        )
    single = replace(question, segments=tuple((p, p + 1) for p in range(question.targets[-1])))
    replay.target_ids(question)
    changes = [*_first(replay, draws, seed), *_expected(replay, question.targets[-1], candidates, least)]
    found = fallen(replay, single, changes, {"candidates": candidates, "replaced": len(changes)}, progress)
    return replace(found, relevance=question.by_segment(np.nan_to_num(found.relevance)))


def _first(replay: Replay, draws: int, seed: int) -> list[Change]:
    if replay.causal.tokenizer is not None and replay.causal.pieces.piece(replay.ids[0]).special:
        return []
    # the same draws however long the sequence is
    first = replace(replay, ids=replay.ids[:1])
    made = fills(first, ("random",), draws, np.random.default_rng(seed))["random"].to(replay.causal.device)
    return [Change(0, fill, 1 / draws) for fill in made]


def _expected(replay: Replay, stop: int, candidates: int, least: float) -> list[Change]:
    """What might have stood at the positions from 1 to ``stop``, and how likely it was, the recorded token left out."""
    changes: list[Change] = []
    at_once = max(1, HEAD_BYTES // (4 * replay.causal.vocab_size))
    for start in range(1, stop, at_once):
        positions = range(start, min(start + at_once, stop))
        logits = replay.logits(positions)[0]
        p = (logits if logits.dtype == torch.float64 else logits.float()).softmax(-1)
        best = p.topk(min(candidates + 1, p.shape[-1]), dim=-1)
        for position, row, ids, likely in zip(positions, p, best.indices.tolist(), best.values.tolist(), strict=True):
            own = replay.ids[position]
            others = [(i, q) for i, q in zip(ids, likely, strict=True) if i != own][:candidates]
            total = float(row[own]) + sum(q for _, q in others)
            changes += [
                Change(position, torch.full((stop,), i, device=replay.causal.device), q / total)
                for i, q in others
                if q >= least * total
            ]
    return changes
