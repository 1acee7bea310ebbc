"""How messages are written as an event stream, and the faults of writing.

The form is that of the HTML standard, section 9.2: lines end with LF, CR LF or CR, an empty line ends an event.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tokentape.mock.dialects.dialect import Message
from tokentape.mock.faults import Fault

__all__ = ["Piece", "cut_up", "pieces_of"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes that are sent at once, ``after_us`` after those before.

    ``declared`` is the length that its framing tells, where not all of it comes. ``n_messages`` counts the messages
    that it completes.
    """

    after_us: float
    data: bytes
    kind: str
    n_tokens: int = 0
    n_messages: int = 1
    n_beats: int = 0
    choice: int | None = None
    declared: int | None = None
    ends: str | None = None


@dataclass(frozen=True, slots=True)
class _Writing:
    """How a message is written."""

    eol: str = "\n"
    space: str = " "
    ascii: bool = False
    multi_line: bool = False
    fields: bool = False

    def text(self, message: Message, number: int) -> str:
        indent = 1 if self.multi_line else None
        separators = None if self.multi_line else (",", ":")
        data = message.raw
        if data is None:
            data = json.dumps(message.payload, ensure_ascii=self.ascii, separators=separators, indent=indent)
        lines = [f"data:{self.space}{line}" for line in data.split("\n")]
        if self.fields:
            lines = ["event: message", f"id: {number}", "retry: 3000", *lines]
        return "".join(line + self.eol for line in [*lines, ""])


def pieces_of(messages: Iterator[Message], faults: Sequence[Fault]) -> Iterator[Piece]:
    """The messages as bytes, in the pieces in which they are sent."""
    by_name = {fault.name: fault for fault in faults}
    eol = "\r\n" if "crlf" in by_name else "\r" if "cr" in by_name else "\n"
    writing = _Writing(
        eol=eol,
        space="" if "no_space" in by_name else " ",
        ascii="escaped" in by_name,
        multi_line="multi_line" in by_name,
        fields="fields" in by_name,
    )
    comments = by_name.get("comments")
    opening = "\ufeff" if "bom" in by_name else ""
    waiting: Piece | None = None
    for number, message in enumerate(messages):
        if message.ends is not None:
            piece = Piece(message.after_us, b"", message.kind, n_messages=0, ends=message.ends)
        else:
            text = writing.text(message, number)
            if comments is not None and number % max(comments.number("every"), 1) == 0:
                text = f":{comments['text']}{eol}{eol}{text}"
            piece = _piece(message, (opening + text).encode("utf-8", "surrogatepass"))
            opening = ""
        if waiting is not None and message.joined:
            waiting = _together([waiting, piece])
            continue
        if waiting is not None:
            yield waiting
        waiting = piece
        if piece.ends is not None:
            break
    if waiting is not None:
        yield waiting


def _piece(message: Message, data: bytes) -> Piece:
    piece = Piece(message.after_us, data, message.kind, message.n_tokens, 1, message.n_beats, message.choice)
    if message.only_bytes is None or message.only_bytes >= len(data):
        return piece
    return replace(piece, data=data[: message.only_bytes], declared=len(data), kind="part", n_tokens=0, n_messages=0)


def _together(pieces: Sequence[Piece]) -> Piece:
    """Pieces as one, sent when the last is due."""
    kinds = list(dict.fromkeys(piece.kind for piece in pieces))
    return Piece(
        sum(piece.after_us for piece in pieces),
        b"".join(piece.data for piece in pieces),
        "text" if "text" in kinds else kinds[-1],
        sum(piece.n_tokens for piece in pieces),
        sum(piece.n_messages for piece in pieces),
        sum(piece.n_beats for piece in pieces),
        pieces[0].choice,
    )


def cut_up(pieces: Iterator[Piece], faults: Sequence[Fault]) -> Iterator[Piece]:
    """The pieces after the faults of sending: put together, split, one byte at a time."""
    for fault in faults:
        if fault.name == "coalesce":
            pieces = _coalesced(pieces, max(fault.number("n"), 1))
        elif fault.name == "split":
            pieces = _split(pieces, str(fault["where"]), fault.us())
        elif fault.name == "bytewise":
            pieces = _bytewise(pieces, fault.us())
    return pieces


def _coalesced(pieces: Iterator[Piece], n: int) -> Iterator[Piece]:
    held: list[Piece] = []
    for piece in pieces:
        if piece.ends is None and piece.declared is None:
            held.append(piece)
            if len(held) < n:
                continue
        if held:
            yield _together(held)
        held = []
        if piece.ends is not None or piece.declared is not None:
            yield piece
    if held:
        yield _together(held)


def _split(pieces: Iterator[Piece], where: str, us: float) -> Iterator[Piece]:
    for piece in pieces:
        at = _place(piece.data, where)
        if piece.ends is not None or piece.declared is not None or not 0 < at < len(piece.data):
            yield piece
            continue
        yield Piece(piece.after_us, piece.data[:at], "part", n_messages=0, n_beats=piece.n_beats)
        yield replace(piece, after_us=us, data=piece.data[at:], n_beats=0)


def _place(data: bytes, where: str) -> int:
    """Where a piece is split."""
    if where.isdigit():
        return int(where)
    if where == "field":
        return data.find(b"data:") + 2
    if where == "newline":
        return len(data) - 1
    if where == "utf8":
        inside = [place for place, value in enumerate(data) if value & 0xC0 == 0x80]
        return inside[len(inside) // 2] if inside else 0
    return len(data) // 2


def _bytewise(pieces: Iterator[Piece], us: float) -> Iterator[Piece]:
    for piece in pieces:
        if piece.ends is not None or piece.declared is not None or not piece.data:
            yield piece
            continue
        for place in range(len(piece.data) - 1):
            after_us = us if place else piece.after_us
            yield Piece(
                after_us, piece.data[place : place + 1], "part", n_messages=0, n_beats=0 if place else piece.n_beats
            )
        rest = replace(piece, data=piece.data[-1:], n_beats=0) if len(piece.data) > 1 else piece
        yield replace(rest, after_us=us if len(piece.data) > 1 else piece.after_us)
