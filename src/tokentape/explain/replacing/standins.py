"""What stands in for a token that is taken away: the one that says least, or ordinary ones drawn at random."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tokentape.errors import UsageError
from tokentape.explain.replay import Replay
from tokentape.models.causal import CausalModel

__all__ = ["CHUNK", "OPERATORS", "checked_id", "fills", "neutral_id"]

OPERATORS = ("neutral", "random")
"""Ways to replace a token: by one constant token, or by ordinary tokens drawn at random."""

CHUNK = 4096
"""Tokens whose vectors are held at once where all of the vocabulary is asked for."""

MAX_DRAWS = 100
"""Times an ordinary token is drawn for; a vocabulary that has none keeps what was drawn last."""

_neutral: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def neutral_id(causal: CausalModel) -> int:
    """Id of the token that says least: for unknown text or padding, where the tokenizer has one of its own, else the most
    average one.

    A token that opens or ends a sequence is not neutral, it says that what stands before does not matter; nor is one
    whose vector is zero. The most average token is the ordinary one whose vector is nearest to the vocabulary's mean.
    """
    found = _neutral.get(causal.model)
    if found is None:
        found = _neutral[causal.model] = next(_candidates(causal))
    return found


def checked_id(causal: CausalModel, token: int) -> int:
    """The id, if the vocabulary has it. Raises UsageError."""
    if not 0 <= token < causal.vocab_size:
        raise UsageError(
            f"no token {token}",
            why=f"the vocabulary of {causal.name} has {causal.vocab_size} entries",
            fix=f"an id of 0 to {causal.vocab_size - 1}",
        )
    return token


def _candidates(causal: CausalModel) -> Iterator[int]:
    tokenizer, embedding = causal.tokenizer, causal.model.get_input_embeddings()
    ends = _ends(causal)
    for name in ("unk_token_id", "pad_token_id"):
        token = getattr(tokenizer, name, None)
        if isinstance(token, int) and token not in ends and token < causal.vocab_size:
            with torch.no_grad():
                if embedding(torch.tensor([[token]], device=causal.device)).any():
                    yield token
    yield from _nearest_to_mean(causal)


def _ends(causal: CausalModel) -> set[int]:
    """Ids that open or end a sequence."""
    ends = {causal.bos_id}
    for holder in (causal.config.get_text_config(decoder=True), getattr(causal.model, "generation_config", None)):
        eos = getattr(holder, "eos_token_id", None)
        ends.update(eos if isinstance(eos, list) else [eos])
    ends.add(getattr(causal.tokenizer, "eos_token_id", None))
    return {token for token in ends if token is not None}


@torch.no_grad()
def _nearest_to_mean(causal: CausalModel) -> Iterator[int]:
    embedding, n = causal.model.get_input_embeddings(), causal.vocab_size
    parts = [torch.arange(n, device=causal.device)[start : start + CHUNK][None] for start in range(0, n, CHUNK)]
    mean = torch.stack([embedding(part)[0].float().sum(0) for part in parts]).sum(0) / n
    far = torch.cat([(embedding(part)[0].float() - mean).norm(dim=-1) for part in parts])
    order = far.argsort().tolist()
    ends = _ends(causal)
    yield from (token for token in order if _is_ordinary(causal, token, ends))
    yield order[0]


def _is_ordinary(causal: CausalModel, token: int, ends: set[int]) -> bool:
    """Whether a token is one of text: a special one has no bytes, and without a tokenizer none has."""
    return token not in ends and (causal.tokenizer is None or bool(causal.pieces.piece(token).bytes))


def fills(replay: Replay, operators: Sequence[str], draws: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """What stands in for the tokens of a sequence: by operator, ids ``[draws, T]``.

    ``neutral`` has one draw; ``random`` draws among the ordinary tokens, never the one that stands there. Raises UsageError
    for an operator that does not exist.
    """
    unknown = [name for name in operators if name not in OPERATORS]
    if unknown or not operators:
        raise UsageError(
            f"no operator {unknown[0]!r}" if unknown else "no operator",
            why=f"there are {', '.join(OPERATORS)}",
            fix="operators=('neutral', 'random')",
        )
    if draws < 1:
        raise UsageError(f"draws={draws}", why="what is drawn at random is drawn at least once", fix="draws=3")
    ids = np.array(replay.ids)
    made = {}
    for name in operators:
        if name == "neutral":
            made[name] = torch.full((1, len(ids)), neutral_id(replay.causal))
        else:
            made[name] = torch.from_numpy(_ordinary(replay.causal, np.tile(ids, (draws, 1)), rng))
    return made


def _ordinary(causal: CausalModel, ids: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """An ordinary token, drawn for each of the ids ``[draws, T]`` and other than it."""
    ends = _ends(causal)
    drawn = np.full_like(ids, -1)
    todo = np.ones(ids.shape, np.bool_)
    for _ in range(MAX_DRAWS):
        drawn[todo] = rng.integers(causal.vocab_size, size=int(todo.sum()))
        pairs = zip(drawn[todo], ids[todo], strict=True)
        todo[todo] = [token == other or not _is_ordinary(causal, int(token), ends) for token, other in pairs]
        if not todo.any():
            break
    return drawn
