"""The vectors that attention carries from one token to another, behind its weights.

With weights ``a`` of heads h, values ``v`` and the map ``J`` from weighted sums to what attention adds to the stream (output
projection, and whatever norm or gate stands behind it, norms frozen), row i receives from source j the transformed vector

    T_i(x_j) = sum_h J_i^h (a_ij^h v_j^h)  +  x_i where j = i,

the residual stream included. Sources: G. Kobayashi et al., "Attention is Not Only a Weight", EMNLP 2020, and
"Incorporating Residual and Normalization Layers into Analysis of Masked Language Models", EMNLP 2021; J. Ferrando et al.,
"Measuring the Mixing of Contextual Information in the Transformer", EMNLP 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from tokentape.errors import ExplainError
from tokentape.explain.attention.stream import Addition
from tokentape.explain.question import raised

__all__ = ["Measure", "Transformed", "raised"]

ELEMENTS = 2**23
"""Numbers of transformed vectors that are held at once: ``[T, T, D]`` never is."""

TOLERANCE, ROUNDINGS = 1e-3, 16
"""How far the sum of the vectors may lie from what attention added, as a part of it: this, or so many roundings of the dtype."""

Measure = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Vectors ``[c, R, D]`` from c sources to R rows, and what each row became ``[R, D]``: contributions ``[c, R]``, >= 0."""


