"""Layer-wise relevance propagation: AttnLRP and CP-LRP, as input times gradient of the affine map of a replay.

The method is patented: see :data:`NOTICE`, which comes with every answer. Nothing else imports this module, and no
default leads to it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from tokentape.explain.affine.books import KINDS
from tokentape.explain.affine.graph import AffineReplay, Shares
from tokentape.explain.question import Attribution, Question
from tokentape.explain.replay import Replay

__all__ = ["NOTICE", "attn_lrp", "cp_lrp"]

Floats = npt.NDArray[np.float64]

NOTICE = (
    "Layer-wise relevance propagation is patented (US 12,061,966 B2, EP 3271863 B1; Fraunhofer and TU Berlin). By its "
    "authors' word it is free for personal and scientific use; for any other use, ask them. tokentape grants no right to it."
)
"""What has to be known before the method is used; ``notes["notice"]`` of every answer."""


def attn_lrp(
    replay: Replay, question: Question, *, exact: bool | None = None, at_once: int | None = None
) -> Attribution:
    """Relevance by AttnLRP: softmax keeps its derivative, so that queries and keys get their share.

    Achtibat et al., AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers, ICML 2024: propositions
    3.1 (softmax), 3.2 and 3.3 (products), 3.4 (norms) and equation 9 (activations). It is not conservative: what softmax
    leaves of a value is booked as ``leaks``.

    ``exact`` and ``at_once`` as in :func:`cp_lrp`. Raises ExplainError where a model computes what no rule can follow.
    """
    return _propagated(replay, question, exact, at_once, hold_softmax=False)


def cp_lrp(replay: Replay, question: Question, *, exact: bool | None = None, at_once: int | None = None) -> Attribution:
    """Relevance by CP-LRP: attention weights are held, and values get all of it.

    Ali et al., XAI for Transformers: Better Explanations through Conservative Propagation, ICML 2022, section 4. The
    network is affine in its token vectors then, and a value the sum of what tokens, biases and positions give.
    Gated perceptrons, which that paper does not have, share in halves as in AttnLRP.

    ``exact`` takes one backward pass a row and sums within segments; otherwise one pass a segment, and five more, answer
    for all rows at once. Both give the same numbers, and None takes the cheaper. ``at_once`` of these passes go in one
    batch; by default as many as are small enough together to be worth it.
    Raises ExplainError where a model computes what no rule can follow.
    """
    return _propagated(replay, question, exact, at_once, hold_softmax=True)


def _propagated(
    replay: Replay, question: Question, exact: bool | None, at_once: int | None, *, hold_softmax: bool
) -> Attribution:
    graph = AffineReplay(replay, question, hold_softmax=hold_softmax)
    if exact is None:
        exact = question.n_rows <= question.n_segments + len(KINDS) + 2
    if exact:
        shares = graph.by_rows(at_once)
        relevance = question.by_segment(shares.relevance)
    else:
        shares = graph.by_segments(question.segments, at_once)
        relevance = np.where(question.visible(), shares.relevance, np.nan)
    notes = {
        "notice": NOTICE,
        "passes_by": "rows" if exact else "segments",
        "softmax": "held" if hold_softmax else "derived",
    }
    if question.kind == "logprob":
        notes["fades"] = (
            "a log-probability's derivative vanishes where the model is sure: what it leaves is among the leaks"
        )
    return Attribution(relevance, graph.values.detach().double().cpu().numpy(), _ledger(graph.values, shares), notes)


def _ledger(values: torch.Tensor, shares: Shares) -> dict[str, Floats]:
    parts: dict[str, Floats] = {"tokens": shares.tokens, **{str(kind): part for kind, part in shares.books.items()}}
    return {**parts, "residual": values.detach().double().cpu().numpy() - sum(parts.values())}
