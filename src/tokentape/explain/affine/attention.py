"""Softmax and attention as affine maps: weights that are held, or that keep their derivative and book what it leaves."""

from __future__ import annotations

from typing import Any

import torch

from tokentape.explain.affine.books import Books, bounded, shared

__all__ = ["attention", "softmax", "softmax_call"]


def softmax(books: Books, scores: torch.Tensor, dim: int, dtype: torch.dtype | None, *, held: bool) -> torch.Tensor:
    """Softmax over ``dim``. ``held``: as a constant (CP-LRP; Ali et al., ICML 2022, section 4).

    Otherwise with its derivative, the first-order Taylor expansion at the point (AttnLRP, proposition 3.1): of
    ``s = J x + c`` the remainder ``c = s - s (x - sum_j s_j x_j)`` is booked as a leak. With half of the gradient gone to
    the values that the weights multiply, what a row of attention loses is ``1/2 [E_s(g) - Cov_s(x, g)]``, ``g`` the
    gradient at its weights.
    """
    weights = torch.softmax(scores.detach() if held else scores, dim, dtype=dtype)
    if held or not scores.requires_grad:
        return weights
    at, given = weights.detach(), bounded(scores.detach()).to(weights.dtype)
    return books.book(weights, at - at * (given - (at * given).sum(dim, keepdim=True)), "leaks")


def attention(
    books: Books,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    held: bool,
) -> torch.Tensor:
    """``torch.nn.functional.scaled_dot_product_attention`` in steps that can be booked, without its dropout.

    ``query`` ``[..., H, Tq, E]``, ``key`` and ``value`` ``[..., H or fewer, Tk, E]``; a mask is boolean or is added, and
    what it adds other than infinities is booked as positions. The products share their gradient in halves, so that
    queries and keys get a quarter and values a half (AttnLRP, proposition 3.3), or values all of it where the weights are held.
    """
    if held:
        query, key = query.detach(), key.detach()
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if query.requires_grad and key.requires_grad:
        scores = shared(scores, 2)
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, -torch.inf)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
        if scores.requires_grad and not attn_mask.requires_grad:
            scores = books.book(scores, attn_mask, "positions")
    weights = softmax(books, scores, -1, None, held=held)
    mixed = weights @ value
    return shared(mixed, 2) if weights.requires_grad and value.requires_grad else mixed


def softmax_call(books: Books, args: tuple[Any, ...], kwargs: dict[str, Any], *, held: bool) -> torch.Tensor:
    """:func:`softmax` for a call of ``torch.softmax``, ``Tensor.softmax`` or ``torch.nn.functional.softmax``."""
    scores, dim = args[0] if args else kwargs["input"], args[1] if len(args) > 1 else kwargs.get("dim")
    dtype = next((part for part in (*args[2:], kwargs.get("dtype")) if isinstance(part, torch.dtype)), None)
    if dim is None:
        dim = 0 if scores.dim() in (0, 1, 3) else 1  # torch's own choice
    return softmax(books, scores, int(dim), dtype, held=held)
