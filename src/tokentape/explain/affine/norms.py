"""Norms made linear: the scale that a norm divides by is held at its value, so that the rest of it is a linear map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["FrozenNorms", "Normed", "held_scale", "linear_norm", "name_of"]

Call = Callable[..., Any]

_SCALES = frozenset("rsqrt sqrt std norm linalg_norm linalg_vector_norm vector_norm".split())
"""Functions that only a norm's scale goes through, in norms that are written out."""


class Normed(NamedTuple):
    """What a norm gives: a linear map of its input, and the offset that it adds to that (None where it adds none)."""

    linear: torch.Tensor
    offset: torch.Tensor | None


def name_of(function: Call) -> str:
    """The bare name of a torch function: ``add`` for ``torch.add``, ``Tensor.add`` and ``Tensor.__radd__``."""
    name = str(getattr(function, "__name__", function))
    return _ALIASES.get(name, name)


_ALIASES = {
    "__radd__": "add", "__rmul__": "mul", "multiply": "mul", "subtract": "sub", "__rsub__": "rsub", "true_divide": "div",
    "divide": "div", "__rdiv__": "rdiv", "__rtruediv__": "rdiv", "concat": "cat", "concatenate": "cat", "negative": "neg",
    "__iadd__": "add_", "__isub__": "sub_", "__imul__": "mul_", "__idiv__": "div_", "__itruediv__": "div_",
    "__rmatmul__": "rmatmul", "__rpow__": "rpow",
}  # fmt: skip


def held_scale(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether a call computes the scale of a norm that is written out: a root, its inverse, or a length."""
    if name in _SCALES:
        return True
    exponent = args[1] if len(args) > 1 else kwargs.get("exponent")
    return name == "pow" and isinstance(exponent, float) and abs(exponent) == 0.5


def linear_norm(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Normed | None:
    """What torch's own norm of that name gives, its scale detached; None where ``name`` is no norm.

    LayerNorm keeps its mean, which is linear, and holds sigma; RMSNorm holds 1/rms (Ali et al., ICML 2022, section 4, the
    rule for LayerNorm; Achtibat et al., AttnLRP, ICML 2024, proposition 3.4).
    """
    known: dict[str, Callable[..., Normed]] = {
        "layer_norm": _layer_norm, "rms_norm": _rms_norm, "group_norm": _group_norm, "normalize": _normalize,
    }  # fmt: skip
    return known[name](*args, **kwargs) if name in known else None


def _raised(given: torch.Tensor) -> torch.Tensor:
    # torch's kernels compute half precision in float32
    return given.float() if given.dtype in (torch.float16, torch.bfloat16) else given


def _finished(scaled: torch.Tensor, weight: Any, bias: Any, dtype: torch.dtype) -> Normed:
    if weight is not None:
        scaled = scaled * weight.detach()
    return Normed(scaled.to(dtype), None if bias is None else bias.detach().to(dtype))


def _standardised(given: torch.Tensor, dims: list[int], eps: float) -> torch.Tensor:
    centred = given - given.mean(dims, keepdim=True)
    return centred * (centred.square().mean(dims, keepdim=True) + eps).rsqrt().detach()


def _layer_norm(
    input: torch.Tensor,
    normalized_shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *_: Any,
) -> Normed:
    dims = list(range(-len(normalized_shape), 0))
    return _finished(_standardised(_raised(input), dims, eps), weight, bias, input.dtype)


def _rms_norm(
    input: torch.Tensor, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None
) -> Normed:
    raised = _raised(input)
    floor = torch.finfo(raised.dtype).eps if eps is None else eps
    square = raised.square().mean(list(range(-len(normalized_shape), 0)), keepdim=True)
    return _finished(raised * (square + floor).rsqrt().detach(), weight, None, input.dtype)


def _group_norm(
    input: torch.Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Normed:
    grouped = _raised(input).reshape(input.shape[0], num_groups, -1)
    scaled = _standardised(grouped, [-1], eps).reshape(input.shape)
    along = (1, -1) + (1,) * (input.dim() - 2)
    weight, bias = (None if part is None else part.view(along) for part in (weight, bias))
    return _finished(scaled, weight, bias, input.dtype)


def _normalize(input: torch.Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Normed:
    return Normed(input / input.norm(p, dim, keepdim=True).clamp_min(eps).detach(), None)


class FrozenNorms(TorchFunctionMode):
    """While it is entered, norms differentiate as linear maps; their values are those of the model, up to rounding."""

    def __torch_function__(self, func: Call, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        normed = linear_norm(name, args, kwargs)
        if normed is not None:
            return normed.linear if normed.offset is None else normed.linear + normed.offset
        found = func(*args, **kwargs)
        if held_scale(name, args, kwargs):
            return found.detach()
        # written into the tensor that was there, a scale keeps its identity and loses its history
        return found.detach_() if name[-1] == "_" and held_scale(name[:-1], args, kwargs) else found
