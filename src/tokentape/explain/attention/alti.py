"""ALTI-Logit: a forward pass taken apart. What each layer adds to a target's logit from each token, traced to the input.

The final state of the row before a target is the sum of what its residual stream began with and of all that was added to
it; the target's value reads that sum linearly, norms frozen. Attention's additions are themselves sums over the tokens of
the layer below (:mod:`tokentape.explain.attention.transformed`), and those tokens are traced to the input by the mixing matrices
ALTI multiplied through the layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tokentape.errors import ExplainError
from tokentape.explain.affine.graph import frozen_norms
from tokentape.explain.attention.rollout import Rolled, answer, surveyed, watched
from tokentape.explain.attention.stream import Addition, DirectPath, Stream
from tokentape.explain.attention.transformed import Transformed
from tokentape.explain.question import Attribution, Question
from tokentape.explain.replay import Progress, Replay
from tokentape.models.anatomy import frozen_parameters

__all__ = ["alti_logit"]


@torch.inference_mode(False)
def alti_logit(
    replay: Replay, question: Question, *, mlp: bool = True, progress: Progress | None = None
) -> Attribution:
    """Signed contributions of tokens to the value of each target, by a decomposed forward pass.

    With ``g_l`` the gradient of the value by what layer l adds to the row i before the target, along the residual stream
    alone, attention's addition gives ``<g_l, T_i^l(x_j)>`` for each token j of the layer below, and

        R = sum_l <g_l, T_i^l(x_j)> M^(l-1)  +  sum_l <g_l, MLP_i^l> M^l_i  +  <g_0, x_i> at i,

    ``M^l = C^l ... C^1`` with ``C_ij = max(0, ||y_i||_1 - ||y_i - T_i(x_j)||_1)``, rows made to sum to one, ``y_i`` what the
    row is behind attention, biases included. Sources: J. Ferrando et al., "Explaining How Transformers Use Context to
    Build Predictions", ACL 2023 (the first sum), and "Measuring the Mixing of Contextual Information in the Transformer",
    EMNLP 2022 (C and M), as their published code has them. There what MLPs and the beginning of the stream add stays
    unattributed, as with ``mlp=False``; here an MLP's addition is shared out as the row that it reads is mixed (the
    layer's input where it stands beside attention), and the beginning belongs to its own token.

    Relevance, the ``biases`` of attention's outputs and the ``rest`` in the notes ``[n_rows]`` add up to the value: the
    rest holds the biases of final norm and head, and what a value that is no linear function of the logits
    (log-probability, a soft cap) has beside its gradient. Raises ExplainError where tokens meet beside attention, values
    mix them, or the residual stream cannot be followed; OutOfMemory.
    """
    survey = surveyed(replay, question, "alti_logit", values=True)
    if not survey.n_blocks:
        raise ExplainError(
            f"alti_logit does not hold for {replay.causal.name}",
            why="it takes blocks apart, and the model has no plain list of blocks",
            fix="--method leave_one_out works for any model",
        )
    name, n = replay.causal.name, question.targets[-1]
    rows = torch.tensor([position - 1 for position in question.targets], device=replay.causal.device)
    with frozen_parameters(replay.model), frozen_norms():
        value, gradients, begins = _direct(replay, question, rows, DirectPath(name, n, survey.n_blocks))
        decomposed = _Decomposed(name, rows, n, gradients, mlp)
        if mlp:
            decomposed.begin(begins)

        def added(addition: Addition) -> None:
            decomposed.add(addition)
            if progress is not None and addition.attention is not None and addition.block is not None:
                progress(addition.block + 1, survey.n_blocks)

        with torch.enable_grad():
            watched(replay, question, Stream(name, n, survey.n_blocks, added))
    found = answer(question, decomposed.relevance, value, {"mlp": mlp})
    biases = np.asarray(question.fold(decomposed.biases.cpu().numpy()), np.float64)
    tokens = question.fold(decomposed.relevance.sum(-1).cpu().numpy())
    found.notes["biases"] = biases.tolist()
    found.notes["rest"] = (found.value - tokens - biases).tolist()
    return found


def _direct(
    replay: Replay, question: Question, rows: torch.Tensor, path: DirectPath
) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """Values ``[n]``, their gradients ``[n, D]`` by each addition along the stream alone, and what the stream begins with.

    The stream of a row is read by that row alone, so one backward pass serves all targets.
    """
    reached: list[bool] = []
    head = replay.anatomy.head
    handle = None
    if head is not None:
        handle = head.register_forward_pre_hook(
            lambda _, given: reached.append(path.generation_of(given[0]) is not None)
        )
    try:
        with torch.enable_grad():
            value = watched(replay, question, path)
    finally:
        if handle is not None:
            handle.remove()
    if reached != [True]:
        raise path.lost("between its last block and its head stands more than a norm and projections")
    found = torch.autograd.grad(value.sum(), path.marks)
    replay.passes.backward += 1
    at_rows = [_rows(gradient)[rows].detach() for gradient in found]
    return value.detach(), at_rows, _rows(path.marks[0]).detach()[rows]


def _rows(states: torch.Tensor) -> torch.Tensor:
    return states.reshape(-1, states.shape[-1])


class _Decomposed:
    """Relevance that grows while additions to the stream come by, layer after layer."""

    def __init__(self, name: str, rows: torch.Tensor, n: int, gradients: Sequence[torch.Tensor], mlp: bool) -> None:
        self.name, self.rows, self.gradients, self.mlp = name, rows, gradients, mlp
        self.relevance = torch.zeros(len(rows), n, dtype=torch.float64, device=rows.device)
        self.biases = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
        self.rolled = Rolled()
        self.below: torch.Tensor | None = None

    def begin(self, states: torch.Tensor) -> None:
        """What the stream of each row ``[n, D]`` begins with belongs to the token that is read there."""
        own = torch.arange(len(self.rows), device=self.rows.device)
        self.relevance[own, self.rows] += _dot(self.gradients[0], states)

    def add(self, addition: Addition) -> None:
        """Share out one addition."""
        gradient = self.gradients[addition.number + 1]
        mixed = self.below if addition.behind else self.rolled.product
        if self.mlp:
            self._share(_dot(gradient, addition.other[self.rows]), mixed)
        if addition.attention is None:
            return
        transformed = Transformed(addition, self.name)
        read = transformed.read(gradient, self.rows).double()
        self.biases += _dot(gradient, transformed.added[self.rows]) - read.sum(-1)
        self.relevance += read if mixed is None else read @ mixed.double()
        self.below = self.rolled.product
        self.rolled.through(transformed.contributions(_nearness))

    def _share(self, values: torch.Tensor, mixed: torch.Tensor | None) -> None:
        """Values ``[n]`` of the rows, shared out as those are mixed; each its own where nothing was mixed yet."""
        own = torch.arange(len(self.rows), device=self.rows.device)
        if mixed is None:
            self.relevance[own, self.rows] += values
        else:
            self.relevance += values[:, None] * mixed[self.rows].double()


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a.detach().double() * b.detach().double()).sum(-1)


def _nearness(vectors: torch.Tensor, became: torch.Tensor) -> torch.Tensor:
    """How much nearer, in the Manhattan distance, each vector ``[c, R, D]`` comes to what its row became ``[R, D]``."""
    return (became.abs().sum(-1) - (became - vectors).abs().sum(-1)).clamp(min=0)
