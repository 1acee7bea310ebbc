"""Whether what a server tells of the tokens of one choice agrees with the text that it sends."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tokentape.sources.endpoint.entries import Entry

__all__ = ["MOST_HELD_TOKENS", "Agreement", "may_be_one_token"]

MOST_HELD_TOKENS = 16
"""A message may have so many more tokens than its text has bytes: special ones, and those whose text is held back."""
LONGEST_TOKEN_BYTES = 256
LONGEST_AHEAD_BYTES = 1 << 16
"""How far the text may be behind its tokens, as it is where a stop string is looked for."""
FEWEST_CUMULATIVE = 3
"""So many messages with ids, each of which begins with all those of the one before, are no coincidence."""

_ABSURD = "a log-probability is none: it is above 0, or below every other"

_SPACE = b" \t\r\n\v\f"
_TWO_WORDS = re.compile(rb"\S\s+\S")
_MARKS = (b"\xe2\x96\x81", b"\xc4\xa0", b"\xc4\x8a")
"""How vocabularies write a space or a line end within a token."""
_REPLACEMENT = "\ufffd".encode()


def may_be_one_token(data: bytes) -> bool:
    """Whether a text can be a single token: one of no vocabulary has two words."""
    return len(data) <= LONGEST_TOKEN_BYTES and _TWO_WORDS.search(data) is None


@dataclass(slots=True)
class Agreement:
    """Keeps account of one choice. :attr:`doubt` is the first contradiction; :attr:`disputed` the first that leaves the tokens what
    they are, as their ids tell them.
    """

    doubt: str | None = None
    disputed: str | None = None
    _ahead: bytes = b""  # of the tokens, what has not come as text
    _comparable: bool = True
    _in_word: bool = False
    _n_words: int = 0
    _n_tokens: int = 0
    _last_ids: tuple[int, ...] = ()
    _n_cumulative: int = 0
    _n_with_ids: int = 0

    def see(self, data: bytes, ids: Sequence[int], entries: Sequence[Entry]) -> None:
        """A message with tokens: its text, and their ids and log-probabilities, one of them at least."""
        self._n_tokens += len(entries) or len(ids)
        for place, entry in enumerate(entries):
            if entry.absurd and not ids and entry.id is None:
                self._doubt(_ABSURD)
            elif entry.absurd:
                self.disputed = _ABSURD
            if ids and entry.id is not None and entry.id != ids[place]:
                self._doubt("an id is another one than that of its log-probability")
        if ids:
            self._see_ids(tuple(ids))
        if entries:
            self._compare(data, [entry.data for entry in entries])
        self.say(data)

    def know_of(self, n_tokens: int) -> None:
        """So many tokens are known of beside those that were told."""
        self._n_tokens += n_tokens

    def say(self, data: bytes) -> None:
        """Text of the answer. The text of calls of tools is made anew by servers, and proves nothing."""
        if not data:
            return
        self._n_words += len(data.split())
        if self._in_word and not data[:1].isspace():
            self._n_words -= 1  # it goes on with the word before
        self._in_word = not data[-1:].isspace()

    def stop_comparing(self) -> None:
        """From here on the text is not that of the tokens."""
        self._comparable = False

    def conclusion(self) -> str | None:
        """What contradicts what, at the end; None where nothing does."""
        if self.doubt is None and self._n_with_ids >= FEWEST_CUMULATIVE and self._n_cumulative == self._n_with_ids - 1:
            return "every message repeats the ids of the one before"
        if self.doubt is None and self._n_tokens and self._n_words > self._n_tokens:
            return f"{self._n_words} words came, and {self._n_tokens} tokens are told"
        return self.doubt

    def _doubt(self, why: str) -> None:
        if self.doubt is None:
            self.doubt = why

    def _see_ids(self, ids: tuple[int, ...]) -> None:
        self._n_with_ids += 1
        before = self._last_ids
        self._n_cumulative += bool(before) and len(ids) > len(before) and ids[: len(before)] == before
        self._last_ids = ids

    def _compare(self, data: bytes, own: Sequence[bytes | None]) -> None:
        """Text comes in the order of its tokens, be it later; tokens may have none in it, such as special ones."""
        if not self._comparable:
            return
        joined = b"".join(part or b"" for part in own)
        if None in own or _REPLACEMENT in joined or _REPLACEMENT in data:
            self._comparable, self._ahead = False, b""
            return
        self._ahead += _bare(joined)
        place = _behind(_bare(data), self._ahead)
        if place is None:
            self._doubt("the text of a message is not that of its tokens")
            self._comparable, self._ahead = False, b""
            return
        self._ahead = self._ahead[place:]
        if len(self._ahead) > LONGEST_AHEAD_BYTES:
            self._comparable, self._ahead = False, b""


def _behind(text: bytes, tokens: bytes) -> int | None:
    """Where in the ``tokens`` the ``text`` ends, which leaves out what it likes and turns nothing round; None where it does not."""
    if tokens.startswith(text):
        return len(text)
    place = 0
    for byte in text:
        place = tokens.find(byte, place) + 1
        if not place:
            return None
    return place


def _bare(data: bytes) -> bytes:
    if not data.isascii():
        for mark in _MARKS:
            data = data.replace(mark, b"")
    return data.translate(None, _SPACE)
