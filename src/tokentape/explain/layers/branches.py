"""Which parts of a block's sum are attention's and which the MLP's: told apart by what they read, not by their names.

A part of the sum whose last row answers to earlier rows of what it reads is attention, or the recurrence that stands in its
place; one whose last row answers to its own row alone is the MLP (experts and gates included). Found once for each model, by
gradients through each block over a few tokens.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.autograd.graph import GradientEdge

from tokentape.explain.layers.sums import Factor, Node, Sums, expanded, times
from tokentape.explain.replay import Replay
from tokentape.models.anatomy import first_of, following, inputs_of, state_in

__all__ = ["Branches", "Heads", "Label", "branches_of", "chain"]

Label = Literal["attention", "mlp", "other"]

_TOKENS = 5
"""Tokens of the probe: more than one, so that a row has others to answer to."""

_TESTED = 4
"""Heads that are looked at to know that a projection reads them side by side."""


@dataclass(frozen=True, slots=True)
class Heads:
    """Where heads can be seen: ``path`` leads from a part of the sum to the projection that reads ``n`` of them side by side."""

    n: int
    path: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Branches:
    """How one block splits.

    ``labels`` and ``heads`` have an entry for each part of the sum but the residual stream itself, in order; ``keeps`` is the
    factor with which the block hands on what it reads. ``unsplit`` says why a block cannot be split, and is empty else.
    """

    labels: tuple[Label, ...] = ()
    heads: tuple[Heads | None, ...] = ()
    keeps: Factor = 1.0
    unsplit: str = ""


_known: weakref.WeakKeyDictionary[Any, tuple[int, tuple[Branches, ...]]] = weakref.WeakKeyDictionary()


def branches_of(replay: Replay) -> tuple[Branches, ...]:
    """How each block of the replay's model splits, found by one pass over a few tokens and kept while its weights stay."""
    weights = _fingerprint(replay.model)
    known = _known.get(replay.model)
    if known is None or known[0] != weights:
        known = _known[replay.model] = (weights, _probe(replay))
    return known[1]


def _fingerprint(model: Any) -> int:
    """Of where the parameters lie and how often each was written to, not of what they are: that would take long."""
    return hash(tuple((p.data_ptr(), p.dtype, 0 if p.is_inference() else p._version) for p in model.parameters()))


def _probe(replay: Replay) -> tuple[Branches, ...]:
    blocks = replay.anatomy.blocks
    found: dict[int, Branches] = {}
    sums = Sums(graph=True)

    def enter(index: int, args: Any, kwargs: dict[str, Any]) -> Any:
        state = state_in(args, kwargs)
        if not isinstance(state, torch.Tensor) or state.dim() != 3:
            return None
        # a graph of its own for each block; a copy, since a leaf may not be written into
        fresh = state.detach().requires_grad_().clone()
        sums.begin(fresh)
        kept = {name: fresh if given is state else given for name, given in kwargs.items()}
        return tuple(fresh if given is state else given for given in args), kept

    def leave(index: int, output: Any) -> None:
        state = first_of(output)
        if isinstance(state, torch.Tensor) and state.dim() == 3 and sums.running:
            found[index] = _examine(sums, sums.end(state))

    ids = torch.arange(_TOKENS, device=replay.causal.device)[None] % replay.causal.vocab_size
    with torch.enable_grad(), following(blocks, enter, leave), replay.memory("looking into its blocks"), sums:
        replay.model(**inputs_of(replay.model, ids), use_cache=False)
    replay.passes.forward += 1
    streams = Branches(unsplit="its residual stream is no single vector for each token")
    return tuple(found.get(index, streams) for index in range(len(blocks)))


def _examine(sums: Sums, top: Node) -> Branches:
    """How a block splits, from what was noted of it with gradients."""
    groups = list(_groups(top))
    kept = [factor for parts in groups for node, factor in parts if node.kind == "state"]
    added = [[node for node, _ in parts] for parts in groups if parts[0][0].kind != "state"]
    if not kept:
        return Branches(unsplit="what it reads does not go through it by additions alone")
    stream = [node for node in sums.order if _carries_state(node)]
    labels: list[Label] = []
    heads: list[Heads | None] = []
    try:
        for nodes in added:
            found = [_label(node, stream) for node in nodes]
            shared = {label for label in found if label is not None}
            # a constant belongs to what it is added to
            alone: Label = next(iter(shared)) if len(shared) == 1 else "other"
            own = [alone if label is None else label for label in found]
            labels += own
            heads += [
                _heads(node, sums.weighted) if label == "attention" else None
                for node, label in zip(nodes, own, strict=True)
            ]
    except (RuntimeError, AssertionError) as error:
        return Branches(unsplit=f"it gives no gradients: {' '.join(str(error).split())[:200]}")
    return Branches(tuple(labels), tuple(heads), _total(kept))


