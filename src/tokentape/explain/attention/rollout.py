"""Attention weights as relevance: of the last row, multiplied through the layers, and by the norms of what they carry.

Weights say where a row looked, not what it took from there, and no gradient ties them to a target: these methods give the
same answer for every token that could follow. They are here to be looked at, and to be measured against.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tokentape.errors import ExplainError, OutOfMemory
from tokentape.explain.affine.graph import frozen_norms
from tokentape.explain.attention.stream import Addition, Stream
from tokentape.explain.attention.transformed import Transformed
from tokentape.explain.attention.watching import Look, Survey, Watch, survey_of, watching
from tokentape.explain.question import Attribution, Question, raised
from tokentape.explain.replay import Progress, Replay
from tokentape.models.anatomy import frozen_parameters

__all__ = ["MAX_BYTES", "Rolled", "answer", "last_row_attention", "rollout", "surveyed", "value_rollout", "watched"]

MAX_BYTES = 8_000_000_000
"""Most that the matrices of one layer may take."""

COPIES = 4
"""Tensors of the size of a layer's weights that are held at once: scores, masked scores, the softmax, and a product."""


def last_row_attention(replay: Replay, question: Question, *, progress: Progress | None = None) -> Attribution:
    """The weights of the row before each target, their mean over the heads of all layers that attend, each layer alike.

    What it cannot show: S. Jain and B. Wallace, "Attention is not Explanation", NAACL 2019. Weight that goes nowhere (a
    learned sink) is missing from the sum. Raises ExplainError for a model without attention.
    """
    survey = survey_of(replay.model, replay.causal.name)
    _check_size(replay, question, survey)
    rows = [position - 1 for position in question.targets]
    means: list[torch.Tensor] = []
    layers = _Layers(survey, lambda heads: means.append(heads.mean(0)), progress)
    with torch.no_grad():
        look = Watch(lambda look, _: layers.add(look, raised(look.weights[0][:, rows])), question.targets[-1])
        value = watched(replay, question, look)
        layers.finish()
        found = torch.stack(means).mean(0)
    return answer(question, found, value, {"layers_without": list(survey.without)} if survey.without else {})


def rollout(replay: Replay, question: Question, *, progress: Progress | None = None) -> Attribution:
    """Attention multiplied through the layers, the residual stream taken for one half of each.

    With ``A`` the mean weights of a layer's heads, ``A~ = A / 2 + I / 2`` with rows made to sum to one, and the row before
    the target of ``A~_L ... A~_1``. Source: S. Abnar and W. Zuidema, "Quantifying Attention Flow in Transformers", ACL
    2020, section 3. Raises ExplainError where tokens reach one another beside attention, OutOfMemory.
    """
    survey = surveyed(replay, question, "rollout")
    rolled = Rolled()
    layers = _Layers(survey, lambda heads: rolled.through(_with_half_stream(heads.mean(0))), progress)
    with torch.no_grad():
        look = Watch(lambda look, _: layers.add(look, raised(look.weights[0])), question.targets[-1])
        value = watched(replay, question, look)
        layers.finish()
    return answer(question, rolled.rows(question), value, {"residual_share": 0.5})


@torch.inference_mode(False)
def value_rollout(replay: Replay, question: Question, *, progress: Progress | None = None) -> Attribution:
    """The same with what attention carries: norms of the transformed vectors in place of the weights.

    A layer's matrix is ``||T_i(x_j)||`` (Euclidean; heads summed, output projection, norms behind it and residual stream
    included), rows made to sum to one, so that the stream's share is measured and not assumed. Source: G. Kobayashi et
    al., "Incorporating Residual and Normalization Layers into Analysis of Masked Language Models", EMNLP 2021,
    multiplied through the layers as in :func:`rollout`. Where the way to the stream cannot be followed, ``||a_ij v_j||``
    over all heads stands for the weights and the stream's share is one half; the notes say so.

    Raises ExplainError where tokens reach one another beside attention, or values mix them before; OutOfMemory.
    """
    survey = surveyed(replay, question, "value_rollout", values=True)
    try:
        rolled, value = _by_vectors(replay, question, survey, progress)
        notes: dict[str, Any] = {"vectors": "behind the output projection"}
    except ExplainError as error:
        rolled, value = _by_values(replay, question, survey, progress)
        notes = {"vectors": "values", "residual_share": 0.5, "because": error.why}
    return answer(question, rolled.rows(question), value, notes)


def _by_vectors(replay: Replay, question: Question, survey: Survey, progress: Progress | None) -> tuple[Rolled, Any]:
    rolled = Rolled()

    def added(addition: Addition) -> None:
        if addition.attention is not None:
            rolled.through(Transformed(addition, replay.causal.name).contributions(_lengths))
            if progress is not None and addition.block is not None:
                progress(addition.block + 1, survey.n_blocks)

    if not survey.n_blocks:
        raise ExplainError("no blocks", why="the model has no plain list of blocks", fix="--method rollout needs none")
    stream = Stream(replay.causal.name, question.targets[-1], survey.n_blocks, added)
    with frozen_parameters(replay.model), torch.enable_grad(), frozen_norms():
        return rolled, watched(replay, question, stream)


