"""The next-token distribution, reduced where the logits lie: nothing of vocabulary size leaves the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["Reducer", "rows"]

CHUNK = 512
"""Width of the chunks whose maxima make the first level of the top-k."""

FIXED = 8
"""Columns before the candidates: logit of the chosen token, largest logit, ``Z``, ``sum exp(z - m) (z - m)``, rank; of the scores
after the rules the first three (NaN without rules). After them come k candidate ids and k logits."""


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
    def __call__(self, logits: torch.Tensor, ids: torch.Tensor, scores: torch.Tensor | None) -> torch.Tensor:
        """``[B, FIXED + 2k]`` float32, for :func:`rows`. Does not wait for the device.

        ``logits`` ``[B, V]`` float32 before the rules, ``ids`` ``[B]`` the chosen tokens, ``scores`` ``[B, V]`` after the
        rules or None.
        """
        k = min(self.candidates, logits.shape[1])
        best, chunk_best = self._maxima(logits)
        at = ids[:, None]
        chosen = logits.gather(1, at)
        shifted, weights = self._workspace(logits)
        # a masked logit is -inf, and 0 * -inf would be NaN where 0 is meant
        torch.sub(logits, best, out=shifted).clamp_(min=-1e30)
        torch.exp(shifted, out=weights)
        columns = [chosen, best, weights.sum(1, keepdim=True)]
        # a sum of products by torch's own pairwise sum; vecdot would take four times as long
        columns += [shifted.mul_(weights).sum(1, keepdim=True), _ranks(logits, chosen, chunk_best).float()]
        if scores is None:
            columns.append(logits.new_full((len(ids), 3), torch.nan))
        else:
            rules_best = scores.amax(1, keepdim=True)
            columns += [scores.gather(1, at), rules_best, (scores - rules_best).exp_().sum(1, keepdim=True)]
        if k:
            values, indices = self._top(logits, chunk_best, k)
            columns += [indices.float(), values]  # an id below 2 ** 24 is exact
        return torch.cat(columns, 1)

    def _workspace(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        key = (*logits.shape, hash(logits.device))
        if key not in self._buffers:
            self._buffers.clear()
            self._buffers[key] = (torch.empty_like(logits), torch.empty_like(logits))
        return self._buffers[key]

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


def rows(packed: Sequence[torch.Tensor | None]) -> list[list[tuple[Any, ...]] | None]:
    """``(logprob, entropy, rank, rules_logprob, candidates)`` for each step and sequence, from what a :class:`Reducer` gave at
    each step, at least one of which is there.

    A figure that is not finite (a model whose logits hold NaN or infinities) is None.
    """
    there = [one for one in packed if one is not None]
    k = (there[0].shape[1] - FIXED) // 2
    values = iter(torch.cat(there).tolist())  # one copy from the device for all steps
    return [None if one is None else [_row(next(values), k) for _ in range(len(one))] for one in packed]


def _row(values: list[float], k: int) -> tuple[Any, ...]:
    chosen, best, total, mean_shift, rank, rules_chosen, rules_best, rules_total = values[:FIXED]
    log_total = _log(total)
    logprob = _finite((chosen - best) - log_total)
    pairs = zip(values[FIXED : FIXED + k], values[FIXED + k :], strict=True)
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
