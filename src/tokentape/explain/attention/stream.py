"""The residual stream followed through a pass: what is added to it, where, and what attention has to do with it.

A block reads the stream, computes, and adds. Its additions are found by following tensors: the stream stays what it is
when it is cast, viewed, scaled or normalised, and whatever else is added to it is one addition. An addition that depends
on a weighted sum of values is attention's, and the way from that sum to it is a linear map once norms are frozen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tokentape.errors import ExplainError
from tokentape.explain.affine.norms import name_of
from tokentape.explain.attention.watching import Look, Watch
from tokentape.explain.layers.sums import NORMS, SAME

__all__ = ["Addition", "Carried", "DirectPath", "Stream"]

_SAME = SAME | {"detach"}
_READS = frozenset("linear addmm matmul bmm mm __matmul__ einsum conv1d".split())


@dataclass(frozen=True, slots=True)
class Carried:
    """One weighted sum on its way: ``weights`` ``[H, T, T]``, ``values`` ``[H, T, Dv]``, and the sum, a leaf of a graph."""

    weights: torch.Tensor
    values: torch.Tensor
    sums: torch.Tensor


@dataclass(frozen=True, slots=True)
class Addition:
    """What was added to the stream at one place.

    ``number`` counts the additions of a pass; ``stream`` ``[T, D]`` is what it was added to. ``other`` ``[T, D]`` is what
    no attention of the block has a part in: an MLP's output, or zeros. ``behind`` is how many of attention's additions
    stood between the stream that was last read before it and here: 0 for an MLP behind attention, 1 for one beside it.
    ``attention`` ``[T, D]`` is what attention added, with its graph from the sums in ``carried``; None where it has no part.
    """

    number: int
    block: int | None
    stream: torch.Tensor
    other: torch.Tensor
    behind: int
    attention: torch.Tensor | None = None
    carried: tuple[Carried, ...] = ()


class _Followed(Watch):
    """A watch that knows which tensors are the stream."""

    def __init__(self, name: str, n_tokens: int, n_blocks: int) -> None:
        super().__init__(self.seen, n_tokens)
        self.name = name
        self.n_blocks = n_blocks
        self.number = 0
        self.first: torch.Tensor | None = None
        self.done = False
        self._stream: dict[int, tuple[weakref.ref[torch.Tensor], int]] = {}
        self._generation = 0
        self._read = 0

    def seen(self, look: Look, sums: torch.Tensor) -> torch.Tensor | None:
        """A weighted sum was computed."""
        return None

    def joined(self, func: Any, args: Any, kwargs: Any, stream: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """What an addition to the stream gives."""
        raise NotImplementedError

    def call(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """What the model's call of a torch function gives."""
        name = name_of(func)
        if name in ("add", "add_") and len(args) == 2 and not kwargs:
            stream, other = args if self.generation_of(args[0]) is not None else reversed(args)
            if self._is_addition(stream, other):
                out = self.joined(func, args, kwargs, stream, other)
                self.number += 1
                return self._mark(out, self._generation)
        out = super().call(func, args, kwargs)
        generation = next((g for a in args if (g := self.generation_of(a)) is not None), None)
        if generation is not None and isinstance(out, torch.Tensor):
            if self._hands_on(name, args, out):
                self._mark(out, generation)
            elif name in _READS:
                self._read = generation
        return out

    def entered(self, states: Any) -> None:
        """A block begins: the first reads what becomes the stream, the others have to read it."""
        if states is None or states.dim() != 3:
            raise self.lost("a block reads something else than one state for each token")
        if self.first is None:
            self.first = states
            self.begun(states)
            self._mark(states, 0)
        elif self.generation_of(states) is None:
            raise self.lost(f"what block {self.block} reads is not what the one before it gave, scaled or normalised")

    def begun(self, states: torch.Tensor) -> None:
        """The first block reads these states."""

    def left(self, output: Any) -> None:
        """A block ends: it has to hand on the stream."""
        if self.generation_of(output) is None:
            raise self.lost(f"what block {self.block} gives is not what it read and additions to that")
        self.done = self.block == self.n_blocks - 1

    def lost(self, why: str) -> ExplainError:
        """The error for a model whose stream cannot be followed."""
        return ExplainError(
            f"{self.name} has no residual stream that could be followed",
            why=why,
            fix="--method leave_one_out needs to know nothing of a model's layers",
        )

    def generation_of(self, value: Any) -> int | None:
        """How many of attention's additions a tensor of the stream holds; None for one that is not of the stream."""
        known = self._stream.get(id(value))
        return known[1] if known is not None and known[0]() is value else None

    def _mark(self, tensor: torch.Tensor, generation: int) -> torch.Tensor:
        self._stream = {key: known for key, known in self._stream.items() if known[0]() is not None}
        self._stream[id(tensor)] = (weakref.ref(tensor), generation)
        return tensor

    def _is_addition(self, stream: Any, other: Any) -> bool:
        if self.generation_of(stream) is None or not isinstance(other, torch.Tensor):
            return False
        return other.shape == stream.shape and self.generation_of(other) is None

    def _hands_on(self, name: str, args: Sequence[Any], out: torch.Tensor) -> bool:
        """Whether a call gives the stream again: as it is, scaled, shifted, or normalised."""
        width = out.shape[-1:].numel()
        if name in _SAME or name in NORMS:
            return self.generation_of(args[0]) is not None and width == args[0].shape[-1]
        if name in ("mul", "div", "add", "sub", "rsub", "mul_", "div_", "add_", "sub_"):
            others = [a for a in args if isinstance(a, torch.Tensor) and self.generation_of(a) is None]
            if name[:3] in ("mul", "div") and not others and all(isinstance(a, torch.Tensor) for a in args):
                return False  # the stream times itself
            # a number, one for each channel, or one for each row
            return all(o.numel() in (1, width) or o.shape[-1] == 1 for o in others)
        # behind the last block stand projections, and the rows that are asked for are picked
        return self.done and name in ("linear", "__getitem__", "index_select")


