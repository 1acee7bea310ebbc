from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tokentape.errors import ExplainError
from tokentape.explain.affine.attention import attention, softmax
from tokentape.explain.affine.books import Books
from tokentape.explain.affine.rules import Rules
from tokentape.explain.affine.units import line_units

N, D = 6, 4
Tensor = torch.Tensor


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


W, B = drawn(D, D, seed=1), drawn(D, seed=2)


class Books2(Books):
    """Books in which what each kind is worth can be asked for."""

    def worth(self, value: Tensor, leaf: Tensor) -> tuple[Tensor, dict[str, float]]:
        found = torch.autograd.grad(value, [leaf, *self.leaves.values()], materialize_grads=True, retain_graph=True)
        kinds = dict.fromkeys(("biases", "positions", "leaks"), 0.0)
        for (_, kind), part in zip(self.leaves, found[1:], strict=True):
            kinds[kind] += float(part)
        return found[0], kinds


def mapped(
    function: Callable[[Tensor], Tensor], *, held: bool = False, n: int = N
) -> tuple[float, float, dict[str, float]]:
    """What a function's affine map gives to its input and to its constants, of the sum of its values with a drawn seed."""
    x = drawn(1, n, D, seed=3)
    plain = function(x.clone())
    seed = drawn(*plain.shape, seed=4)
    books = Books2(2, n)
    books.block = 1
    leaf = x.clone().requires_grad_()
    with Rules(books, held=held):
        found = function(leaf.clone())
    torch.testing.assert_close(found.detach(), plain, rtol=1e-12, atol=1e-12)
    value = (found * seed).nan_to_num().sum()
    gradient, kinds = books.worth(value, leaf)
    total = float((gradient * x).sum())
    assert total + sum(kinds.values()) == pytest.approx(float(value.detach()), abs=1e-10)
    return total, float(value.detach()), kinds


def into(target: Tensor, write: Callable[[Tensor], Any]) -> Tensor:
    write(target)
    return target


LINEAR: dict[str, Callable[[Tensor], Tensor]] = {
    "dense": lambda x: x @ W,
    "views": lambda x: x.view(N, 2, 2).transpose(0, 1).reshape(-1, D)[1:].flip(0),
    "sum of parts": lambda x: torch.cat([x[:, :2], x[:, 2:].cumsum(1)], 1) - x.mean(-1, keepdim=True),
    "selection": lambda x: x.topk(2, -1).values + x.max(-1, keepdim=True).values,
    "scaled": lambda x: 3 * x / 7,
    "masked": lambda x: x.masked_fill(x > 0, 0.0),
    "filled into zeros": lambda x: into(torch.zeros_like(x), lambda t: t.__setitem__((0, slice(0, 3)), x[0, :3])),
    "scattered": lambda x: torch.zeros(1, 2, D, dtype=x.dtype).index_add(1, torch.tensor([0, 1, 0, 1, 1, 0]), x),
    "in place": lambda x: x.mul_(2.0).add_(x[:, :1].clone()),
    "products": lambda x: (x @ W) * x.sigmoid().mul(0).add(x),
    "three factors": lambda x: torch.einsum("bij,bij,bij->bi", x, x @ W, x + x),
    "product in place": lambda x: x.mul_(x @ W),
    "square": lambda x: x.square() - x.pow(3) + x**2,
    "normed by hand": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    "normed by a root": lambda x: (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True) + 1e-5),
    "normed by a power": lambda x: x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).pow(-0.5),
    "unit length": lambda x: F.normalize(x, dim=-1) + x / x.norm(dim=-1, keepdim=True),
    "divided": lambda x: x / x.abs().sum(-1, keepdim=True),
    "rms_norm": lambda x: F.rms_norm(x, (D,), B),
    "activations": lambda x: F.gelu(x) + F.silu(x) + x.relu() + torch.tanh(x) + F.gelu(x, approximate="tanh"),
    "activation in place": lambda x: F.relu(x * 1, inplace=True),
    "absolute": lambda x: x.abs() + x.clamp(-1, 1) + x.clamp(max=0.5),
    "solved": lambda x: torch.linalg.solve(W, x.transpose(1, 2)),
    "largest of two": lambda x: torch.maximum(x, x @ W),  # no rule names it: homogeneous, so that nothing is left
}


