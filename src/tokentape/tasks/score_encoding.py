"""A document as token ids, and where its own tokens begin: the boundary between context and continuation, and what comes first.

The boundary is taken as lm-evaluation-harness does (``TemplateLM._encode_pair``): space at the end of the context goes to the
continuation, both are encoded together, and the continuation is what follows as many tokens as the context alone has. Where
the tokenizer merges across the boundary, that is not what was written; it is counted so all the same, and told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokentape.errors import PromptError, UsageError
from tokentape.models.causal import CausalModel
from tokentape.models.pieces import spelling_of
from tokentape.tasks.score_documents import Content, Document

__all__ = ["FIRSTS", "Encoded", "Opening", "encoded", "opening_of"]

FIRSTS = ("bos", "eos", "skip")
"""What the first token of a text without context is conditioned on: the token that opens a sequence, the one that ends a text,
or nothing, so that it is read and not scored."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What stands before a text without context: one of :data:`FIRSTS`, and its id (None with ``"skip"``)."""

    first: str
    id: int | None


@dataclass(frozen=True, slots=True)
class Encoded:
    """The document ``index``, encoded: of ``ids`` the first ``n_given`` are read and not scored.

    ``n_bytes`` and ``n_chars`` count the text that is scored (None for ids without a tokenizer), which begins ``n_skipped``
    bytes behind the begin of the document's text. ``merged`` says that the tokenizer merged across the boundary.
    """

    index: int
    name: str
    ids: tuple[int, ...]
    n_given: int
    given_text: str | None
    n_bytes: int | None
    n_chars: int | None
    n_skipped: int
    merged: bool


def opening_of(causal: CausalModel, first: str | None) -> Opening:
    """What to put first; None asks for BOS, else EOS, else skip. Raises UsageError for a token that the model does not have."""
    if first not in (None, *FIRSTS):
        raise UsageError(f"no such first token: {first!r}", why=f"there are {', '.join(FIRSTS)}", fix="--first bos")
    ids = {"bos": causal.bos_id, "eos": _eos_id(causal), "skip": None}
    if first is None:
        first = next((name for name in ("bos", "eos") if ids[name] is not None), "skip")
    elif first != "skip" and ids[first] is None:
        raise UsageError(
            f"{causal.name} has no {first.upper()} token",
            why="neither its tokenizer nor its config.json names one",
            fix="--first skip reads the first token without scoring it",
        )
    return Opening(first, ids[first])


def _eos_id(causal: CausalModel) -> int | None:
    found = getattr(causal.tokenizer, "eos_token_id", None)
    if found is None:
        found = causal.config.get_text_config(decoder=True).eos_token_id
    first = found[0] if isinstance(found, list | tuple) else found
    return None if first is None else int(first)


def encoded(causal: CausalModel, document: Document, index: int, opening: Opening, bos: bool | None = None) -> Encoded:
    """One document as ids.

    ``bos`` is that of :meth:`~tokentape.models.causal.CausalModel.encode`, for contexts. Raises PromptError for a text that comes
    to no token, and for a context and a text of which one is ids and the other is not.
    """
    context = document.context
    if isinstance(context, str) and isinstance(document.text, str):
        text = context[len(context.rstrip()) :] + document.text
        context = context.rstrip()
        return (
            _behind(causal, document, index, context, text, bos)
            if context
            else _alone(causal, document, index, opening, text)
        )
    if context is not None and isinstance(context, str) != isinstance(document.text, str) and len(context):
        raise PromptError(
            f"{document.name} is text on one side of the boundary and token ids on the other",
            why="a text cannot be cut where ids end",
            fix="give both as text, or both as ids",
        )
    if context:
        ids = (*_ids(causal, document, context, None), *_ids(causal, document, document.text, None))
        return _counted(causal, document, index, ids, len(context), None, None)
    return _alone(causal, document, index, opening, document.text)


def _behind(causal: CausalModel, document: Document, index: int, context: str, text: str, bos: bool | None) -> Encoded:
    given = _ids(causal, document, context, bos)
    whole = _ids(causal, document, context + text, bos)
    merged = whole[: len(given)] != given
    if len(whole) <= len(given):
        raise PromptError(
            f"the continuation of {document.name} comes to no token",
            why="the tokenizer merges it into the last token of the context",
            fix="move the boundary to where a token ends: let the continuation begin at a space",
        )
    ids = (*given, *whole[len(given) :])
    return _counted(causal, document, index, ids, len(given), text, context, merged=merged)


def _alone(causal: CausalModel, document: Document, index: int, opening: Opening, text: Content) -> Encoded:
    ids = _ids(causal, document, text, False if isinstance(text, str) else None)
    written = text if isinstance(text, str) else None
    if opening.id is not None:
        ids = ids if ids[0] == opening.id else (opening.id, *ids)
        if len(ids) > 1:
            return _counted(causal, document, index, ids, 1, written, "")
    if len(ids) < 2:
        raise PromptError(
            f"{document.name} is a single token",
            why="there is nothing before it to predict it from",
            fix="--first bos or --first eos; or give it a context",
        )
    return _counted(causal, document, index, ids, 1, written, None, skipped=True)


def _ids(causal: CausalModel, document: Document, content: Content, bos: bool | None) -> tuple[int, ...]:
    """Ids of a text or ids, checked; errors name the document."""
    try:
        return tuple(causal.encode(content, bos=bos))
    except PromptError as error:
        if isinstance(content, str) and _nothing(causal, content):
            raise PromptError(
                f"{document.name} comes to no token",
                why=f"the tokenizer of {causal.name} makes nothing of {content[:40]!r}",
                fix="give a text that it knows",
            ) from error
        raise PromptError(f"{document.name}: {error.what}", why=error.why, fix=error.fix) from error


def _nothing(causal: CausalModel, text: str) -> bool:
    """Whether the tokenizer, if there is one, leaves nothing of a text."""
    return causal.tokenizer is not None and not causal.tokenizer(text, add_special_tokens=False)["input_ids"]


def _counted(
    causal: CausalModel,
    document: Document,
    index: int,
    ids: Sequence[int],
    n_given: int,
    text: str | None,
    given_text: str | None,
    *,
    merged: bool = False,
    skipped: bool = False,
) -> Encoded:
    """With the bytes and characters of what is scored: of the text as it was written, less a token that is skipped."""
    lost = (_spelled(causal, ids[:n_given], ()) if skipped else None) or b""
    if skipped and causal.tokenizer is not None:
        given_text = lost.decode(errors="replace")
    n_bytes: int | None = None
    n_chars: int | None = None
    if text is not None:
        n_bytes, n_chars = len(text.encode()) - len(lost), len(text) - len(lost.decode(errors="ignore"))
    elif (spelled := _spelled(causal, ids[n_given:], ids[:n_given])) is not None:
        n_bytes, n_chars = len(spelled), len(spelled.decode(errors="replace"))
    return Encoded(index, document.name, tuple(ids), n_given, given_text, n_bytes, n_chars, len(lost), merged)


def _spelled(causal: CausalModel, ids: Sequence[int], before: Sequence[int]) -> bytes | None:
    spelling: Any = spelling_of(causal.tokenizer, before)
    return None if spelling is None else b"".join(spelling.feed_all(ids)) + spelling.finish()
