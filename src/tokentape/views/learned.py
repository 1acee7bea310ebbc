"""Vocabulary entries that a served tape shows without naming them.

A server that gives ids, such as vLLM, gives text with the tokens that were chosen, and of their candidates the ids alone; no
vocabulary comes with it. But an id whose text stands on the tape is known: what was chosen here is a candidate there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from tokentape.data.trace import Piece
from tokentape.study.times import plain_values, token_steps

if TYPE_CHECKING:
    from tokentape.data.trace import Trace

__all__ = ["with_learned"]


def with_learned(pieces: Mapping[int, Piece], traces: Iterable[Trace]) -> Mapping[int, Piece]:
    """The entries of a tape, and those that the tokens of its ``traces`` tell, wherever they come, in the same way."""
    found: dict[int, bytes | None] = {}
    for trace in traces:
        if trace.exchange is None or trace.exchange.label != "exact":
            continue
        for token_id, data in _told(trace):
            if token_id not in pieces:
                found[token_id] = data if found.get(token_id, data) == data else None
    known = {token_id: Piece(token_id, None, data, False) for token_id, data in found.items() if data is not None}
    return {**pieces, **known} if known else pieces


def _told(trace: Trace) -> Iterator[tuple[int, bytes]]:
    """Tokens with a text that is surely their own: whole characters, in a message of which no other token's text is held back or
    stands with them, and after a token that held nothing back.
    """
    steps, data = token_steps(trace), trace.token_bytes
    empty = Counter(step for step, own in zip(steps, data, strict=True) if not own)
    before: bytes | None = b" "
    for token_id, step, own in zip(plain_values(trace.tokens["id"]), steps, data, strict=True):
        if token_id is not None and own and before and not empty[step] and _is_text(own):
            yield token_id, own
        before = own


def _is_text(data: bytes) -> bool:
    try:
        return "\N{REPLACEMENT CHARACTER}" not in data.decode()
    except UnicodeDecodeError:
        return False
