"""Where each step looked: attention weights of any model, reduced as they come by, so that long traces fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tokentape.data.attention import FIGURES, AttentionSummary, TopSources
from tokentape.data.columns import frozen
from tokentape.errors import UsageError
from tokentape.explain.attention.watching import Look, Survey, Watch, survey_of, watching
from tokentape.explain.replay import Replay

__all__ = ["attend"]

GROUP = 2**21
"""Weights that are reduced at once, so that what is computed on the way stays small."""


def attend(
    replay: Replay,
    *,
    steps: Iterable[int] | None = None,
    top_k: int = 16,
    chunk: int = 128,
    progress: Callable[[int, int], None] | None = None,
) -> AttentionSummary:
    """Attention of a replayed sequence, for all heads, layers and rows.

    ``steps`` are positions of tokens (a range, or any of 1 .. T-1) whose rows are kept head by head; the figures of heads
    and the sources of layers are there for all. The weights of ``chunk`` rows of a layer are computed at once, and let go
    before the next. ``progress`` is called with layers done and layers in all. Raises ExplainError for a model without
    attention, UsageError for a position that is not there, OutOfMemory.
    """
    n = len(replay.ids) - 1
    wanted = _wanted(steps, n)
    if top_k < 1 or chunk < 1:
        raise UsageError(f"top_k={top_k}, chunk={chunk}", why="both count from 1", fix="top_k=16, chunk=128")
    survey = survey_of(replay.model, replay.causal.name)
    gathered = _Gathered(survey, n, min(top_k, n), wanted, replay.causal.device, progress)
    watch = Watch(gathered.add, n, rows=chunk)
    with torch.no_grad(), watching(replay.model, watch):
        replay.logits([n])
    return gathered.summary(replay)


def _wanted(steps: Iterable[int] | None, n: int) -> npt.NDArray[np.int64]:
    wanted = np.unique(np.fromiter(steps or (), np.int64))
    if n < 1 or (len(wanted) and not 1 <= wanted[0] <= wanted[-1] <= n):
        raise UsageError(
            f"no row for position {wanted[-1] if len(wanted) and wanted[-1] > n else wanted[0] if len(wanted) else 1}",
            why=f"the sequence has {n + 1} tokens; a row belongs to the position that it predicts, 1 to {n}",
            fix=f"ask for positions of 1 to {n}" if n else "replay a sequence of at least two tokens",
        )
    return wanted


class _Gathered:
    """Grows while a pass is watched; then a summary."""

    def __init__(
        self,
        survey: Survey,
        n: int,
        top_k: int,
        wanted: npt.NDArray[np.int64],
        device: torch.device,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.survey, self.n, self.wanted, self.progress = survey, n, wanted, progress
        n_layers, most = len(survey.heads), max(survey.heads)
        self.figures = {name: np.full((n_layers, most, n), np.nan, np.float32) for name in FIGURES}
        self.layers = _TopRows((n_layers, n), top_k)
        self.overall = _TopRows((n,), top_k)
        self.heads = _TopRows((n_layers, most, len(wanted)), top_k)
        self.order = -1
        self.layer: int | None = None
        self.first_head = self.end_head = 0
        self.sum = torch.zeros(n, n, device=device)
        self.total = torch.zeros(n, n, device=device)

    def add(self, look: Look, sums: torch.Tensor) -> None:
        """Reduce the weights of one look."""
        if look.rows.start == 0:
            self._begin(look)
        if self.layer is None:
            return
        weights = look.weights[0]
        for first in range(0, look.n_heads, step := max(1, GROUP // weights[0].numel())):
            group = weights[first : first + step]
            self._reduce(group.float(), self.first_head + first, look)
            self.sum[look.rows] += group.sum(0, dtype=torch.float32).to(self.sum.device)

    def _begin(self, look: Look) -> None:
        """A new weighted sum: of the layer under way, or of the next."""
        self.order += 1
        layer = self.survey.layer_of(look, self.order)
        if layer != self.layer:
            self._finish_layer()
            self.layer, self.end_head = layer, 0
        self.first_head, self.end_head = self.end_head, self.end_head + look.n_heads

    def _reduce(self, weights: torch.Tensor, head: int, look: Look) -> None:
        """Figures and sources of some heads, weights ``[H, rows, T]``, from ``head`` on."""
        heads = slice(head, head + len(weights))
        mass = weights.sum(-1)
        columns = torch.arange(self.n, device=weights.device, dtype=torch.float32)
        found = {
            # sum over p = w / mass of -p log p
            "entropy": mass.log() - torch.xlogy(weights, weights).sum(-1) / mass,
            "sink_share": weights[..., 0],
            "distance": columns[look.rows] - weights @ columns / mass,
        }
        if look.sink:
            found["nowhere"] = (1 - mass).clamp(min=0)
        for name, values in found.items():
            self.figures[name][self.layer, heads, look.rows] = values.cpu().numpy()
        start, stop = look.rows.start, look.rows.stop
        places = slice(*np.searchsorted(self.wanted, [start + 1, stop + 1]).tolist())
        rows = self.wanted[places] - 1
        if len(rows):
            self.heads.put((self.layer, heads, places), weights[:, rows - start])

    def _finish_layer(self) -> None:
        if self.layer is None:
            return
        mean = self.sum.div_(self.end_head)
        self.layers.put((self.layer,), mean)
        self.total += mean
        self.sum.zero_()
        if self.progress is not None:
            self.progress(self.layer + 1, len(self.survey.heads))

    def summary(self, replay: Replay) -> AttentionSummary:
        """What was gathered."""
        self._finish_layer()
        attending = sum(heads > 0 for heads in self.survey.heads)
        self.overall.put((), self.total.div_(attending))
        return AttentionSummary(
            positions=np.arange(1, self.n + 1),
            ids=np.array(replay.ids),
            n_heads=self.survey.heads,
            **{name: frozen(values, np.isnan(values)) for name, values in self.figures.items()},
            layers=self.layers.frozen(),
            overall=self.overall.frozen(),
            head_positions=self.wanted,
            heads=self.heads.frozen(),
            pieces=replay.pieces_of(replay.ids),
            check=replay.check,
        )


class _TopRows:
    """The largest weights of rows ``[..., K]``, filled row by row."""

    def __init__(self, shape: tuple[int, ...], top_k: int) -> None:
        self.sources = np.full((*shape, top_k), -1, np.int32)
        self.weights = np.zeros((*shape, top_k), np.float32)
        self.kept = np.full(shape, np.nan, np.float32)

    def put(self, where: tuple[Any, ...], weights: torch.Tensor) -> None:
        """Keep the largest of ``weights`` ``[..., rows, T]`` at the index ``where``."""
        values, sources = weights.topk(self.sources.shape[-1], -1)
        found = values.cpu().numpy()
        self.sources[where] = np.where(found > 0, sources.cpu().numpy(), -1)
        self.weights[where] = found
        self.kept[where] = found.sum(-1)

    def frozen(self) -> TopSources:
        absent = self.sources < 0
        kept = frozen(self.kept, np.isnan(self.kept))
        return TopSources(frozen(self.sources, absent), frozen(self.weights, absent.copy()), kept)