@pytest.mark.parametrize("name", LINEAR)
def test_what_passes_the_origin_owes_all_to_its_input(name: str) -> None:
    given, value, kinds = mapped(LINEAR[name])
    assert given == pytest.approx(value, abs=1e-9)
    assert kinds == {"biases": 0, "positions": 0, "leaks": 0}


OFFSET: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "linear": (lambda x: F.linear(x, W, B), B.expand(1, N, D)),
    "addmm": (lambda x: torch.addmm(B, x[0], W), B.expand(N, D)),
    "conv1d": (lambda x: F.conv1d(x.transpose(1, 2), W[..., None], B), B[:, None].expand(1, D, N)),
    "baddbmm": (
        lambda x: drawn(1, N, N, seed=5).baddbmm(x, x.transpose(1, 2), beta=0.5, alpha=2),
        0.5 * drawn(1, N, N, seed=5),
    ),
    "scalar": (lambda x: 1 + x, torch.ones(1, N, D)),
    "taken from": (lambda x: 2 - x, torch.full((1, N, D), 2.0)),
    "subtracted": (lambda x: torch.sub(x, B, alpha=3), -3 * B.expand(1, N, D)),
    "joined": (lambda x: torch.cat([x, W[None]], 1), torch.cat([torch.zeros(1, N, D), W[None]], 1)),
    "chosen": (lambda x: torch.where(x > 0, x, 1), (drawn(1, N, D, seed=3) <= 0).double()),
    "filled": (lambda x: x.masked_fill(x > 0, 2), 2 * (drawn(1, N, D, seed=3) > 0).double()),
    "written over": (
        lambda x: into(x, lambda t: t.__setitem__((0, 1), B)),
        into(torch.zeros(1, N, D, dtype=torch.float64), lambda t: t.__setitem__((0, 1), B)),
    ),
    "written into": (
        lambda x: into(W.repeat(1, 2, 1), lambda t: t.__setitem__((0, slice(0, N)), x[0])),
        torch.cat([torch.zeros(N, D), W.repeat(2, 1)[N:]])[None],
    ),
    "added in place": (lambda x: x.add_(B, alpha=2), 2 * B.expand(1, N, D)),
    "added to a view": (
        lambda x: into(x, lambda t: t[:, :2].add_(1.0)),
        torch.cat([torch.ones(1, 2, D), torch.zeros(1, N - 2, D)], 1),
    ),
    "sigmoid": (lambda x: x.sigmoid(), torch.full((1, N, D), 0.5)),
    "layer_norm": (lambda x: F.layer_norm(x, (D,), W[0], B), B.expand(1, N, D)),
    "group_norm": (lambda x: F.group_norm(x[0], 2, W[0], B), B.expand(N, D)),
    "padded": (
        lambda x: F.pad(x, (0, 0, 1, 0), value=3.0),
        torch.cat([3 * torch.ones(1, 1, D), torch.zeros(1, N, D)], 1),
    ),
}


@pytest.mark.parametrize("name", OFFSET)
def test_what_is_added_is_booked(name: str) -> None:
    function, offset = OFFSET[name]
    _, _, kinds = mapped(function)
    worth = float((offset.double() * drawn(*offset.shape, seed=4)).sum())
    if name == "baddbmm":  # runs over the sequence: scores of attention
        assert kinds == {"biases": 0, "positions": pytest.approx(worth), "leaks": 0}
    else:
        assert kinds == {"biases": pytest.approx(worth), "positions": 0, "leaks": 0}


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.logsumexp(-1),
        lambda x: torch.cumprod(x, -1),
        lambda x: torch.maximum(x, W[0]),
        lambda x: torch.log(x.square() + 2),
        lambda x: x.softmax(-1),
        lambda x: F.log_softmax(x, -1),
        lambda x: torch.special.i0(x),
        lambda x: x.round(),
        lambda x: torch.slogdet(x @ x.transpose(1, 2) + 9 * torch.eye(N, dtype=x.dtype)).logabsdet,
    ],
)
def test_what_no_rule_names_keeps_its_derivative_and_books_the_rest(function: Callable[[Tensor], Tensor]) -> None:
    x = drawn(1, N, D, seed=3).requires_grad_()
    _, value, kinds = mapped(function)
    plain = function(x)
    seed = drawn(*plain.shape, seed=4)
    if plain.requires_grad:
        (gradient,) = torch.autograd.grad(plain, x, seed)
        # the remainder of the whole function; where rules act inside of it, the parts of the ledger still add up
        if kinds["biases"] == kinds["positions"] == 0:
            assert kinds["leaks"] == pytest.approx(value - float((gradient * x).detach().sum()))
    assert kinds["leaks"] != 0


