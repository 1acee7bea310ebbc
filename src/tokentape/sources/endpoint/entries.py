"""Tokens as log-probabilities tell them, in the forms that servers give them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokentape.recorder.fitting import unicode_text

__all__ = [
    "LARGEST_ID",
    "Entry",
    "Malformed",
    "Top",
    "entries_of",
    "entry_of",
    "is_id",
    "list_of",
    "object_of",
    "text_of",
]

LARGEST_ID = (1 << 31) - 1
LEAST_LOGPROB = -1e4
"""Below it is no probability: vLLM writes -9999 for minus infinity."""
ROUNDING = 1e-6
"""A log-probability may be above 0 by so much."""

_NAMED_ID = "token_id:"
"""How vLLM writes a token where it is asked to return tokens as ids."""

Top = tuple[tuple[str | None, int | None, float, bytes | None], ...]
"""The likeliest tokens: ``(text, id, log-probability, bytes)``."""


class Malformed(ValueError):
    """A message is not what a server of this kind may send; the text says where."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One token as log-probabilities tell it. ``absurd`` is whether the server gave a log-probability that is none."""

    token: str | None
    id: int | None
    data: bytes | None
    logprob: float | None
    top: Top = ()
    absurd: bool = False


def entries_of(logprobs: Mapping[str, Any]) -> tuple[Entry, ...] | None:
    """The tokens of a choice; None where none are told. Raises :class:`Malformed`."""
    if "content" in logprobs or "tokens" not in logprobs:
        content = logprobs.get("content")
        return None if content is None else tuple(entry_of(object_of(one, "a token")) for one in list_of(content))
    tokens = list_of(logprobs["tokens"])
    values = list_of(logprobs.get("token_logprobs"))
    tops = list_of(logprobs.get("top_logprobs"))
    if values and len(values) != len(tokens):
        raise Malformed("tokens and token_logprobs differ in length")
    found = []
    for i, token in enumerate(tokens):
        if not isinstance(token, str):
            raise Malformed("a token is no text")
        text, token_id = _named(unicode_text(token))
        logprob, absurd = _logprob(values[i] if values else None)
        top, none = _legacy_top(tops[i] if i < len(tops) else None)
        found.append(Entry(text, token_id, _encoded(text), logprob, top, absurd or none))
    return tuple(found)


def entry_of(one: Mapping[str, Any]) -> Entry:
    """A token in the form of the chats. Raises :class:`Malformed`."""
    token, token_id, data = _token(one)
    logprob, absurd = _logprob(one.get("logprob"))
    top = []
    for other in list_of(one.get("top_logprobs")):
        other = object_of(other, "a candidate")
        value, none = _logprob(other.get("logprob"))
        absurd = absurd or none
        if value is not None:
            text, other_id, other_data = _token(other)
            top.append((text, other_id, value, other_data))
    return Entry(token, token_id, data, logprob, tuple(top), absurd)


def _legacy_top(top: Any) -> tuple[Top, bool]:
    """The candidates, and whether one of them has a log-probability that is none."""
    found, absurd = [], False
    for token, value in object_of({} if top is None else top, "top_logprobs").items():
        logprob, none = _logprob(value)
        absurd = absurd or none
        if logprob is not None:
            text, token_id = _named(unicode_text(token))
            found.append((text, token_id, logprob, _encoded(text)))
    return tuple(found), absurd


def _token(one: Mapping[str, Any]) -> tuple[str | None, int | None, bytes | None]:
    """Text, id and bytes of a token; the bytes of its text where none are given."""
    text, named = _named(text_of(one, "token"))
    token_id = one.get("id")
    if token_id is not None and not is_id(token_id):
        raise Malformed("the id of a token is no id")
    data = one.get("bytes")
    if named is not None or data is None:
        return text, token_id if token_id is not None else named, _encoded(text)
    if not isinstance(data, list) or not all(type(byte) is int and 0 <= byte < 256 for byte in data):
        raise Malformed("the bytes of a token are no list of bytes")
    return text, token_id, bytes(data)


def _named(token: str | None) -> tuple[str | None, int | None]:
    """Text and id of a token that may be written as its id."""
    if token is not None and token.startswith(_NAMED_ID):
        digits = token.removeprefix(_NAMED_ID)
        if digits.isascii() and digits.isdigit() and len(digits) <= 10 and int(digits) <= LARGEST_ID:
            return None, int(digits)
    return token, None


def _encoded(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _logprob(value: Any) -> tuple[float | None, bool]:
    """A log-probability, None where there is none; and whether what was given can be none. Raises :class:`Malformed`."""
    if value is None:
        return None, False
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Malformed("a log-probability is no number")
    if isinstance(value, float) and (math.isnan(value) or value == -math.inf):
        return None, False  # of a token that sampling has ruled out
    if not LEAST_LOGPROB <= value <= ROUNDING:
        return None, True
    return float(value), False


def is_id(value: Any) -> bool:
    """Whether a value can be the id of a token."""
    return type(value) is int and 0 <= value <= LARGEST_ID


def object_of(value: Any, what: str) -> Mapping[str, Any]:
    """The value, an object. Raises :class:`Malformed`."""
    if not isinstance(value, dict):
        raise Malformed(f"{what} is no object")
    return value


def list_of(value: Any) -> list[Any]:
    """The value, a list; an empty one for null. Raises :class:`Malformed`."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise Malformed(f"a list is wanted, and {type(value).__name__} came")
    return value


def text_of(found: Mapping[str, Any], name: str) -> str | None:
    """The text of that name, None where there is none. Raises :class:`Malformed`."""
    value = found.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise Malformed(f"{name} is no text")
    return unicode_text(value)