def _by_values(replay: Replay, question: Question, survey: Survey, progress: Progress | None) -> tuple[Rolled, Any]:
    rolled = Rolled()

    def layer(squares: torch.Tensor) -> None:
        norms = squares.sum(0).sqrt()
        rolled.through(_with_half_stream(norms / norms.sum(-1, keepdim=True)))

    def carried(look: Look, _: torch.Tensor) -> None:
        lengths = raised(look.values[0]).square().sum(-1)
        layers.add(look, raised(look.weights[0]).square() * lengths[:, None])

    layers = _Layers(survey, layer, progress)
    with torch.no_grad():
        value = watched(replay, question, Watch(carried, question.targets[-1]))
        layers.finish()
    return rolled, value


def _lengths(vectors: torch.Tensor, became: torch.Tensor) -> torch.Tensor:
    return vectors.square().sum(-1).sqrt()


class Rolled:
    """Matrices of layers ``[T, T]`` multiplied as they come, the first layer's rightmost."""

    def __init__(self) -> None:
        self.product: torch.Tensor | None = None

    def through(self, matrix: torch.Tensor) -> None:
        """One layer more."""
        matrix = matrix if self.product is None else matrix.to(self.product)
        self.product = matrix if self.product is None else matrix @ self.product

    def rows(self, question: Question) -> torch.Tensor:
        """``[n, T]``: the rows before the targets."""
        assert self.product is not None
        return self.product[[position - 1 for position in question.targets]]


def surveyed(replay: Replay, question: Question, method: str, *, values: bool = False) -> Survey:
    """The survey of a model whose tokens meet in attention alone, and for ``values`` not before it.

    Raises ExplainError for any other, OutOfMemory where the matrices of one layer would take too much.
    """
    survey = survey_of(replay.model, replay.causal.name)
    mixes = "values that attention weighs hold neighbouring tokens too" if values and survey.mixes_values else ""
    if survey.without:
        mixes = f"layers {', '.join(map(str, survey.without))} do not attend"
    elif survey.mixes_otherwise:
        mixes = "with attention held fixed, its first token still reaches later ones"
    if mixes:
        raise ExplainError(
            f"{method} does not hold for {replay.causal.name}",
            why=f"it follows tokens through attention alone, and {mixes}",
            fix="--method leave_one_out works for any model",
        )
    _check_size(replay, question, survey)
    return survey


def _check_size(replay: Replay, question: Question, survey: Survey) -> None:
    n, each = question.targets[-1], 4 * (COPIES * max(survey.heads) + 4)
    if each * n * n > MAX_BYTES:
        raise OutOfMemory(
            f"attention of {n} tokens of {replay.causal.name} does not fit",
            why=f"the {max(survey.heads)} heads of a layer take {each * n * n / 1e9:,.1f} GB; {MAX_BYTES / 1e9:,.1f} are allowed",
            fix=f"explain a token before position {int((MAX_BYTES / each) ** 0.5)}; attend() summarises longer sequences",
        )


def watched(replay: Replay, question: Question, watch: Watch) -> torch.Tensor:
    """The values ``[n]`` of the targets from a pass that ``watch`` saw."""
    ids = replay.target_ids(question)
    with replay.memory("reading attention"), watching(replay.model, watch):
        logits = replay.logits(question.targets)
    return question.values(logits[0], ids)


def answer(question: Question, per_token: torch.Tensor, value: torch.Tensor, notes: dict[str, Any]) -> Attribution:
    """What a method answers, from relevance of single positions ``[n, T]`` and values ``[n]``."""
    return Attribution(
        relevance=question.by_segment(question.fold(per_token.detach().double().cpu().numpy())),
        value=np.asarray(question.fold(value.detach().double().cpu().numpy()), np.float64),
        notes=notes,
    )


def _with_half_stream(matrix: torch.Tensor) -> torch.Tensor:
    whole = matrix + torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    return whole / whole.sum(-1, keepdim=True)


class _Layers:
    """Heads of one layer after another; each layer's are handed on together, once they are all there."""

    def __init__(self, survey: Survey, whole: Callable[[torch.Tensor], None], progress: Progress | None) -> None:
        self.survey, self.whole, self.progress = survey, whole, progress
        self.order = 0
        self.layer: int | None = None
        self.heads: list[torch.Tensor] = []

    def add(self, look: Look, heads: torch.Tensor) -> None:
        """Heads ``[H, ...]`` of one look."""
        layer = self.survey.layer_of(look, self.order)
        self.order += 1
        if layer != self.layer:
            self.finish()
            self.layer = layer
        if layer is not None:
            self.heads.append(heads)

    def finish(self) -> None:
        """The layer under way has no further heads."""
        if self.heads:
            self.whole(torch.cat(self.heads) if len(self.heads) > 1 else self.heads[0])
            self.heads = []
            if self.progress is not None and self.layer is not None:
                self.progress(self.layer + 1, len(self.survey.heads))