@dataclass(frozen=True, slots=True)
class _Way:
    """The linear map from weighted sums to what attention adds: forwards for tangents, backwards for cotangents."""

    added: torch.Tensor
    sums: tuple[torch.Tensor, ...]
    cotangent: torch.Tensor
    pulled: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, addition: Addition) -> _Way:
        assert addition.attention is not None
        added, sums = addition.attention, tuple(one.sums for one in addition.carried)
        cotangent = torch.zeros_like(added, requires_grad=True)
        # a map is linear in its tangent, and its transpose in its cotangent: the second's derivative is the first
        return cls(added, sums, cotangent, torch.autograd.grad(added, sums, cotangent, create_graph=True))

    def forward(self, number: int, tangent: torch.Tensor) -> torch.Tensor:
        """``[T, D]`` of a tangent ``[H, T, Dv]`` of the sum of that number."""
        pulled = self.pulled[number]
        (pushed,) = torch.autograd.grad(pulled, self.cotangent, tangent.reshape(pulled.shape), retain_graph=True)
        return raised(pushed)

    def backward(self, cotangent: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Of each sum, in its own shape, the gradient of ``<cotangent, added>``."""
        return torch.autograd.grad(self.added, self.sums, cotangent.to(self.added), retain_graph=True)


class Transformed:
    """The transformed vectors of one addition of attention.

    Where the way from sum to stream is the same for all rows, up to a factor (a norm's scale), each value is sent through
    it once and weighed afterwards; behind a gate each source is sent by itself.
    """

    def __init__(self, addition: Addition, name: str) -> None:
        assert addition.attention is not None
        self.name = name
        self.block = addition.block
        self.stream = raised(addition.stream)
        self.carried = addition.carried
        self.added = raised(addition.attention.detach())
        self.way = _Way.of(addition)
        self.scales = self._scales()

    def contributions(self, measure: Measure) -> torch.Tensor:
        """``[T, T]``: what each row (first index) owes to each source, rows summing to one.

        A row to which no source contributes (what it is and what attention adds cancel) is taken to stay itself.
        Raises ExplainError where the vectors do not add up to what attention added.
        """
        n = len(self.stream)
        became = self.stream + self.added
        found, total = became.new_zeros(n, n), torch.zeros_like(became)
        for sources, vectors in self._vectors():
            first = sources.start
            total[first:] += vectors.sum(0)
            own = torch.arange(vectors.shape[0], device=vectors.device)
            # a row is its own source too, by the stream
            vectors[own, own] += self.stream[sources]
            found[first:, sources] = measure(vectors, became[first:]).T
        self._check(self.added - total)
        empty = found.sum(-1) == 0
        found[empty, torch.arange(n, device=found.device)[empty]] = 1
        return found / found.sum(-1, keepdim=True)

    def read(self, cotangent: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """``[n, T]``: ``<cotangent_t, T_i(x_j)>`` of n rows i without the stream, cotangents ``[n, D]``."""
        whole = torch.zeros_like(self.added)
        whole[rows] = cotangent.to(whole)
        found = self.added.new_zeros(len(rows), len(self.stream))
        for one, pulled in zip(self.carried, self.way.backward(whole), strict=True):
            at = raised(pulled.reshape(one.values.shape)[:, rows])
            found += (raised(one.weights[:, rows]) * (at @ raised(one.values).transpose(-1, -2))).sum(0)
        return found

    def _vectors(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Vectors ``[c, T - first, D]`` from c sources, beginning at ``first``, to the rows from there on."""
        n, width = self.stream.shape
        sent = None if self.scales is None else [self._sent(number) for number in range(len(self.carried))]
        start = 0
        while start < n:
            stop = min(n, start + max(1, ELEMENTS // ((n - start) * width)))
            sources = slice(start, stop)
            if sent is None:
                yield sources, torch.stack([self._alone(source)[start:] for source in range(start, stop)])
            else:
                yield sources, self._weighed(sent, sources)
            start = stop

    def _weighed(self, sent: list[torch.Tensor], sources: slice) -> torch.Tensor:
        assert self.scales is not None
        parts = []
        for one, vectors in zip(self.carried, sent, strict=True):
            weights = one.weights[:, sources.start :, sources].permute(2, 1, 0).to(vectors.dtype)
            parts.append(weights @ vectors[:, sources].transpose(0, 1))
        found: torch.Tensor = sum(parts[1:], parts[0])
        return found * self.scales[sources.start :, None]

    def _sent(self, number: int) -> torch.Tensor:
        """Each head's value of each source, sent the way: ``[H, T, D]``, the scale of the row that it was sent in undone."""
        assert self.scales is not None
        values = self.carried[number].values
        heads = []
        for head in range(len(values)):
            tangent = torch.zeros_like(values)
            tangent[head] = values[head]
            heads.append(self.way.forward(number, tangent) / self.scales[:, None])
        return torch.stack(heads)

    def _alone(self, source: int) -> torch.Tensor:
        """``[T, D]``: what one source gives to each row."""
        found = torch.zeros_like(self.added)
        for number, one in enumerate(self.carried):
            found += self.way.forward(number, one.weights[:, :, source, None] * one.values[:, source, None])
        return found

    def _scales(self) -> torch.Tensor | None:
        """The factor ``[T]`` by which rows differ in the way that their sums go; None where they differ in more than that."""
        answers = torch.zeros_like(self.added)
        generator = torch.Generator().manual_seed(0)
        for number, one in enumerate(self.carried):
            heads, n, width = one.values.shape
            drawn = torch.randn(heads, 1, width, generator=generator).to(one.values)
            answers += self.way.forward(number, drawn.expand(heads, n, width))
        longest = answers.norm(dim=-1).argmax()
        direction = answers[longest]
        scales = answers @ direction / (direction @ direction)
        apart = (answers - scales[:, None] * direction).norm() / answers.norm()
        usable = bool(apart <= self._tolerance()) and bool(scales.abs().min() > 0)
        return scales if usable else None

    def _tolerance(self) -> float:
        return max(TOLERANCE, ROUNDINGS * torch.finfo(self.way.added.dtype).eps)

    def _check(self, biases: torch.Tensor) -> None:
        """What the vectors leave of an addition has to be its biases: the same for all rows, but for the scale of a norm."""
        ones = torch.ones(len(biases), 1, dtype=torch.float64, device=biases.device)
        basis = ones if self.scales is None else torch.cat([ones, self.scales.double()[:, None]], 1)
        left = biases.double()
        left = left - basis @ torch.linalg.lstsq(basis, left).solution
        part = float(left.norm() / self.added.double().norm().clamp_min(1e-30))
        if not part <= self._tolerance():
            raise ExplainError(
                f"attention of block {self.block} of {self.name} is not the sum of what it carries",
                why=f"values sent through its output leave {part:.1%} of what it added unexplained",
                fix="--method leave_one_out needs to know nothing of a model's layers",
            )
