"""What a client process tells its parent: plain tuples, many in a frame, over a socket between the two.

A frame is its length in four bytes and a pickle. Both ends are processes of ours, the one started by the other, and nobody else
has the socket.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from tokentape.data.exchange import Exchange
from tokentape.data.request import Run
from tokentape.recorder.tick import LiveRun, Said, Speller, Tick

__all__ = ["Frames", "Outbox", "SharedVocabulary", "packed", "unpacked"]

_LENGTH = struct.Struct("!I")
_FEW_BYTES = 1 << 18

_SAID = (
    "row", "id", "data", "logprob", "entropy", "rank", "rules_logprob", "candidates", "forced", "overshoot",
    "wanted", "allowed", "removed", "effects", "channel",
)  # fmt: skip
_TICK = ("kind", "batch", "start", "end", "context", "n_in", "last", "read", "parsed")
_said_of = attrgetter(*_SAID)
_tick_of = attrgetter(*_TICK)

Piece = tuple[int, str, bytes, bool]


def packed(tick: Tick) -> tuple[Any, ...]:
    """A chunk as plain values."""
    return *_tick_of(tick), tuple(_said_of(one) for one in tick.said or ())


def unpacked(values: Sequence[Any]) -> Tick:
    """The chunk of which :func:`packed` gave the plain values."""
    *of_tick, said = values
    return Tick(**dict(zip(_TICK, of_tick, strict=True)), said=tuple(Said(*one) for one in said))


def framed(value: Any) -> bytes:
    """A value as a frame."""
    body = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Puts the frames together that come over a socket, in pieces of any size."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """The values that are whole now."""
        self._data += data
        found = []
        while len(self._data) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._data)
            end = _LENGTH.size + length
            if len(self._data) < end:
                break
            found.append(pickle.loads(bytes(self._data[_LENGTH.size : end])))
            del self._data[:end]
        return found


class SharedVocabulary:
    """Entries of the vocabulary that any of the client processes has learnt of."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[str, bytes, bool]] = {}

    def learn(self, pieces: Sequence[Piece]) -> None:
        for token_id, text, data, special in pieces:
            self._known.setdefault(token_id, (text, data, special))

    def feed(self, token_id: int) -> bytes:
        """Nothing: what a token adds to the text came with it."""
        return b""

    def piece(self, token_id: int) -> Any:
        """The entry of an id; None where no server has told it."""
        return self._known.get(token_id)


class Outbox:
    """Hears what happens, and hands it on in frames without ever waiting for the reader.

    ``pump()`` is to be called often: it makes a frame of what has come since, and writes as much as the socket takes.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._records: list[tuple[Any, ...]] = []
        self._waiting = bytearray()
        self._spellers: dict[int, Speller | None] = {}
        self._seen: set[int] = set()
        link.setblocking(False)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _FEW_BYTES)

    def begun(self, key: int, live: LiveRun) -> None:
        """See :class:`~tokentape.load.engine.Hearer`."""
        self._spellers[key] = next((one for one in live.spellers if one is not None), None)
        self._records.append(("begun", key, _without_made(live.run), live.start))

    def ticked(self, key: int, ticks: list[Tick]) -> None:
        speller = self._spellers.get(key)
        if speller is not None and (pieces := self._new_pieces(speller, ticks)):
            self._records.append(("pieces", pieces))
        self._records.append(("ticked", key, [packed(tick) for tick in ticks]))

    def ended(self, key: int, reasons: Sequence[str | None], exchange: Exchange) -> None:
        self._spellers.pop(key, None)
        self._records.append(("ended", key, list(reasons), exchange))

    def tell(self, *record: Any) -> None:
        """Anything else."""
        self._records.append(record)

    def pump(self, *, frame: bool = True) -> bool:
        """Go on writing; whether nothing waits any more. Raises OSError where the parent is gone."""
        if frame and self._records:
            self._waiting += framed(self._records)
            self._records = []
        while self._waiting:
            try:
                n_sent = self._link.send(memoryview(self._waiting)[:_FEW_BYTES])
            except BlockingIOError:
                return False
            del self._waiting[:n_sent]
        return True

    def drain(self) -> None:
        """Write all there is, waiting for the reader."""
        self.pump()
        self._link.setblocking(True)
        self._link.sendall(self._waiting)
        self._waiting.clear()

    def _new_pieces(self, speller: Speller, ticks: Sequence[Tick]) -> list[Piece]:
        found: list[Piece] = []
        for tick in ticks:
            for said in tick.said or ():
                for token_id in (said.id, *(one for one, _ in said.candidates or ())):
                    if token_id is None or token_id in self._seen:
                        continue
                    entry = speller.piece(token_id)
                    if entry is not None:
                        self._seen.add(token_id)
                        found.append((token_id, *entry))
        return found


def _without_made(run: Run) -> Run:
    """A run without the ids of a prompt that was made: of what it was made stands in its options."""
    if "prompt_made" not in run.options:
        return run
    return replace(run, traces=tuple(replace(head, prompt_ids=None) for head in run.traces))
