"""What a block of a model adds to the residual stream, as the sum that it is: followed through its additions as they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from tokentape.explain.affine.norms import name_of

__all__ = ["NORMS", "SAME", "Factor", "Node", "Sums", "expanded", "times"]

Factor = float | torch.Tensor
"""A number, or one for each channel ``[D]``."""

_SUMS = frozenset({"add", "sub"})
_PRODUCTS = frozenset({"mul", "div"})
SAME = frozenset(
    "view reshape flatten unflatten squeeze unsqueeze view_as reshape_as to float double half bfloat16 type type_as "
    "contiguous clone dropout identity".split()
)
"""Functions that hand on what they are given: the same numbers in the same order."""
_PROJECTIONS = frozenset({"linear", "addmm", "matmul", "mm"})
NORMS = frozenset({"layer_norm", "rms_norm"})
_NOTED = _SUMS | _PRODUCTS | SAME | _PROJECTIONS | NORMS
_WEIGHTED = frozenset({"scaled_dot_product_attention", "matmul", "bmm", "baddbmm", "einsum"})


@dataclass(eq=False, slots=True)
class Node:
    """A tensor of the block and how it came about.

    ``kind`` is ``state`` (what the block reads), ``sum`` (of its parents, each times a factor), ``product`` (of its two
    parents), ``norm`` and ``projection`` (of its one parent), or ``leaf``. ``call`` has the arguments of the function where
    they are needed. ``edge`` is its place in the graph of gradients, where there is one.
    """

    kind: str
    value: torch.Tensor
    parents: tuple[Node, ...] = ()
    factors: tuple[Factor, ...] = ()
    call: tuple[Any, ...] = ()
    name: str = ""
    edge: GradientEdge | None = None


class Sums(TorchFunctionMode):
    """Notes how the tensors of a block come about, from :meth:`begin` to :meth:`end`; values are those of the model.

    Looked at are tensors with as many elements as the residual stream has. They are held until the end, so that one block
    takes a few dozen times the stream's memory. With ``graph``, gradients are on and what they need is noted as well:
    ``weighted`` are the outcomes of products of matrices, the weighted sums of values among them.
    """

    def __init__(self, *, graph: bool = False) -> None:
        super().__init__()
        self._graph = graph
        self._size = 0
        self._known: dict[int, Node] = {}
        self.order: list[Node] = []
        self.weighted: list[torch.Tensor] = []

    @property
    def running(self) -> bool:
        """Whether it is within a block."""
        return self._size > 0

    def begin(self, state: torch.Tensor) -> Node:
        """Start at what a block reads, ``[1, T, D]``."""
        self._known.clear()
        self.order, self.weighted = [], []
        node = self._enter(state, Node("state", state))
        self._size, self._width = state.numel(), state.shape[-1]
        return node

    def end(self, state: torch.Tensor) -> Node:
        """Stop; the node of what the block gives."""
        self._size = 0
        return self._node(state)

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self._size:
            return func(*args, **kwargs)
        name = name_of(func)
        plain = name.rstrip("_")
        given = args
        if _writes(name) and args and isinstance(args[0], torch.Tensor):
            given = (self._set_aside(args[0], noted=plain in _NOTED), *args[1:])
        found = func(*args, **kwargs)
        if isinstance(found, torch.Tensor):
            # what is handed back as it came has its node already
            if plain in _NOTED and found.numel() == self._size and not any(found is one for one in given):
                self._note(plain, found, given, kwargs)
            if self._graph and name in _WEIGHTED and found.dim() > 2 and found.requires_grad:
                self.weighted.append(found)
        return found

    def _set_aside(self, given: torch.Tensor, *, noted: bool) -> torch.Tensor:
        """What stands for a tensor that is about to be written into: a copy, where it is known or will be."""
        node = self._known.pop(id(given), None)
        if node is None and not (noted and given.numel() == self._size):
            return given
        copy = given.clone()
        if node is not None:
            node.value = copy
            self._known[id(copy)] = node
        return copy

    def _note(self, name: str, found: torch.Tensor, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        made = _made(name, args, kwargs, self._size, self._width)
        if made is None:
            return
        kind, tensors, factors, call = made
        parents = tuple(self._node(tensor) for tensor in tensors)
        self._enter(found, Node(kind, found, parents, factors, call, name))

    def _node(self, tensor: torch.Tensor) -> Node:
        known = self._known.get(id(tensor))
        return self._enter(tensor, Node("leaf", tensor)) if known is None else known

    def _enter(self, tensor: torch.Tensor, node: Node) -> Node:
        # a node holds its tensor, so that no other can get its id
        self._known[id(tensor)] = node
        if self._graph and tensor.requires_grad:
            node.edge = get_gradient_edge(tensor)
        self.order.append(node)
        return node


def times(one: Factor, other: Factor) -> Factor:
    """The product of two factors; 1 changes nothing."""
    if isinstance(one, float) and one == 1:
        return other
    return one if isinstance(other, float) and other == 1 else one * other


def expanded(node: Node, factor: Factor = 1.0) -> Iterator[tuple[Node, Factor]]:
    """What a node is the sum of, each with its factor, in order: sums are followed down to what is none."""
    if node.kind != "sum":
        yield node, factor
        return
    for parent, own in zip(node.parents, node.factors, strict=True):
        yield from expanded(parent, times(factor, own))


def _writes(name: str) -> bool:
    return name == "__setitem__" or (name[-1:] == "_" and name[:2] != "__")


Made = tuple[str, tuple[torch.Tensor, ...], tuple[Factor, ...], tuple[Any, ...]]
"""Kind, parents, factors and call of a node."""


def _made(name: str, args: Sequence[Any], kwargs: dict[str, Any], size: int, width: int) -> Made | None:
    if name in _SUMS:
        return _sum(name, args, kwargs, size)
    if name in _PRODUCTS:
        return _product(name, args, size, width)
    if name in SAME:
        given = args[0] if args else kwargs.get("input")
        return ("sum", (given,), (1.0,), ()) if isinstance(given, torch.Tensor) and given.numel() == size else None
    given = args[1] if name == "addmm" else args[0]
    if name in NORMS:
        return "norm", (given,), (), (tuple(args), dict(kwargs))
    weight = args[2] if name == "addmm" else args[1] if len(args) > 1 else kwargs.get("weight")
    if not isinstance(weight, torch.Tensor) or weight.dim() != 2:
        return None
    return "projection", (given,), (), (weight if name == "linear" else weight.T,)


def _sum(name: str, args: Sequence[Any], kwargs: dict[str, Any], size: int) -> Made | None:
    one, other = args[0], args[1] if len(args) > 1 else kwargs.get("other")
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return None
    alpha = float(kwargs.get("alpha", 1)) * (-1.0 if name == "sub" else 1.0)
    return "sum", (one, other), (1.0, alpha), ()


def _product(name: str, args: Sequence[Any], size: int, width: int) -> Made | None:
    one, other = args[0], args[1] if len(args) > 1 else None
    if name == "mul" and _constant(one, width):
        one, other = other, one
    if not isinstance(one, torch.Tensor):
        return None
    if one.numel() == size and _constant(other, width):
        factor: Factor = other.detach().reshape(-1) if isinstance(other, torch.Tensor) else float(other)
        return "sum", (one,), (1 / factor if name == "div" else factor,), ()
    if not isinstance(other, torch.Tensor):
        return None
    return "product", (one, other.reciprocal() if name == "div" else other), (), ()


def _constant(given: Any, width: int) -> TypeGuard[torch.Tensor | int | float]:
    """Whether a factor is a number, or one for each channel: the same for all rows."""
    if isinstance(given, torch.Tensor):
        return given.numel() == 1 or given.numel() == width == given.shape[-1]
    return isinstance(given, int | float)
