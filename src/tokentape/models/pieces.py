"""Bytes of tokens: what each one adds to the text, so that the pieces joined are the text and nothing else.

Token text is bytes, not characters: an emoji or a Chinese character may be spread over several tokens, none of which is
text by itself. The bytes of a token come from the structure of the tokenizer's decoder where that is known
(:mod:`tokentape.models.decoders`), checked against the tokenizer itself, and from differences of ``decode`` otherwise.
"""

from __future__ import annotations

import json
import random
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tokentape.models.decoders import BytePlan, compile_decoder

__all__ = ["Piece", "Pieces", "Spelling", "pieces_of", "spelling_of"]

_LOST = "\ufffd"
_WINDOW, _KEPT = 64, 16
"""Tokens decoded together where only differences tell, and how many of them stay when the window moves on."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of a vocabulary.

    ``token`` is the vocabulary's own spelling (``Ġmat``, ``▁the``, ``<0xE4>``); ``bytes`` what the token adds to a text
    that has begun, empty for a special token; an id beyond the vocabulary is named ``<id 50300>`` and has no bytes.
    """

    id: int
    token: str
    bytes: bytes
    special: bool


class _Table(dict[int, bytes]):
    """Bytes by id, computed at the first question."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    def __missing__(self, token_id: int) -> bytes:
        self[token_id] = value = self._pieces._bytes_within(token_id)
        return value


class Pieces:
    """The vocabulary of a tokenizer as bytes: any transformers tokenizer, fast or in Python, or None for none at all.

    ``exact`` says that the bytes come from the decoder's structure: then a character that spans tokens is spread over
    them as it is. Otherwise such a character belongs to the token that completes it.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        in_python = self._backend is None and tokenizer is not None
        self._ids = frozenset(self.tokenizer.get_vocab().values() if in_python else ())
        self._special = _special_ids(tokenizer, self._backend)
        self._plan = self._structure()
        self._within = _Table(self)
        self.exact = self._plan is not None or tokenizer is None
        if self._plan is not None and not self._agrees():
            self._plan, self.exact = None, False
            self._within.clear()
        self._probe = None if self.exact else self._ordinary()

    def piece(self, token_id: int) -> Piece:
        """The entry of one id."""
        token = self._token(token_id)
        name = f"<id {token_id}>" if token is None else token
        return Piece(token_id, name, self._within[token_id], token_id in self._special)

    def spelling(self, prompt_ids: Iterable[int] = (), owner: Any | None = None) -> Spelling:
        """A spelling of one sequence, with the prompt already fed; ``owner`` is kept alive with it."""
        spelling = Spelling(self, owner)
        spelling.feed_all(prompt_ids)
        spelling._after_prompt = True
        return spelling

    def spell(self, ids: Sequence[int], prompt_ids: Sequence[int] = ()) -> list[bytes]:
        """Bytes of each of ``ids`` as they continue ``prompt_ids``; joined they are the text of ``ids``."""
        spelling = self.spelling(prompt_ids)
        pieces = spelling.feed_all(ids)
        if pieces:
            pieces[-1] += spelling.finish()
        return pieces

    def _structure(self) -> BytePlan | None:
        if self._backend is None:
            return None
        decoder = self._backend.decoder
        return compile_decoder(None if decoder is None else json.loads(decoder.__getstate__()))

    def _token(self, token_id: int) -> str | None:
        """The vocabulary's own string; None for an id beyond it."""
        if self._backend is not None:
            return self._backend.id_to_token(token_id) if 0 <= token_id < 2**32 else None
        # asked for an id that they do not have, tokenizers in Python raise, or invent an entry
        return self.tokenizer.convert_ids_to_tokens(token_id) if token_id in self._ids else None

    def _skipped(self, token_id: int) -> bool:
        return token_id in self._special or self._token(token_id) is None

    def _bytes_within(self, token_id: int) -> bytes:
        """Bytes of a token inside of a text."""
        token = self._token(token_id)
        if token is None or token_id in self._special:
            return b""
        return self._plan.rest(token) if self._plan is not None else self._difference(token_id)

    def _bytes_opening(self, token_id: int) -> bytes:
        """Bytes of a token that is the first of its text, before what is stripped from the start."""
        assert self._plan is not None
        return self._plan.first(self._token(token_id) or "")

    def _difference(self, token_id: int) -> bytes:
        alone = self._decode([token_id, token_id])
        once = self._decode([token_id])
        text = alone[len(once) :] if alone.startswith(once) else once
        return b"" if _LOST in text else text.encode("utf-8", "surrogatepass")

    def _decode(self, ids: list[int]) -> str:
        """Text of ids by the tokenizer itself, special tokens left out."""
        known = [token_id for token_id in ids if not self._skipped(token_id)]
        if not known or self.tokenizer is None:
            return ""
        text = self.tokenizer.decode(known, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def _ordinary(self) -> int | None:
        """An id whose text is a plain letter or word, to see what text does when more follows; None if there is none."""
        size = len(self.tokenizer) if self.tokenizer is not None else 0
        spread = range(0, size, max(size // 1000, 1))
        return next((token_id for token_id in spread if self._decode([token_id]).strip().isalpha()), None)

    def _agrees(self) -> bool:
        """True where structure and tokenizer give the same text for sequences drawn from the whole vocabulary."""
        size = self._backend.get_vocab_size(with_added_tokens=True)
        draw = random.Random(0)
        added = list(self._backend.get_added_tokens_decoder())[:64]
        samples = [[draw.randrange(size) for _ in range(2 + i % 5)] for i in range(48)]
        samples += [[draw.randrange(size), token_id, draw.randrange(size), token_id] for token_id in added]
        samples += [[token_id, draw.randrange(size)] for token_id in added]
        for ids in samples if size else []:
            try:
                spelt = b"".join(Spelling(self).feed_all(ids)).decode()
            except UnicodeDecodeError:
                continue
            if spelt != self._decode(ids):
                return False
        return True


def _special_ids(tokenizer: Any, backend: Any) -> frozenset[int]:
    if backend is not None:
        return frozenset(i for i, token in backend.get_added_tokens_decoder().items() if token.special)
    return frozenset(getattr(tokenizer, "all_special_ids", ()))


class Spelling:
    """The text of one sequence as it grows: fed ids, gives the bytes that each adds.

    Joined, the bytes are the text. Where ``Pieces.exact`` is false, a character that is not whole yet is held back, and
    so is what the next token may change; :meth:`finish` gives what is still held when the sequence ends.
    """

    __slots__ = (
        "_after_prompt",
        "_begun",
        "_owner",
        "_pieces",
        "_running",
        "_shown",
        "_strip_left",
        "_text",
        "_window",
        "_within",
    )

    def __init__(self, pieces: Pieces, owner: Any | None = None) -> None:
        plan = pieces._plan
        self._owner = owner  # keeps the tokenizer alive while its pieces are in use
        self._pieces = pieces
        self._within = pieces._within
        self._begun = False
        self._strip_left = 0 if plan is None else plan.strip_count
        # running: every token is what it is inside of a text, so that one look into the table is enough
        self._running = plan is None and pieces.tokenizer is None
        self._window: list[int] = []
        self._text = ""
        self._after_prompt = False
        self._shown = 0

    def feed(self, token_id: int) -> bytes:
        """Bytes that the next token adds to the text."""
        if self._running:
            return self._within[token_id]
        if self._pieces._plan is None:
            return self._feed_by_difference(token_id)
        return self._feed_opening(token_id, self._pieces._plan)

    def feed_all(self, token_ids: Iterable[int]) -> list[bytes]:
        """Bytes that each of the next tokens adds, in order."""
        return [self.feed(token_id) for token_id in token_ids]

    def piece(self, token_id: int) -> tuple[str, bytes, bool]:
        """The vocabulary's own string for an id, its bytes inside of a text, and whether it is special."""
        piece = self._pieces.piece(token_id)
        return piece.token, piece.bytes, piece.special

    def finish(self) -> bytes:
        """What is held back when the sequence ends; of a character that never became whole, U+FFFD."""
        held, self._shown = "" if self._after_prompt else self._text[self._shown :], len(self._text)
        return held.encode("utf-8", "surrogatepass")

    def _feed_opening(self, token_id: int, plan: BytePlan) -> bytes:
        pieces = self._pieces
        if pieces._skipped(token_id):
            return b""
        text = self._within[token_id] if self._begun else pieces._bytes_opening(token_id)
        self._begun = True
        while self._strip_left and text.startswith(plan.strip):
            text = text[len(plan.strip) :]
            self._strip_left -= 1
        self._running = bool(text) or not self._strip_left
        return text

    def _feed_by_difference(self, token_id: int) -> bytes:
        pieces = self._pieces
        if pieces._skipped(token_id):
            return b""
        if len(self._window) >= _WINDOW:
            # decoding starts anew from a tail: what comes after depends on no more than that
            held = len(self._text) - self._shown
            self._window = self._window[-_KEPT:]
            self._text = pieces._decode(self._window)
            self._shown = max(len(self._text) - held, 0)
        self._window.append(token_id)
        text = pieces._decode(self._window)
        if self._after_prompt and text.startswith(self._text):
            self._shown = len(self._text)  # what was held back of the prompt stayed as it was: it is the prompt's
        self._after_prompt = False
        settled = len(text)
        if pieces._probe is not None:
            # what another token after it would change is not settled yet, as "@@" at the end of half a word
            settled = _n_common(text, pieces._decode([*self._window, pieces._probe]))
        if _LOST not in (pieces._token(token_id) or ""):
            settled = len(text[:settled].rstrip(_LOST))
        added = text[self._shown : settled]
        self._text, self._shown = text, max(self._shown, settled)
        return added.encode("utf-8", "surrogatepass")


def _n_common(one: str, other: str) -> int:
    """Characters that two texts have in common at their start."""
    unlike = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(unlike, min(len(one), len(other)))


_known: weakref.WeakKeyDictionary[Any, tuple[int, Pieces]] = weakref.WeakKeyDictionary()


def pieces_of(tokenizer: Any | None) -> Pieces:
    """The pieces of a tokenizer, made once while it lives and its vocabulary does not grow."""
    if tokenizer is None:
        return Pieces(None)
    size, pieces = _known.get(tokenizer, (None, None))
    if pieces is None or size != len(tokenizer):
        # a tokenizer must not be kept alive by what is known of it
        pieces = Pieces(weakref.proxy(tokenizer))
        _known[tokenizer] = (len(tokenizer), pieces)
    return pieces


def spelling_of(tokenizer: Any | None, prompt_ids: Iterable[int] | None = ()) -> Spelling | None:
    """A spelling of one sequence with its prompt fed; None without a tokenizer, where no bytes can be told."""
    return None if tokenizer is None else pieces_of(tokenizer).spelling(prompt_ids or (), owner=tokenizer)
