"""A second reading of what is being said: behind another prompt, or by another model, with a cache of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import compress
from typing import Any

import torch

from tokentape.errors import UsageError
from tokentape.models.anatomy import keeps_rows
from tokentape.models.architecture import ignores_padding
from tokentape.models.cache import CACHE_NAMES
from tokentape.models.causal import CausalModel
from tokentape.models.padding import left_padded, pad_id_of, unpadded

__all__ = ["Opening", "Reading", "said_from"]

Opening = Callable[[list[list[int]]], Sequence[Sequence[int]]]
"""From the prompts of a run to what is read in their place, one for each row."""

_said_from: ContextVar[int | None] = ContextVar("said_from", default=None)


def said_from() -> int | None:
    """Within a forward pass of a :class:`Reading`: the first of the positions it reads that a choice hangs on, that is the
    last of the prompt and all behind it. None in any other pass.
    """
    return _said_from.get()


class Reading:
    """Follows a run: at each call it reads what was chosen since the last one, and says what it would expect next.

    ``opening`` gives what stands in the place of the prompts; without it they are read as they are. The cache is its own. A
    model whose state cannot take several tokens at once reads forced runs one by one; one without a cache reads everything
    again.
    """

    def __init__(self, causal: CausalModel, opening: Opening | None = None) -> None:
        self.causal = causal
        self._opening = opening
        self._prompts: list[list[int]] = []
        self._run: tuple[int, int] | None = None
        self._n_prompt = 0
        self._cached = False
        self._ids = torch.empty(0)
        self._kwargs: dict[str, Any] = {}

    def begin(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> None:
        """The prompts ``[B, T]`` before the first call, left-padded, and their mask, None without padding.

        Where nobody tells, the first call's ids are taken for the prompts, and the id that pads for padding.
        """
        width = input_ids.shape[1]
        masks = torch.ones_like(input_ids) if attention_mask is None else attention_mask[:, -width:]
        rows = zip(input_ids.tolist(), masks.tolist(), strict=True)
        self._prompts = [list(compress(row, mask)) for row, mask in rows]
        self._run = (len(self._prompts), width)

    @torch.no_grad()
    def logits(self, input_ids: torch.Tensor) -> torch.Tensor:
        """``[B, V]`` float32 logits of the token behind ``[B, T]`` ids, on their device.

        The first call's ids are the prompts, left-padded. Raises UsageError where the ids do not go on from those of the call
        before, PromptError where they outgrow the model's positions.
        """
        n_rows, length = input_ids.shape
        if self._run is None:
            self._prompts = unpadded(input_ids, pad_id_of(self.causal))
        seen_rows, seen = self._run or (n_rows, length)
        started = bool(self._kwargs)
        if n_rows != seen_rows or length - seen < started:
            raise UsageError(
                f"{n_rows} rows of {length} tokens do not go on from {seen_rows} rows of {seen}",
                why="a rule that reads along follows one run from its prompt to its end",
                fix="bind the rule anew for each run",
            )
        new = input_ids[:, seen:]
        logits = self._go_on(new.to(self._ids.device)) if started else self._start(new.tolist())
        self._run = (n_rows, length)
        return logits.to(device=input_ids.device, dtype=torch.float32)

    def _start(self, forced: list[list[int]]) -> torch.Tensor:
        """Read the prompts, or what stands in their place, and the tokens that follow them already."""
        causal, model = self.causal, self.causal.model
        openings = self._prompts if self._opening is None else self._opening(self._prompts)
        rows = [[*opening, *behind] for opening, behind in zip(openings, forced, strict=True)]
        ids, mask = left_padded(rows, pad_id_of(causal))
        self._n_prompt = ids.shape[1] - len(forced[0])
        causal.check_length(ids.shape[1], 1)
        self._ids, mask = ids.to(causal.device), mask.to(causal.device)
        self._kwargs = {"use_cache": True}
        if not mask.all():
            self._refuse_padding()
            self._kwargs["attention_mask"] = mask
        # where a family takes no positions, its forward would not know the name
        if "position_ids" in inspect.signature(model.forward).parameters:
            self._kwargs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        if keeps_rows(model):
            self._kwargs["logits_to_keep"] = 1
        return self._read(None, first=True)

    def _refuse_padding(self) -> None:
        if ignores_padding(self.causal.config):
            raise UsageError(
                f"{type(self.causal.model).__name__} cannot read a batch of prompts of unequal length",
                why="this family ignores the attention mask, so it would read the padding as text",
                fix="record the prompts one by one, or give (negative) prompts of equal length",
            )

    def _go_on(self, new: torch.Tensor) -> torch.Tensor:
        self.causal.check_length(self._ids.shape[1], new.shape[1])
        one_by_one = self._cached and getattr(self.causal.model, "_is_stateful", False)
        logits = new
        for part in new.split(1, dim=1) if one_by_one else (new,):
            n_part = part.shape[1]
            self._ids = torch.cat([self._ids, part], dim=1)
            if (mask := self._kwargs.get("attention_mask")) is not None:
                self._kwargs["attention_mask"] = torch.cat([mask, torch.ones_like(part)], dim=1)
            if (positions := self._kwargs.get("position_ids")) is not None:
                behind = positions[:, -1:] + torch.arange(1, n_part + 1, device=positions.device)
                self._kwargs["position_ids"] = torch.cat([positions, behind], dim=1)
            logits = self._read(n_part if self._cached else None)
        return logits

    def _read(self, n_new: int | None, *, first: bool = False) -> torch.Tensor:
        """Logits ``[B, V]`` behind the last id, after a pass over the last ``n_new``; over all of them for None."""
        model = self.causal.model
        inputs = model.prepare_inputs_for_generation(
            self._ids, next_sequence_length=n_new, is_first_iteration=first, **self._kwargs
        )
        with _saying(0 if n_new is not None else self._n_prompt - 1):
            out = model(**inputs, return_dict=True)
        for name in CACHE_NAMES:
            if getattr(out, name, None) is not None:
                self._kwargs[name], self._cached = getattr(out, name), True
        logits: torch.Tensor = out.logits[:, -1]
        return logits


@contextmanager
def _saying(first: int) -> Iterator[None]:
    before = _said_from.set(first)
    try:
        yield
    finally:
        _said_from.reset(before)
