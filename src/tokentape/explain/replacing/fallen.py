"""Sequences with some of their tokens replaced, through the model, with what stands before computed once."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tokentape.errors import TokentapeError
from tokentape.explain.checking import goes_on
from tokentape.explain.question import Attribution, Question
from tokentape.explain.replay import HEAD_BYTES, Progress, Replay
from tokentape.models.anatomy import inputs_of, keeps_rows

__all__ = ["Change", "fallen"]

BATCH_TOKENS = 2048
"""Tokens that go through the model at once, the cached ones before them not counted."""

SHARED = 32
"""Positions, at most, between the first of a batch's segments and its last: what lies between is computed for each."""

AGREEMENT = 1e-3
"""How far a value computed from a cache may be from the one without, as a part of it, or of 1 where it is smaller."""

_REFUSALS = (RuntimeError, TypeError, ValueError, IndexError, AttributeError)

Segment = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Change:
    """Ids ``[T]`` that stand in for those of a segment, given by its number; ``weight`` is the weight of the fall."""

    segment: int
    ids: torch.Tensor
    weight: float


def fallen(
    replay: Replay, question: Question, changes: Sequence[Change], notes: dict[str, Any], progress: Progress | None
) -> Attribution:
    """The weighted sum, over a segment's changes, of how far each value falls; ``changes`` ascend by segment.

    All targets are answered by the same passes. ``notes["prefix"]`` says whether what stands before a segment was kept as
    keys and values.
    """
    ids, stop = replay.ids_tensor(), question.targets[-1]
    full = question.values(replay.logits(question.targets), replay.target_ids(question))[0]
    segments = [(start, min(end, stop)) for start, end in question.segments if start < stop]
    falls = torch.zeros((len(question.targets), question.n_segments), dtype=torch.float64)
    prefix, done = _Prefix(replay, ids), 0
    for batch in _batches(changes, segments, stop, replay.causal.vocab_size * len(question.targets)):
        rows = ids[:, :stop].repeat(len(batch), 1)
        for row, change in zip(rows, batch, strict=True):
            start, end = segments[change.segment]
            row[start:end] = change.ids[start:end]
        values = prefix.values(question, rows, segments[batch[0].segment][0], full)
        for row, change in enumerate(batch):
            falls[:, change.segment] += (full - values[row]).double().cpu() * change.weight
        done += len(batch)
        if progress is not None:
            progress(done, len(changes))
    return Attribution(
        relevance=_seen(question, falls.numpy()),
        value=question.fold(full.double().cpu().numpy()),
        notes={**notes, "prefix": "kept" if prefix.kept else "computed anew"},
    )


def _seen(question: Question, falls: np.ndarray) -> np.ndarray:
    """``[n_rows, S]``: summed over targets where they are asked together, NaN where a row's target cannot see the segment."""
    starts = np.array([start for start, _ in question.segments])
    before = starts[None, :] < np.array(question.targets)[:, None]
    summed = question.fold(np.where(before, falls, 0.0))
    return np.where(question.visible(), summed, np.nan)


def _batches(changes: Sequence[Change], segments: Sequence[Segment], stop: int, logits: int) -> Iterator[list[Change]]:
    """Neighbours go together, as many as fit; what stands before the first of them is common to all."""
    batch: list[Change] = []
    for change in changes:
        if batch:
            first = segments[batch[0].segment][0]
            size = len(batch) + 1
            full = size * (stop - first) > BATCH_TOKENS or 4 * size * logits > HEAD_BYTES
            if full or segments[change.segment][0] - first >= SHARED:
                yield batch
                batch = []
        batch.append(change)
    if batch:
        yield batch


@dataclass
class _Prefix:
    """Keys and values of the recorded ids before a position that only moves on; without them where the model cannot.

    A model that goes on from its cache as if it had read all of it is not known by its class: each batch takes the
    recorded ids along, and where their values are others than without a cache, it is not used again.
    """

    replay: Replay
    ids: torch.Tensor
    length: int = 0
    cache: Any = None
    kept: bool = True

    def values(self, question: Question, rows: torch.Tensor, start: int, full: torch.Tensor) -> torch.Tensor:
        """Values ``[B, n]`` of the targets for ids ``rows`` ``[B, T]`` that are the recorded ones before ``start``.

        ``full`` ``[n]`` are those of the recorded ids. Values of targets that ``start`` cannot change are of no meaning.
        """
        if self.kept:
            try:
                self._move_on(start)
                if self.kept and self.length:
                    found = self._continued(question, torch.cat([self.ids[:, : rows.shape[1]], rows]))
                    if self._agree(question, found[0], full):
                        return found[1:]
                    self.kept = False
            except TokentapeError:
                raise
            except _REFUSALS:
                self.kept = False
        return question.values(self.replay.logits(question.targets, ids=rows), self.replay.target_ids(question))

    def _agree(self, question: Question, found: torch.Tensor, full: torch.Tensor) -> bool:
        reached = torch.tensor([target > self.length for target in question.targets], device=found.device)
        off = (found - full).abs() / full.abs().clamp(min=1)
        return bool((off[reached] <= max(AGREEMENT, 16 * torch.finfo(self.replay.causal.dtype).eps)).all())

    def _continued(self, question: Question, rows: torch.Tensor) -> torch.Tensor:
        model, past = self.replay.model, self.length
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(len(rows))
        inputs = inputs_of(model, rows[:, past:], past)
        wanted = torch.tensor([max(target - 1 - past, 0) for target in question.targets], device=rows.device)
        options = {"logits_to_keep": wanted} if keeps_rows(model) else {}
        self.replay.passes.forward += len(rows)
        with self.replay.memory("replacing sources"):
            mask = torch.ones_like(rows)
            logits: torch.Tensor = model(**inputs, attention_mask=mask, past_key_values=cache, **options).logits
        return question.values(logits if options else logits[:, wanted], self.replay.target_ids(question))

    def _move_on(self, start: int) -> None:
        """Read the recorded ids up to ``start``."""
        if start <= self.length:
            return
        self.replay.passes.forward += self.length == 0  # all its parts together are one sequence
        inputs = inputs_of(self.replay.model, self.ids[:, self.length : start], self.length)
        options: dict[str, Any] = {"past_key_values": self.cache} if self.cache is not None else {}
        if keeps_rows(self.replay.model):
            options["logits_to_keep"] = 1
        with self.replay.memory("reading what stands before"):
            mask = torch.ones_like(self.ids[:, :start])
            out = self.replay.model(**inputs, attention_mask=mask, use_cache=True, **options)
        self.cache = getattr(out, "past_key_values", None)
        self.length = start
        self.kept = goes_on(self.cache)
