"""How a block's output is followed down to what it is the sum of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from tokentape.explain.layers.sums import Sums, expanded

X = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0))
W = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))


def parts(block: Callable[[torch.Tensor], torch.Tensor]) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """Kinds of the parts of a block, what they add up to, and what the block gives without being watched."""
    sums = Sums()
    with torch.no_grad(), sums:
        x = X.clone()
        sums.begin(x)
        top = sums.end(block(x))
        found = list(expanded(top))
    return [node.kind for node, _ in found], sum(node.value * factor for node, factor in found), block(X.clone())


def curve(x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x * 2)


def grown(x: torch.Tensor) -> torch.Tensor:
    h = curve(x)
    h += x
    return h


def grown_stream(x: torch.Tensor) -> torch.Tensor:
    h = x + curve(x)
    h += functional.linear(h, W)
    return h


def written_into(x: torch.Tensor) -> torch.Tensor:
    h = x + curve(x)
    h.index_add_(1, torch.tensor([2]), torch.ones(1, 1, 4))
    return h


def assigned(x: torch.Tensor) -> torch.Tensor:
    h = x + curve(x)
    h[:, 1] = 7.0
    return h


@pytest.mark.parametrize(
    ("block", "kinds"),
    [
        (lambda x: x + curve(x), "state leaf"),
        (lambda x: curve(x) + x, "leaf state"),
        (lambda x: torch.add(x, curve(x), alpha=3), "state leaf"),
        (lambda x: x - curve(x), "state leaf"),
        (lambda x: x * 2 + curve(x) / 4, "state leaf"),
        (lambda x: torch.arange(4.0) * x + curve(x), "state leaf"),
        (lambda x: x + functional.dropout(functional.linear(x, W), 0.5, False), "state projection"),
        (lambda x: x + torch.addmm(torch.ones(4), x[0], W)[None], "state leaf"),
        (lambda x: x + torch.addmm(torch.ones(4), x[0], W).view(x.shape), "state projection"),
        (lambda x: (x.reshape(5, 4) + curve(x).reshape(5, 4)).view(1, 5, 4), "state leaf"),
        (lambda x: x + (curve(x) + torch.sigmoid(x)), "state leaf leaf"),
        (lambda x: x + functional.layer_norm(curve(x), (4,)), "state norm"),
        (lambda x: x + curve(x) * torch.sigmoid(x), "state product"),
        (lambda x: x + curve(x) * x.mean(-1, keepdim=True), "state product"),
        (lambda x: x + torch.ones(4), "state leaf"),
        (lambda x: x + x, "state state"),
        (grown, "leaf state"),
        (grown_stream, "state leaf projection"),
        # written into in a way that is not followed, the stream is no sum any more
        (written_into, "leaf"),
        (assigned, "leaf"),
        (lambda x: functional.layer_norm(x + curve(x), (4,)), "norm"),
        (lambda x: (x + curve(x)).transpose(1, 2), "leaf"),
        (lambda x: x[:, torch.tensor([4, 3, 2, 1, 0])] + curve(x), "leaf leaf"),
    ],
)
def test_parts_of_a_sum(block: Callable[[torch.Tensor], torch.Tensor], kinds: str) -> None:
    found, total, wanted = parts(block)
    assert found == kinds.split()
    torch.testing.assert_close(total, wanted, atol=1e-6, rtol=1e-6)


def test_values_are_those_of_the_block() -> None:
    """Watching copies what is written into, and changes nothing."""
    sums = Sums()
    with torch.no_grad():
        wanted = grown_stream(X.clone())
        with sums:
            x = X.clone()
            sums.begin(x)
            found = grown_stream(x)
            sums.end(found)
    assert torch.equal(found, wanted) and torch.equal(x, X)


def test_the_stream_itself_may_be_written_into() -> None:
    def block(x: torch.Tensor) -> torch.Tensor:
        attention = curve(x)
        x += attention
        return x

    found, total, wanted = parts(block)
    assert found == ["state", "leaf"]
    torch.testing.assert_close(total, wanted)
