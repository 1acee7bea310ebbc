"""The books of an affine map: every constant that it adds, kept so that one backward pass says what each is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

__all__ = ["KINDS", "Books", "Kind", "bounded", "masking", "shared"]

Kind = Literal["biases", "positions", "leaks"]
KINDS: tuple[Kind, ...] = ("biases", "positions", "leaks")


class Books:
    """Constants of an affine map, by block and kind.

    ``book(y, c, kind)`` gives ``y`` with ``c`` entered: ``y + c * leaf``, where ``leaf`` is a zero that requires a
    gradient. The value stays ``y``, and the gradient at the leaf is ``<c, gradient at y>``: what of the final value is
    owed to ``c``. It is one plain operation of torch, so it serves single and batched VJPs and their derivatives alike.

    ``block`` says where the forward pass is: 0 before the first block, n + 1 behind the last of n. ``n_positions`` is
    the length of the sequence, by which constants of positions are known.
    """

    def __init__(self, n_blocks: int, n_positions: int) -> None:
        self.n_blocks = n_blocks
        self.n_positions = n_positions
        self.block = 0
        self.leaves: dict[tuple[int, Kind], torch.Tensor] = {}
        self.open = True

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Within it no rule acts: what is computed is a rule's own."""
        before, self.open = self.open, False
        try:
            yield
        finally:
            self.open = before

    def book(self, given: torch.Tensor, constant: torch.Tensor | float, kind: Kind | None = None) -> torch.Tensor:
        """``given``, to which ``constant`` (of any shape that fits) has been added, with that constant entered.

        Without ``kind`` it is one of positions or biases, as :meth:`kind_of` tells. What masks is no constant: it acts
        through softmax alone.
        """
        entry = self._entry(given, constant)
        if entry is None:
            return given
        return torch.addcmul(given, entry, self._leaf(kind or self.kind_of(entry), entry))

    def book_(self, given: torch.Tensor, constant: torch.Tensor | float, kind: Kind | None = None) -> None:
        """The same into ``given`` itself."""
        entry = self._entry(given, constant)
        if entry is not None:
            given.addcmul_(entry, self._leaf(kind or self.kind_of(entry), entry))

    def kind_of(self, constant: torch.Tensor) -> Kind:
        """``positions`` for what is added before the first block or to attention scores and runs over the sequence.

        Scores are known by their last dimension; a bias that is as wide as the sequence is long and has a second
        dimension would be taken for one.
        """
        before = self.block == 0
        along = constant.shape[-2:] if before or self.n_blocks == 0 else constant.shape[-1:]
        return "positions" if constant.dim() > 1 and self.n_positions in along else "biases"

    def _entry(self, given: torch.Tensor, constant: torch.Tensor | float) -> torch.Tensor | None:
        entry = torch.as_tensor(constant, device=given.device).detach().to(given.dtype)
        if entry.dim() > 1:
            entry = bounded(entry)
        return entry if entry.any() else None

    def _leaf(self, kind: Kind, like: torch.Tensor) -> torch.Tensor:
        at = (min(self.block, self.n_blocks + 1), kind)
        if at not in self.leaves:
            # a scalar takes the dtype of what it meets; its own holds the sum
            dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
            self.leaves[at] = torch.zeros((), dtype=dtype, device=like.device, requires_grad=True)
        return self.leaves[at]


def masking(given: torch.Tensor) -> torch.Tensor:
    """Where a tensor holds what no computation gives, infinities and the like of ``finfo.min``: a mask's doing."""
    return ~(given.abs() < torch.finfo(given.dtype).max / 8)


def bounded(given: torch.Tensor) -> torch.Tensor:
    """The tensor with zeros where it is masked."""
    return given.masked_fill(masking(given), 0)


def shared(product: torch.Tensor, n: float) -> torch.Tensor:
    """A product of ``n`` factors that all depend on the input: each gets an n-th of the gradient, the value stays.

    The uniform rule (AttnLRP, propositions 3.2 and 3.3): with ``J x = n y`` for a multilinear map, ``1/n`` makes it
    conservative.
    """
    return product if n == 1 else torch.lerp(product.detach(), product, 1 / n)
