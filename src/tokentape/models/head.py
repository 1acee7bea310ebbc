"""From final hidden states to log-probabilities, a piece at a time: logits ``[T, V]`` are never held.

At a vocabulary of 250,880 the logits of 1,024 tokens take a gigabyte in float32, and as much again once they are normalised.
Two ways avoid it. Where the head is a plain linear map, its rows of weights are taken some at a time, and the sum of
exponentials grows with them (M. Milakov and N. Gimelshein, "Online normalizer calculation for softmax", 2018); what is held
stays in the processor's cache. Where something else stands behind the last hidden state (a soft cap, a scale, another
transform), the model's own forward runs on some hidden states at a time.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tokentape.models.anatomy import inputs_of, keeps_rows
from tokentape.models.distribution import Reduced, Reducer

__all__ = ["Head", "head_of"]

ELEMENTS = 2**24
"""Logits that are held at once where whole rows are needed: 67 MB in float32."""

TILE = 2**22
"""Logits that are held at once where a sum over the vocabulary is enough: 16 MB in float32. That stays in the processor's cache,
and is enough work that threads seldom wait for one another, which costs most where others use the machine too."""

LEAST_TILE = 512
"""Rows of the head's weights that are worth a multiplication of their own."""

ROWS = 1024
"""Hidden states that go through the head together, so that its weights are read once for all of them."""

TOLERANCE, ROUNDINGS = 1e-5, 4
"""How far logits may lie from the model's own, as a part of the largest: this, or so many roundings of the dtype."""

_REFUSALS = (RuntimeError, TypeError, ValueError, IndexError, AttributeError, KeyError, NotImplementedError)


class _Enough(Exception):
    """The hidden states are there: what the model would compute behind them is not needed."""


