"""Sources that people think in: tokens, words, sentences, parts. Each is a run of whole tokens."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from itertools import groupby

from tokentape.data.explanation import SOURCE_KINDS, Source, Unit
from tokentape.errors import UsageError
from tokentape.models.causal import CausalModel

__all__ = ["sources_of", "token_labels"]

_HAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"\s*[{_HAN}]|\s*(?:(?![{_HAN}])\w)+(?:['’-](?:(?![{_HAN}])\w)+)*|\s*[^\w\s]|\s+")
"""A word with the space before it; a Chinese character or kana, or a mark, is one by itself: nothing here knows their words."""

_SENTENCE = re.compile(r"(?:[^.!?。！？\n]|\.(?=\d))*(?:[.!?。！？]+[\"'”’)\]]*\n?|\n|$)")
_LINE = re.compile(r"[^\n]*(?:\n|$)")


def sources_of(causal: CausalModel, ids: Sequence[int], n_prompt: int, unit: Unit = "token") -> tuple[Source, ...]:
    """The sources of a sequence: ascending ranges of positions that cover it, each with its text as label.

    A token belongs to the unit in which its first byte after white space lies, so that a token over two words joins the
    first. Parts are the lines of the prompt and, as one, what was generated after it; sentences and words do not reach
    over that edge either. A special token is a unit by itself. Raises UsageError for an unknown unit.
    """
    if unit not in SOURCE_KINDS:
        raise UsageError(f"no source is a {unit!r}", why=f"there are {', '.join(SOURCE_KINDS)}", fix="--by word")
    data, names = causal.pieces.spell(ids), [causal.pieces.piece(i).token for i in ids]
    if unit == "token":
        return tuple(Source(p, p + 1, label, "token") for p, label in enumerate(token_labels(data, names)))
    found: list[Source] = []
    for _, group in groupby(_numbered(data, n_prompt, unit), key=lambda pair: pair[1]):
        positions = [position for position, _ in group]
        start, stop = positions[0], positions[-1] + 1
        text = b"".join(data[start:stop]).decode("utf-8", "backslashreplace")
        found.append(Source(start, stop, text or names[start], unit))
    return tuple(found)


def _numbered(data: Sequence[bytes], n_prompt: int, unit: Unit) -> list[tuple[int, tuple[int, int]]]:
    """Each position with the unit it lies in: (half of the sequence, number of the unit)."""
    halves = [(0, data[:n_prompt]), (n_prompt, data[n_prompt:])]
    numbered: list[tuple[int, tuple[int, int]]] = []
    for half, (first, tokens) in enumerate(halves):
        ends = _ends(b"".join(tokens), unit if not (half and unit == "part") else None)
        at, number = 0, 0
        for position, token in enumerate(tokens, first):
            begin = at + len(token) - len(token.lstrip()) if token.strip() else at
            while number < len(ends) - 1 and ends[number] <= begin:
                number += 1
            at += len(token)
            # a special token has no text: a number of its own, between those of its neighbours
            numbered.append((position, (half, number if token else -1 - position)))
    return numbered


def _ends(raw: bytes, unit: Unit | None) -> list[int]:
    """Byte offsets at which the units of a text end; one for the whole of it where ``unit`` is None."""
    if unit is None:
        return [len(raw)]
    pattern = {"word": _WORD, "sentence": _SENTENCE, "part": _LINE}[unit]
    text = raw.decode("utf-8", "surrogateescape")
    ends, at = [], 0
    for match in pattern.finditer(text):
        at += len(match.group().encode("utf-8", "surrogateescape"))
        if match.group():
            ends.append(at)
    return ends or [len(raw)]


def token_labels(data: Sequence[bytes], names: Sequence[str]) -> list[str]:
    """Text of each token; a character that spans tokens stands once, at the token that completes it, the bytes of the others
    as escapes; a token without text by its name in the vocabulary.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    labels = []
    for token, name in zip(data, names, strict=True):
        text = decoder.decode(token)
        if token and not text:
            text = token.decode("utf-8", "backslashreplace")
        labels.append(text if token else name)
    return labels
