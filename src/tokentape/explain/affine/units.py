"""Elementwise nonlinearities as straight lines through their own point, functions and whole modules alike."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from tokentape.explain.affine.books import Books, masking

__all__ = ["line", "line_units"]

Elementwise = Callable[[torch.Tensor], torch.Tensor]


def line(books: Books, function: Elementwise, given: torch.Tensor) -> torch.Tensor:
    """``function(given)`` as ``slope * given + function(0)``, the slope detached: the secant from zero.

    For functions through the origin this is the identity rule ``f(x) / x`` (AttnLRP, equation 9); what others have at
    zero is booked as a bias. Next to zero, where the quotient is rounding error alone, the slope is that of a short
    secant.
    """
    at = given.detach()
    if at.dtype in (torch.float16, torch.bfloat16):
        at = at.float()
    short = torch.finfo(at.dtype).eps ** 0.5
    away = torch.where(at.abs() < short, torch.copysign(torch.full_like(at, short), at), at)
    # a function may have parameters along the last dimension, so zero is asked for as wide as that
    start = function(at.new_zeros((1,) * (at.dim() - 1) + at.shape[-1:]))
    slope = (function(away) - start) / away
    masked = masking(at)
    if masked.any():
        slope, given = slope.masked_fill(masked, 0), given.masked_fill(masked, 0)
    elif not start.any():
        return given * slope.to(given.dtype)
    # the value is the function's own, for a sum of start and rise may cancel; what the rise leaves of it is booked
    value, slope = function(at).to(given.dtype), slope.to(given.dtype)
    straight = torch.addcmul(value, slope, given - given.detach())
    return books.book(straight, value - slope * given.detach(), "biases")


def line_units(model: nn.Module, books: Books, stack: ExitStack) -> None:
    """Until ``stack`` closes, modules that are elementwise functions are lines, whatever formula their bodies hold.

    Such a module is known by what it does: it has no parts, and an element of its output depends on the same element of
    its input alone, and not linearly.
    """
    known: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()
    pending: dict[nn.Module, torch.Tensor] = {}

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        given = inputs[0] if len(inputs) == 1 else None
        if not isinstance(given, torch.Tensor) or not given.requires_grad:
            return None
        if module not in known:
            known[module] = _is_elementwise(module, given)
        if not known[module]:
            return None
        pending[module] = given
        # without a history, its body is none of the rules' business; a copy, for it may write into its input
        return (given.detach().clone(),)

    def behind(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        given = pending.pop(module, None)
        if given is None:
            return None
        with books.closed():
            return line(books, lambda part: module.forward(part.clone()), given)

    for module in model.modules():
        if next(module.children(), None) is None and all(part.dim() < 2 for part in module.parameters()):
            stack.callback(module.register_forward_pre_hook(before).remove)
            stack.callback(module.register_forward_hook(behind).remove)


def _is_elementwise(module: nn.Module, given: torch.Tensor) -> bool:
    """Whether the module leaves the elements alone whose input was left alone, when others change, and is no linear map."""
    part = given[:1].detach()
    drawn = torch.linspace(-2, 2, part.numel(), device=part.device, dtype=part.dtype).view_as(part)
    at = torch.where(masking(part), drawn, part)
    chosen = torch.rand(part.shape, generator=torch.Generator().manual_seed(0)).to(part.device) < 0.5
    with torch.no_grad():
        try:
            changed, twice = module.forward(torch.where(chosen, drawn + 0.5, at)), module.forward(2 * at)
            whole = module.forward(at.clone())
        except Exception:
            return False  # what does not take a part of its input is not elementwise
    if not isinstance(whole, torch.Tensor) or whole.shape != at.shape or not whole.is_floating_point():
        return False
    alone = torch.allclose(whole[~chosen], changed[~chosen], rtol=1e-5, atol=1e-6)
    return alone and not torch.allclose(twice, 2 * whole, rtol=1e-4, atol=1e-6)
