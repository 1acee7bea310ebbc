"""transformers' own processors as rules: which of them force, which may spoil the logits they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tokentape.errors import RuleError

__all__ = ["all_masked", "apply_rules", "is_foreign", "reads_each_token", "refuse_all_masked"]

FORCING = frozenset(
    {"ForcedBOSTokenLogitsProcessor", "ForcedEOSTokenLogitsProcessor", "PrefixConstrainedLogitsProcessor"}
)
"""Processors that may leave one token, which is then given rather than chosen. A top-k of 1 is a choice and not in here."""


def is_foreign(rule: Any) -> bool:
    """Whether a processor or a stopping criterion comes from outside transformers: nothing is known of what it does."""
    return not type(rule).__module__.startswith("transformers.")


def reads_each_token(processors: Sequence[Any]) -> bool:
    """Whether one of the processors is, or calls, foreign code, which must see the steps of the sequence and no others."""
    return any(is_foreign(p) or type(p).__name__ == "PrefixConstrainedLogitsProcessor" for p in processors)


def apply_rules(
    processors: Sequence[Any], ids: torch.Tensor, logits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """``[B, V]`` after all processors, and ``[B]``: 1 where one of :data:`FORCING` left exactly one token, or None.

    Asked right after the processor that may force: a small top-p after it leaves one token at most steps, by choice.
    ``logits`` may be written into.
    """
    scores, forced = logits, None
    for processor in processors:
        scores = processor(ids, scores)
        if type(processor).__name__ in FORCING:
            single = (scores > -torch.inf).sum(1) == 1
            forced = single if forced is None else forced | single
    return scores, forced


def all_masked(scores: torch.Tensor, live: torch.Tensor) -> torch.Tensor:
    """Scalar: whether a row that is still unfinished has no token left."""
    return ((scores.amax(1) == -torch.inf) & live.bool()).any()


def refuse_all_masked(processors: Sequence[Any]) -> None:
    """Raise the error for a step at which the rules left nothing; plain argmax would silently choose id 0."""
    names = ", ".join(type(processor).__name__ for processor in processors)
    raise RuleError(
        "the rules left no token to choose",
        why=f"together these masked the whole vocabulary: {names}",
        fix="loosen the bans or the grammar, or lift the minimum length",
    )
