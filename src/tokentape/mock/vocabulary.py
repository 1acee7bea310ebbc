"""What the mock says: a small vocabulary, and speech that follows from a seed alone.

The vocabulary has 256 single bytes, some hundred words of two syllables with their space, and characters of several
bytes, so that a character may be one token or be spread over some. Nothing is drawn while a request is served: a test
can compute what must be on the tape by :class:`Speech` with the same seed.
"""

from __future__ import annotations

import functools
import math
import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["FIRST_UNKNOWN", "SIZE", "Speech", "Token", "decoded", "id_of", "prompt_ids", "spelling"]

_ONSETS = "b d f g k l m n p r s t v z".split()
_VOWELS = "a e i o u".split()
_WIDE = "海山月風花鳥水火木金土雨雲雪星空あいうえおかきくけこéüñßλπж€"
_EMOJI = "🌊🌙🔥🌱🎲🧭"
_MARKS = ["...", ".\n", ";\n", " —"]


@functools.cache
def _entries() -> tuple[bytes, ...]:
    """Every entry by its id: bytes, then words, characters and marks."""
    words = [
        f" {a}{v}{b}{w}"
        for a, b in zip(_ONSETS, _ONSETS[3:] + _ONSETS[:3], strict=True)
        for v in _VOWELS
        for w in _VOWELS
    ]
    rest = [*words, *_WIDE, *_EMOJI, *_MARKS]
    return (*(bytes([value]) for value in range(256)), *(text.encode() for text in rest))


SIZE = 256 + len(_ONSETS) * len(_VOWELS) ** 2 + len(_WIDE) + len(_EMOJI) + len(_MARKS)
"""Entries of the vocabulary."""

FIRST_UNKNOWN = 1024
"""Ids from here on stand for pieces that are no entry: their text is known to whoever sent them."""

_WORDS = range(256, 256 + len(_ONSETS) * len(_VOWELS) ** 2)
_CHARACTERS = range(_WORDS.stop, _WORDS.stop + len(_WIDE))
_PICTURES = range(_CHARACTERS.stop, _CHARACTERS.stop + len(_EMOJI))
_STOPS = range(_PICTURES.stop, SIZE)
_STEP = 7  # has no factor in common with SIZE, so that candidates do not come twice

_PLAIN_START = 4
"""Tokens at the start of all speech that are words."""

_PIECE = re.compile(rb" ?[^\s]+|\s+")


@functools.cache
def _ids() -> dict[bytes, int]:
    return {data: token_id for token_id, data in enumerate(_entries())}


def spelling(token_id: int) -> bytes:
    """Bytes of an id; none for one that is no entry."""
    return _entries()[token_id] if 0 <= token_id < SIZE else b""


def id_of(data: bytes) -> int:
    """The id of a piece: an entry's, else one from 1024 on that follows from its bytes."""
    known = _ids().get(data)
    return known if known is not None else FIRST_UNKNOWN + zlib.crc32(data) % 49_000


def prompt_ids(text: str) -> list[int]:
    """The ids of a prompt: a token for each word with the space before it, and one for each run of other white space."""
    return [id_of(piece) for piece in _PIECE.findall(text.encode("utf-8", "surrogatepass"))]


@dataclass(frozen=True, slots=True)
class Token:
    """A token: its id and bytes, the natural log of its probability, and how probable the rest of the vocabulary was.

    The candidate of rank r (from 1) has probability ``(1-q) q^(r-1)``; the token itself is that of rank ``rank``.
    """

    id: int
    data: bytes
    rank: int = 1
    q: float = 0.5

    @property
    def logprob(self) -> float:
        return self._logprob(self.rank)

    def _logprob(self, rank: int) -> float:
        return round(math.log1p(-self.q) + (rank - 1) * math.log(self.q), 6)

    def candidates(self, k: int) -> list[tuple[int, float]]:
        """The ``k`` likeliest ids with their log-probabilities, the likeliest first; all of the vocabulary for k < 0."""
        wanted = SIZE if k < 0 else min(k, SIZE)
        found: list[tuple[int, float]] = []
        other = self.id
        for rank in range(1, wanted + 1):
            if rank == self.rank:
                found.append((self.id, self.logprob))
                continue
            other = (other + _STEP) % SIZE
            found.append((other, self._logprob(rank)))
        return found


class Speech:
    """The endless speech of a seed: ``speech[i]`` is its token i, the same in every process and version.

    ``plain`` speech has words alone; the other kind also has characters of several bytes, some of them spread over
    tokens.
    """

    def __init__(self, seed: int = 0, choice: int = 0, *, plain: bool = False) -> None:
        self._random = random.Random(f"{seed}/{choice}/{plain}")
        self._plain = plain
        self._said: list[Token] = []

    def __getitem__(self, index: int) -> Token:
        while len(self._said) <= index:
            self._say()
        return self._said[index]

    def first(self, n: int) -> list[Token]:
        """The first ``n`` tokens."""
        return [self[index] for index in range(n)]

    def _say(self) -> None:
        kind = self._random.random()
        if self._plain or kind < 0.8 or len(self._said) < _PLAIN_START:
            self._add(self._random.choice(_WORDS))
        elif kind < 0.88:
            self._add(self._random.choice(_CHARACTERS))
        elif kind < 0.94:
            self._spread(spelling(self._random.choice(_CHARACTERS)), 1)
        elif kind < 0.97:
            self._spread(spelling(self._random.choice(_PICTURES)), 2)
        else:
            self._add(self._random.choice(_STOPS))

    def _spread(self, data: bytes, after: int) -> None:
        """A character over several tokens: its first bytes, then each of the others."""
        self._add(id_of(data[:after]), data[:after])
        for value in data[after:]:
            self._add(value)

    def _add(self, token_id: int, data: bytes | None = None) -> None:
        rank = self._random.choices((1, 2, 3), (7, 2, 1))[0]
        q = round(self._random.uniform(0.2, 0.7), 3)
        self._said.append(Token(token_id, spelling(token_id) if data is None else data, rank, q))


def decoded(pieces: Sequence[bytes]) -> str:
    """The text of tokens: what of the last character is not there yet is left out."""
    import codecs

    return codecs.getincrementaldecoder("utf-8")("replace").decode(b"".join(pieces))
