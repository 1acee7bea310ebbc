"""Sequences with some of their tokens replaced, through the model, with what stands before computed once."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tokentape.errors import TokentapeError
from tokentape.explain.checking import goes_on
from tokentape.explain.question import Attribution, Question, raised
from tokentape.explain.replay import HEAD_BYTES, Progress, Replay
from tokentape.models.anatomy import inputs_of, keeps_rows

__all__ = ["Change", "Fall", "Falls", "between", "fallen"]

BATCH_TOKENS = 2048
"""Tokens that go through the model at once, the cached ones before them not counted."""

SHARED = 32
"""Positions, at most, between the first of a batch's segments and its last: what lies between is computed for each."""

AGREEMENT = 1e-3
"""How far a value computed from a cache may be from the one without, as a part of it, or of 1 where it is smaller."""

_REFUSALS = (RuntimeError, TypeError, ValueError, IndexError, AttributeError)

Segment = tuple[int, int]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Change:
    """Ids ``[T]`` that stand in for those of a segment, given by its number; ``weight`` is what its fall counts for."""

    segment: int
    ids: torch.Tensor
    weight: float


@dataclass(frozen=True, slots=True)
class Fall:
    """What a change did to each target, ``[n]`` in float64; of no meaning for targets before the change.

    ``fall`` is how far the value falls, ``after`` the log-probability (nats) of the recorded tokens between the change
    and the target, given the change; None where it was not asked for.
    """

    change: Change
    fall: Floats
    after: Floats | None


def fallen(
    replay: Replay, question: Question, changes: Sequence[Change], notes: dict[str, Any], progress: Progress | None
) -> Attribution:
    """The weighted sum, over a segment's changes, of how far each value falls; ``changes`` ascend by segment.

    All targets are answered by the same passes. ``notes["prefix"]`` says whether what stands before a segment was kept as
    keys and values, ``"computed anew"``, or ``"none"`` where all went together.
    """
    falls = Falls(replay, question, progress)
    summed = np.zeros((len(question.targets), question.n_segments))
    for one in falls.of(changes):
        summed[:, one.change.segment] += one.fall * one.change.weight
    return falls.attribution(summed, notes)


class Falls:
    """How far the values of a question fall under changes of what stands before its targets.

    ``likelihood`` asks for the log-probabilities of what follows a change too: the same passes, with the head over all
    rows behind the change.
    """

    def __init__(
        self, replay: Replay, question: Question, progress: Progress | None = None, *, likelihood: bool = False
    ) -> None:
        self._replay, self._question, self._progress = replay, question, progress
        self._likelihood = likelihood
        self._reader = _Reader(replay, question, likelihood)

    def of(self, changes: Sequence[Change]) -> Iterator[Fall]:
        """The falls of each change, in the order given, which ascends by segment. Raises OutOfMemory."""
        question, reader = self._question, self._reader
        stop = question.targets[-1]
        segments = [(start, min(end, stop)) for start, end in question.segments if start < stop]
        done = 0
        for batch in self._batches(changes, segments):
            rows = reader.ids.repeat(len(batch), 1)
            for row, change in zip(rows, batch, strict=True):
                start, end = segments[change.segment]
                row[start:end] = change.ids[start:end]
            found = reader.read(rows, segments[batch[0].segment][0])
            falls = (reader.full - found.values).double().cpu().numpy()
            for index, change in enumerate(batch):
                end = segments[change.segment][1]
                after = between(found.logprobs[index], end, question) if self._likelihood else None
                yield Fall(change, falls[index], after)
            done += len(batch)
            if self._progress is not None:
                self._progress(done, len(changes))

    def attribution(self, relevance: Floats, notes: dict[str, Any]) -> Attribution:
        """The answer to the question, from the relevance ``[n, S]`` of each segment for each target."""
        question, reader = self._question, self._reader
        return Attribution(
            relevance=_seen(question, relevance),
            value=question.fold(reader.full.double().cpu().numpy()),
            notes={**notes, "prefix": reader.prefix},
        )

    def _batches(self, changes: Sequence[Change], segments: Sequence[Segment]) -> Iterator[list[Change]]:
        """Neighbours go together, as many as fit; what stands before the first of them is common to all."""
        stop, vocab_size = self._question.targets[-1], self._replay.causal.vocab_size
        batch: list[Change] = []
        for change in changes:
            if batch:
                first = segments[batch[0].segment][0]
                size = len(batch) + 1
                rows = stop - first if self._likelihood else len(self._question.targets)
                # the recorded sequence goes along
                full = size * (stop - first) > BATCH_TOKENS or 4 * (size + 1) * rows * vocab_size > HEAD_BYTES
                if full or segments[change.segment][0] - first >= SHARED:
                    yield batch
                    batch = []
            batch.append(change)
        if batch:
            yield batch


def _seen(question: Question, falls: np.ndarray) -> np.ndarray:
    """``[n_rows, S]``: summed over targets where they are asked together, NaN where a row's target cannot see the segment."""
    starts = np.array([start for start, _ in question.segments])
    before = starts[None, :] < np.array(question.targets)[:, None]
    summed = question.fold(np.where(before, falls, 0.0))
    return np.where(question.visible(), summed, np.nan)


