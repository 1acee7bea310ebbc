"""Scored documents as plain values, for JSON: one object each, tokens included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tokentape.study.scores import DocumentScore
from tokentape.views.shape import plain_columns

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["score_documents"]


def score_documents(found: Sequence[DocumentScore], tape: Tape) -> Iterator[dict[str, Any]]:
    """One object a document, in order: its figures, and its tokens with what is known of them."""
    for one in found:
        yield {**one.as_dict(), "tokens": _tokens(tape.traces[one.trace])}


def _tokens(trace: Trace) -> list[dict[str, Any]]:
    names = ("position", "id", "logprob", "entropy", "rank")
    columns = plain_columns({name: trace.tokens[name] for name in names})
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    likely = zip(trace.candidates.ids.tolist(), trace.candidates.logprob.tolist(), strict=True)
    for row, data, (ids, logprobs) in zip(rows, trace.token_bytes, likely, strict=True):
        row["bytes_hex"] = None if data is None else data.hex()
        row["candidates"] = [[i, p] for i, p in zip(ids, logprobs, strict=True) if i is not None]
    return rows
