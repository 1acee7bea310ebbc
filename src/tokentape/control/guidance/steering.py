"""Activation steering: a direction added to the residual stream while the model speaks.

Source: N. Rimsky et al., "Steering Llama 2 via Contrastive Activation Addition", ACL 2024 (arXiv 2312.06681), section 3: the
multiple of the direction is added at every position behind the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tokentape.control.guidance.direction import Direction, block_of
from tokentape.control.guidance.guidance import checked_strength
from tokentape.control.guidance.reading import Reading, said_from
from tokentape.errors import UnsupportedDecoding
from tokentape.models.anatomy import replaced
from tokentape.models.cache import cache_in
from tokentape.models.causal import CausalModel

__all__ = ["Steered", "Steering"]


@dataclass(frozen=True)
class Steering:
    """Steer by a direction, or by the file of one.

    ``strength`` multiplies the raw difference: 1 moves the mean negative state to where the mean positive one is, -1 the
    other way, 0 changes nothing. A direction with vectors for several layers is added at each of them.
    """

    direction: Direction | str | Path
    strength: float = 1.0

    def __post_init__(self) -> None:
        checked_strength(self.strength, "strength", "strength=1.0")

    def bound(self, causal: CausalModel) -> Steered:
        """The rule for one run of ``causal``. Raises UsageError for the direction of another model, or a file of none."""
        direction = self.direction if isinstance(self.direction, Direction) else Direction.load(self.direction)
        direction.check_model(causal)
        return Steered(causal, direction, self.strength)


class Steered:
    """The rule of a :class:`Steering`, for one run.

    It works while :meth:`attached`, and gives scores back as they are: they come from a forward pass that is changed already.
    What is read is left alone, what is said is steered: the last position of the prompt, which the first choice hangs on, and
    every one behind it. What other rules read beside it (:class:`Reading`) is steered alike.
    """

    name = "steering"
    believes = True
    masks = False

    def __init__(self, causal: CausalModel, direction: Direction, strength: float) -> None:
        self.direction = direction
        self.strength = float(strength)
        self._causal = causal
        self._plain = Reading(causal)
        self._silent = False
        self._n_prompt: int | None = None
        self._begun = self._called = False
        self._begins_anew = False

    def begin(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> None:
        """The prompts and their mask, where they are known before the first call.

        Otherwise the first pass is taken to read the prompt and nothing that was forced behind it.
        """
        self._n_prompt = input_ids.shape[1]
        self._plain.begin(input_ids, attention_mask)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores given; the first call tells how long the prompt is where nothing did before."""
        if self._n_prompt is None:
            self._n_prompt = input_ids.shape[1]
        self._called = True
        return scores

    def describe(self) -> dict[str, Any]:
        return {"kind": "activation steering", "strength": self.strength, "direction": self.direction.describe()}

    def baseline(self, input_ids: torch.Tensor) -> torch.Tensor:
        """``[B, V]`` logits that the model would have without this rule, behind the same ``[B, T]`` ids.

        Costs a second forward pass, with a cache of its own that grows by what was said since it was last asked; where
        nothing told the prompts before, the first ids are taken for them. Raises UsageError, PromptError as :class:`Reading`
        does.
        """
        self._silent = True
        try:
            return self._plain.logits(input_ids)
        finally:
            self._silent = False

    def attached(self, model: Any) -> AbstractContextManager[None]:
        """The context in which ``model``, that of the rule or what wraps it, is steered; it is as before on leaving."""
        return self._attached(model)

    @contextmanager
    def _attached(self, model: Any) -> Iterator[None]:
        with ExitStack() as stack:
            if self.strength != 0:
                stack.callback(model.register_forward_pre_hook(self._begin_pass, with_kwargs=True).remove)
                for layer in self.direction.layers:
                    block = block_of(self._causal, layer)
                    added = self.strength * self.direction.vectors[layer].float()
                    stack.callback(replaced(block, self._steered(added.to(next(block.parameters()).device))).remove)
            yield

    def _begin_pass(self, model: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if self._silent or said_from() is not None:
            return
        self._begins_anew = cache_in(kwargs) is None
        if self._begun and not self._called:
            raise UnsupportedDecoding(
                "the prompt is read in several passes, or the steering rule is not called",
                why="the last position of the prompt is steered, and only the rule's first call tells where it was",
                fix="leave out prefill_chunk_size; and give the rule to generate() as a logits processor too",
            )
        self._begun = True

    def _steered(self, added: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        def steered(state: torch.Tensor) -> torch.Tensor:
            if self._silent:
                return state
            first = self._first(state.shape[1])
            said = (state[:, first:].float() + added).to(state.dtype)
            return torch.cat([state[:, :first], said], dim=1) if first else said

        return steered

    def _first(self, n_read: int) -> int:
        """The first of the positions that a pass reads to be steered."""
        told = said_from()
        if told is not None:
            return told
        n_prompt = self._n_prompt or n_read
        if self._called and not (self._begins_anew and n_read > n_prompt):
            return 0
        # the prompt, and whatever was forced behind it; or everything again, in a model without a cache
        return min(n_prompt, n_read) - 1