def _groups(node: Node, factor: Factor = 1.0) -> Iterator[list[tuple[Node, Factor]]]:
    """The parts of a block's sum in order, those together that are added up before they meet the residual stream."""
    if node.kind == "sum" and _carries_state(node):
        for parent, own in zip(node.parents, node.factors, strict=True):
            yield from _groups(parent, times(factor, own))
    else:
        yield list(expanded(node, factor))


def _total(factors: list[Factor]) -> Factor:
    total = factors[0]
    for factor in factors[1:]:
        total = total + factor
    return total


def _carries_state(node: Node) -> bool:
    """Whether a tensor is the residual stream, as it came or with something added."""
    return any(part.kind == "state" for part, _ in expanded(node))


def _label(node: Node, stream: list[Node]) -> Label | None:
    """What a part of the sum is, by the rows it answers to of the last state of the stream that it reads; None for a constant.

    A norm or a multiple of a sum may hold both attention and MLP, and then it is neither.
    """
    inner = node
    while inner.kind in ("norm", "product"):
        wide = [parent for parent in inner.parents if parent.value.numel() == node.value.numel()]
        if len(wide) != 1:
            break
        inner = wide[0]
    found = {_label(part, stream) for part, _ in expanded(inner)} if inner.kind == "sum" else {_answer(node, stream)}
    return found.pop() if len(found) == 1 else "other"


def _answer(node: Node, stream: list[Node]) -> Label | None:
    value, n_rows = node.value, stream[0].value.shape[1]
    if not value.requires_grad:
        return None
    if value.numel() != stream[0].value.numel():
        return "other"
    last = value.reshape(n_rows, -1)[-1]
    seed = _mixed(last)
    for state in reversed(stream):
        gradient = None if state.edge is None else _gradient(seed, state.edge)
        if gradient is not None:
            answers = gradient.reshape(n_rows, -1).ne(0).any(1)
            return "attention" if answers[:-1].any() else "mlp" if answers[-1] else "other"
    return None


def chain(node: Node, path: tuple[int, ...]) -> list[Node]:
    """The nodes from a part of the sum along a path of parents."""
    nodes = [node]
    for step in path:
        nodes.append(nodes[-1].parents[step])
    return nodes


def _heads(node: Node, weighted: list[torch.Tensor]) -> Heads | None:
    """The projection that a part comes out of, where it reads the weighted sums of heads side by side."""
    for path, found in _projections(node, ()):
        n = _n_heads(found.parents[0].value, weighted)
        if n is not None:
            return Heads(n, path)
    return None


def _projections(node: Node, path: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Node]]:
    """The projections that a node is a sum, norm or multiple of, nearest first, with the paths to them."""
    if node.kind == "projection":
        yield path, node
    elif node.kind in ("sum", "product", "norm"):
        for step, parent in enumerate(node.parents):
            yield from _projections(parent, (*path, step))


def _n_heads(given: torch.Tensor, weighted: list[torch.Tensor]) -> int | None:
    """How many heads a projection's input ``[.., K]`` has: slice h of it answers to head h of a weighted sum and no other."""
    width = given.shape[-1]
    last = given.reshape(-1, width)[-1]
    for one in reversed(weighted):
        n = one.shape[:-2].numel()
        if n < 2 or width % n or one.shape[-2] != _TOKENS:
            continue
        slices = last.reshape(n, -1)
        looked_at = sorted({round(i * (n - 1) / (_TESTED - 1)) for i in range(_TESTED)})
        if all(_answers_to(slices[head], one, n) == [head] for head in looked_at):
            return n
    return None


def _answers_to(values: torch.Tensor, weighted: torch.Tensor, n: int) -> list[int]:
    """The heads of a weighted sum that values ``[K / n]`` answer to."""
    gradient = _gradient(_mixed(values), weighted) if values.requires_grad else None
    if gradient is None:
        return []
    heads: list[int] = gradient.reshape(n, -1).ne(0).any(1).nonzero().flatten().tolist()
    return heads


def _mixed(values: torch.Tensor) -> torch.Tensor:
    """A sum that no symmetry of the values makes blind to them."""
    return (values * torch.linspace(0.5, 1.5, len(values), dtype=values.dtype, device=values.device)).sum()


def _gradient(value: torch.Tensor, by: torch.Tensor | GradientEdge) -> torch.Tensor | None:
    found: Sequence[torch.Tensor | None] = torch.autograd.grad(value, by, retain_graph=True, allow_unused=True)
    return found[0]
