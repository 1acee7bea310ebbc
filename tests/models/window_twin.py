"""The twin of a windowed run: one forward pass without any cache, in which a mask says what each token sees and from where.

A sink that everything behind it has moved away from stands nearer than it was written. So that the twin need not turn a key, the
sinks are written once more for each distance at which they were seen: a causal model with relative positions gives the first
tokens of a text the same keys wherever they stand.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from tokentape.models.window import WindowCache, windowed


def passes_of(n_tokens: int, n_prompt: int, chunk: int) -> list[tuple[int, int]]:
    """The forward passes of a run: the prompt in chunks, then one token each."""
    prompt = [(start, min(start + chunk, n_prompt)) for start in range(0, n_prompt, chunk)]
    return prompt + [(at, at + 1) for at in range(n_prompt, n_tokens)]


def through_cache(model: Any, cache: WindowCache, ids: torch.Tensor, passes: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Logits ``[T, V]`` of the windowed model over ids ``[T]``."""
    with windowed(model, cache), torch.no_grad():
        found = [
            model(input_ids=ids[None, start:stop], past_key_values=cache, use_cache=True).logits[0]
            for start, stop in passes
        ]
    return torch.cat(found)


def seen(n_tokens: int, window: int, sinks: int, passes: Sequence[tuple[int, int]]) -> tuple[torch.Tensor, list[int]]:
    """Which positions each token sees, ``[T, T]``, and how many had been dropped when it was read."""
    sees = torch.zeros(n_tokens, n_tokens, dtype=torch.bool)
    dropped = [0] * n_tokens
    kept: list[int] = []
    gone = 0
    for start, stop in passes:
        while len(kept) + stop - start > window + sinks:
            kept.pop(sinks)
            gone += 1
        kept += range(start, stop)
        for token in range(start, stop):
            sees[token, [position for position in kept if position <= token]] = True
            dropped[token] = gone
    return sees, dropped


def at_once(
    model: Any,
    ids: torch.Tensor,
    window: int,
    sinks: int,
    passes: Sequence[tuple[int, int]],
    sliding: int | None = None,
) -> torch.Tensor:
    """Logits ``[T, V]`` over ids ``[T]`` of the twin. ``sliding`` is how many positions the model's own layers see."""
    n_tokens = len(ids)
    sees, dropped = seen(n_tokens, window, sinks, passes)
    shifts = sorted({gone for gone in dropped if gone})
    copies = list(itertools.product(shifts, range(sinks)))
    size = n_tokens + len(copies)
    allowed = torch.zeros(size, size, dtype=torch.bool)
    positions = torch.tensor([*range(n_tokens), *(place + gone for gone, place in copies)])
    for token, gone in enumerate(dropped):
        allowed[token, :n_tokens] = sees[token]
        if gone:
            allowed[token, :sinks] = False
            for at, (distance, _) in enumerate(copies, n_tokens):
                allowed[token, at] = distance == gone
    for (one, copy), (other, another) in itertools.product(enumerate(copies, n_tokens), repeat=2):
        allowed[one, other] = copy[0] == another[0] and another[1] <= copy[1]
    if sliding is not None:
        allowed &= positions[:, None] - positions[None, :] < sliding
    mask = torch.zeros(1, 1, size, size, dtype=model.dtype).masked_fill(~allowed, torch.finfo(model.dtype).min)
    text = torch.cat([ids, *(ids[:sinks] for _ in shifts)])
    with torch.no_grad(), _alibi_at(model, positions):
        given = {} if _alibi(model) else {"position_ids": positions[None]}
        logits: torch.Tensor = model(input_ids=text[None], attention_mask=mask, use_cache=False, **given).logits
    return logits[0, :n_tokens]


def _alibi(model: Any) -> bool:
    return bool(getattr(model.config, "alibi", model.config.model_type in ("bloom", "mpt")))


@contextmanager
def _alibi_at(model: Any, positions: torch.Tensor) -> Iterator[None]:
    """Within it, biases are those of keys at these positions: a constant of a row of attention changes nothing."""
    module = sys.modules[type(model).__module__]
    name = "build_mpt_alibi_tensor" if model.config.model_type == "mpt" else "build_alibi_tensor"
    original = getattr(module, name, None)

    def moved(one: Any, other: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        few = (one, 2) if isinstance(one, int) else (torch.ones(1, 2), other)  # heads and length, or mask and heads
        rest = [each for each in (*args, *kwargs.values()) if isinstance(each, torch.dtype)]
        slopes: torch.Tensor = original(*few, *rest).diff(dim=-1)  # type: ignore[misc]
        return slopes * positions

    if not _alibi(model):
        yield
        return
    setattr(module, name, moved)
    try:
        yield
    finally:
        setattr(module, name, original)