def test_exponentials_and_foreign_functions_are_held() -> None:
    class Foreign(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Tensor) -> Tensor:
            return x.cos()

        @staticmethod
        def backward(context: Any, *gradients: Tensor) -> Tensor:
            return gradients[0]

    for gate in (torch.exp, Foreign.apply, lambda x: 2.0**x):
        given, value, _ = mapped(lambda x, gate=gate: x * gate(x))
        assert given == pytest.approx(value)
        _, value, kinds = mapped(lambda x, gate=gate: x - x + gate(x))
        assert kinds["biases"] + kinds["positions"] == pytest.approx(value)


def test_a_function_without_a_derivative_is_refused_by_its_name() -> None:
    x = drawn(1, N, D).float()
    with (
        pytest.raises(ExplainError, match="'special_zeta'") as caught,
        Rules(Books(1, N), held=False),
    ):
        torch.special.zeta(x.requires_grad_(), 2.0)
    assert "leave_one_out" in caught.value.fix


def test_constants_are_left_alone() -> None:
    books = Books(1, N)
    with Rules(books, held=False):
        F.layer_norm(drawn(3, D), (D,), W[0], B)
        with torch.no_grad():
            drawn(3, D).requires_grad_() + 1
    assert not books.leaves


def moments(weights: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of ``a`` and covariance of ``a`` and ``b`` under each row of weights."""
    mean = (weights * a).sum(-1)
    return mean, (weights * a * b).sum(-1) - mean * (weights * b).sum(-1)


def test_the_leak_of_softmax_is_its_closed_formula() -> None:
    scores = drawn(3, N, N, seed=6).masked_fill(torch.ones(N, N).triu(1).bool(), -torch.inf).requires_grad_()
    cost = drawn(3, N, N, seed=7)
    books = Books2(1, N)
    weights = softmax(books, scores, -1, None, held=False)
    _, kinds = books.worth((weights * cost).sum(), scores)
    mean, covariance = moments(weights.detach(), cost, scores.detach().masked_fill(scores.detach() == -torch.inf, 0))
    assert kinds["leaks"] == pytest.approx(float((mean - covariance).sum()))


@pytest.mark.parametrize("call", [attention, None], ids=["by steps", "by its name"])
def test_attention_shares_in_quarters_and_halves_and_leaks_half_of_it(call: Any) -> None:
    query, key, value = (drawn(1, 4, N, D, seed=seed).requires_grad_() for seed in (8, 9, 10))
    seed = drawn(1, 4, N, D, seed=11)
    books = Books2(1, N)
    if call is None:
        with Rules(books, held=False):
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    else:
        mixed = attention(books, query, key, value, is_causal=True, held=False)
    plain = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(mixed, plain, rtol=1e-12, atol=1e-12)
    expected = torch.autograd.grad(plain, (query, key, value), seed)
    found = torch.autograd.grad(mixed, (query, key, value), seed, retain_graph=True)
    for part, whole, share in zip(found, expected, (0.25, 0.25, 0.5), strict=True):
        torch.testing.assert_close(part, share * whole, rtol=1e-10, atol=1e-12)
    _, kinds = books.worth((mixed * seed).sum(), query)
    scores = (query @ key.transpose(-2, -1) / D**0.5).detach()
    weights = scores.masked_fill(torch.ones(N, N).triu(1).bool(), -torch.inf).softmax(-1)
    mean, covariance = moments(weights, (seed @ value.transpose(-2, -1)).detach(), scores)
    assert kinds["leaks"] == pytest.approx(0.5 * float((mean - covariance).detach().sum()))


def test_held_attention_gives_all_to_its_values() -> None:
    query, key, value = (drawn(1, 4, N, D, seed=seed).requires_grad_() for seed in (8, 9, 10))
    books = Books2(1, N)
    mixed = attention(books, query, key, value, is_causal=True, held=True)
    gradient, kinds = books.worth((mixed * drawn(1, 4, N, D, seed=11)).sum(), value)
    assert float((gradient * value).detach().sum()) == pytest.approx(
        float((mixed * drawn(1, 4, N, D, seed=11)).detach().sum())
    )
    assert not books.leaves and not any(kinds.values())
    assert torch.autograd.grad(mixed.sum(), query, allow_unused=True) == (None,)


@pytest.mark.parametrize("masked", ["boolean", "added", "huge"])
def test_attention_is_that_of_torch_for_masks_scales_and_shared_heads(masked: str) -> None:
    query, key, value = (
        drawn(2, 4, N, D, seed=8).requires_grad_(),
        drawn(2, 2, N, D, seed=9),
        drawn(2, 2, N, D, seed=10),
    )
    allowed = torch.ones(N, N, dtype=torch.bool).tril().triu(-2)
    low = torch.finfo(torch.float64).min if masked == "huge" else -torch.inf
    mask = allowed if masked == "boolean" else drawn(N, N, seed=12).masked_fill(~allowed, low)
    books = Books2(1, N)
    options = {"attn_mask": mask, "scale": 0.3, "enable_gqa": True}
    found = attention(books, query, key, value, **options, held=False)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(query, key, value, **options))
    gradient, kinds = books.worth((found * drawn(2, 4, N, D, seed=11)).sum(), query)
    assert gradient.isfinite().all()
    assert (kinds["positions"] != 0) == (masked != "boolean")


class Bloomlike(nn.Module):
    """A formula as some models write their activations out."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0.5 * (1.0 + torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x)))


class Learned(nn.Module):
    """Elementwise, with a parameter along the last dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.bend = nn.Parameter(torch.tensor([0.1, 0.5, 2.0, 1.0], dtype=torch.float64), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x * x, self.bend * torch.expm1(x))


class Inplace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(torch.sigmoid(x))


class Mixing(nn.Module):
    """No activation: it divides by what its neighbours give."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x / x.abs().sum(-1, keepdim=True)


@pytest.mark.parametrize("kind", [Bloomlike, Learned, Inplace, nn.GELU, nn.SiLU, nn.Mish])
def test_an_activation_is_one_unit_whatever_its_formula(kind: type[nn.Module]) -> None:
    module = nn.Sequential(kind())
    x = drawn(1, N, D, seed=3)
    plain = module(x.clone())
    books = Books(1, N)
    leaf = x.clone().requires_grad_()
    with ExitStack() as stack:
        line_units(module, books, stack)
        with Rules(books, held=False):
            found = module(leaf * 1)
    torch.testing.assert_close(found.detach(), plain)
    (slope,) = torch.autograd.grad(found.sum(), leaf)
    torch.testing.assert_close(slope, plain / x, rtol=1e-6, atol=1e-9)  # the identity rule, f(x) / x
    assert not books.leaves
    assert not module[0]._forward_hooks and not module[0]._forward_pre_hooks


@pytest.mark.parametrize(
    "kind", [Mixing, nn.Identity, lambda: nn.LayerNorm(D, dtype=torch.float64), lambda: nn.Softmax(-1)]
)
def test_what_is_no_activation_is_left_to_the_rules(kind: Callable[[], nn.Module]) -> None:
    module = nn.Sequential(kind()).requires_grad_(False)
    leaf = drawn(1, N, D, seed=3).requires_grad_()
    found = []
    for units in (True, False):
        with ExitStack() as stack:
            books = Books(1, N)
            if units:
                line_units(module, books, stack)
            with Rules(books, held=False):
                found.append(torch.autograd.grad(module(leaf * 1).square().sum(), leaf)[0])
    assert torch.equal(*found)


@pytest.mark.parametrize("value", [0.0, 1e-12, -1e-12, 1e-5, -40.0, 40.0])
def test_a_line_is_exact_and_finite_next_to_zero_and_far_from_it(value: float) -> None:
    for function, slope_at_zero in ((F.silu, 0.5), (torch.sigmoid, 0.25), (F.softplus, 0.5), (F.gelu, 0.5)):
        leaf = torch.full((1, N, D), value, dtype=torch.float64, requires_grad=True)
        books = Books2(1, N)
        with Rules(books, held=False):
            found = function(leaf)
        torch.testing.assert_close(found, function(leaf.detach()), rtol=1e-12, atol=1e-15, check_stride=False)
        gradient, kinds = books.worth(found.sum(), leaf)
        assert float((gradient * leaf).detach().sum()) + kinds["biases"] == pytest.approx(
            float(found.detach().sum()), rel=1e-12, abs=1e-14
        )
        if abs(value) < 1e-6:
            torch.testing.assert_close(gradient, torch.full_like(gradient, slope_at_zero), rtol=1e-6, atol=1e-8)
