"""Biases on pieces of text, spelled in a model's tokens for transformers' own ``sequence_bias``."""

from __future__ import annotations

from collections.abc import Mapping

from tokentape.control.guidance.guidance import checked_strength
from tokentape.errors import UsageError
from tokentape.models.causal import CausalModel

__all__ = ["spelled_bias"]


def spelled_bias(causal: CausalModel, biases: Mapping[str, float]) -> list[list[list[int] | float]]:
    """``{text: bias}`` as ``generate(sequence_bias=...)`` takes it: ``[[[ids], bias], ...]``.

    A word is spelled as it is and with the space before it that it carries inside a text; what begins with a space is spelled
    as it is alone. A bias, in logits, is added to a text's last token where the ones before it have just been said: a text of
    several tokens is thus not made likelier to begin. Raises UsageError for an empty text, for a bias that is no finite number,
    and for two texts that are the same tokens and have unequal biases; ModelError without a tokenizer.
    """
    spelled: dict[tuple[int, ...], tuple[str, float]] = {}
    for text, bias in biases.items():
        if not text:
            raise UsageError("a bias on an empty text", why="it needs a token to be added to", fix="--bias TEXT=+2.0")
        value = checked_strength(bias, f"the bias of {text!r}:", "--bias TEXT=+2.0")
        for spelling in (text,) if text.startswith(" ") else (text, f" {text}"):
            ids = tuple(causal.encode(spelling, bos=False))
            other, known = spelled.get(ids, (text, value))
            if known != value:
                raise UsageError(
                    f"{other!r} and {text!r} have biases {known:g} and {value:g}",
                    why=f"both are the tokens {list(ids)}",
                    fix="leave one of them out",
                )
            spelled[ids] = (text, value)
    return [[list(ids), value] for ids, (_, value) in spelled.items()]
