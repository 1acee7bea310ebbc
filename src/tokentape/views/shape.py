"""A trace as plain rows to draw: the one preparation that the views share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokentape.study.control import overruled
from tokentape.study.metrics import token_steps, ttft_ns
from tokentape.study.served_reads import told_gaps_ns
from tokentape.study.times import plain_values
from tokentape.views.drawing import drawn_text, drawn_tokens, quoted
from tokentape.views.learned import with_learned
from tokentape.views.units import ABSENT

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Piece, Trace

__all__ = ["Candidate", "TokenRow", "name_alone", "plain_columns", "token_name", "token_names", "token_rows"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of the model's most likely tokens at a position, drawn out of context."""

    name: str
    id: int
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One token. ``name`` is how it is drawn; ``gap_ns`` for the first token is the time to first token, and None between tokens
    that came in one read; ``wanted`` is the token that was overruled, None where none was.
    """

    index: int
    position: int
    step: int
    name: str
    id: int | None
    gap_ns: int | None
    logprob: float | None
    entropy: float | None
    rank: int | None
    rules_logprob: float | None
    forced: bool
    wanted: str | None
    allowed: int | None
    removed: float | None
    candidates: tuple[Candidate, ...]


def token_rows(trace: Trace, tape: Tape) -> list[TokenRow]:
    """The tokens of a trace, in order."""
    columns = plain_columns(trace.tokens)
    n = len(columns["position"])
    gaps: list[int | None] = [ttft_ns(trace), *told_gaps_ns(trace)] if n else []
    names = token_names(trace, tape)
    pieces = with_learned(tape.pieces, [trace])
    candidates = _candidates(trace, pieces)
    steps = token_steps(trace)
    parted = overruled(trace)
    return [
        TokenRow(
            index=i,
            position=columns["position"][i],
            step=steps[i],
            name=names[i],
            id=columns["id"][i],
            gap_ns=gaps[i],
            logprob=columns["logprob"][i],
            entropy=columns["entropy"][i],
            rank=columns["rank"][i],
            rules_logprob=columns["rules_logprob"][i],
            forced=bool(columns["forced"][i]),
            wanted=name_alone(columns["wanted"][i], pieces) if parted[i] else None,
            allowed=columns["allowed"][i],
            removed=columns["removed"][i],
            candidates=candidates[i],
        )
        for i in range(n)
    ]


def plain_columns(columns: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Masked arrays as lists, None where null."""
    return {name: plain_values(column) for name, column in columns.items()}


def token_name(token_id: int | None, drawn: str | None, pieces: Mapping[int, Piece]) -> str:
    """How a token is shown: its text between quotes, a special token by its own name, else its id."""
    piece = None if token_id is None else pieces.get(token_id)
    if piece is not None and piece.special and piece.token:
        return drawn_text(piece.token)
    if drawn is not None:
        return quoted(drawn)
    return ABSENT if token_id is None else f"#{token_id}"


def name_alone(token_id: int, pieces: Mapping[int, Piece]) -> str:
    """How a token is shown that stands by itself."""
    piece = pieces.get(token_id)
    drawn = drawn_tokens([piece.bytes])[0] if piece is not None and piece.bytes else None
    return token_name(token_id, drawn, pieces)


def token_names(trace: Trace, tape: Tape) -> list[str]:
    """How each token of a trace is shown, in its place."""
    ids = plain_columns({"id": trace.tokens["id"]})["id"]
    drawn = drawn_tokens(trace.token_bytes)
    return [token_name(token_id, text, tape.pieces) for token_id, text in zip(ids, drawn, strict=True)]


def _candidates(trace: Trace, pieces: Mapping[int, Piece]) -> list[tuple[Candidate, ...]]:
    ids, logprobs = trace.candidates.ids.tolist(), trace.candidates.logprob.tolist()
    names: dict[int, str] = {}
    rows = []
    for row_ids, row_logprobs in zip(ids, logprobs, strict=True):
        pairs = [(i, p) for i, p in zip(row_ids, row_logprobs, strict=True) if i is not None]
        for token_id, _ in pairs:
            if token_id not in names:
                names[token_id] = name_alone(token_id, pieces)
        rows.append(tuple(Candidate(names[i], i, p) for i, p in pairs))
    return rows
