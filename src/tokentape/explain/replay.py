"""The replay: recorded ids through the model once more, teacher-forced, and whether it computes what the tape says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from tokentape.data.explanation import ReplayCheck
from tokentape.data.trace import Piece, Trace
from tokentape.errors import ReplayError, UsageError
from tokentape.explain.question import Question
from tokentape.models.anatomy import Anatomy, anatomy_of, inputs_of, keeps_rows, replaced
from tokentape.models.causal import CausalModel
from tokentape.models.failures import Attempt, memory_told

__all__ = ["HEAD_BYTES", "Passes", "Progress", "Replay", "ids_of", "recorded_ids"]

HEAD_BYTES = 256_000_000
"""Logits that may be held at once: what needs more goes through the model in parts."""

Progress = Callable[[int, int], None]
"""Told how much of a long work is done, and how much there is."""


class _Enough(Exception):
    """The entry has been reached: what the model would compute behind it is not needed."""


@dataclass
class Passes:
    """Sequences that went through the model, forward and backward: what an explanation cost, whatever the machine."""

    forward: int = 0
    backward: int = 0


@dataclass
class Replay:
    """A sequence of ids played through a model again.

    ``ids`` are the prompt and the recorded tokens, without padding and without what was computed past the end; the token
    at position p is predicted by the logits of row p - 1. ``check`` says whether the replay agrees with the tape; None
    where it was not asked. Nothing of the model is changed: what is exchanged during a pass is put back behind it.
    """

    causal: CausalModel
    ids: tuple[int, ...]
    n_prompt: int
    check: ReplayCheck | None = None
    passes: Passes = field(default_factory=Passes)

    @classmethod
    def of(cls, trace: Trace, causal: CausalModel) -> Replay:
        """A replay of a trace, not checked. Raises ReplayError where the trace does not hold its ids."""
        return cls(causal, ids_of(trace, causal.vocab_size), int(trace.n_prompt or 0))

    @cached_property
    def anatomy(self) -> Anatomy:
        """Where the parts of the model are."""
        return anatomy_of(self.causal.model)

    @property
    def model(self) -> Any:
        """The transformers module."""
        return self.causal.model

    def ids_tensor(self, stop: int | None = None) -> torch.Tensor:
        """The first ``stop`` ids as ``[1, stop]``, where the model wants them."""
        return torch.tensor([self.ids[:stop]], device=self.causal.device)

    def target_ids(self, question: Question) -> torch.Tensor:
        """Ids ``[n]`` of the tokens at the question's targets. Raises UsageError for a position past the end."""
        if question.targets[-1] >= len(self.ids):
            raise UsageError(
                f"no token at position {question.targets[-1]}",
                why=f"the sequence has {len(self.ids)} tokens, at positions 0 to {len(self.ids) - 1}",
                fix=f"ask for a position of {self.n_prompt} to {len(self.ids) - 1}",
            )
        return torch.tensor([self.ids[p] for p in question.targets], device=self.causal.device)

    def pieces_of(self, ids: Iterable[int]) -> dict[int, Piece]:
        """The vocabulary's entries of ids; none without a tokenizer."""
        if self.causal.tokenizer is None:
            return {}
        found = (self.causal.pieces.piece(token_id) for token_id in sorted(set(ids)))
        return {piece.id: Piece(piece.id, piece.token, piece.bytes, piece.special) for piece in found}

    def logits(
        self, positions: Sequence[int], *, ids: torch.Tensor | None = None, entry: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits ``[B, n, V]`` that predict the tokens at ``positions``.

        ``ids`` ``[B, T]`` are the recorded ones unless others are given; rows past the last that is needed are not
        computed. ``entry`` ``[B, T, D]`` stands in for what the model's entry gives, and may be a leaf to differentiate
        by. Gradients are the caller's: nothing here turns them on or off. Raises OutOfMemory.
        """
        stop = max(positions)
        if ids is None:
            ids = self.ids_tensor(stop)
            if entry is not None and entry.shape[0] > 1:
                ids = ids.expand(entry.shape[0], -1)
        ids = ids[:, :stop]
        entry = None if entry is None else entry[:, :stop]
        rows = torch.tensor([position - 1 for position in positions], device=ids.device)
        self.passes.forward += ids.shape[0]
        with self.entry_replaced(entry), self.memory("replaying"):
            inputs = inputs_of(self.model, ids)
            if keeps_rows(self.model):
                logits: torch.Tensor = self.model(**inputs, use_cache=False, logits_to_keep=rows).logits
                return logits
            return self.model(**inputs, use_cache=False).logits[:, rows]  # type: ignore[no-any-return]

    def entry(self, ids: torch.Tensor | None = None) -> torch.Tensor:
        """What the model's entry gives for ``ids`` ``[B, T]`` (the recorded ones unless others are given): ``[B, T, D]``.

        The rest of the model is not run. A copy: some models scale their embeddings in place behind it.
        """
        ids = self.ids_tensor() if ids is None else ids.to(self.causal.device)
        seen: list[torch.Tensor] = []

        def stop(given: torch.Tensor) -> torch.Tensor:
            seen.append(given.detach().clone())
            raise _Enough

        handle = replaced(self.anatomy.entry, stop)
        try:
            with torch.no_grad(), self.memory("reading its embeddings"):
                self.model(**inputs_of(self.model, ids), use_cache=False)
        except _Enough:
            pass
        finally:
            handle.remove()
        self.passes.forward += ids.shape[0]
        return seen[0]

    @contextmanager
    def entry_replaced(self, entry: torch.Tensor | None) -> Iterator[None]:
        """Within it, for one pass, the model's entry gives ``entry``; with None, what it always gives."""
        if entry is None:
            yield
            return
        waiting = [entry]

        def first(given: torch.Tensor) -> torch.Tensor:
            # one norm may stand at both ends of a model: the call that comes first is the entry's
            return waiting.pop() if waiting else given

        handle = replaced(self.anatomy.entry, first)
        try:
            yield
        finally:
            handle.remove()

    def memory(self, doing: str) -> AbstractContextManager[None]:
        """Within it, memory that runs out is OutOfMemory with its numbers."""
        return memory_told(Attempt(self.causal.name, doing=doing, device=self.causal.device))


def ids_of(trace: Trace, vocab_size: int) -> tuple[int, ...]:
    """Prompt and recorded ids of a trace. Raises ReplayError where the tape does not have them, or not for this model."""
    if trace.prompt_ids is None:
        raise ReplayError(
            f"sequence {trace.number} has no prompt ids",
            why="a replay needs the ids that were read, and the tape was recorded without text or by a source that gives none",
            fix="record it again without --no-text",
        )
    recorded = recorded_ids(trace, vocab_size)
    return _within((*map(int, trace.prompt_ids), *recorded), trace, vocab_size)


def recorded_ids(trace: Trace, vocab_size: int) -> tuple[int, ...]:
    """Recorded ids of what was said. Raises ReplayError where the tape does not have them, or not for this model."""
    recorded = trace.tokens["id"]
    if recorded.mask.any():
        raise ReplayError(
            f"{int(recorded.mask.sum())} tokens of sequence {trace.number} have no id",
            why="their source gave text alone, and re-tokenised text is another sequence",
            fix="record from a source that gives token ids",
        )
    return _within(tuple(map(int, recorded.data)), trace, vocab_size)


def _within(ids: tuple[int, ...], trace: Trace, vocab_size: int) -> tuple[int, ...]:
    if ids and not 0 <= min(ids) <= max(ids) < vocab_size:
        raise ReplayError(
            f"sequence {trace.number} has a token id {max(ids)}, and the model has {vocab_size} entries",
            why="the tape was recorded with another vocabulary",
            fix="replay it on the model that it was recorded with",
        )
    return ids
