"""An answer as the bytes of HTTP/1.1 and the moments at which they are sent, and the faults of that."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from email.utils import formatdate
from http import HTTPStatus

from tokentape.mock.event_text import Piece
from tokentape.mock.faults import Fault

__all__ = ["Act", "Head", "framed", "whole"]

_MOST_PIECES = 2_000
"""Of an answer whose length is told beforehand; one that is longer is cut off there."""


@dataclass(slots=True)
class Act:
    """What the server does, ``after_us`` after what it did before: it sends bytes, or it ends.

    ``ends``: keep (the connection waits for another request), close, reset, hold (nothing is done any more).
    """

    after_us: float
    data: bytes
    kind: str
    n_tokens: int = 0
    n_messages: int = 0
    n_beats: int = 0
    choice: int | None = None
    ends: str | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """Status and header fields of an answer."""

    status: int
    content_type: str
    server: str = "uvicorn"
    extra: tuple[tuple[str, str], ...] = ()

    def data(self, more: Iterable[tuple[str, str]], version: str = "HTTP/1.1") -> bytes:
        """The head as bytes, with more fields."""
        known = {status.value: status.phrase for status in HTTPStatus}
        fields = [
            ("date", formatdate(usegmt=True)),
            ("server", self.server),
            ("content-type", self.content_type),
            *self.extra,
            *more,
        ]
        lines = [f"{version} {self.status} {known.get(self.status, 'Unknown')}", *(f"{k}: {v}" for k, v in fields)]
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1", "replace")


def whole(
    head: Head, body: bytes, faults: Sequence[Fault] = (), after_us: float = 0.0, n_tokens: int = 0
) -> Iterator[Act]:
    """An answer in one piece."""
    piece = Piece(after_us, body, "whole", n_tokens)
    return framed(head, iter([piece]), [*faults, Fault("length")], early=False)


def framed(head: Head, pieces: Iterator[Piece], faults: Sequence[Fault], *, early: bool) -> Iterator[Act]:
    """The acts of an answer: its head, ``early`` or together with the first piece, the pieces, its end."""
    by_name = {fault.name: fault for fault in faults}
    if "content_type" in by_name:
        head = replace(head, content_type=str(by_name["content_type"]["type"]))
    more: list[tuple[str, str]] = []
    if "gzip" in by_name:
        pieces = _compressed(pieces)
        more.append(("content-encoding", "gzip"))
    if "no_keep" in by_name:
        more.append(("connection", "close"))
    if "http10" in by_name:
        acts = _bare(pieces)
        first = head.data(more, "HTTP/1.0")
    elif "length" in by_name:
        listed = [piece for _, piece in zip(range(_MOST_PIECES), pieces, strict=False)]
        length = sum(len(piece.data) if piece.declared is None else piece.declared for piece in listed)
        first = head.data([*more, ("content-length", str(length))])
        acts = _bare(iter(listed), keep="no_keep" not in by_name)
    else:
        first = head.data([*more, ("transfer-encoding", "chunked")])
        split = by_name.get("split_frame")
        acts = _chunked(pieces, None if split is None else split.us(), keep="no_keep" not in by_name)
    return _headed(first, acts, by_name, early=early)


def _headed(data: bytes, acts: Iterator[Act], by_name: dict[str, Fault], *, early: bool) -> Iterator[Act]:
    first = next(acts)
    early = early or first.ends is not None  # a head at the moment of a reset might be lost with it
    slow = by_name["slow_head"].us() if "slow_head" in by_name else 0.0
    waits = (0.0 if early else first.after_us) + slow
    n_beats = 0 if early else first.n_beats
    rest = replace(first, after_us=max(first.after_us - slow, 0.0) if early else 0.0, n_beats=first.n_beats - n_beats)
    if "trickle" in by_name:
        gap = by_name["trickle"].us()
        for place in range(len(data)):
            yield Act(gap if place else waits, data[place : place + 1], "head", n_beats=0 if place else n_beats)
    else:
        yield Act(waits, data, "head", n_beats=n_beats)
    yield rest
    yield from acts


def _chunked(pieces: Iterator[Piece], split_us: float | None, *, keep: bool) -> Iterator[Act]:
    for piece in pieces:
        if piece.ends is not None:
            yield _ending(piece)
            return
        size = len(piece.data) if piece.declared is None else piece.declared
        opening, closing = b"%x\r\n" % size, b"\r\n" if piece.declared is None else b""
        if split_us is None:
            yield _act(piece, opening + piece.data + closing)
        else:
            yield Act(piece.after_us, opening, "part", n_beats=piece.n_beats)
            yield replace(_act(piece, piece.data), after_us=split_us, n_beats=0)
            yield Act(split_us, closing, "part")
    yield Act(0.0, b"0\r\n\r\n", "end", ends="keep" if keep else "close")


def _bare(pieces: Iterator[Piece], *, keep: bool = False) -> Iterator[Act]:
    for piece in pieces:
        if piece.ends is not None:
            yield _ending(piece)
            return
        yield _act(piece, piece.data)
    yield Act(0.0, b"", "end", ends="keep" if keep else "close")


def _act(piece: Piece, data: bytes) -> Act:
    return Act(piece.after_us, data, piece.kind, piece.n_tokens, piece.n_messages, piece.n_beats, piece.choice)


def _ending(piece: Piece) -> Act:
    ends = {"cut": "close"}.get(piece.ends or "", piece.ends)
    return Act(piece.after_us, b"", "end", n_beats=piece.n_beats, ends=ends)


def _compressed(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Each piece compressed and flushed, so that it can be read when it comes."""
    packer = zlib.compressobj(wbits=31)
    held: Piece | None = None
    for piece in pieces:
        if held is not None:
            yield replace(held, data=packer.compress(held.data) + packer.flush(zlib.Z_SYNC_FLUSH))
        held = piece
        if piece.ends is not None:
            yield piece
            return
    if held is not None:
        yield replace(held, data=packer.compress(held.data) + packer.flush())
