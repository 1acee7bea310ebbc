"""What a target's value becomes when some of its sources are replaced: curves of deletion and insertion, and their figures.

Nothing is removed, for a shorter sequence is another sequence: positions keep their places, and other tokens stand there.
Two operators tell how much a figure owes to the tokens that were put in: ``neutral``, one constant token, and ``random``,
ordinary tokens drawn at random, of which the mean over several draws is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from tokentape.explain.question import Question
from tokentape.explain.replay import Replay
from tokentape.models.anatomy import keeps_rows

__all__ = ["Curves", "Deletion", "curves", "order"]

BATCH_POSITIONS = 8192
"""Positions that go through the model at once."""

BATCH_NUMBERS = 2**26
"""Logits, and attention scores of one head, that are held at once: 256 MB each in float32."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Order = npt.NDArray[np.intp]


def order(relevance: Floats, rng: np.random.Generator) -> Order:
    """Indices of the sources from the most relevant ``[S]`` down; NaN are left out, ties are shuffled, not left as they stood."""
    shuffled = rng.permutation(np.flatnonzero(~np.isnan(relevance)))
    return shuffled[np.argsort(-relevance[shuffled], kind="stable")]


class Deletion:
    """One row of a question, asked again with some of its sources replaced.

    Tokens of a source at and behind the row's (last) target are left as they are. Values are remembered, so that orders
    that begin or end alike share passes.
    """

    def __init__(self, replay: Replay, question: Question, row: int, fills: Mapping[str, torch.Tensor]) -> None:
        at = slice(None) if question.together else slice(row, row + 1)
        self.question = replace(question, targets=question.targets[at], foils=question.foils[at])
        self.replay = replay
        self.visible: Bools = self.question.visible()[0]
        stop = self.question.targets[-1]
        self._ids = replay.ids_tensor(stop)
        self._fills = {name: fill[:, :stop].to(self._ids.device) for name, fill in fills.items()}
        self._target_ids = replay.target_ids(self.question)
        places = np.zeros((self.question.n_segments, stop), np.bool_)
        for index, (start, end) in enumerate(self.question.segments):
            places[index, start:end] = True
        self._places = places
        self._known: dict[tuple[str, int, bytes], float] = {}

    @property
    def full(self) -> float:
        """The value with nothing replaced."""
        nothing = np.zeros((1, self.question.n_segments), np.bool_)
        return float(self.values(nothing, next(iter(self._fills)))[0])

    def values(self, replaced: Bools, operator: str) -> Floats:
        """The value ``[M]`` for each set of replaced sources ``[M, S]``, the mean over the operator's draws."""
        draws = range(len(self._fills[operator]))
        keys = [[self._key(operator, draw, mask) for mask in replaced] for draw in draws]
        wanted = {
            key: (draw, mask)
            for draw in draws
            for key, mask in zip(keys[draw], replaced, strict=True)
            if key not in self._known
        }
        pending, size = list(wanted), self._batch()
        for start in range(0, len(pending), size):
            some = pending[start : start + size]
            self._known.update(zip(some, self._measured(operator, [wanted[key] for key in some]), strict=True))
        by_draw = np.array([[self._known[key] for key in row] for row in keys])
        found: Floats = by_draw.mean(0)
        return found

    def _key(self, operator: str, draw: int, mask: Bools) -> tuple[str, int, bytes]:
        return (operator, draw, mask.tobytes()) if mask.any() else ("", 0, b"")

    @torch.no_grad()
    def _measured(self, operator: str, wanted: Sequence[tuple[int, Bools]]) -> list[float]:
        where = torch.from_numpy(np.array([mask for _, mask in wanted]) @ self._places).to(self._ids.device)
        fill = self._fills[operator][[draw for draw, _ in wanted]]
        logits = self.replay.logits(self.question.targets, ids=torch.where(where, fill, self._ids))
        return self.question.values(logits, self._target_ids).double().sum(-1).tolist()

    def _batch(self) -> int:
        length = self._ids.shape[1]
        rows = len(self.question.targets) if keeps_rows(self.replay.model) else length
        numbers = max(length * length, rows * self.replay.causal.vocab_size)
        return max(1, min(BATCH_POSITIONS // length, BATCH_NUMBERS // numbers))

    def leave_one_out(self, operator: str) -> Floats:
        """How far the value falls when each source alone is replaced ``[S]``; NaN where the target cannot see it."""
        drops = np.full(self.question.n_segments, np.nan)
        drops[self.visible] = self.full - self.values(np.eye(len(drops), dtype=np.bool_)[self.visible], operator)
        return drops

    def without(self, sources: Sequence[Order], operator: str) -> Floats:
        """The value ``[M]`` with each of these lists of sources replaced."""
        masks = np.zeros((len(sources), self.question.n_segments), np.bool_)
        for mask, some in zip(masks, sources, strict=True):
            mask[some] = True
        return self.values(masks, operator)


@dataclass(frozen=True, eq=False)
class Curves:
    """The value against how many of the ``n`` sources are replaced.

    ``counts`` ``[K]`` go from 0 to n; ``most`` ``[K]`` are the values with that many of the most relevant replaced (MoRF),
    ``least`` ``[K]`` with that many of the least relevant (LeRF).
    """

    counts: Order
    most: Floats
    least: Floats

    @property
    def area(self) -> float:
        """ABPC, the area between the perturbation curves: ``mean(least) - mean(most)``, in the unit of the value.

        Above 0 for an order that is better than chance, below for one that is worse. Sources: S. Blücher et al., "Decoupling
        pixel flipping and occlusion strategy for consistent XAI benchmarks", TMLR 2024 (there: symmetric relevance gain);
        R. Achtibat et al., "AttnLRP", ICML 2024, section 4.1.
        """
        return float(self.least.mean() - self.most.mean())

    @property
    def put_back(self) -> tuple[Order, Floats]:
        """Insertion: from all sources replaced, how many of the most relevant are put back, and the value ``[K]``.

        With j put back, the others, which are the least relevant, are replaced: it is the curve ``least`` read from its end.
        Source: V. Petsiuk et al., "RISE", BMVC 2018, section 4.2.
        """
        return self.counts[-1] - self.counts[::-1], self.least[::-1]


def curves(deletion: Deletion, ordered: Order, operator: str, steps: int = 20) -> Curves:
    """Both deletion curves of an order of sources, source by source, or at ``steps`` + 1 even counts where there are more."""
    n = len(ordered)
    counts = np.rint(np.linspace(0, n, min(n, steps) + 1)).astype(np.intp)
    most = deletion.without([ordered[:count] for count in counts], operator)
    least = deletion.without([ordered[n - count :] for count in counts], operator)
    return Curves(counts, most, least)
