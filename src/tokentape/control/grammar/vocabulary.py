"""A model's vocabulary as the grammar engine reads it, and grammars compiled for it: both made once and kept."""

from __future__ import annotations

import json
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from tokentape.control.grammar.grammar import Grammar, require_llguidance, started
from tokentape.errors import UsageError
from tokentape.models.pieces import Pieces

if TYPE_CHECKING:
    from tokentape.models.causal import CausalModel

__all__ = ["Vocabulary", "vocabulary_of"]

KEPT_GRAMMARS = 64
"""Compiled grammars that a vocabulary keeps; the one that was not asked for the longest goes first."""

_COMPARED = 2000
"""Entries of a vocabulary whose bytes are compared with those that the engine reads."""


_SPELT = ("".join(map(chr, range(32, 127))) + "\t\n  é e\u0301 \u212b ﬁ Ａ İ ß 日本 😀 \u00a0").encode()
"""What normalisers change, and what small vocabularies lack."""


class Vocabulary:
    """The tokens of a model in the engine: ``engine`` is its ``LLTokenizer``, ``end`` the id that it takes for the end of a text.

    ``end`` need not be one of the ids that end this model's texts, which ``eos`` holds: empty where the model has none. ``forces``
    says whether the tokenizer cuts every text into tokens that spell it: only then are tokens forced.
    """

    def __init__(self, engine: Any, pieces: Pieces, eos: frozenset[int], end: int) -> None:
        self.engine = engine
        self.pieces = pieces
        self.eos = eos
        self.end = end
        # cut by its own tokenizer a text may come back changed: normalised, or without what no token spells
        self.forces = engine.decode_bytes(engine.tokenize_bytes(_SPELT)) == _SPELT
        self._compiled: OrderedDict[Grammar, Any] = OrderedDict()

    def matcher(self, grammar: Grammar) -> Any:
        """A fresh ``LLMatcher`` at the start of a grammar. Raises UsageError where the vocabulary cannot spell it."""
        found = self._compiled.pop(grammar, None)
        self._compiled[grammar] = found = started(grammar, self.engine, forcing=self.forces) if found is None else found
        if len(self._compiled) > KEPT_GRAMMARS:
            self._compiled.popitem(last=False)
        return found.deep_copy()


_known: weakref.WeakKeyDictionary[Any, dict[tuple[int, int, frozenset[int]], Vocabulary]] = weakref.WeakKeyDictionary()


def vocabulary_of(causal: CausalModel) -> Vocabulary:
    """The vocabulary of a model, made once while its tokenizer lives and does not grow.

    Raises UsageError for a model without a tokenizer, or with one that the engine cannot read.
    """
    tokenizer = causal.tokenizer
    if tokenizer is None:
        raise UsageError(
            f"{causal.name} has no tokenizer",
            why="a grammar is about text, and without a vocabulary no token has any",
            fix="put the model's tokenizer.json into its folder",
        )
    eos = _eos_ids(causal.model)
    key = (len(tokenizer), causal.vocab_size, eos)
    made = _known.setdefault(tokenizer, {})
    if key not in made:
        made[key] = _made(causal, eos)
    return made[key]


def _eos_ids(model: Any) -> frozenset[int]:
    """The ids at which ``generate()`` ends a text of this model."""
    found = model.generation_config.eos_token_id
    return frozenset(() if found is None else [int(found)] if isinstance(found, int) else map(int, found))


def _made(causal: CausalModel, eos: frozenset[int]) -> Vocabulary:
    tokenizer = causal.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _unreadable(
            causal, "it is written in Python, and the engine reads those of the library tokenizers (tokenizer.json)"
        )
    n_entries = int(backend.get_vocab_size(with_added_tokens=True))
    specials = [token_id for token_id, token in backend.get_added_tokens_decoder().items() if token.special]
    # the engine wants an end of text even where the model has none: then any special token, which no text holds
    end = min((i for i in eos if i < n_entries), default=min(specials, default=n_entries))
    text = backend.to_str()
    if backend.padding is not None or backend.truncation is not None or end == n_entries:
        text = _plain(text, end if end == n_entries else None)
    try:
        engine = require_llguidance().LLTokenizer(
            text, n_vocab=max(n_entries + (end == n_entries), causal.vocab_size), eos_token=end
        )
    except ValueError as error:
        raise _unreadable(causal, str(error)[:200]) from error
    found = Vocabulary(engine, causal.pieces, eos, end)
    _check_bytes(causal, found, n_entries)
    return found


def _plain(text: str, added: int | None) -> str:
    """A tokenizer.json that cuts nothing off and fills nothing up, and with one more special token where ``added`` is its id."""
    plain = {**json.loads(text), "padding": None, "truncation": None}
    if added is not None:
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        token = {"id": added, "content": "<|end of the grammar|>", **flags, "special": True}
        plain["added_tokens"] = [*plain.get("added_tokens", ()), token]
    return json.dumps(plain, ensure_ascii=False)


def _check_bytes(causal: CausalModel, found: Vocabulary, n_entries: int) -> None:
    """Refuse a vocabulary whose tokens are other bytes to the engine than to the decoder of the tokenizer."""
    engine, pieces = found.engine, found.pieces
    for token_id in range(0, n_entries, max(n_entries // _COMPARED, 1)):
        piece, read = pieces.piece(token_id), engine.decode_bytes([token_id])
        # what the engine takes for special, or cannot be (byte 255 marks those), it never lets follow
        if read and pieces.exact and not (piece.special or engine.is_special_token(token_id)) and read != piece.bytes:
            raise _unreadable(causal, f"token {token_id} is {piece.bytes!r} to its decoder, and {read!r} to the engine")
    if not pieces.exact:
        raise _unreadable(causal, "what bytes its tokens stand for cannot be told from its decoder")


def _unreadable(causal: CausalModel, why: str) -> UsageError:
    return UsageError(
        f"the tokenizer of {causal.name} ({type(causal.tokenizer).__name__}) cannot be held to a grammar",
        why=why,
        fix="leave the grammar out, or take a model with a byte-level or byte-fallback tokenizer.json",
    )
