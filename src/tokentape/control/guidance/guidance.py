"""Classifier-free guidance: away from what the model would say behind another prompt.

Source: G. Sanchez et al., "Stay on topic with Classifier-Free Guidance", 2023 (arXiv 2306.17806), equation 7. With ``c`` the
prompt and ``n`` the negative one, ``log p(x | n) + scale (log p(x | c) - log p(x | n))``, not normalised: the numbers of
transformers' ``generate(guidance_scale=..., negative_prompt_ids=...)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tokentape.control.guidance.reading import Reading
from tokentape.errors import UsageError
from tokentape.models.causal import CausalModel

__all__ = ["Guidance", "Guided", "checked_strength"]

Prompt = str | tuple[int, ...] | None
"""A text, token ids, or None for none."""


@dataclass(frozen=True)
class Guidance:
    """Guide by a prompt whose way to go on is to be left.

    ``scale`` 1 changes nothing, more pulls towards the prompt and away from the ``negative`` one, 0 is the negative prompt
    alone. ``negative`` is a text or token ids, or a list with one of these for each prompt of a batch. None, the default, is
    no negative prompt at all: the second reading begins with the last token of the prompt, as in the paper and in
    transformers. An empty text is what the model's tokenizer makes of one: the token that opens a sequence where it puts one
    in front; where it gives nothing (BLOOM), nothing could be conditioned on, and it is as None.

    Costs a second forward pass of the same model at each step, with a cache of its own. Raises UsageError for a scale that is
    no number from 0 on.
    """

    scale: float = 1.5
    negative: Any = None

    def __post_init__(self) -> None:
        checked_strength(self.scale, "scale", "--guidance 1.5", least=0.0)
        object.__setattr__(self, "negative", _prompts(self.negative))

    def bound(self, causal: CausalModel) -> Guided:
        """The rule for one run of ``causal``. Raises PromptError for a negative prompt that it cannot read."""
        return Guided(causal, self.scale, tuple(_opening(causal, negative) for negative in self.negative))


class Guided:
    """The rule of a :class:`Guidance`, for one run; ``openings`` are the ids that it conditions on, None for the last one of
    the prompt.
    """

    name = "guidance"
    believes = True
    masks = False

    def __init__(self, causal: CausalModel, scale: float, openings: Sequence[tuple[int, ...] | None]) -> None:
        self.scale = float(scale)
        self._openings = tuple(openings)
        self._causal = causal
        self._reading = Reading(causal, self._opened)

    def begin(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> None:
        """The prompts and their mask, where they are known before the first call; see :meth:`Reading.begin`."""
        self._reading.begin(input_ids, attention_mask)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Guided scores ``[B, V]``; at scale 1 those given. Raises UsageError, PromptError as :class:`Reading` does."""
        if self.scale == 1:
            return scores
        conditional = scores.log_softmax(-1)
        unconditional = self._reading.logits(input_ids).log_softmax(-1)
        guided = self.scale * (conditional - unconditional) + unconditional
        # what the model itself rules out is ruled out in both readings, and their difference is no number
        return guided.masked_fill(scores == -torch.inf, -torch.inf)

    def describe(self) -> dict[str, Any]:
        negative = [None if ids is None else {"ids": list(ids), "text": self._text(ids)} for ids in self._openings]
        return {"kind": "classifier-free guidance", "strength": self.scale, "negative": negative}

    def _opened(self, prompts: list[list[int]]) -> list[Sequence[int]]:
        """What is read in place of each prompt. Several sequences of one prompt stand side by side."""
        each, left = divmod(len(prompts), len(self._openings))
        if left or not each:
            raise UsageError(
                f"{len(self._openings)} negative prompts for {len(prompts)} sequences",
                why="each prompt has one of its own, or all have the same",
                fix="give one negative prompt, or as many as there are prompts",
            )
        openings = [opening for opening in self._openings for _ in range(each)]
        return [prompt[-1:] if opening is None else opening for prompt, opening in zip(prompts, openings, strict=True)]

    def _text(self, ids: Sequence[int]) -> str | None:
        tokenizer = self._causal.tokenizer
        return None if tokenizer is None else str(tokenizer.decode(list(ids)))


def checked_strength(value: Any, name: str, fix: str, least: float = -math.inf) -> float:
    """The value where it is a finite number, not below ``least``. Raises UsageError."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < least:
        bound = "" if least == -math.inf else f" from {least:g} on"
        raise UsageError(f"{name} {value!r}", why=f"it has to be a finite number{bound}", fix=fix)
    return float(value)


def _prompts(negative: Any) -> tuple[Prompt, ...]:
    if negative is None or isinstance(negative, str):
        return (negative,)
    if not isinstance(negative, Sequence) or not negative:
        raise UsageError(
            f"a negative prompt {negative!r}",
            why="it is a text, token ids, or a list with one of these for each prompt",
            fix='negative="..."',
        )
    if all(isinstance(token, int) for token in negative):
        return (tuple(negative),)
    found = [_prompts(one) for one in negative]
    if any(len(one) > 1 for one in found):
        raise UsageError(
            "lists of lists of negative prompts",
            why="each prompt has one negative prompt",
            fix='negative=["...", "..."]',
        )
    return tuple(one for (one,) in found)


def _opening(causal: CausalModel, negative: Prompt) -> tuple[int, ...] | None:
    if negative is None:
        return None
    if negative == "":
        ids = [] if causal.tokenizer is None else causal.tokenizer("")["input_ids"]
        return tuple(ids) or None
    ids = causal.encode(negative)
    causal.check_length(len(ids), 1)
    return tuple(ids)
