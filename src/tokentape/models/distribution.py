"""The next-token distribution, reduced where the logits lie: nothing of vocabulary size leaves the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from tokentape.data.control import Effect

__all__ = ["Reduced", "Reducer", "first_argmax", "rows"]

CHUNK = 512
"""Width of the chunks whose maxima make the first level of the top-k."""

EACH_STAGE = 5
"""Columns of a rule, after the candidates: largest logit, ``Z'``, how many are finite; and where it does not only mask,
``sum exp(z' - m') (z' - z)`` and the ``Z`` of the logits before it over the tokens that it left."""

FIXED = 8
"""Columns before the candidates: logit of the chosen token, largest logit, ``Z``, ``sum exp(z - m) (z - m)``, rank; of the scores
after the rules the first three (NaN without rules). After them come k candidate ids and k logits."""


class Stage(Protocol):
    """What a rule made of the logits, as :class:`~tokentape.recorder.tick.Stage` says."""

    @property
    def rule(self) -> int: ...

    @property
    def scores(self) -> torch.Tensor: ...

    @property
    def masks(self) -> bool: ...

    @property
    def marks(self) -> tuple[int, int] | None: ...


@dataclass(frozen=True, slots=True)
class Reduced:
    """What is kept of one step: ``packed`` ``[n, W]``, ``k`` candidates, and of each rule its number, whether it only masks, and
    its time in nanoseconds. The first ``n_given`` tokens were put there by the rule ``given_by``.
    """

    packed: torch.Tensor
    k: int
    rules: tuple[tuple[int, bool, int | None], ...] = ()
    n_given: int = 0
    given_by: int = 0


class Reducer:
    """Reduces ``[B, V]`` logits to a few numbers a row.

    With ``m = max z`` and ``Z = sum exp(z - m)``, the log-probability of token ``c`` is ``(z_c - m) - log Z``, and the entropy
    ``log Z - sum exp(z - m) (z - m) / Z``. What runs over the vocabulary is done here, in float32 by torch's pairwise sums; the
    rest by :func:`rows`, in float64 and out of the loop. The figures agree with ``log_softmax`` in float64 to better than
    1e-6; torch's fused softmax would be faster, but its sum is off by 1e-6 at large vocabularies. Work buffers are kept
    between calls: a fresh megabyte a step would be paged in and out again each time.
    """

    def __init__(self, candidates: int) -> None:
        self.candidates = candidates
        self._buffers: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = {}

    @torch.inference_mode()
    def __call__(
        self,
        logits: torch.Tensor,
        ids: torch.Tensor,
        scores: torch.Tensor | None,
        stages: Sequence[Stage] | None = None,
        wanted: torch.Tensor | None = None,
    ) -> Reduced:
        """One step, for :func:`rows`. Does not wait for the device.

        ``logits`` ``[B, V]`` float32 before the rules, ``ids`` ``[B]`` the chosen tokens, ``scores`` ``[B, V]`` after the rules or
        None. ``stages`` are the rules to be measured, in order, the last of which made the scores; ``wanted`` ``[B]`` the ids
        that would have been chosen without them.
        """
        k = min(self.candidates, logits.shape[1])
        columns, best = self._own(logits, ids, k)
        at = ids[:, None]
        if scores is None:
            columns[5:5] = [logits.new_full((len(ids), 3), torch.nan)]
            return Reduced(torch.cat(columns, 1), k)
        if not stages:
            columns[5:5] = [scores.gather(1, at), *self._sums(scores)]
            return Reduced(torch.cat(columns, 1), k)
        columns.append(at.new_full(at.shape, -1) if wanted is None else wanted[:, None])
        before, sums = logits, (best, columns[2])
        for stage in stages:
            earlier, sums = sums, self._sums(stage.scores)
            columns += [*sums, *self._change(stage, before, *earlier)]
            before = stage.scores
        columns[5:5] = [scores.gather(1, at), *sums]
        rules = tuple((stage.rule, stage.masks, stage.marks and stage.marks[1] - stage.marks[0]) for stage in stages)
        return Reduced(torch.cat(columns, 1), k, rules)

    @torch.inference_mode()
    def with_given(self, own: Reduced, logits: torch.Tensor, ids: Sequence[int], rule: int) -> Reduced:
        """The step with tokens before its own that a rule put there: ``ids`` ``[n]``, and the ``[n, V]`` logits in their places."""
        columns, _ = self._own(logits, torch.tensor(ids, device=logits.device), own.k)
        mine = torch.cat([*columns[:5], logits.new_full((len(ids), 3), torch.nan), *columns[5:]], 1)
        width = own.packed.shape[1] - mine.shape[1]
        packed = torch.cat([torch.nn.functional.pad(mine, (0, width), value=torch.nan), own.packed])
        return Reduced(packed, own.k, own.rules, len(ids), rule)

    def _own(self, logits: torch.Tensor, ids: torch.Tensor, k: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The columns that the model's own distribution has, those of the scores left out; and the largest logit ``[B, 1]``."""
        best, chunk_best = self._maxima(logits)
        chosen = logits.gather(1, ids[:, None])
        shifted, weights = self._workspace(logits)
        # a masked logit is -inf, and 0 * -inf would be NaN where 0 is meant
        torch.sub(logits, best, out=shifted).clamp_(min=-1e30)
        torch.exp(shifted, out=weights)
        columns = [chosen, best, weights.sum(1, keepdim=True)]
        # a sum of products by torch's own pairwise sum; vecdot would take four times as long
        columns += [shifted.mul_(weights).sum(1, keepdim=True), _ranks(logits, chosen, chunk_best).float()]
        if k:
            values, indices = self._top(logits, chunk_best, k)
            columns += [indices.float(), values]  # an id below 2 ** 24 is exact
        return columns, best

    def _workspace(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        key = (*logits.shape, hash(logits.device))
        if key not in self._buffers:
            self._buffers.clear()
            self._buffers[key] = (torch.empty_like(logits), torch.empty_like(logits))
        return self._buffers[key]

    def _sums(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``[B, 1]`` each: the largest of the scores, and ``sum exp(z - m)``, whose terms stay in the second buffer."""
        best = scores.amax(1, keepdim=True)
        weights = torch.sub(scores, best, out=self._workspace(scores)[1]).exp_()
        return best, weights.sum(1, keepdim=True)

    def _change(
        self, stage: Stage, before: torch.Tensor, largest: torch.Tensor, total: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """How many tokens a rule left, and where it does not only mask the two sums of :data:`EACH_STAGE`.

        Asked right after :meth:`_sums` of its scores; ``largest`` and ``total`` are those of the logits before it.
        """
        unknown = torch.full_like(largest, torch.nan)
        if stage.masks:
            return _counted(stage.scores > -torch.inf), unknown, unknown
        moved, weights = self._workspace(before)
        torch.sub(stage.scores, before, out=moved)
        if before.device.type == "cpu" and bool(stage.scores.amin() > -torch.inf):  # it left all there is
            return torch.full_like(largest, before.shape[1]), moved.mul_(weights).sum(1, keepdim=True), total
        finite = stage.scores > -torch.inf
        allowed = _counted(finite)
        moved.masked_fill_(~finite, 0)  # minus infinity less minus infinity is no number
        moved = moved.mul_(weights).sum(1, keepdim=True)
        left = torch.sub(before, largest, out=weights).exp_().masked_fill_(~finite, 0)
        return allowed, moved, left.sum(1, keepdim=True)

    @staticmethod
    def _maxima(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The maximum of each row, and the maxima of its chunks where the vocabulary is long enough for them to pay."""
        n_vocab = logits.shape[1]
        n_chunks = n_vocab // CHUNK
        if n_chunks < 64:
            return logits.amax(1, keepdim=True), None
        chunks = logits[:, : n_chunks * CHUNK].unflatten(1, (n_chunks, CHUNK)).amax(2)
        if n_chunks * CHUNK < n_vocab:
            chunks = torch.cat([chunks, logits[:, n_chunks * CHUNK :].amax(1, keepdim=True)], 1)
        return chunks.amax(1, keepdim=True), chunks

    @staticmethod
    def _top(logits: torch.Tensor, chunk_best: torch.Tensor | None, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Values and ids ``[B, k]`` of the k largest logits, best first.

        Exact: each of the k largest lies in one of the k chunks with the largest maxima.
        """
        if chunk_best is None or k > chunk_best.shape[1]:
            return torch.topk(logits, k, dim=1)
        n_vocab = logits.shape[1]
        chunk_ids = torch.topk(chunk_best, k, dim=1, sorted=False).indices
        if n_vocab % CHUNK == 0:
            width = chunk_ids[:, :, None].expand(-1, -1, CHUNK)
            pool = logits.unflatten(1, (-1, CHUNK)).gather(1, width).flatten(1)
            values, where = torch.topk(pool, k, dim=1)
            return values, chunk_ids.gather(1, where // CHUNK) * CHUNK + where % CHUNK
        ids = (chunk_ids[:, :, None] * CHUNK + torch.arange(CHUNK, device=logits.device)).flatten(1)
        pool = logits.gather(1, ids.clamp(max=n_vocab - 1)).masked_fill_(ids >= n_vocab, -torch.inf)
        values, where = torch.topk(pool, k, dim=1)
        return values, ids.gather(1, where)


def first_argmax(scores: torch.Tensor) -> torch.Tensor:
    """``[B]``: what ``torch.argmax(scores, 1)`` gives for ``[B, V]``, the first of the largest; ten times as fast on a CPU."""
    n_rows, n_vocab = scores.shape
    n_chunks = n_vocab // CHUNK
    if scores.device.type != "cpu" or n_chunks < 2 or n_vocab % CHUNK:
        return torch.argmax(scores, dim=1)
    chunks = scores.reshape(n_rows, n_chunks, CHUNK)
    chunk = torch.argmax(chunks.amax(2), dim=1)
    place = torch.argmax(chunks[torch.arange(n_rows), chunk], dim=1)
    return chunk * CHUNK + place


def _counted(flags: torch.Tensor) -> torch.Tensor:
    """``[B, 1]``: how many of ``[B, V]`` booleans are true."""
    if flags.device.type != "cpu":
        return flags.sum(1, keepdim=True).float()
    # numpy counts booleans by whole words, torch makes each of them a number first
    return torch.tensor([[float(np.count_nonzero(row))] for row in flags.numpy()])


Row = tuple[Any, ...]


def rows(kept: Sequence[Reduced | None]) -> list[list[Row] | None]:
    """Plain values for each step and token, from what a :class:`Reducer` gave at each step, at least one of which is there.

    A token is ``(logprob, entropy, rank, rules_logprob, candidates)``, and where rules were measured, or put the token there, also
    ``wanted, allowed, removed, effects``, as :class:`~tokentape.recorder.tick.Said` has them. A figure that is not finite (a
    model whose logits hold NaN or infinities) is None.
    """
    there = [one.packed for one in kept if one is not None]
    values = iter(torch.cat(there).tolist())  # one copy from the device for all steps
    return [None if one is None else _rows_of(one, values) for one in kept]


def _rows_of(step: Reduced, values: Any) -> list[Row]:
    found = []
    for place in range(len(step.packed)):
        row = next(values)
        own = _row(row, step.k)
        if place < step.n_given:
            found.append(_given(own, step.given_by))
        elif step.rules:
            found.append(own + _effects(row, row[FIXED + 2 * step.k :], step.rules))
        else:
            found.append(own)
    return found


def _given(own: Row, rule: int) -> Row:
    """A token that a rule put there: after the rule nothing else was possible, so that its surprise is what was removed."""
    logprob, entropy, rank, _, candidates = own
    removed = None if logprob is None else -logprob
    return logprob, entropy, rank, 0.0, candidates, None, 1, removed, (Effect(rule, 1, removed, removed),)


def _effects(values: Sequence[float], rest: Sequence[float], rules: Sequence[tuple[int, bool, int | None]]) -> Row:
    """What was wanted, how many tokens were left in the end, how much was removed in all, and what each rule did.

    With ``lse`` the logarithm of the sum of exponentials before a rule and ``lse'`` after it: a rule that only masks leaves
    ``ln Z = lse' - lse``, and its divergence is ``-ln Z``. Any other has
    ``KL(after || before) = sum p' (z' - z) - lse' + lse``, and its Z counts the tokens that it left.
    """
    wanted, *columns = rest
    largest, lse = values[1], values[1] + _log(values[2])
    effects, total = [], 0.0
    for place, (rule, masks, ns) in enumerate(rules):
        best, z, allowed, moved, left = columns[EACH_STAGE * place : EACH_STAGE * (place + 1)]
        after = best + _log(z)
        removed = lse - after if masks else lse - (largest + _log(left))
        if masks:
            divergence = removed
        else:  # neither is ever below 0, but for the rounding of the sums
            divergence = max(moved / z - after + lse, 0.0) if z else math.nan
            removed = max(removed, 0.0)
        total += removed
        effects.append(Effect(rule, int(allowed), _finite(removed), _finite(divergence), ns))
        largest, lse = best, after
    return None if wanted < 0 else int(wanted), effects[-1].allowed, _finite(total), tuple(effects)


def _row(values: list[float], k: int) -> Row:
    chosen, best, total, mean_shift, rank, rules_chosen, rules_best, rules_total = values[:FIXED]
    log_total = _log(total)
    logprob = _finite((chosen - best) - log_total)
    pairs = zip(values[FIXED : FIXED + k], values[FIXED + k : FIXED + 2 * k], strict=True)
    found = [(int(i), (value - best) - log_total) for i, value in pairs]
    return (
        logprob,
        _finite(log_total - mean_shift / total) if total else None,
        None if logprob is None else int(rank),
        _finite((rules_chosen - rules_best) - _log(rules_total)),
        tuple(pair for pair in found if _finite(pair[1]) is not None),
    )


def _log(value: float) -> float:
    return math.log(value) if value > 0 else math.nan


def _finite(value: float) -> float | None:
    return value if value - value == 0 else None  # x - x is 0 for finite x alone


def _ranks(logits: torch.Tensor, chosen: torch.Tensor, chunk_best: torch.Tensor | None) -> torch.Tensor:
    """``[B, 1]``: 1 + how many logits of the row are larger than ``chosen`` ``[B, 1]``.

    On the CPU only the chunks whose maximum is larger are looked at; a device would have to be waited for to know which.
    """
    if chunk_best is None or logits.device.type != "cpu":
        return 1 + (logits > chosen).sum(1, keepdim=True)
    larger = chunk_best > chosen
    if not larger.any():  # as with greedy search
        return torch.ones_like(chosen, dtype=torch.long)
    n_chunks = logits.shape[1] // CHUNK
    chunks = logits[:, : n_chunks * CHUNK].unflatten(1, (n_chunks, CHUNK))
    counts = (logits[:, n_chunks * CHUNK :] > chosen).sum(1, keepdim=True)
    larger = larger[:, :n_chunks]
    for row in larger.any(1).nonzero().flatten().tolist():
        counts[row] += (chunks[row][larger[row]] > chosen[row]).sum()
    return 1 + counts
