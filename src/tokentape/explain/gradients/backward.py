"""The backward pass of an explanation: one forward graph, and the gradient of each target's value from it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from tokentape.errors import ExplainError
from tokentape.explain.gradients.choices import Unbroken
from tokentape.explain.question import Question
from tokentape.explain.replay import HEAD_BYTES, Replay
from tokentape.models.failures import is_out_of_memory

__all__ = ["BATCH_TOKENS", "contracted", "gradients", "parts", "recorded", "reduced"]

BLOCK = 16
"""Targets that share a forward graph, cut behind the last of them: what stands after a target has no gradient to compute."""

BATCH_TOKENS = 2048
"""Positions that go backward at once: batched gradients pay where single ones would be small."""


@dataclass(frozen=True)
class _Root:
    """Where the backward passes of single targets begin: a tensor ``[...]``, and the seed ``[...]`` of each row."""

    tensor: torch.Tensor
    seed: Callable[[int], torch.Tensor]


def parts(question: Question, vocab_size: int) -> Iterator[tuple[int, Question]]:
    """The question cut into questions about a few neighbouring targets each, with the row of each one's first target."""
    most = max(1, HEAD_BYTES // (4 * vocab_size))
    size = most if question.together else min(BLOCK, most)
    for start in range(0, len(question.targets), size):
        stop = start + size
        part = replace(question, targets=question.targets[start:stop], foils=question.foils[start:stop])
        yield 0 if question.together else start, part


def contracted(
    replay: Replay, question: Question, entry: torch.Tensor, direction: torch.Tensor, mode: Unbroken | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values ``[n_rows, B]`` at ``entry`` ``[B, T, D]``, and their gradients by it along ``direction`` ``[n_rows, B, T]``.

    ``direction`` ``[1 or B, T, D]`` is multiplied with the gradient, and the product summed over D. Raises as
    :func:`reduced`.
    """
    return reduced(replay, question, entry, lambda gradients: _sum_along(gradients, direction), mode)


def reduced(
    replay: Replay,
    question: Question,
    entry: torch.Tensor,
    reduce: Callable[[torch.Tensor], torch.Tensor],
    mode: Unbroken | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values ``[n_rows, B]`` at ``entry`` ``[B, T, D]``, and of their gradients by it what ``reduce`` makes of ``[..., D]``.

    The head goes backward once for all targets, since no row of its output depends on another's input; behind it one
    vector-Jacobian product a row, several at once where they are small. Raises ExplainError where the model gives no
    gradients.
    """
    leaf = entry.detach().requires_grad_()
    values, root = _forward(replay, question, leaf, mode or Unbroken())
    with replay.memory("explaining"):
        found = [reduce(gradients) for gradients in _gradients(root, leaf, len(values), replay)]
    return values.detach(), torch.cat(found)


@contextmanager
def recorded(replay: Replay, mode: Unbroken) -> Iterator[None]:
    """Within it, what the model computes goes into a graph. Raises ExplainError where the model refuses that."""
    try:
        with torch.enable_grad(), mode:
            yield
    except AssertionError as error:
        raise ExplainError(
            f"{replay.causal.name} gives no gradients",
            why=f"its forward pass refuses them outside of training: {' '.join(str(error).split())[:200]}",
            fix="--method leave_one_out needs none",
        ) from error


def _sum_along(gradients: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    return (gradients * direction).sum(-1, dtype=torch.promote_types(gradients.dtype, torch.float32))


@torch.enable_grad()
def _forward(replay: Replay, question: Question, leaf: torch.Tensor, mode: Unbroken) -> tuple[torch.Tensor, _Root]:
    hidden: list[torch.Tensor] = []
    head = replay.anatomy.head
    handle = None if head is None else head.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0]))
    try:
        with recorded(replay, mode):
            # a copy: some models scale their embeddings in place, which a leaf does not allow
            logits = replay.logits(question.targets, entry=leaf.clone())
    finally:
        if handle is not None:
            handle.remove()
    with replay.memory("explaining"):
        values = question.values(logits, replay.target_ids(question))
    rows = question.fold(values.transpose(0, 1))
    if len(hidden) != 1 or not hidden[0].requires_grad or hidden[0].dim() != 3:
        return rows, _Root(rows, lambda row: _one_hot(rows, row))
    (found,) = torch.autograd.grad(rows.sum(), hidden[0])
    if question.together:
        return rows, _Root(hidden[0], lambda row: found)
    # the head's input has the rows asked for, or all of them
    places = (
        range(len(question.targets)) if found.shape[1] == len(question.targets) else [p - 1 for p in question.targets]
    )
    return rows, _Root(hidden[0], lambda row: _only(found, places[row]))


def _one_hot(rows: torch.Tensor, row: int) -> torch.Tensor:
    seed = torch.zeros_like(rows)
    seed[row] = 1
    return seed


def _only(gradient: torch.Tensor, place: int) -> torch.Tensor:
    seed = torch.zeros_like(gradient)
    seed[:, place] = gradient[:, place]
    return seed


def _gradients(root: _Root, leaf: torch.Tensor, n_rows: int, replay: Replay) -> Iterator[torch.Tensor]:
    """``[k, B, T, D]`` for k rows after another."""
    size = max(1, min(n_rows, BATCH_TOKENS // (leaf.shape[0] * leaf.shape[1])))
    for start in range(0, n_rows, size):
        rows = range(start, min(start + size, n_rows))
        seeds = torch.stack([root.seed(row) for row in rows])
        replay.passes.backward += len(rows) * leaf.shape[0]
        yield gradients(root.tensor, [leaf], seeds)[0]


def gradients(
    outputs: torch.Tensor, inputs: Sequence[torch.Tensor], seed: torch.Tensor, *, create_graph: bool = False
) -> tuple[torch.Tensor, ...]:
    """Gradients of ``<seed, outputs>`` by each input; of each entry of a seed with one dimension more, stacked.

    Several go in one batch, or one by one where an operation's derivative does not come in batches. The graph is kept.
    """

    def found(part: torch.Tensor, batched: bool) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(
            outputs, inputs, part,
            retain_graph=True, create_graph=create_graph, materialize_grads=True, is_grads_batched=batched,
        )  # fmt: skip

    if seed.dim() == outputs.dim():
        return found(seed, False)
    if len(seed) > 1:
        try:
            with warnings.catch_warnings():
                # an operation that cannot go in a batch goes one by one, and torch says so
                warnings.filterwarnings("ignore", message="There is a performance drop")
                return found(seed, True)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
    single = [found(part, False) for part in seed]
    return tuple(torch.stack(parts) for parts in zip(*single, strict=True))
