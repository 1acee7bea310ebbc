"""The rules of a run in their order: transformers' own processors beside ours, what is known of each, and what must not happen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from tokentape.control.rule import Forces, Rule
from tokentape.data.control import RuleHead
from tokentape.errors import RuleError

__all__ = [
    "gives_tokens",
    "heads_of",
    "in_order",
    "is_foreign",
    "is_own",
    "left_one",
    "lets_run_ahead",
    "masks_only",
    "may_be_asked_twice",
    "reads_each_token",
    "refuse_all_masked",
    "refuse_no_numbers",
]

FORCING = frozenset(
    {"ForcedBOSTokenLogitsProcessor", "ForcedEOSTokenLogitsProcessor", "PrefixConstrainedLogitsProcessor"}
)
"""Processors that may leave one token, which is then given rather than chosen. A top-k of 1 is a choice and not in here."""

FILTERS = frozenset(
    {
        "EpsilonLogitsWarper",
        "EtaLogitsWarper",
        "MinPLogitsWarper",
        "TemperatureLogitsWarper",
        "TopHLogitsWarper",
        "TopKLogitsWarper",
        "TopPLogitsWarper",
        "TypicalLogitsWarper",
    }
)
"""Processors that leave at least the likeliest token of those they are given."""

MASKING = FILTERS - {"TemperatureLogitsWarper"} | {
    "MinLengthLogitsProcessor",
    "MinNewTokensLengthLogitsProcessor",
    "NoRepeatNGramLogitsProcessor",
    "PrefixConstrainedLogitsProcessor",
    "SuppressTokensAtBeginLogitsProcessor",
    "SuppressTokensLogitsProcessor",
}
"""Processors that leave a logit as it is or make it minus infinity, so that what they removed tells all they did."""

REMEMBERING = frozenset(
    {
        "PrefixConstrainedLogitsProcessor",
        "SynthIDTextWatermarkLogitsProcessor",
        "UnbatchedClassifierFreeGuidanceLogitsProcessor",
    }
)
"""Processors that keep a state of their own, or call foreign code: asked a second time at a step they would answer otherwise."""


def is_own(rule: Any) -> bool:
    """Whether it is a rule of this package's kind, and not a processor of transformers."""
    return isinstance(rule, Rule)


def is_foreign(rule: Any) -> bool:
    """Whether a processor or a stopping criterion comes from elsewhere: nothing is known of what it does."""
    return not type(rule).__module__.startswith("transformers.") and not is_own(rule)


def reads_each_token(processors: Sequence[Any]) -> bool:
    """Whether one of the processors is, or calls, code that must see the steps of the sequence and no others."""
    return any(is_own(p) or is_foreign(p) or type(p).__name__ == "PrefixConstrainedLogitsProcessor" for p in processors)


def in_order(processors: Sequence[Any]) -> list[Any]:
    """The rules that change what the model believes first, then everything in the order of transformers."""
    first = [p for p in processors if is_own(p) and p.believes]
    return first + [p for p in processors if p not in first]


def lets_run_ahead(processors: Sequence[Any]) -> Any | None:
    """The one rule whose forced tokens may be taken without a choice; None where another rule might have said otherwise.

    A temperature or a filter never takes the last token; a minimum length or a ban may, a guard wants to see each, and what
    guidance made of the logits would not be known.
    """
    forcing = [p for p in processors if isinstance(p, Forces)]
    harmless = all(type(p).__name__ in FILTERS for p in processors if p not in forcing)
    return forcing[0] if len(forcing) == 1 and harmless else None


def heads_of(processors: Sequence[Any]) -> tuple[RuleHead, ...]:
    """What the tape says of each of them."""
    return tuple(
        RuleHead(number, p.name, p.describe()) if is_own(p) else RuleHead(number, type(p).__name__, _plain_values(p))
        for number, p in enumerate(processors)
    )


def _plain_values(processor: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(processor).items()
        if not name.startswith("_") and isinstance(value, bool | int | float) and math.isfinite(value)
    }


def masks_only(rule: Any) -> bool:
    """Whether it is known to leave a logit as it is or to make it minus infinity."""
    return bool(getattr(rule, "masks", False)) if is_own(rule) else type(rule).__name__ in MASKING


def may_be_asked_twice(processors: Sequence[Any]) -> bool:
    """Whether the processors that are not ours answer the same when asked again at the same step."""
    others = [p for p in processors if not is_own(p)]
    return not any(is_foreign(p) or type(p).__name__ in REMEMBERING for p in others)


def gives_tokens(rule: Any) -> bool:
    """Whether it may leave one token, which is then given rather than chosen."""
    return type(rule).__name__ in FORCING or isinstance(rule, Forces)


def left_one(before: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """``[B]``: whether a rule that gives tokens left exactly one of several.

    Asked right after that rule: a small top-p after it leaves one token at most steps, by choice.
    """
    single = (scores > -torch.inf).sum(1) == 1
    if scores.device.type == "cpu" and not single.any():
        return single
    return single & ((before > -torch.inf).sum(1) > 1)


def refuse_no_numbers(best: torch.Tensor, live: torch.Tensor, processors: Sequence[Any], *, sampled: bool) -> None:
    """Raise for a row whose largest score ``best`` ``[B]`` is no number, or infinite where a draw is to be made of it."""
    wrong = best.isnan() | ((best == torch.inf) & sampled)
    if (wrong & live.bool()).any():
        names = ", ".join(p.name if is_own(p) else type(p).__name__ for p in processors)
        raise RuleError(
            "the scores that a token is to be chosen from are no numbers",
            why=f"the model's logits, or what became of them by {names}, hold NaN or infinity",
            fix="a smaller strength; or record without rules, to see whether the model itself gives them",
        )


def refuse_all_masked(processors: Sequence[Any]) -> None:
    """Raise the error for a step at which the rules left nothing; plain argmax would silently choose id 0."""
    names = ", ".join(p.name if is_own(p) else type(p).__name__ for p in processors)
    raise RuleError(
        "the rules left no token to choose",
        why=f"together these masked the whole vocabulary: {names}",
        fix="loosen the bans or the grammar, or lift the minimum length",
    )
