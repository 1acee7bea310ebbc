"""What a server sent and no tape can hold, cut down to what one can: lone surrogates, numbers beyond 64 bits, NaN in a document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from tokentape.data.exchange import Exchange
from tokentape.data.json_text import as_json
from tokentape.data.request import Run
from tokentape.errors import UsageError

__all__ = ["fitting_exchange", "fitting_run", "holds", "is_fitting_piece", "unicode_text", "words_of"]

_MOST = 1 << 63


def unicode_text(text: str) -> str:
    """A text without lone surrogates, which no file can hold: U+FFFD stands for one."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def words_of(error: Exception) -> str:
    """What an error says, on one line that a tape can hold; its type where it says nothing."""
    return unicode_text(" ".join(str(error).split())) or type(error).__name__


def holds(number: int) -> bool:
    """Whether a tape can hold an integer: it has 64 bits."""
    return -_MOST <= number < _MOST


def fitting_exchange(one: Exchange) -> Exchange:
    """What passed, without the values that do not fit; a text keeps what is readable of it."""
    return replace(one, **{each.name: _fitting(getattr(one, each.name)) for each in fields(one)})


def fitting_run(run: Run) -> Run:
    """A run without the options, words and ids of prompts that do not fit."""
    options = {name: value for name, value in run.options.items() if _is_json({name: value})}
    heads = tuple(
        replace(
            head,
            n_prompt=_fitting(head.n_prompt),
            prompt_ids=head.prompt_ids if _is_json(head.prompt_ids) and _are_ids(head.prompt_ids) else None,
            prompt_text=_fitting(head.prompt_text),
        )
        for head in run.traces
    )
    return replace(run, options=options, traces=heads)


def is_fitting_piece(piece: tuple[Any, ...]) -> bool:
    """Whether an entry of the vocabulary can be written: its text is valid, its id has 32 bits."""
    token_id, text, data, _ = piece
    return _fitting(text) == text and isinstance(data, bytes) and 0 <= token_id < 1 << 32


def _fitting(value: Any) -> Any:
    if isinstance(value, str):
        return unicode_text(value)
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if holds(value) else None
    if isinstance(value, Mapping):
        return value if _is_json(dict(value)) else None
    return value


def _are_ids(ids: Any) -> bool:
    return ids is None or all(isinstance(one, int) and 0 <= one < 1 << 32 for one in ids)


def _is_json(value: Any) -> bool:
    try:
        as_json(value, "a value")
    except UsageError:
        return False
    return True
