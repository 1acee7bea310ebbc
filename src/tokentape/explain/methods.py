"""The table of methods: each is one function in one file, and one line here."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tokentape.errors import UsageError

if TYPE_CHECKING:
    from tokentape.explain.question import Attribution, Question
    from tokentape.explain.replay import Replay

__all__ = ["METHODS", "Method", "method_named"]

Estimate = Callable[[int, int, int], tuple[int, int]]
"""Passes forward and backward from the numbers of rows, of tokens and of segments."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to share a target's value out among its sources.

    ``home`` is ``module:function``, imported when the method is used; ``meaning`` is one sentence. ``additive`` methods
    keep a ledger that closes, so that shares of it mean something. ``parameters`` says that the method claims to depend on
    the model's parameters, ``contrastive`` that it explains the target against its foil; a sanity check holds each to
    its claim. ``passes`` tells the cost before it is spent.
    """

    name: str
    home: str
    meaning: str
    passes: Estimate
    additive: bool = False
    parameters: bool = True
    contrastive: bool = True

    def function(self) -> Callable[..., Attribution]:
        """The function itself, ``(replay, question, **options)``."""
        module, _, name = self.home.partition(":")
        found: Callable[..., Attribution] = getattr(import_module(module), name)
        return found

    def __call__(self, replay: Replay, question: Question, **options: Any) -> Attribution:
        return self.function()(replay, question, **options)


# The rollouts and saliency claim nothing of the parameters: with these shuffled their maps still resemble themselves (rank
# correlation 0.3 to 0.5, and 0.21 on the shipped model), for the residual stream and the causal mask alone give near tokens more.
_TABLE = (
    Method(
        "input_x_gradient", "tokentape.explain.gradients.attribution:input_x_gradient",
        "how the value changes with each token's vector, times that vector",
        lambda rows, tokens, segments: (1 + -(-rows // 16), rows),
    ),
    Method(
        "saliency", "tokentape.explain.gradients.attribution:saliency",
        "how steeply the value changes with each token's vector, whichever way",
        lambda rows, tokens, segments: (1 + -(-rows // 16), rows), parameters=False, contrastive=False,
    ),
    Method(
        "integrated_gradients", "tokentape.explain.gradients.attribution:integrated_gradients",
        "gradients summed along the way from a neutral input; the shares add up to the change of the value",
        lambda rows, tokens, segments: (2 + 64, 64 * rows),
    ),
    Method(
        "leave_one_out", "tokentape.explain.replacing.occlusion:leave_one_out",
        "how far the value falls when a source is replaced by neutral tokens",
        lambda rows, tokens, segments: (1 + segments, 0),
    ),
    Method(
        "input_marginalization", "tokentape.explain.replacing.marginalization:input_marginalization",
        "how far the value falls on average if a token is drawn again from what might have stood in its place",
        lambda rows, tokens, segments: (2 + 17 * tokens, 0),
    ),
    Method(
        "attention", "tokentape.explain.attention.rollout:last_row_attention",
        "mean attention weight of the last row over layers and heads; no statement about causes",
        lambda rows, tokens, segments: (1, 0), contrastive=False,
    ),
    Method(
        "rollout", "tokentape.explain.attention.rollout:rollout",
        "attention weights multiplied through the layers, residual stream included",
        lambda rows, tokens, segments: (1, 0), parameters=False, contrastive=False,
    ),
    Method(
        "value_rollout", "tokentape.explain.attention.rollout:value_rollout",
        "the same with the norms of what attention carries, not its weights alone",
        lambda rows, tokens, segments: (1, 0), parameters=False, contrastive=False,
    ),
    Method(
        "alti_logit", "tokentape.explain.attention.alti:alti_logit",
        "a decomposed forward pass: what each head and layer adds to the logit, traced to tokens by ALTI",
        lambda rows, tokens, segments: (2, 1),
    ),
    Method(
        "attn_lrp", "tokentape.explain.lrp:attn_lrp",
        "layer-wise relevance propagation, AttnLRP; patented, see its notice",
        lambda rows, tokens, segments: (1, min(rows, segments + 5)), additive=True,
    ),
    Method(
        "cp_lrp", "tokentape.explain.lrp:cp_lrp",
        "layer-wise relevance propagation with attention held fixed, CP-LRP; patented, see its notice",
        lambda rows, tokens, segments: (1, min(rows, segments + 5)), additive=True,
    ),
)  # fmt: skip

METHODS: dict[str, Method] = {method.name: method for method in _TABLE}
"""Methods by name. A new one is a function in a file of its own and a line above."""


def method_named(name: str) -> Method:
    """The method of that name (``-`` for ``_`` allowed). Raises UsageError with the names there are."""
    found = METHODS.get(name.replace("-", "_"))
    if found is None:
        near = difflib.get_close_matches(name.replace("-", "_"), METHODS, n=1)
        raise UsageError(
            f"no method {name!r}",
            why=f"there are {', '.join(METHODS)}",
            fix=f"--method {near[0] if near else 'leave_one_out'}",
        )
    return found
