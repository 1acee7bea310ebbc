"""The tail of a model as the linear map that it is at one state: what a value reads off the residual stream, and its constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tokentape.errors import ExplainError
from tokentape.explain.affine.norms import held_scale, linear_norm, name_of
from tokentape.explain.layers.tail import ELEMENTS, Tail
from tokentape.explain.question import Question

__all__ = ["Readout", "readout_of"]

_CURVES = frozenset("tanh gelu silu relu leaky_relu elu softplus mish hardtanh".split())
_GATES = frozenset("sigmoid softmax".split())


@dataclass(frozen=True)
class Readout:
    """A value as a linear map of the final state ``[n, ...]``.

    ``value`` ``[n]`` is ``<gradient, state> + bias + curvature`` up to rounding: ``gradient`` ``[n, ...]`` by the state, ``bias``
    ``[n]`` what the constants of norms and projections on the way add, ``curvature`` ``[n]`` what is left of a value that is
    no linear function of the logits: for a log-probability the negative entropy of the distribution. All in float64, on
    the CPU.
    """

    value: torch.Tensor
    gradient: torch.Tensor
    bias: torch.Tensor
    curvature: torch.Tensor


def readout_of(tail: Tail, states: torch.Tensor, question: Question, ids: torch.Tensor, vocab_size: int) -> Readout:
    """What the question's values read off final states ``[n, ...]``; ``ids`` ``[n]`` are the targets' tokens.

    Norms divide by what they divide by there (N. Elhage et al., "A Mathematical Framework for Transformer Circuits",
    2021, on layer normalisation), a soft cap multiplies by what it multiplies by, a gate is held. Raises ExplainError
    where the value does not depend on the state.
    """
    # constants of a tail that works on several states at once are told apart by their first axis
    size = 1 if tail.axis else max(1, ELEMENTS // vocab_size)
    parts = []
    for start in range(0, len(states), size):
        stop = start + size
        asked = replace(
            question,
            targets=question.targets[start:stop],
            foils=question.foils[start:stop],
            segments=(),
            together=False,
        )
        parts.append(_read(tail, states[start:stop], asked, ids[start:stop]))
    fields = ("value", "gradient", "bias", "curvature")
    return Readout(*(torch.cat([getattr(part, name) for part in parts]) for name in fields))


def _read(tail: Tail, states: torch.Tensor, question: Question, ids: torch.Tensor) -> Readout:
    constants = _Constants()
    with torch.enable_grad():
        leaf = states.detach().clone().requires_grad_()
        with constants:
            logits = tail.logits(leaf, constants.begin)
        value = question.values(logits, ids.to(logits.device))
        if not value.requires_grad:
            raise ExplainError(
                "the logits do not depend on what the last block gives",
                why="the gradient stops between the last block and the head",
                fix="--method leave_one_out needs no gradients",
            )
        wanted = [leaf, logits, *constants.held]
        gradients = torch.autograd.grad(value.sum(), wanted, allow_unused=True)
    by_state, by_logits = gradients[0], gradients[1]
    found = value.detach().cpu().double()
    bias = torch.zeros_like(found)
    for constant, gradient in zip(constants.held, gradients[2:], strict=True):
        if gradient is not None:
            bias += _products(constant, gradient).reshape(len(states), -1).sum(1)
    return Readout(found, by_state.cpu().double(), bias, found - _products(logits, by_logits).sum(-1))


def _products(values: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Elementwise products in float64; what has no gradient adds nothing, though it may be infinite."""
    return values.detach().masked_fill(gradient == 0, 0).cpu().double() * gradient.cpu().double()


class _Constants(TorchFunctionMode):
    """While it is entered, from :meth:`begin` on, every operation is linear with what it holds, and constants are kept apart.

    ``held`` are the constants that were added, each as a tensor of the shape of what it was added to, to differentiate by.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held: list[torch.Tensor] = []
        self._begun = False

    def begin(self) -> None:
        """The tail begins."""
        self._begun = True

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self._begun:
            return func(*args, **kwargs)
        # parameters may want gradients of their own, and are constants here
        args = tuple(given.detach() if isinstance(given, torch.nn.Parameter) else given for given in args)
        name = name_of(func)
        normed = linear_norm(name, args, kwargs)
        if normed is not None:
            return normed.linear if normed.offset is None else self._added(normed.linear, normed.offset)
        if name == "linear" and len(args) > 2 and args[2] is not None:
            return self._added(functional.linear(args[0], args[1]), args[2])
        if name == "addmm" and not kwargs:
            return self._added(args[1] @ args[2], args[0])
        if name in ("add", "sub", "add_", "sub_") and not kwargs:
            return self._sum(func, name.strip("_"), args)
        found = func(*args, **kwargs)
        if held_scale(name, args, kwargs) or name in _GATES:
            return found.detach()
        if name in _CURVES and _is_data(args[0]):
            return args[0] * torch.where(args[0] == 0, 1.0, found / args[0]).detach()
        return found

    def _sum(self, func: Callable[..., Any], name: str, args: Any) -> Any:
        one, other = args
        if _is_data(one) and not _is_data(other):
            return self._added(one, other if name == "add" else -other)
        if _is_data(other) and not _is_data(one):
            return self._added(other if name == "add" else -other, one)
        return func(*args)

    def _added(self, data: torch.Tensor, constant: Any) -> torch.Tensor:
        given = constant.detach() if isinstance(constant, torch.Tensor) else torch.tensor(constant)
        shape = torch.broadcast_shapes(data.shape, given.shape)
        held = given.to(data.device, torch.result_type(data, given)).expand(shape).clone().requires_grad_()
        self.held.append(held)
        return data + held


def _is_data(given: Any) -> bool:
    """Whether something comes from the state, and not from the model's parameters."""
    return isinstance(given, torch.Tensor) and given.requires_grad
