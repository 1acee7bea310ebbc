"""Prompts of a given length, made without the model's tokenizer.

A text is words that most tokenizers have whole, as many as a line says that was drawn through what the server counted for two
texts of ours (``overhead + tokens_a_word * words``). Where the server takes ids, and has told those of such a text, the prompt is
ids of that text, and exactly as long as asked.

Whoever has the same block has the same words in it, and different blocks differ from their first word on; what follows the
blocks, and a prompt without blocks, begins with words that spell the request's own number, so that no server finds it in its
cache by chance.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

__all__ = ["WORDS", "Calibration", "PromptMaker"]

WORDS = """
time year people way day man thing woman life child world school state family student group country problem hand part place
case week company system program question work government number night point home water room mother area money story fact month
lot right study book eye job word business issue side kind head house service friend father power hour game line end member law
car city community name president team minute idea kid body information back parent face others level office door health person
art war history party result change morning reason research girl guy moment air teacher force education foot boy age policy
process music market sense nation plan college interest death course experience behind reach local kill six remain effect
suggest class control raise care perhaps little late hard field else pass former sell major sometimes require along development
themselves report role better economic effort decide rate strong possible heart drug show leader light voice wife whole police
mind finally pull return free military price less according decision explain son hope view relationship town road drive arm true
""".split()
"""Common English words."""

RING = 1 << 14
"""Words of the text of which prompts are parts; a prompt may go round it more than once."""
NUMBERS = 1_000_000_000
"""So many numbers of blocks and requests have spellings of their own."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a server counts: ``tokens_a_word`` and ``overhead`` of a text; ``pool`` are the ids of one, where it told them.

    ``counted`` is what was measured: pairs of words sent and tokens counted. The default takes a word for a token.
    """

    tokens_a_word: float = 1.0
    overhead: float = 0.0
    pool: tuple[int, ...] = ()
    counted: tuple[tuple[int, int], ...] = ()

    @classmethod
    def through(cls, few: tuple[int, int], many: tuple[int, int], pool: tuple[int, ...] = ()) -> Calibration:
        """The line through two measurements of ``(words, tokens)``; through the origin where they make no sense together."""
        (w0, t0), (w1, t1) = few, many
        slope = (t1 - t0) / (w1 - w0)
        if slope <= 0:
            return cls(max(t1, 1) / w1, 0.0, pool, (few, many))
        return cls(slope, t0 - slope * w0, pool, (few, many))


@dataclass(frozen=True)
class PromptMaker:
    """Makes prompts; the same for the same number, length and blocks. ``as_ids`` needs the calibration's pool."""

    calibration: Calibration = Calibration()
    as_ids: bool = False
    seed: int = 0
    block_tokens: int = 512

    def prompt(self, n_tokens: int, number: int, blocks: tuple[int, ...] = ()) -> str | tuple[int, ...]:
        """A prompt of about ``n_tokens`` (of ids: exactly) for the request ``number``."""
        if self.as_ids:
            return self._ids(n_tokens, number, blocks)
        line = self.calibration
        return self.words(round(max(1.0, (n_tokens - line.overhead) / line.tokens_a_word)), number, blocks)

    def words(self, n_words: int, number: int, blocks: tuple[int, ...] = ()) -> str:
        """A text of exactly ``n_words`` words."""
        ratio = self.calibration.tokens_a_word
        parts, left = [], n_words
        for place, block in enumerate(blocks):
            # edges are counted from the start, so that rounding does not add up over the blocks
            edge = round((place + 1) * self.block_tokens / ratio) - round(place * self.block_tokens / ratio)
            n = min(left, edge)
            parts += [self._stretch(n, f"block/{block}", block)] if n else []
            left -= n
        if left:
            parts.append(self._stretch(left, f"own/{number}", number))
        return " ".join(parts)

    def _stretch(self, n: int, name: str, number: int) -> str:
        spelled = _spelled(number, WORDS)[:n]
        left = n - len(spelled)
        start = random.Random(f"{self.seed}/{name}").randrange(RING)
        parts = [" ".join(spelled)]
        while left > 0:
            stop = min(RING, start + left)
            parts.append(self._text[self._edges[start] : self._edges[stop] - 1])
            left -= stop - start
            start = 0
        return " ".join(parts)

    @cached_property
    def _ring(self) -> list[str]:
        return random.Random(f"ring/{self.seed}").choices(WORDS, k=RING)

    @cached_property
    def _text(self) -> str:
        return " ".join(self._ring) + " "

    @cached_property
    def _edges(self) -> list[int]:
        edges, at = [0], 0
        for word in self._ring:
            at += len(word) + 1
            edges.append(at)
        return edges

    def _ids(self, n_tokens: int, number: int, blocks: tuple[int, ...]) -> tuple[int, ...]:
        found: list[int] = []
        for block in blocks:
            found += self._id_stretch(min(self.block_tokens, n_tokens - len(found)), f"block/{block}", block)
        found += self._id_stretch(n_tokens - len(found), f"own/{number}", number)
        return tuple(found)

    def _id_stretch(self, n: int, name: str, number: int) -> list[int]:
        pool = self.calibration.pool
        spelled = _spelled(number, sorted(set(pool)))[: max(0, n)]
        start = random.Random(f"{self.seed}/{name}").randrange(len(pool))
        left = n - len(spelled)
        ring = (*pool[start:], *pool[:start])
        return [*spelled, *(ring * (left // len(pool) + 1))[: max(0, left)]]


def _spelled(number: int, letters: Sequence[T]) -> list[T]:
    """A number below :data:`NUMBERS` in as many letters as each of them takes; nothing where there is but one letter."""
    found: list[T] = []
    while len(letters) > 1 and len(letters) ** len(found) < NUMBERS:
        number, digit = divmod(number, len(letters))
        found.append(letters[digit])
    return found
