"""A model as the affine map that it is at the recorded point: what a value owes to each token, and to each constant.

Every operation of the network is replaced by an affine map that has the same value there, ``y = J x + c`` with ``J`` held.
Relevance of a token is then ``x * g``, ``g`` the gradient of the whole map at it, and what is left of the value belongs
to the constants: ``value = sum_t <x_t, g_t> + sum <c, g_c>``, the *ledger*. Which map stands for which operation is
said in ``rules``. Nothing is patched: torch hands every function that is called to the rules while the forward
pass runs, and hooks that are needed besides are taken off behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tokentape.errors import ExplainError
from tokentape.explain.affine.books import KINDS, Books, Kind
from tokentape.explain.affine.norms import FrozenNorms
from tokentape.explain.affine.rules import Rules
from tokentape.explain.affine.units import line_units
from tokentape.explain.attention.watching import eager
from tokentape.explain.gradients.backward import gradients
from tokentape.explain.question import Question
from tokentape.explain.replay import Replay
from tokentape.models.anatomy import following, frozen_parameters, replaced

__all__ = ["AffineReplay", "Shares", "frozen_norms"]

Floats = npt.NDArray[np.float64]


@contextmanager
def frozen_norms() -> Iterator[None]:
    """Within it, gradients pass norms as through linear maps: what a norm divides by is held at its value.

    LayerNorm keeps its mean (it is linear) and holds sigma, RMSNorm holds 1/rms; a norm that is written out is known by
    the root that it takes. Values stay those of the model, up to rounding. No module is changed.
    """
    with FrozenNorms():
        yield


@dataclass(frozen=True, slots=True)
class Shares:
    """Values shared out: ``relevance`` ``[n_rows, S]`` of tokens or segments, ``tokens`` ``[n_rows]`` its sum over the
    whole sequence, ``books`` what constants got, ``[n_rows]`` of each kind; ``by_block`` the same by where they were
    added, ``[n_rows, n_blocks + 2]`` (before the first block, the blocks, behind the last), empty where it was not asked.
    """

    relevance: Floats
    tokens: Floats
    books: dict[Kind, Floats]
    by_block: dict[Kind, Floats]


class AffineReplay:
    """One forward pass of a replay as an affine map, for all targets of a question.

    ``values`` ``[n_rows]`` are what is explained, ``entry`` ``[T, D]`` the tokens' vectors as the model's entry gives
    them, T the positions before the last target. ``hold_softmax`` makes softmax weights constants (CP-LRP); otherwise
    they keep their derivative (AttnLRP). Both ways to share the values out give the same up to rounding:
    :meth:`by_rows` costs one backward pass a row, :meth:`by_segments` one a segment and five more.

    Raises ExplainError where a value does not depend on the tokens, or an operation has no derivative.
    """

    def __init__(self, replay: Replay, question: Question, *, hold_softmax: bool) -> None:
        self._replay = replay
        tapped: list[torch.Tensor] = []
        with ExitStack() as stack:
            stack.enter_context(frozen_parameters(replay.model))
            stack.enter_context(_open_attention(replay.model))
            anatomy = replay.anatomy
            self.books = Books(len(anatomy.blocks), question.targets[-1])
            line_units(replay.model, self.books, stack)
            stack.enter_context(_followed(anatomy.blocks, self.books))
            stack.callback(replaced(anatomy.entry, lambda given: _tap(given, tapped)).remove)
            stack.enter_context(torch.enable_grad())
            with Rules(self.books, held=hold_softmax):
                logits = replay.logits(question.targets)
            # a log-probability keeps its derivative, whatever becomes of the network's own softmax
            with Rules(self.books, held=False):
                values = question.fold(question.values(logits, replay.target_ids(question))[0])
        if not values.requires_grad or tapped[0].shape[:-1] != (1, question.targets[-1]):
            raise ExplainError(
                f"the values of {replay.causal.name} cannot be followed back to its token vectors",
                why=f"{type(anatomy.entry).__name__}, which should give one vector a token, is not what all of them pass",
                fix="explain this model by --method leave_one_out, which exchanges tokens",
            )
        self.values: torch.Tensor = values
        self.entry: torch.Tensor = tapped[0].detach()[0]
        self._inputs = [*tapped, *self.books.leaves.values()]

    @property
    def n_rows(self) -> int:
        """How many values there are."""
        return int(self.values.shape[0])

    def vjp(self, seed: torch.Tensor) -> tuple[torch.Tensor, dict[Kind, torch.Tensor]]:
        """Gradient of ``<seed, values>`` at the entry, ``[T, D]``, and what constants of each kind get, ``[n_blocks + 2]``.

        ``seed`` is ``[n_rows]``, or ``[K, n_rows]`` for K at once; then K stands in front of each result.
        """
        self._replay.passes.backward += seed.shape[0] if seed.dim() == 2 else 1
        with self._replay.memory("explaining"):
            gradient, *owed = gradients(self.values, self._inputs, seed)
        blocks = self.books.n_blocks + 2
        books = {kind: gradient.new_zeros((*seed.shape[:-1], blocks), dtype=torch.float64) for kind in KINDS}
        for (block, kind), part in zip(self.books.leaves, owed, strict=True):
            books[kind][..., block] = part
        return gradient.squeeze(-3), books

    def by_rows(self, at_once: int | None = None) -> Shares:
        """Relevance ``[n_rows, T]`` of every token, by one backward pass a row, ``at_once`` of them in one batch."""
        entry = self.entry.double()
        at_once = at_once or self._batch()
        seeds = torch.eye(self.n_rows, dtype=self.values.dtype, device=self.values.device)
        relevance, books = [], []
        for start in range(0, self.n_rows, at_once):
            gradient, owed = self.vjp(seeds[start : start + at_once])
            relevance.append((gradient.double() * entry).sum(-1))
            books.append(owed)
        of_tokens = _array(torch.cat(relevance))
        by_block = {kind: _array(torch.cat([owed[kind] for owed in books])) for kind in KINDS}
        return Shares(of_tokens, of_tokens.sum(1), {kind: part.sum(1) for kind, part in by_block.items()}, by_block)

    def by_segments(self, segments: Sequence[tuple[int, int]], at_once: int | None = None) -> Shares:
        """Relevance ``[n_rows, S]`` of half-open ranges of positions, for all rows by one pass a range.

        The gradient ``J^T v`` is linear in its seed ``v``, so the derivative of ``<J^T v, x>`` by ``v`` is ``J x``: what
        a part ``x`` of the entry gives to every row. Constants are one such part a kind, and the whole sequence another.
        """
        at_once = at_once or self._batch()
        seed = torch.ones_like(self.values, requires_grad=True)
        with self._replay.memory("explaining"), torch.enable_grad():
            gradient, *owed = gradients(self.values, self._inputs, seed, create_graph=True)
            of_tokens = (gradient[0] * self.entry).sum(-1)
            parts = [of_tokens[start:stop].sum() for start, stop in (*segments, (0, len(of_tokens)))]
            for wanted in KINDS:
                of_kind = [part for (_, kind), part in zip(self.books.leaves, owed, strict=True) if kind == wanted]
                parts.append(sum(of_kind, of_tokens.new_zeros(())))
            stacked = torch.stack([part.to(seed.dtype) for part in parts])
            picks = torch.eye(len(parts), dtype=seed.dtype, device=seed.device)
            batches = [picks[start : start + at_once] for start in range(0, len(parts), at_once)]
            rows = _array(torch.cat([gradients(stacked, [seed], batch)[0] for batch in batches]))
        self._replay.passes.backward += 1 + len(parts)
        n = len(segments)
        return Shares(rows[:n].T, rows[n], dict(zip(KINDS, rows[n + 1 :], strict=True)), {})

    def _batch(self) -> int:
        # eight rows cost fewer calls; where one fills the caches, or its attention the memory, more gain nothing
        n_positions, width = self.entry.shape
        return max(1, min(8, 2**22 // (n_positions * max(n_positions, width))))


def _tap(given: torch.Tensor, tapped: list[torch.Tensor]) -> torch.Tensor:
    """What goes on in place of ``given``: a leaf's copy, the leaf kept in ``tapped``; later calls pass as they are."""
    if tapped:
        return given  # a norm may serve in more than one place
    tapped.append(given.detach().clone().requires_grad_())
    # a model may write into what its embedding gives, which no leaf allows
    return tapped[0].clone()


def _array(given: torch.Tensor) -> Floats:
    found: Floats = given.detach().double().cpu().numpy()
    return found


def _open_attention(model: Any) -> AbstractContextManager[None]:
    """Within it, attention is computed by functions of torch: a kernel of its own would show no rule its weights."""
    shown = getattr(model.config, "_attn_implementation", None) in (None, "eager", "sdpa")
    return nullcontext() if shown else eager(model)


def _followed(blocks: Sequence[torch.nn.Module], books: Books) -> AbstractContextManager[None]:
    """Within it, the books know in which block the forward pass is."""
    last = len(set(blocks)) - 1

    def enter(index: int, args: Any, kwargs: dict[str, Any]) -> None:
        books.block = index + 1

    def leave(index: int, output: Any) -> None:
        if index == last:
            books.block = len(blocks) + 1

    return following(blocks, enter, leave)
