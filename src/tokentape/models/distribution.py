"""The next-token distribution, reduced where the logits lie: nothing of vocabulary size leaves the device."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["Reducer", "rows"]

CHUNK = 512
"""Width of the chunks whose maxima make the first level of the top-k."""


class Reducer:
    """Reduces ``[B, V]`` logits to a few numbers a row.

    With ``m = max z`` and ``Z = sum exp(z - m)``, the log-probability of token ``c`` is ``(z_c - m) - log Z``, and the entropy
    ``log Z - sum exp(z - m) (z - m) / Z``. The scalar part is done in float64 (float32 on MPS, which has no float64), so that
    the figures agree with ``log_softmax`` in float64 to better than 1e-6; torch's fused softmax would be faster, but its sum is
    off by 1e-6 at large vocabularies. Work buffers are kept between calls: a fresh megabyte a step would be paged in and out
    again each time.
    """

    def __init__(self, candidates: int) -> None:
        self.candidates = candidates
        self._buffers: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, logits: torch.Tensor, ids: torch.Tensor, scores: torch.Tensor | None) -> torch.Tensor:
        """``[B, 4 + 2k]``: logprob, entropy, rank, rules_logprob (NaN without rules), k candidate ids, k log-probabilities.

        ``logits`` ``[B, V]`` float32 before the rules, ``ids`` ``[B]`` the chosen tokens, ``scores`` ``[B, V]`` after the
        rules or None. Does not wait for the device.
        """
        wide = torch.float32 if logits.device.type == "mps" else torch.float64
        n_vocab = logits.shape[1]
        k = min(self.candidates, n_vocab)
        best, chunk_best = self._maxima(logits)
        chosen = logits.gather(1, ids[:, None])
        shifted, weights = self._workspace(logits)
        # a masked logit is -inf, and 0 * -inf would be NaN where 0 is meant
        torch.sub(logits, best, out=shifted).clamp_(min=-1e30)
        torch.exp(shifted, out=weights)
        total = weights.sum(1, keepdim=True).to(wide)
        log_total = total.log()
        mean_shift = torch.linalg.vecdot(weights, shifted).to(wide)[:, None] / total
        best = best.to(wide)
        columns = [
            (chosen.to(wide) - best) - log_total,
            log_total - mean_shift,
            _ranks(logits, chosen, chunk_best).to(wide),
            self._rules_logprob(scores, ids, wide),
        ]
        if k:
            values, indices = self._top(logits, chunk_best, k)
            columns += [indices.to(wide), (values.to(wide) - best) - log_total]
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
        ids = (chunk_ids[:, :, None] * CHUNK + torch.arange(CHUNK, device=logits.device)).flatten(1)
        pool = logits.gather(1, ids.clamp(max=n_vocab - 1)).masked_fill_(ids >= n_vocab, -torch.inf)
        values, where = torch.topk(pool, k, dim=1)
        return values, ids.gather(1, where)

    @staticmethod
    def _rules_logprob(scores: torch.Tensor | None, ids: torch.Tensor, wide: torch.dtype) -> torch.Tensor:
        if scores is None:
            return torch.full((ids.shape[0], 1), torch.nan, dtype=wide, device=ids.device)
        best = scores.amax(1, keepdim=True)
        total = (scores - best).exp_().sum(1, keepdim=True).to(wide)
        return (scores.gather(1, ids[:, None]).to(wide) - best.to(wide)) - total.log()


def rows(packed: torch.Tensor) -> list[tuple[Any, ...]]:
    """One ``(logprob, entropy, rank, rules_logprob, candidates)`` a sequence, from what a :class:`Reducer` gave.

    A figure that is not finite (a model whose logits hold NaN or infinities) is None.
    """
    k = (packed.shape[1] - 4) // 2
    return [_row(values, k) for values in packed.tolist()]


def _row(values: list[float], k: int) -> tuple[Any, ...]:
    # x - x is 0 for finite x alone
    logprob, entropy, rank, rules = (value if value - value == 0 else None for value in values[:4])
    pairs = zip(values[4 : 4 + k], values[4 + k :], strict=True)
    candidates = tuple((int(i), lp) for i, lp in pairs if lp - lp == 0)
    return logprob, entropy, None if rank is None or logprob is None else int(rank), rules, candidates


def _ranks(logits: torch.Tensor, chosen: torch.Tensor, chunk_best: torch.Tensor | None) -> torch.Tensor:
    """``[B, 1]``: 1 + how many logits of the row are larger than ``chosen`` ``[B, 1]``.

    On the CPU only the chunks whose maximum is larger are looked at; a device would have to be waited for to know which.
    """
    if chunk_best is None or logits.device.type != "cpu":
        return 1 + (logits > chosen).sum(1, keepdim=True)
    n_chunks = logits.shape[1] // CHUNK
    chunks = logits[:, : n_chunks * CHUNK].unflatten(1, (n_chunks, CHUNK))
    counts = (logits[:, n_chunks * CHUNK :] > chosen).sum(1, keepdim=True)
    larger = chunk_best[:, :n_chunks] > chosen
    for row in larger.any(1).nonzero().flatten().tolist():
        counts[row] += (chunks[row][larger[row]] > chosen[row]).sum()
    return 1 + counts
