"""One rule for each torch function: the affine map that has its value at the point, with its constants booked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from tokentape.errors import ExplainError
from tokentape.explain.affine.attention import attention, softmax_call
from tokentape.explain.affine.books import Books, bounded, shared
from tokentape.explain.affine.norms import Normed, held_scale, linear_norm, name_of
from tokentape.explain.affine.units import line

__all__ = ["Rules"]

Call = Callable[..., Any]
Args = tuple[Any, ...]
Options = dict[str, Any]

# Linear in what depends on the input, whatever else they are given: views, sums, casts, selections, reorderings.
_LINEAR = frozenset(
    "view view_as reshape reshape_as transpose t permute movedim moveaxis swapaxes swapdims squeeze unsqueeze flatten "
    "unflatten expand expand_as repeat repeat_interleave tile chunk split split_with_sizes tensor_split unbind narrow "
    "select slice __getitem__ __get__ index_select gather take_along_dim take masked_select roll flip rot90 unfold "
    "diagonal diag diag_embed tril triu contiguous clone detach to float double half bfloat16 type type_as neg sum mean "
    "cumsum nansum topk sort view_as_complex view_as_real real imag conj adjoint broadcast_to fold trace diff atleast_2d "
    "atleast_3d as_strided requires_grad_ squeeze_ unsqueeze_ transpose_ t_ neg_ detach_ zero_ tril_ triu_ dropout "
    "alpha_dropout resolve_conj positive block_diag ravel hsplit vsplit dsplit".split()
)
# Linear in all of their tensors at once: what is constant among these is an offset.
_JOINT = frozenset(
    "add sub rsub cat stack hstack vstack dstack where masked_fill masked_scatter index_add index_copy index_put "
    "index_fill scatter scatter_add select_scatter slice_scatter diagonal_scatter pad copy __setitem__ fill".split()
)
_FILLING = frozenset("where masked_fill index_fill pad fill __setitem__ add sub rsub".split())
_PRODUCTS = frozenset(
    "mul matmul rmatmul __matmul__ mm bmm mv dot vdot inner outer ger einsum tensordot kron chain_matmul vecdot linalg_vecdot "
    "_grouped_mm grouped_mm linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d addmm baddbmm addmv "
    "addbmm".split()
)
_QUOTIENTS = {"div": 1, "rdiv": 0, "reciprocal": 0, "linalg_solve": 0, "linalg_solve_triangular": 0}
"""Functions that are linear but for one argument, by its place: that one is held."""

_ELEMENTWISE = frozenset(
    "gelu silu relu relu6 leaky_relu elu selu celu mish hardswish hardsigmoid hardtanh tanh sigmoid expit softplus "
    "softsign log_sigmoid logsigmoid tanhshrink softshrink hardshrink threshold expm1 log1p erf sin cos sinh cosh atan "
    "asinh abs clamp clamp_min clamp_max clip".split()
)
# Decays, gates and weights before their sum: a line from exp(0) = 1 would owe everything to the input, and as much to a bias.
_HELD = frozenset("exp exp2 rpow".split())
_SOFT = frozenset("logsumexp log_softmax".split())
_ADDED: dict[str, tuple[tuple[str, str, str], Call]] = {
    "addmm": (("input", "mat1", "mat2"), torch.mm),
    "addmv": (("input", "mat", "vec"), torch.mv),
    "baddbmm": (("input", "batch1", "batch2"), torch.bmm),
    "addbmm": (("input", "batch1", "batch2"), lambda first, second: torch.bmm(first, second).sum(0)),
}
"""Products to which something is added: the names of their arguments, and the product alone."""

_SELECTING = frozenset("max min amax amin median cummax cummin kthvalue".split())


class Rules(TorchFunctionMode):
    """While it is entered, every torch function gives an affine map of what depends on the input.

    These are the rules of relevance propagation, as they are written for gradients: relevance is input times gradient of
    that map. What depends on the input is what requires a gradient. ``held`` holds the weights of every softmax
    (CP-LRP); otherwise they keep their derivative (AttnLRP). A function that no rule names keeps its derivative, and
    what that leaves of its value is booked as a leak: the ledger closes whatever comes. Raises ExplainError from within
    for a function that torch cannot differentiate.
    """

    def __init__(self, books: Books, *, held: bool) -> None:
        super().__init__()
        self.books = books
        self.held = held

    def __torch_function__(self, func: Call, types: Any, args: Args = (), kwargs: Options | None = None) -> Any:
        kwargs = kwargs or {}
        if not self.books.open or not torch.is_grad_enabled() or next(_dependent(args, kwargs), None) is None:
            return func(*args, **kwargs)
        args, kwargs = _without_foreign(args, kwargs)
        name = name_of(func)
        if name in _LINEAR:
            return func(*args, **kwargs)
        if name == "__setitem__" or (name.endswith("_") and not name.endswith("__")):
            return self._in_place(name if name == "__setitem__" else name[:-1], func, args, kwargs)
        return self._rule(name, func, args, kwargs)

    def _rule(self, name: str, function: Call, args: Args, kwargs: Options) -> Any:
        n = sum(1 for _ in _dependent(args, kwargs))
        if n == 0:  # a custom function's result, held by now
            return function(*args, **kwargs)
        if name in _JOINT:
            return self._joint(name, function, args, kwargs)
        if name in _PRODUCTS:
            return self._product(name, function, args, kwargs)
        if name == "softmax":
            return softmax_call(self.books, args, kwargs, held=self.held)
        if name == "scaled_dot_product_attention":
            return attention(self.books, *args, **kwargs, held=self.held)
        if held_scale(name, args, kwargs) or name in _HELD or (name in _SOFT and self.held):
            return function(*args, **kwargs).detach()
        normed = linear_norm(name, args, kwargs)
        if normed is not None:
            return self._with_offset(normed)
        if name in _QUOTIENTS and "rounding_mode" not in kwargs:
            place = _QUOTIENTS[name]
            return function(*(_held(part) if i == place else part for i, part in enumerate(args)), **kwargs)
        if name in ("pow", "square", "float_power"):
            return self._power(name, function, args, kwargs)
        if name in _ELEMENTWISE and n == 1 and args and isinstance(args[0], torch.Tensor) and args[0].requires_grad:
            return self._elementwise(function, args, kwargs)
        if name in _SELECTING and sum(isinstance(part, torch.Tensor) for part in args) == 1:
            return function(*args, **kwargs)
        return self._unknown(name, function, args, kwargs)

    def _with_offset(self, normed: Normed) -> torch.Tensor:
        if normed.offset is None:
            return normed.linear
        return self.books.book(normed.linear + normed.offset, normed.offset, "biases")

    def _joint(self, name: str, function: Call, args: Args, kwargs: Options) -> torch.Tensor:
        found: torch.Tensor = function(*args, **kwargs)
        if name in ("add", "sub", "rsub") and not kwargs and len(args) == 2:
            return self._sum(name, found, args)
        if not _has_constant(name, args, kwargs):
            return found
        return self.books.book(found, function(*_zeroed(args), **_zeroed(kwargs)))

    def _sum(self, name: str, found: torch.Tensor, args: Args) -> torch.Tensor:
        # the common case, without zeros in the place of what depends on the input
        for place, part in enumerate(args):
            if not (isinstance(part, torch.Tensor) and part.requires_grad):
                return self.books.book(found, -part if (name, place) in (("sub", 1), ("rsub", 0)) else part)
        return found

    def _product(self, name: str, function: Call, args: Args, kwargs: Options) -> torch.Tensor:
        if name in _ADDED:
            return self._added_product(name, args, kwargs)
        offset = None
        if name == "linear" or name.startswith("conv"):
            offset = args[2] if len(args) > 2 else kwargs.get("bias")
        found: torch.Tensor = function(*args, **kwargs)
        n = sum(1 for _ in _dependent(args, kwargs))
        if offset is None:
            return shared(found, n)
        if offset.requires_grad:
            return self._unknown(name, function, args, kwargs) if n > 2 else found
        if name.startswith("conv"):
            offset = offset.view(-1, *[1] * (found.dim() - 2))
        if n == 1:
            return self.books.book(found, offset, "biases")
        return self.books.book(shared(found - offset, n) + offset, offset, "biases")

    def _added_product(self, name: str, args: Args, kwargs: Options) -> torch.Tensor:
        names, multiply = _ADDED[name]
        added, first, second = (args[i] if i < len(args) else kwargs[part] for i, part in enumerate(names))
        product: torch.Tensor = multiply(first, second)
        product = shared(product, max(1, first.requires_grad + second.requires_grad)) * kwargs.get("alpha", 1)
        added = added * kwargs.get("beta", 1)
        found: torch.Tensor = product + added
        if added.requires_grad and product.requires_grad:
            return found
        return self.books.book(found, product if added.requires_grad else added)

    def _power(self, name: str, function: Call, args: Args, kwargs: Options) -> Any:
        exponent = 2 if name == "square" else args[1] if len(args) > 1 else kwargs.get("exponent")
        if not isinstance(exponent, (int, float)) or not isinstance(args[0], torch.Tensor):
            return self._unknown(name, function, args, kwargs)
        found: torch.Tensor = function(*args, **kwargs)
        # a product of p factors; p need not be whole, for the derivative of x ** p along x is p times its value
        return found.detach() if exponent <= 0 else shared(found, exponent)

    def _elementwise(self, function: Call, args: Args, kwargs: Options) -> torch.Tensor:
        given, rest = args[0], args[1:]
        inplace = kwargs.get("inplace", False) or (bool(rest) and rest[0] is True)
        if inplace:
            rest, kwargs = (), {}
        found = line(self.books, lambda part: function(part, *rest, **kwargs), given)
        return given.copy_(found) if inplace else found

    def _in_place(self, name: str, function: Call, args: Args, kwargs: Options) -> Any:
        target = args[0]
        if name in _JOINT:
            constant = None
            if _has_constant(name, args, kwargs):
                with torch.no_grad():
                    constant = torch.zeros_like(target) if target.requires_grad else target.clone()
                    function(constant, *_zeroed(args[1:]), **_zeroed(kwargs))
            found = function(*args, **kwargs)
            if constant is not None:
                self.books.book_(target, constant)
            return found
        outside = getattr(torch.Tensor, name, None)
        if outside is None:
            raise _unknown_function(name, "it writes into its input, and there is no such function that does not")
        # its old value may be needed by the derivative of what is written over it
        return target.copy_(self._rule(name, outside, (target.clone(), *args[1:]), kwargs))

    def _unknown(self, name: str, function: Call, args: Args, kwargs: Options) -> Any:
        """The function with its own derivative; what that leaves of the value is a leak, unless it is a product."""
        found = function(*args, **kwargs)
        parts, tree = pytree.tree_flatten(found)
        moving = [i for i, part in enumerate(parts) if isinstance(part, torch.Tensor) and part.requires_grad]
        if moving:
            n = sum(1 for _ in _dependent(args, kwargs))
            for i, along in zip(moving, _derivative(name, function, args, kwargs, moving), strict=True):
                parts[i] = self._remainder(parts[i], along, n)
        return pytree.tree_unflatten(parts, tree)

    def _remainder(self, found: torch.Tensor, along: torch.Tensor, n: int) -> torch.Tensor:
        value = bounded(found.detach())
        rounding = 32 * torch.finfo(value.dtype).eps * float(value.abs().amax()) if value.numel() else 0.0
        if torch.allclose(along, value, rtol=0, atol=rounding):
            return found
        if n > 1 and torch.allclose(along, n * value, rtol=0, atol=32 * rounding):
            return shared(found, n)
        return self.books.book(found, value - along, "leaks")


def _dependent(args: Any, kwargs: Options) -> Iterator[torch.Tensor]:
    """Tensors among the arguments that depend on the input, each as often as it is given."""
    for part in (*args, *kwargs.values()):
        if isinstance(part, torch.Tensor):
            if part.requires_grad:
                yield part
        elif isinstance(part, (list, tuple)):
            yield from _dependent(part, {})


def _has_constant(name: str, args: Any, kwargs: Options) -> bool:
    """Whether some constant among the arguments could be an offset: a tensor of floats, or a number that fills."""
    for part in (*args, *kwargs.values()):
        if isinstance(part, torch.Tensor):
            if not part.requires_grad and part.is_floating_point():
                return True
        elif isinstance(part, (int, float)):
            if name in _FILLING and part and abs(part) != torch.inf:
                return True
        elif isinstance(part, (list, tuple)) and _has_constant("", part, {}):
            return True
    return False


def _zeroed(parts: Any) -> Any:
    """The arguments with zeros for what depends on the input."""
    return pytree.tree_map(
        lambda part: torch.zeros_like(part) if isinstance(part, torch.Tensor) and part.requires_grad else part, parts
    )


def _held(part: Any) -> Any:
    return part.detach() if isinstance(part, torch.Tensor) else part


def _without_foreign(args: Args, kwargs: Options) -> tuple[Args, Options]:
    """The arguments with the results of custom autograd functions held: nothing is known of these but their values."""
    custom = torch.autograd.function.BackwardCFunction
    if not any(isinstance(part.grad_fn, custom) for part in _dependent(args, kwargs)):
        return args, kwargs
    held: tuple[Args, Options] = pytree.tree_map(
        lambda part: part.detach() if isinstance(part, torch.Tensor) and isinstance(part.grad_fn, custom) else part,
        (args, kwargs),
    )
    return held


def _derivative(name: str, function: Call, args: Args, kwargs: Options, moving: list[int]) -> Sequence[torch.Tensor]:
    """The function's derivative along its own arguments, ``J x``, for each of its outputs in ``moving``.

    ``J^T v`` is linear in ``v``, and the derivative of ``<J^T v, x>`` by ``v`` is ``J x``.
    """
    parts, tree = pytree.tree_flatten((args, kwargs))
    at = [i for i, part in enumerate(parts) if isinstance(part, torch.Tensor) and part.requires_grad]
    for i in at:
        parts[i] = parts[i].detach().requires_grad_()
    args, kwargs = pytree.tree_unflatten(parts, tree)
    try:
        outputs = pytree.tree_leaves(function(*args, **kwargs))
        outputs = [outputs[i] for i in moving]
        seeds = [torch.zeros_like(part, requires_grad=True) for part in outputs]
        inputs = [parts[i] for i in at]
        gradients = torch.autograd.grad(outputs, inputs, seeds, create_graph=True, materialize_grads=True)
        rise = sum((gradient * bounded(part.detach())).sum() for gradient, part in zip(gradients, inputs, strict=True))
        if not isinstance(rise, torch.Tensor) or not rise.requires_grad:
            return [torch.zeros_like(part) for part in outputs]
        return torch.autograd.grad(rise, seeds, materialize_grads=True)
    except RuntimeError as error:
        raise _unknown_function(name, f"torch cannot differentiate it twice: {error}") from error


def _unknown_function(name: str, why: str) -> ExplainError:
    return ExplainError(
        f"relevance cannot be propagated through torch's {name!r}",
        why=why,
        fix="explain this model by another method, such as --method leave_one_out",
    )
