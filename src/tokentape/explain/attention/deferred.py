"""Products of queries and keys put off until they meet the values, and then computed a few rows at a time.

Between ``queries @ keys`` and ``weights @ values`` eager attention code does nothing in which one row could see another. So
a ``[H, T, T]`` tensor need not be made: a meta tensor stands in for it, what is done to it is noted, and done to pieces of
its rows when the values come. Whatever is not known to keep to its rows is given the whole tensor, computed then.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Deferred"]

Call = Callable[..., Any]

_PRODUCTS = frozenset("matmul bmm __matmul__ baddbmm".split())
_ROWWISE = frozenset(
    "add __radd__ __iadd__ add_ sub __rsub__ __isub__ sub_ mul __rmul__ __imul__ mul_ div __itruediv__ __idiv__ div_ "
    "true_divide masked_fill masked_fill_ where maximum minimum clamp tanh softmax to float half bfloat16 double type "
    "type_as dropout contiguous cat concat view reshape __getitem__ neg max".split()
)
"""Functions of which each row, as they are called on scores, needs that row of their operands alone."""

_READS = frozenset("__get__ size dim numel __len__ ndimension is_floating_point element_size".split())
"""What a stand-in answers itself."""


@dataclass(frozen=True, slots=True)
class _Later:
    """A tensor ``[..., T, K]`` that is not computed yet: ``rows`` gives a piece of its rows."""

    rows: Callable[[slice], torch.Tensor]
    device: torch.device


class Deferred:
    """Tensors that are put off, each behind the meta tensor that stands in for it, in a pass over ``n_rows`` rows."""

    def __init__(self, n_rows: int) -> None:
        self.n_rows = n_rows
        self._known: dict[int, tuple[weakref.ref[torch.Tensor], _Later]] = {}

    def stands(self, value: Any) -> bool:
        """Whether ``value`` is a stand-in."""
        return isinstance(value, torch.Tensor) and self._later(value) is not None

    def rows(self, stand_in: torch.Tensor, rows: slice) -> torch.Tensor:
        """``[..., rows, K]`` of what a stand-in stands for."""
        later = self._later(stand_in)
        assert later is not None
        return later.rows(rows)

    def call(self, func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a call gives: a stand-in where it is put off, NotImplemented where it is to be made as it is."""
        name = str(getattr(func, "__name__", ""))
        given = [args, kwargs]
        later = next((found for tensor in _tensors(given) if (found := self._later(tensor)) is not None), None)
        if later is None:
            return self._product(func, given) if name in _PRODUCTS else NotImplemented
        if name in _READS:
            return later.device if func == torch.Tensor.device.__get__ else NotImplemented
        if name in _ROWWISE and _within_rows(name, args, kwargs):
            meta = _called(func, _mapped(given, _as_meta))
            if isinstance(meta, torch.Tensor) and meta.dim() > 2 and meta.shape[-2] == self.n_rows:
                return self._stand_in(meta, self._noted(func, name, given, meta.shape), later.device)
        whole = slice(0, self.n_rows)
        return _called(func, _mapped(given, lambda tensor: self.rows(tensor, whole) if self.stands(tensor) else tensor))

    def _later(self, tensor: Any) -> _Later | None:
        known = self._known.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else None

    def _stand_in(
        self, meta: torch.Tensor, rows: Callable[[slice], torch.Tensor], device: torch.device
    ) -> torch.Tensor:
        # what nobody can ask for any more lets go of its operands
        self._known = {key: known for key, known in self._known.items() if known[0]() is not None}
        self._known[id(meta)] = (weakref.ref(meta), _Later(rows, device))
        return meta

    def _noted(self, func: Call, name: str, given: list[Any], shape: torch.Size) -> Callable[[slice], torch.Tensor]:
        # what a stand-in stands for now: one that is written to goes on under the same name
        fixed = _mapped(given, lambda tensor: tensor if (later := self._later(tensor)) is None else later)

        def piece(value: Any, rows: slice) -> torch.Tensor:
            return value.rows(rows) if isinstance(value, _Later) else self._of_rows(value, rows)

        def rows_of(rows: slice) -> torch.Tensor:
            if name in ("view", "reshape"):
                return piece(fixed[0][0], rows).reshape(*shape[:-2], -1, shape[-1])
            found: torch.Tensor = _called(func, _mapped(fixed, lambda value: piece(value, rows)))
            return found

        return rows_of

    def _of_rows(self, operand: torch.Tensor, rows: slice) -> torch.Tensor:
        """The rows of an operand that has them; one that is the same for all rows as it is."""
        return operand[..., rows, :] if operand.dim() > 1 and operand.shape[-2] == self.n_rows else operand

    def _product(self, func: Call, given: list[Any]) -> Any:
        """A product ``[..., T, d] @ [..., d, K]`` put off; NotImplemented for one that is none of queries and keys."""
        operands = list(_tensors(given))
        if len(operands) < 2 or min(operand.dim() for operand in operands[-2:]) < 3:
            return NotImplemented
        queries, keys = operands[-2:]
        if queries.shape[-2] != self.n_rows or keys.shape[-1] < self.n_rows:
            return NotImplemented

        def rows_of(rows: slice) -> torch.Tensor:
            pieces = _mapped(given, lambda tensor: tensor if tensor is keys else self._of_rows(tensor, rows))
            found: torch.Tensor = _called(func, pieces)
            return found

        return self._stand_in(_called(func, _mapped(given, _as_meta)), rows_of, queries.device)


def _within_rows(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call works along the last dimension alone."""
    if name == "__getitem__":
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return index[0] is Ellipsis and len(index) == 2 and isinstance(index[1], slice)
    if name == "max":
        return len(args) > 1 and isinstance(args[1], torch.Tensor)
    if name in ("softmax", "cat", "concat"):
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        first = args[0][0] if isinstance(args[0], (tuple, list)) else args[0]
        return dim in (-1, first.dim() - 1)
    return True


def _called(func: Call, given: list[Any]) -> Any:
    return func(*given[0], **given[1])


def _as_meta(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.device.type == "meta" else tensor.to("meta")


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _tensors(inner)


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """``value`` with each tensor in it, and each that is put off, changed."""
    if isinstance(value, torch.Tensor | _Later):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(inner, change) for key, inner in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_mapped(inner, change) for inner in value)
    return value
