"""What passed between a client and a server: one :class:`Exchange` a run, and :class:`Scrape`, readings taken beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FAULTS", "IN_ONE_PIECE", "LABELS", "STAMPS", "Exchange", "Scrape"]

LABELS = ("exact", "counted", "coarse", "ends")
"""How much is told of the tokens: each of them; how many are in each chunk; not even that; nor when the chunks between the first
and the last came.

Of an ``exact`` trace every token has its own row, with its text, its id or its log-probability. Of a ``counted`` one every token
has a row, be it a bare one, and the text of a chunk stands with one of its tokens. Of a ``coarse`` one a row is a chunk that has
text, whatever the number of tokens in it. ``ends`` is what results of another tool may be: two rows, for the first and the last
chunk.
"""

STAMPS = ("kernel", "read")
"""Who stamped the bytes as they came: the kernel, or the process that read them."""

FAULTS = (
    "http_error",
    "error_event",
    "no_done",
    "cut_short",
    "reset",
    "malformed",
    "timeout",
    "refused",
    "tls",
    "not_json",
    "redirect",
    "too_long",
    "client_died",
)
"""What can go wrong with a request: a status that is no success; an error in the middle of the stream; the stream's last word,
``[DONE]`` or a finish reason, is missing, the answer is whole; the stream ended in the middle; the connection was broken off; an
event that is none; nothing came for too long; no connection; no TLS; what came is no answer of a model; the answer is elsewhere;
more came than one request may bring; the process that had sent the request died, which is no fault of the server's."""

IN_ONE_PIECE = {"came": "in one piece"}
"""What stands in ``server`` of an answer that was no event stream, although one was asked for: no moment of a token was seen."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer, on the host clock since the tape's origin; see :data:`~tokentape.data.schema.EXCHANGE_COLUMNS`.

    ``run`` is the number of the run, -1 before it has one. When the first byte of the request was handed over is the run's
    ``start_ns``. What was not seen is None.
    """

    run: int = -1
    scheduled_ns: int | None = None
    connect_ns: int | None = None
    connected_ns: int | None = None
    sent_ns: int | None = None
    first_byte_ns: int | None = None
    ended_ns: int | None = None
    status: int | None = None
    attempt: int = 1
    retry_of: int | None = None
    label: str | None = None
    fault: str | None = None
    error: str | None = None
    stamps: str | None = None
    finish: str | None = None
    model: str | None = None
    request_id: str | None = None
    n_prompt: int | None = None
    n_completion: int | None = None
    n_reasoning: int | None = None
    n_cached: int | None = None
    usage: Mapping[str, Any] | None = None
    server: Mapping[str, Any] | None = None
    process: int | None = None
    conversation: str | None = None
    turn: int | None = None

    @property
    def streamed(self) -> bool:
        """Whether the answer came as a stream. Of another one no time to a first token is known, and no gap."""
        return not IN_ONE_PIECE.items() <= (self.server or {}).items()


@dataclass(frozen=True, slots=True)
class Scrape:
    """One reading of gauges and counters: it was asked for at ``began_ns`` and there at ``ended_ns``.

    ``source`` is ``"server"``, or ``"client 0"``, ``"client 1"``, ... ``values`` are numbers by name; of a server the names of its
    metrics with their labels, as they came.
    """

    source: str
    began_ns: int
    ended_ns: int
    values: Mapping[str, float] = field(default_factory=dict)