@dataclass(frozen=True)
class Head:
    """What a causal model makes of its last hidden states, held against the model's own logits when it is first asked for.

    ``way`` is ``"linear"`` (the output embedding alone makes the logits), ``"own"`` (the model's own forward does, from hidden
    states given to it) or ``"whole"`` (the model's logits cannot be had from hidden states, and are computed whole). ``pads``
    says that a sequence gives the same where padding stands behind it, so that several can share a pass. ``body`` is the
    module that gives the hidden states, as ``kind``.
    """

    model: Any
    way: str
    pads: bool
    body: Any = None
    kind: Any = None

    def logprobs(self, ids: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Log-probabilities ``[n]`` (nats, float64, on the CPU) of ``targets`` ``[n]``, each predicted by one row.

        ``ids`` are ``[B, T]``, padded behind their end; ``rows`` ``[n]`` count the places of ``ids`` laid end to end. NaN where
        the model's logits hold NaN.
        """
        if self.way == "linear":
            states = _output_of(self.body, self.model, ids)[0].flatten(0, 1)[rows]
            weight, bias = _plain_linear(self.model)
            some = zip(states.split(ROWS), targets.split(ROWS), strict=True)
            return torch.cat([_tiled(part, few, weight, bias) for part, few in some]).cpu()
        parts = [_chosen(logits, targets[place]) for place, logits in self.logits(ids, rows)]
        return torch.cat(parts).cpu()

    def reduced(self, ids: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor, reduce: Reducer) -> list[Reduced]:
        """What a :class:`~tokentape.models.distribution.Reducer` makes of the rows' logits and targets, some after others."""
        return [reduce(logits, targets[place], None) for place, logits in self.logits(ids, rows)]

    def logits(self, ids: torch.Tensor, rows: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """Some places in ``rows`` after others, and their logits ``[m, V]`` in float32 at least."""
        if self.way == "whole":
            yield slice(0, len(rows)), _raised(_whole_logits(self.model, ids, rows))
            return
        states = _output_of(self.body, self.model, ids)[0].flatten(0, 1)[rows]
        size = max(1, ELEMENTS // self.model.config.get_text_config(decoder=True).vocab_size)
        for start in range(0, len(rows), size):
            part = states[start : start + size]
            logits = self.model.get_output_embeddings()(part) if self.way == "linear" else self._own_logits(part)
            yield slice(start, start + len(part)), _raised(logits)

    def _own_logits(self, states: torch.Tensor) -> torch.Tensor:
        """Logits ``[n, V]`` that the model's own forward makes of hidden states ``[n, D]`` in the place of those of its body."""
        ids = torch.zeros((1, len(states)), dtype=torch.long, device=states.device)
        given = (states[None],) if self.kind is tuple else self.kind(last_hidden_state=states[None])
        with _giving(self.body, lambda *args, **kwargs: given):
            logits: torch.Tensor = self.model(**inputs_of(self.model, ids), use_cache=False).logits
        return logits[0]


_known: weakref.WeakKeyDictionary[Any, Head] = weakref.WeakKeyDictionary()


@torch.inference_mode()
def head_of(model: Any) -> Head:
    """The head of a transformers model: found by a few passes over a few tokens, and kept while the model lives."""
    found = _known.get(model)
    if found is None:
        # the head must not keep alive the model that it is kept for
        found = _known[model] = replace(_examine(model), model=weakref.proxy(model))
    return found


def _examine(model: Any) -> Head:
    device = model.get_input_embeddings().weight.device
    vocab_size = model.config.get_text_config(decoder=True).vocab_size
    ids = torch.tensor([[(7919 * (i + 1)) % vocab_size for i in range(7)]], device=device)
    short = ids.flip(1)[:, :4]
    own = [model(**inputs_of(model, one), use_cache=False).logits[0] for one in (ids, short)]
    padded = torch.cat([ids, torch.cat([short, short.new_zeros(1, 3)], 1)])
    rows = torch.arange(11, device=device)
    heads = [*_candidates(model, ids), Head(model, "whole", False)]
    for head in heads:  # as a rule the first of them, and with padding
        if _agrees(head, padded, rows, torch.cat(own)):
            return replace(head, pads=True)
    return next((head for head in heads if _agrees(head, ids, rows[:7], own[0])), heads[-1])


def _candidates(model: Any, ids: torch.Tensor) -> Iterator[Head]:
    """Heads on each module that holds the input embedding, the outermost first: one of them is the model's body."""
    embedding = model.get_input_embeddings()
    holders = [part for part in model.modules() if part is not model and embedding in list(part.modules())[1:]]
    for body in holders:
        try:
            kind = type(_output_of(body, model, ids))
        except _REFUSALS:
            continue
        if _plain_linear(model) is not None:
            yield Head(model, "linear", False, body, kind)
        yield Head(model, "own", False, body, kind)


def _agrees(head: Head, ids: torch.Tensor, rows: torch.Tensor, own: torch.Tensor) -> bool:
    """Whether a head gives the logits that the model gives."""
    try:
        found = torch.cat([logits for _, logits in head.logits(ids, rows)])
    except _REFUSALS:
        return False
    if found.shape != own.shape:
        return False
    tolerance = max(TOLERANCE, ROUNDINGS * torch.finfo(own.dtype).eps)
    apart = (found - own).abs().masked_fill(found == own, 0)  # masked entries are -inf in both
    return bool(apart.max() <= tolerance * own[own.isfinite()].abs().max())


def _plain_linear(model: Any) -> Any:
    """Weight ``[V, D]`` and bias of a head that is a plain linear layer; None where it is anything else."""
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or head._forward_hooks or head._forward_pre_hooks:
        return None
    plain = type(head.weight.data) is torch.Tensor and head.weight.is_floating_point()
    return (head.weight, head.bias) if plain else None


def _output_of(body: Any, model: Any, ids: torch.Tensor) -> Any:
    """What the model's body gives for ``ids`` ``[B, T]``, as its own forward calls it; the head is not run.

    Raises IndexError where the forward does not call it.
    """
    seen: list[Any] = []

    def stop(module: Any, inputs: Any, output: Any) -> None:
        seen.append(output)
        raise _Enough

    handle = body.register_forward_hook(stop)
    try:
        model(**inputs_of(model, ids), use_cache=False)
    except _Enough:
        pass
    finally:
        handle.remove()
    return seen[0]


@contextmanager
def _giving(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Within it, ``module`` runs ``forward`` in the place of its own."""
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def _whole_logits(model: Any, ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    width = ids.shape[1]
    if keeps_rows(model):
        kept, places = (rows % width).unique(return_inverse=True)
        logits = model(**inputs_of(model, ids), use_cache=False, logits_to_keep=kept).logits
        if logits.shape[1] == len(kept):
            return logits[rows // width, places]  # type: ignore[no-any-return]
        return logits.flatten(0, 1)[rows]  # type: ignore[no-any-return]
    return model(**inputs_of(model, ids), use_cache=False).logits.flatten(0, 1)[rows]  # type: ignore[no-any-return]


def _raised(logits: torch.Tensor) -> torch.Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _chosen(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-probability ``[n]`` of each target under its row of logits ``[n, V]``."""
    best = logits.amax(1, keepdim=True)
    total = (logits - best).exp_().sum(1)
    chosen = logits.gather(1, targets[:, None]) - best
    return chosen.squeeze(1).double() - total.double().log()


def _tiled(states: torch.Tensor, targets: torch.Tensor, weight: Any, bias: Any) -> torch.Tensor:
    """Log-probability ``[n]`` of each target under ``softmax(states @ weight.T + bias)``, some rows of weights at a time."""
    n, vocab_size = len(states), len(weight)
    width = min(vocab_size, max(LEAST_TILE, TILE // n))
    best = torch.full((n,), -math.inf, device=states.device)
    total = torch.zeros(n, dtype=torch.float64, device=states.device)
    chosen = torch.full((n,), math.nan, device=states.device)
    room = states.new_empty(n * width)
    for start in range(0, vocab_size, width):
        some = weight[start : start + width]
        tile = room[: n * len(some)].view(n, len(some))
        if bias is None:
            torch.mm(states, some.T, out=tile)
        else:
            torch.addmm(bias[start : start + width], states, some.T, out=tile)
        logits = _raised(tile)
        inside = ((targets >= start) & (targets < start + len(some))).nonzero().squeeze(1)
        chosen[inside] = logits[inside, targets[inside] - start]
        higher = torch.maximum(best, logits.amax(1))
        total *= (best - higher).double().exp()
        total += logits.sub_(higher[:, None]).exp_().sum(1)
        best = higher
    return (chosen - best).double() - total.log()
