"""The replay check: does the model compute again what the tape says it computed?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import DynamicLayer

from tokentape.data.explanation import ReplayCheck
from tokentape.data.setting import Setting
from tokentape.data.trace import Trace
from tokentape.errors import ReplayError
from tokentape.explain.question import raised
from tokentape.explain.replay import HEAD_BYTES, Progress
from tokentape.explain.retokenised import Played, is_greedy, played
from tokentape.models.anatomy import inputs_of, keeps_rows
from tokentape.models.causal import CausalModel
from tokentape.models.facts import setting_of

__all__ = ["TOLERANCES", "check", "goes_on", "logprobs", "refuse_failed", "same_model"]

TOLERANCES = {"float64": 1e-3, "float32": 1e-3, "float16": 0.1, "bfloat16": 0.5}
"""Largest difference of a log-probability, in nats, that rounding explains, by the coarser dtype of tape and replay.

Seen on recorded runs of small models in float32: 1e-5. A changed id or another model is off by tenths to tens.
"""

BATCH_TOKENS = 4096
"""Tokens that go through the model at once where several sequences are replayed."""

Floats = npt.NDArray[np.float64]


def check(
    traces: Sequence[Trace],
    causal: CausalModel,
    setting: Setting | None = None,
    *,
    tolerance: float | None = None,
    progress: Progress | None = None,
) -> list[ReplayCheck]:
    """Replay traces through a model, teacher-forced, and compare log-probabilities with those on their tape.

    ``setting`` is that of the tape: weights that are known to be others fail the check whatever the figures say. A trace
    passes where the largest difference is within ``tolerance`` nats (:data:`TOLERANCES` by dtype unless given). One
    without recorded log-probabilities cannot be compared and does not pass, unless a server was asked for the likeliest tokens:
    then they are held against the model's own first choices. Raises ReplayError for a trace of this process without ids, and
    for one of a server with neither ids nor text.
    """
    sequences = [played(trace, causal) for trace in traces]
    for trace, one in zip(traces, sequences, strict=True):
        causal.check_length(len(one.ids), 0)
        _refuse_promptless(trace, one)
        _refuse_windowed(trace)
    found = logprobs(causal, [one.ids for one in sequences], [one.n_prompt for one in sequences], progress=progress)
    other = same_model(setting, causal) if setting is not None else None
    bound = tolerance if tolerance is not None else _tolerance(setting, causal)
    return [
        _compared(trace, one, values, bound, other or one.other, causal)
        for trace, one, values in zip(traces, sequences, found, strict=True)
    ]


def _refuse_promptless(trace: Trace, one: Played) -> None:
    if not one.n_prompt:
        raise ReplayError(
            f"sequence {trace.number} has no prompt",
            why="its first token was predicted from nothing that the tape holds",
            fix="record it with a prompt, or with --bos",
        )


def _refuse_windowed(trace: Trace) -> None:
    dropped = trace.steps["dropped"].filled(0)  # null without a window
    if len(dropped) and dropped.max() > 0:
        raise ReplayError(
            f"sequence {trace.number} was recorded through a window",
            why=f"its last tokens did not see {int(dropped.max()):,} positions that a replay would read",
            fix="record it without --window, or with one that is as long as the text",
        )


def _tolerance(setting: Setting | None, causal: CausalModel) -> float:
    dtypes = {str(causal.dtype).removeprefix("torch.")}
    if setting is not None:
        dtypes |= set(str(setting.facts.get("dtype") or "").split("+"))
    return max(TOLERANCES.get(dtype, 0.0) for dtype in dtypes) or max(TOLERANCES.values())


def same_model(setting: Setting, causal: CausalModel) -> str | None:
    """Why the model cannot be the one that a tape was recorded with; None where nothing speaks against it.

    What the tape does not say (a server's weights) does not speak against it, nor do weights in another dtype: their
    values are rounded, and the figures decide.
    """
    there, here = setting.facts, setting_of(causal).facts
    for fact in ("architecture", "parameters"):
        if there.get(fact) is not None and there[fact] != here[fact]:
            return f"the tape was recorded with {fact} {there[fact]}, and this is {here[fact]}"
    comparable = there.get("dtype") == here["dtype"] and _kind(there.get("weights")) == _kind(here["weights"])
    if comparable and there.get("weights") is not None and there["weights"] != here["weights"]:
        return f"the tape was recorded with weights {there['weights']}, and these are {here['weights']}"
    return None


def _kind(weights: str | None) -> str:
    return (weights or "").partition(":")[0]


def _compared(
    trace: Trace, one: Played, values: Floats, tolerance: float, other: str | None, causal: CausalModel
) -> ReplayCheck:
    recorded = trace.tokens["logprob"][: one.n_aligned]
    known = ~np.ma.getmaskarray(recorded)
    if not known.any():
        return _by_choices(trace, one, tolerance, other, causal)
    gaps = np.abs(recorded.data[known] - values[: len(known)][known])
    largest, worst = float(gaps.max()), one.n_prompt + int(np.flatnonzero(known)[int(np.argmax(gaps))])
    reason = f"the log-probability of the token at position {worst} differs by {largest:.3g} nats"
    return _judged(gaps, tolerance, other, reason, one.how)


def _judged(gaps: Floats, tolerance: float, other: str | None, too_far: str, how: str) -> ReplayCheck:
    """The check of these gaps; ``other`` speaks against it whatever they are, ``too_far`` where one is above the tolerance."""
    largest = float(gaps.max())
    reason = other if other is not None or largest <= tolerance else too_far
    return ReplayCheck(
        largest=largest,
        median=float(np.median(gaps)),
        n=len(gaps),
        tolerance=tolerance,
        passed=reason is None,
        reason=reason,
        how=how,
    )


def _by_choices(trace: Trace, one: Played, tolerance: float, other: str | None, causal: CausalModel) -> ReplayCheck:
    """Without log-probabilities: whether greedy search says the same, where that was asked for."""
    if trace.exchange is None or not is_greedy(trace):
        nothing = other or "the tape has no log-probabilities to compare with"
        return ReplayCheck(
            largest=None, median=None, n=0, tolerance=tolerance, passed=False, reason=nothing, how=one.how
        )
    gaps = shortfalls(causal, one.ids, one.n_prompt)
    worst = one.n_prompt + int(np.argmax(gaps))
    reason = f"the token at position {worst} is {float(gaps.max()):.3g} nats less likely than the model's first choice"
    return _judged(gaps, tolerance, other, reason, "choices")


def refuse_failed(found: ReplayCheck, number: int) -> None:
    """Raise ReplayError where the replay of trace ``number`` did not pass its check."""
    if found.passed:
        return
    raise ReplayError(
        f"the replay of sequence {number} does not agree with the tape",
        why=str(found.reason),
        fix="give the model that it was recorded with (--model); --unchecked explains the replay all the same, and says so",
    )


def logprobs(
    causal: CausalModel,
    sequences: Sequence[Sequence[int]],
    firsts: Sequence[int],
    *,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> list[Floats]:
    """Log-probabilities (nats, float64) of the tokens from position ``first`` on of each sequence, given all before them.

    Sequences of like length share a pass, padded behind their end, which a causal model cannot see. A sequence whose logits
    would take more than :data:`HEAD_BYTES` goes through in chunks of ``chunk`` queries with the key-value cache, so that
    neither logits nor attention scores grow with its square.
    """
    rows_at_once = chunk or max(16, HEAD_BYTES // (4 * causal.vocab_size))
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    found: list[Floats] = [np.empty(0)] * len(sequences)
    done, total = 0, sum(map(len, sequences))
    for batch in _batches([(i, len(sequences[i])) for i in order], rows_at_once):
        if len(batch) == 1 and len(sequences[batch[0]]) > rows_at_once:
            found[batch[0]] = _in_chunks(causal, sequences[batch[0]], firsts[batch[0]], rows_at_once)
        else:
            values = _at_once(causal, [sequences[i] for i in batch], [firsts[i] for i in batch])
            for i, value in zip(batch, values, strict=True):
                found[i] = value
        done += sum(len(sequences[i]) for i in batch)
        if progress is not None:
            progress(done, total)
    return found


def _batches(lengths: Sequence[tuple[int, int]], rows_at_once: int) -> list[list[int]]:
    """Indices in batches of like length (``lengths`` ascending): padded to the longest, each stays within the bounds."""
    batches: list[list[int]] = []
    for index, length in lengths:
        width = (len(batches[-1]) + 1) * length if batches else 0
        if batches and width <= min(BATCH_TOKENS, rows_at_once):
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


@torch.no_grad()
def _at_once(causal: CausalModel, rows: Sequence[Sequence[int]], firsts: Sequence[int]) -> list[Floats]:
    width = max(map(len, rows))
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    ids = ids.to(causal.device)
    logits = causal.model(**inputs_of(causal.model, ids), use_cache=False).logits
    return [
        _chosen(logits[i, first - 1 : len(row) - 1], ids[i, first : len(row)])
        for i, (row, first) in enumerate(zip(rows, firsts, strict=True))
    ]


@torch.no_grad()
def _in_chunks(causal: CausalModel, row: Sequence[int], first: int, chunk: int) -> Floats:
    """One sequence, a chunk of queries at a time; in one pass where the model gives no cache to go on with."""
    ids = torch.tensor([row], device=causal.device)
    parts: list[Floats] = []
    cache: Any = None
    for start in range(0, len(row) - 1, chunk):
        stop = min(start + chunk, len(row) - 1)
        options: dict[str, Any] = {"past_key_values": cache} if cache is not None else {}
        if keeps_rows(causal.model) and stop < first:
            options["logits_to_keep"] = 1
        inputs = inputs_of(causal.model, ids[:, start:stop], start)
        mask = torch.ones_like(ids[:, :stop])
        out = causal.model(**inputs, attention_mask=mask, use_cache=True, **options)
        cache = getattr(out, "past_key_values", None)
        if not goes_on(cache):
            return _at_once(causal, [row], [first])[0]
        at = max(start, first - 1)
        if at < stop:
            parts.append(_chosen(out.logits[0, at - stop :], ids[0, at + 1 : stop + 1]))
    return np.concatenate(parts)


def goes_on(cache: Any) -> bool:
    """Whether several tokens at once can follow what is cached: keys and values yes, recurrent states not in all families."""
    layers = getattr(cache, "layers", None) or []
    return bool(layers) and all(isinstance(layer, DynamicLayer) for layer in layers)


@torch.no_grad()
def shortfalls(causal: CausalModel, row: Sequence[int], first: int) -> Floats:
    """How much less likely, in nats, each token from position ``first`` on is than the one that the model would choose."""
    ids = torch.tensor([row], device=causal.device)
    logits = causal.model(**inputs_of(causal.model, ids), use_cache=False).logits[0, first - 1 : -1]
    parts = []
    for some, few in zip(logits.split(64), ids[0, first:].split(64), strict=True):
        values = raised(some)
        parts.append((values.amax(1) - values.gather(1, few[:, None]).squeeze(1)).double().cpu().numpy())
    return np.concatenate(parts) if parts else np.empty(0)


def _chosen(logits: torch.Tensor, ids: torch.Tensor) -> Floats:
    """Log-probability of each id ``[n]`` under its row of logits ``[n, V]``, a few rows at a time in at least float32."""
    parts = []
    for some, few in zip(logits.split(64), ids.split(64), strict=True):
        values = raised(some)
        chosen = values.gather(1, few[:, None]).squeeze(1)
        parts.append((chosen.double() - values.double().logsumexp(1)).cpu().numpy())
    return np.concatenate(parts) if parts else np.empty(0)