class DirectPath(_Followed):
    """A pass in which gradients flow along the stream alone, not through what is added to it.

    ``marks`` are what the first block reads and then what each addition gives, in order: the gradient of a value by one
    of them is how the value reads whatever was added there.
    """

    def __init__(self, name: str, n_tokens: int, n_blocks: int) -> None:
        super().__init__(name, n_tokens, n_blocks)
        self.marks: list[torch.Tensor] = []

    def begun(self, states: torch.Tensor) -> None:
        states.requires_grad_()
        self.marks.append(states)

    def joined(self, func: Any, args: Any, kwargs: Any, stream: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        if args[0] is stream and name_of(func) == "add_":
            raise self.lost(
                f"block {self.block} writes into the stream, so that no gradient of what it held can be had"
            )
        out: torch.Tensor = func(*(a.detach() if a is other else a for a in args), **kwargs)
        self.marks.append(out)
        return out


class Stream(_Followed):
    """A pass that shows each addition to the stream to ``added``, attention's with the way that it came."""

    def __init__(self, name: str, n_tokens: int, n_blocks: int, added: Callable[[Addition], None]) -> None:
        super().__init__(name, n_tokens, n_blocks)
        self.added = added
        self._carried: list[Carried] = []
        self._own: torch.Tensor | None = None

    def seen(self, look: Look, sums: torch.Tensor) -> torch.Tensor:
        leaf = sums.detach().requires_grad_()
        self._carried.append(Carried(look.weights[0].detach(), look.values[0].detach(), leaf))
        return leaf

    def call(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """What the model's call of a torch function gives."""
        if self._own is None and self._carried and name_of(func) in ("add", "add_") and len(args) == 2:
            mine = [isinstance(a, torch.Tensor) and a.requires_grad for a in args]
            full = [
                isinstance(a, torch.Tensor) and self.first is not None and a.numel() == self.first.numel() for a in args
            ]
            if sum(mine) == 1 and all(full) and all(self.generation_of(a) is None for a in args):
                # attention and an MLP beside it are put together before they reach the stream
                self._own = args[mine.index(True)]
        return super().call(func, args, kwargs)

    def joined(self, func: Any, args: Any, kwargs: Any, stream: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            # read before the call, which may write into it
            rows = stream.detach().reshape(-1, stream.shape[-1]).clone()
        if other.requires_grad:
            self._attended(rows, other)
        else:
            behind = self._generation - self._read
            self.added(Addition(self.number, self.block, rows, other.reshape(rows.shape), behind))
        with torch.no_grad():
            out: torch.Tensor = func(*args, **kwargs)
        return out

    def _attended(self, stream: torch.Tensor, other: torch.Tensor) -> None:
        added = other.reshape(stream.shape)
        own = added if self._own is None else self._own.reshape(stream.shape)
        rest = (added - own).detach()
        self.added(Addition(self.number, self.block, stream, rest, 0, own, tuple(self._carried)))
        self._carried, self._own = [], None
        self._generation += 1

    def left(self, output: Any) -> None:
        if self._carried:
            raise self.lost(f"attention of block {self.block} does not reach the stream by an addition")
        super().left(output)