class _Reader:
    """Reads sequences that are the recorded one up to a position that only moves on, whose keys and values are kept.

    A model that goes on from its cache as if it had read all of it is not known by its class: each batch takes the
    recorded ids along, and where their values are others than without a cache, it is not used again. ``ids`` ``[1, stop]``
    are the recorded ones, ``full`` ``[n]`` their values.
    """

    def __init__(self, replay: Replay, question: Question, likelihood: bool) -> None:
        self.replay, self.question, self.likelihood = replay, question, likelihood
        self.target_ids = replay.target_ids(question)
        self.ids = replay.ids_tensor(question.targets[-1])
        self.full = question.values(replay.logits(question.targets), self.target_ids)[0]
        self.length = 0
        self.cache: Any = None
        self.kept = True

    @property
    def prefix(self) -> str:
        """What became of what stands before the changes."""
        return "computed anew" if not self.kept else "kept" if self.length else "none"

    def read(self, rows: torch.Tensor, start: int) -> _Scores:
        """What ids ``rows`` ``[B, stop]``, the recorded ones before ``start``, give for targets behind it."""
        if self.kept:
            try:
                self._move_on(start)
                if self.kept and self.length:
                    found = self._continued(torch.cat([self.ids, rows]))
                    if self._agree(found.values[0]):
                        return found.without_first()
                    self.kept = False
            except TokentapeError:
                raise
            except _REFUSALS:
                self.kept = False
        return self._anew(rows)

    def _agree(self, found: torch.Tensor) -> bool:
        reached = torch.tensor([target > self.length for target in self.question.targets], device=found.device)
        off = (found - self.full).abs() / self.full.abs().clamp(min=1)
        return bool((off[reached] <= max(AGREEMENT, 16 * torch.finfo(self.replay.causal.dtype).eps)).all())

    def _continued(self, rows: torch.Tensor) -> _Scores:
        model, past, stop = self.replay.model, self.length, rows.shape[1]
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(len(rows))
        self.replay.passes.forward += len(rows)
        found = _Scores(self, rows)
        # all at once, unless the logits of one batch are more than may be held
        step = max(1, HEAD_BYTES // (4 * self.replay.causal.vocab_size * len(rows))) if self.likelihood else stop
        for begin in range(past, stop, step):
            end = min(begin + step, stop)
            inputs = inputs_of(model, rows[:, begin:end], begin)
            places = torch.arange(begin, end) if self.likelihood else self._wanted(past)
            options = {"logits_to_keep": places.to(rows.device) - begin} if keeps_rows(model) else {}
            with self.replay.memory("replacing sources"):
                mask = torch.ones_like(rows[:, :end])
                logits = model(**inputs, attention_mask=mask, past_key_values=cache, **options).logits
            found.add(logits if options else logits[:, places - begin], places)
        return found

    def _anew(self, rows: torch.Tensor) -> _Scores:
        """Without what is kept: the whole of each row."""
        found = _Scores(self, rows)
        places = torch.arange(rows.shape[1]) if self.likelihood else self._wanted(0)
        step = max(1, HEAD_BYTES // (4 * self.replay.causal.vocab_size * len(rows)))
        for part in places.split(step if self.likelihood else len(places)):
            found.add(self.replay.logits((part + 1).tolist(), ids=rows), part)
        return found

    def _wanted(self, past: int) -> torch.Tensor:
        """Rows whose logits the targets are read from; of targets at or before ``past`` any."""
        return torch.tensor([max(target - 1, past) for target in self.question.targets])

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


class _Scores:
    """What ids ``rows`` ``[B, stop]`` are scored as; grows by the logits of some places at a time.

    ``values`` ``[B, n]`` are those of the targets whose logits were seen, ``logprobs`` ``[B, stop]`` those of the rows' own
    ids (nats), zero where they were not asked for.
    """

    def __init__(self, reader: _Reader, rows: torch.Tensor) -> None:
        self._reader, self._rows = reader, rows
        self.values = torch.zeros(
            (len(rows), len(reader.question.targets)), device=rows.device, dtype=reader.full.dtype
        )
        self.logprobs = np.zeros(tuple(rows.shape))

    def add(self, logits: torch.Tensor, places: torch.Tensor) -> None:
        """Logits ``[B, m, V]`` at the ``places`` ``[m]``, each of which predicts the token behind it."""
        question, ids = self._reader.question, self._reader.target_ids
        if not self._reader.likelihood:
            self.values = question.values(logits, ids)
            return
        first, end = int(places[0]) + 1, int(places[-1]) + 2
        seen = slice(*np.searchsorted(question.targets, [first, end]))
        targets = question.targets[seen]
        if targets:
            part = replace(question, targets=targets, foils=question.foils[seen], segments=(), together=False)
            self.values[:, seen] = part.values(logits[:, [target - first for target in targets]], ids[seen])
        own = self._rows[:, first:end]
        logits = raised(logits[:, : own.shape[1]])
        found = logits.gather(-1, own[..., None])[..., 0] - logits.logsumexp(-1)
        self.logprobs[:, first : first + own.shape[1]] = found.double().cpu().numpy()

    def without_first(self) -> _Scores:
        """The same of all rows but the first."""
        self.values, self.logprobs, self._rows = self.values[1:], self.logprobs[1:], self._rows[1:]
        return self


def between(logprobs: Floats, end: int, question: Question) -> Floats:
    """Log-probability ``[n]`` of the ids from position ``end`` up to each target, that of the target left out.

    ``logprobs`` ``[stop]`` are those of the ids themselves; before ``end`` there is nothing to add.
    """
    sums = np.concatenate([[0.0], np.cumsum(logprobs[end:])])
    found: Floats = sums[(np.array(question.targets) - end).clip(min=0)]
    return found
