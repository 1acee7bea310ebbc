"""Input marginalization: what if another token had stood there, one that the model itself holds possible in its place?

Source: L. Zintgraf et al., "Visualizing Deep Neural Network Decisions: Prediction Difference Analysis", ICLR 2017; S. Kim et al.,
"Interpretation of NLP Models through Input Marginalization", EMNLP 2020; D. Harbecke and C. Alt, "Considering Likelihood in NLP
Classification Explanations with Occlusion and Language Modeling", ACL SRW 2020. There a masked model says what might have
stood in a place, given what stands on both its sides. Here the causal model that is explained says so itself, by Bayes' rule:
``p(c | x_<s, x_>s)`` is proportional to ``p(c | x_<s)``, what it expected there, times ``p(x_>s | x_<s, c)``, how well what
follows fits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch

from tokentape.errors import UsageError
from tokentape.explain.question import Attribution, Question, raised
from tokentape.explain.replacing.fallen import Change, Fall, Falls, between
from tokentape.explain.replacing.standins import fills, neutral_id
from tokentape.explain.replay import HEAD_BYTES, Progress, Replay

__all__ = ["input_marginalization"]

Floats = npt.NDArray[np.float64]


@torch.no_grad()
def input_marginalization(
    replay: Replay,
    question: Question,
    *,
    candidates: int = 16,
    least: float = 0.01,
    unexpected: float = 0.2,
    draws: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> Attribution:
    """How far each value falls, on average, if a token is drawn again from what might have stood in its place.

    ``(1 - u) sum_c w_c (v(x) - v(x with c at s)) + u (v(x) - v(x with a neutral token at s))``, with ``u = unexpected`` and
    ``w_c`` proportional to ``p(c | x_<s) p(x_s+1 .. x_t-1 | x_<s, c)`` over the recorded token, which adds nothing, and the
    ``candidates`` most likely others, of which those below ``least`` of their sum before what follows is asked are left
    out. A token that could hardly have been another, since what stands before it or behind it says so, has a part by the
    neutral token alone: that share ``u`` of what would break without it, which tells it from a token that does nothing.

    A special first token, such as opens every sequence, has no part. Another first token, which nothing predicts, was as
    likely as each of ``draws`` ordinary ones. A segment has the sum of its tokens.

    Raises UsageError for options that cannot be, OutOfMemory.
    """
    if candidates < 1 or draws < 1 or not 0 <= least < 1 or not 0 <= unexpected <= 1:
        raise UsageError(
            f"candidates {candidates}, draws {draws}, least {least}, unexpected {unexpected}",
            why="at least one token is drawn, and a probability or a share lies in 0 .. 1",
            fix="--option candidates=16, --option least=0.01, --option unexpected=0.2, --option draws=16",
        )
    replay.target_ids(question)
    single = replace(question, segments=tuple((p, p + 1) for p in range(question.targets[-1])))
    expected = _Expected.of(replay, single, candidates, least, draws, seed)
    changes = expected.changes(replay, neutral_id(replay.causal) if unexpected else None)
    falls = Falls(replay, single, progress, likelihood=True)
    relevance = np.zeros((len(single.targets), single.n_segments))
    for position, group in groupby(falls.of(changes), lambda one: one.change.segment):
        relevance[:, position] = _mixed(list(group), expected.own_after(single, position), unexpected)
    found = falls.attribution(relevance, {"candidates": candidates, "unexpected": unexpected, "replaced": len(changes)})
    return replace(found, relevance=question.by_segment(np.nan_to_num(found.relevance)))


@dataclass(frozen=True)
class _Expected:
    """What the model expected at each position before seeing it.

    ``own`` ``[stop]`` are log-probabilities (nats) of the recorded tokens, ``others`` the ``(id, probability)`` of those
    that might have stood there instead, by position.
    """

    own: Floats
    others: tuple[tuple[tuple[int, float], ...], ...]

    @classmethod
    def of(cls, replay: Replay, question: Question, candidates: int, least: float, draws: int, seed: int) -> _Expected:
        stop = question.targets[-1]
        first = _first(replay, draws, seed)
        own, others = np.zeros(stop), [first]
        own[0] = -np.log1p(len(first))
        at_once = max(1, HEAD_BYTES // (4 * replay.causal.vocab_size))
        for start in range(1, stop, at_once):
            positions = range(start, min(start + at_once, stop))
            logits = replay.logits(positions)[0]
            logprobs = raised(logits).log_softmax(-1)
            best = logprobs.topk(min(candidates + 1, logprobs.shape[-1]), dim=-1)
            likely = zip(best.indices.tolist(), best.values.exp().tolist(), strict=True)
            for position, row, (ids, p) in zip(positions, logprobs, likely, strict=True):
                own[position] = float(row[replay.ids[position]])
                found = [(i, q) for i, q in zip(ids, p, strict=True) if i != replay.ids[position]][:candidates]
                total = np.exp(own[position]) + sum(q for _, q in found)
                others.append(tuple((i, q) for i, q in found if q >= least * total))
        return cls(own, tuple(others))

    def changes(self, replay: Replay, neutral: int | None) -> list[Change]:
        """A change to each of the others, its weight their probability, and behind them one to the neutral token."""
        stop, device = len(self.own), replay.causal.device
        extra = () if neutral is None else ((neutral, 0.0),)
        return [
            Change(position, torch.tensor(token, device=device).expand(stop), p)
            for position, others in enumerate(self.others)
            if position or others  # a first token that opens every sequence stays
            for token, p in (*others, *extra)
        ]

    def own_after(self, question: Question, position: int) -> tuple[float, Floats]:
        """Log-probabilities of the token at ``position``, and ``[n]`` of what stands between it and each target."""
        return float(self.own[position]), between(self.own, position + 1, question)


def _first(replay: Replay, draws: int, seed: int) -> tuple[tuple[int, float], ...]:
    """Ordinary tokens that might open the sequence; none where a special one does."""
    causal, opens = replay.causal, replay.ids[0]
    if opens == causal.bos_id or (causal.tokenizer is not None and causal.pieces.piece(opens).special):
        return ()
    # the same draws however long the sequence is
    first = replace(replay, ids=replay.ids[:1])
    made = fills(first, ("random",), draws, np.random.default_rng(seed))["random"]
    return tuple((int(token), 1 / (draws + 1)) for token in made[:, 0])


def _mixed(falls: list[Fall], own: tuple[float, Floats], unexpected: float) -> Floats:
    """The relevance ``[n]`` of one position from the falls of its changes, that to the neutral token the last if it has a share."""
    neutral = falls.pop().fall if unexpected else 0.0
    mixed: Floats = unexpected * neutral + (1 - unexpected) * _expected_fall(falls, own)
    return mixed


def _expected_fall(falls: list[Fall], own: tuple[float, Floats]) -> Floats:
    """How far each value ``[n]`` falls in the mean over what might have stood there."""
    fits = [own[0] + own[1]]
    with np.errstate(divide="ignore"):
        fits += [np.log(one.change.weight) + one.after for one in falls if one.after is not None]
    # targets before the change have values of no meaning, which are never shown
    weights = np.exp(fits - np.max(fits, axis=0))
    fall = np.stack([np.zeros_like(own[1]), *(one.fall for one in falls)])
    found: Floats = (weights * fall).sum(0) / weights.sum(0)
    return found
