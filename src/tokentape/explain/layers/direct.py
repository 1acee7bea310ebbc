"""Direct logit attribution: what each layer, attention, MLP and head wrote into the residual stream for or against a target.

Sources: N. Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021, sections "Residual stream" and
"Attention heads are independent and additive"; K. Wang et al., "Interpretability in the Wild", ICLR 2023, section 3.1.
The final state is what the first block reads and what every block adds; read through the final norm with its scale held
and through the head, each part has a share of the value, and the shares add up. What a part does to later parts is not
in it: the direct path alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tokentape.data.layers import DirectAttribution
from tokentape.errors import ExplainError
from tokentape.explain.affine.norms import linear_norm
from tokentape.explain.layers.branches import Branches, Heads, branches_of, chain
from tokentape.explain.layers.readout import Readout, readout_of
from tokentape.explain.layers.sums import Factor, Node, Sums, expanded
from tokentape.explain.layers.tail import no_stream, residual_stream, rows_of, tail_of
from tokentape.explain.question import Question
from tokentape.explain.replay import Progress, Replay
from tokentape.models.anatomy import first_of, following, state_in

__all__ = ["direct"]

TOLERANCE, ROUNDINGS = 1e-3, 16
"""What may be left of a value, as a part of all that was added and subtracted to get it: this, or so many roundings."""


@torch.inference_mode(False)
def direct(replay: Replay, question: Question, *, progress: Progress | None = None) -> DirectAttribution:
    """The question's values, shared out among the layers.

    Two passes over the sequence, one over a few tokens the first time a model is looked at, and some over single tokens for
    the head; memory is that of a pass, and of one block a few dozen times its state. Segments of the question have no
    part in this. ``progress`` is told how many blocks are done, and of how many. Raises UsageError for targets that are not
    there, ExplainError where the model has no residual stream to read or its last layer does not give its own logits, OutOfMemory.
    """
    ids = replay.target_ids(question)
    stream = residual_stream(replay, question.targets, every=False)
    tail = tail_of(replay, stream)
    readout = readout_of(tail, stream.states[-1], question, ids, replay.causal.vocab_size)
    reading = _Reading(replay, question, readout.gradient, progress).run()
    columns = _summed(question, readout, reading)
    _refuse_open_books(replay, columns, torch.finfo(stream.own.dtype).eps)
    unsplit = {layer: part.unsplit for layer, part in enumerate(reading.parts) if part.unsplit}
    return DirectAttribution(
        kind=question.kind,
        together=question.together,
        targets=np.array(question.targets),
        target_ids=ids.cpu().numpy(),
        foil_ids=np.array(question.foils) if question.foils else None,
        **columns,
        unsplit=unsplit,
        pieces=replay.pieces_of([*ids.tolist(), *question.foils]),
        agreement=tail.agreement,
        check=replay.check,
    )


@dataclass
class _Part:
    """Shares of one block, tensors ``[n]``, None where there is no such part; ``heads`` is ``[n, H]``."""

    other: torch.Tensor
    attention: torch.Tensor | None = None
    mlp: torch.Tensor | None = None
    heads: torch.Tensor | None = None
    unsplit: str = ""


class _Reading:
    """One pass in which what every block adds is read off as it is added.

    ``entry`` ``[n]`` is what the value reads off the first block's input, ``parts`` what it reads off each block's additions.
    Gradients ``[n, ...]`` by the stream before each block follow from the last by what blocks hand on: nearly always all.
    """

    def __init__(
        self, replay: Replay, question: Question, gradient: torch.Tensor, progress: Progress | None = None
    ) -> None:
        self.entry = torch.zeros(len(question.targets), dtype=torch.float64)
        self.parts: list[_Part] = []
        self._replay = replay
        self._progress = progress
        self._branches = branches_of(replay)
        self._rows = torch.tensor([position - 1 for position in question.targets])
        # of a single token, rows could not be told from channels
        self._last = max(2, question.targets[-1])
        self._sums = Sums()
        self._before: torch.Tensor | None = None
        self._gradients = [gradient]
        for branches in reversed(self._branches):
            self._gradients.insert(0, _scaled(self._gradients[0], branches.keeps))

    def run(self) -> _Reading:
        """Read; itself."""
        with torch.no_grad(), following(self._replay.anatomy.blocks, self._enter, self._leave), self._sums:
            self._replay.logits([self._last])
        if len(self.parts) != len(self._branches):
            raise no_stream(self._replay, f"{len(self.parts)} calls of {len(self._branches)} blocks were seen")
        return self

    def _enter(self, index: int, args: Any, kwargs: dict[str, Any]) -> None:
        state = state_in(args, kwargs)
        share = self._share(index, state)
        if index == 0:
            self.entry = share
        elif self._before is not None:
            # what happens between two blocks, if anything does, belongs to the first of them
            self.parts[-1].other += share - self._before
        self._before = share
        if not self._branches[index].unsplit:
            self._sums.begin(state)

    def _leave(self, index: int, output: Any) -> None:
        branches, state = self._branches[index], first_of(output)
        after = self._share(index + 1, state)
        assert self._before is not None
        if branches.unsplit:
            self.parts.append(_Part(after - self._before, unsplit=branches.unsplit))
        else:
            top = self._sums.end(state)
            parts = [part for part in expanded(top) if part[0].kind != "state"]
            if len(parts) == len(branches.labels):
                self.parts.append(self._split(index, branches, parts, state.shape))
            else:
                why = "it adds up other parts here than in a sequence of a few tokens"
                self.parts.append(_Part(after - self._before, unsplit=why))
        self._before = after
        if self._progress is not None:
            self._progress(index + 1, len(self._branches))

    def _share(self, index: int, state: torch.Tensor) -> torch.Tensor:
        """``[n]``: what the value reads off a state between blocks."""
        _, rows = rows_of(self._replay, state, self._last)
        return _dot(rows[self._rows.to(rows.device)], self._gradients[index])

    def _split(self, index: int, branches: Branches, parts: list[tuple[Node, Factor]], shape: torch.Size) -> _Part:
        found = _Part(torch.zeros(len(self._rows), dtype=torch.float64))
        for (node, factor), label, heads in zip(parts, branches.labels, branches.heads, strict=True):
            gradient = _scaled(self._gradients[index + 1], factor)
            share = _dot(self._of(node.value, shape), gradient)
            before = getattr(found, label)
            setattr(found, label, share if before is None else before + share)
            if heads is not None:
                seen = self._heads(node, heads, gradient, shape)
                found.heads = seen if found.heads is None else torch.cat([found.heads, seen], 1)
        return found

    def _of(self, value: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """``[n, D]``: the rows asked for of a tensor within a block; a constant may be one row for all."""
        wide = value if value.numel() == shape.numel() else value.expand(shape)
        return wide.reshape(shape[1], -1)[self._rows.to(value.device)]

    def _heads(self, node: Node, heads: Heads, gradient: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """``[n, H]``: the gradient taken back from a part of the sum to the projection it came from, and head by head."""
        nodes = chain(node, heads.path)
        for above, step in zip(nodes, heads.path, strict=False):
            gradient = self._back(above, step, gradient, shape)
        weight: torch.Tensor = nodes[-1].call[0]
        given = nodes[-1].parents[0].value
        rows = given.reshape(shape[1], -1)[self._rows.to(given.device)]
        compute = torch.promote_types(weight.dtype, torch.float32)
        by_channel = gradient.to(weight.device, compute) @ weight.to(compute)
        by_head = (by_channel.cpu().double() * rows.cpu().double()).reshape(len(rows), heads.n, -1)
        return by_head.sum(-1)

    def _back(self, node: Node, step: int, gradient: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """The gradient by one parent of a node; what else the node is made of is held as it is."""
        if node.kind == "sum":
            return _scaled(gradient, node.factors[step])
        if node.kind == "product":
            return gradient * self._of(node.parents[1 - step].value, shape).cpu().double()
        args, kwargs = node.call
        rows = self._of(node.parents[0].value, shape)
        with torch.enable_grad():
            leaf = rows.detach().clone().requires_grad_()
            normed = linear_norm(node.name, (leaf, *args[1:]), kwargs)
            assert normed is not None
            (found,) = torch.autograd.grad(normed.linear, leaf, gradient.to(normed.linear))
        return found.cpu().double()


def _scaled(gradient: torch.Tensor, factor: Factor) -> torch.Tensor:
    if isinstance(factor, torch.Tensor):
        return gradient * factor.detach().cpu().double()
    return gradient if factor == 1 else gradient * factor


def _dot(rows: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """``[n]`` in float64, on the CPU: not every device has that."""
    return (rows.cpu().double() * gradient).flatten(1).sum(1)


def _summed(question: Question, readout: Readout, reading: _Reading) -> dict[str, Any]:
    """The columns of a DirectAttribution, folded to the question's rows, with what is left of the value."""

    def by_layer(name: str) -> Any:
        found = [getattr(part, name) for part in reading.parts]
        columns = [torch.full_like(reading.entry, torch.nan) if one is None else one for one in found]
        return np.ma.masked_invalid(question.fold(torch.stack(columns, 1)).numpy())

    n_heads = max((part.heads.shape[1] for part in reading.parts if part.heads is not None), default=0)
    heads = torch.full((len(question.targets), len(reading.parts), n_heads), torch.nan, dtype=torch.float64)
    for layer, part in enumerate(reading.parts):
        if part.heads is not None:
            heads[:, layer, : part.heads.shape[1]] = part.heads
    found = {name: by_layer(name) for name in ("attention", "mlp", "other")}
    blocks = np.sum([np.ma.filled(column, 0.0) for column in found.values()], axis=0)
    plain = {name: question.fold(getattr(readout, name)).numpy() for name in ("value", "bias", "curvature")}
    entry = question.fold(reading.entry).numpy()
    with np.errstate(invalid="ignore"):  # what is not finite is refused behind this
        residual = plain["value"] - entry - blocks.sum(1) - plain["bias"] - plain["curvature"]
    heads_folded = np.ma.masked_invalid(question.fold(heads).numpy())
    return {
        **found,
        **plain,
        "other": found["other"].data,
        "blocks": blocks,
        "entry": entry,
        "residual": residual,
        "heads": heads_folded,
    }


def _refuse_open_books(replay: Replay, columns: dict[str, Any], rounding: float) -> None:
    moved = sum(np.abs(columns[name]) for name in ("value", "entry", "bias", "curvature")) + np.abs(
        columns["blocks"]
    ).sum(1)
    left = np.abs(columns["residual"])
    if not np.isfinite(left).all():
        raise ExplainError(
            f"a value of {replay.causal.name} cannot be shared out",
            why="it is not finite: the logits, or the states of its layers, hold infinities or no numbers",
            fix="--target logprob where some logits are masked; --dtype float32 where float16 overflows",
        )
    if not (left <= max(TOLERANCE, ROUNDINGS * rounding) * moved).all():
        raise ExplainError(
            f"the shares of the layers of {replay.causal.name} do not add up",
            why=f"{left.max():.2g} of a value is left over: something behind its last block is not linear, nor a known curve",
            fix="--method leave_one_out needs to know nothing of a model's layers",
        )
