"""A request that is ready to be sent: its bytes but for what is secret, and what is known of its answer beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import h11

from tokentape.data.request import Run, TraceHead

__all__ = ["ENDLESS_MORE", "Call", "Limits"]

_S = 1_000_000_000

ENDLESS_MORE = 64
"""A server that sends so many rows more than it should does not end."""
MESSAGES_A_TOKEN, MORE_MESSAGES = 10, 10_000
"""Nor does one that sends more messages than so many a token, and so many more: most have nothing in them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a request waits: to be connected; for the first byte of the answer; between bytes; in all. None: for ever.

    An answer whose bytes say nothing, such as comments, is waited for
    :data:`~tokentape.sources.endpoint.patience.SILENT_TIMES` times as long as one between whose bytes there are none.

    ``most_bytes`` bounds an answer, and ``most_tokens`` the rows of one: a server that goes on and on is cut off.
    """

    connect_ns: int | None = 10 * _S
    first_ns: int | None = 600 * _S
    between_ns: int | None = 120 * _S
    whole_ns: int | None = None
    most_bytes: int = 1 << 30
    most_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One request. It can be sent to another process: the key is put in where it is sent.

    ``target`` is what the request names, ``body`` its JSON. ``heads`` are its sequences, one a choice, ``options`` and ``seed``
    what goes on the tape. ``n_top`` candidates were asked for. ``says_done`` is False for a server that ends its stream without
    ``[DONE]``; None where that is not known.
    """

    target: str
    body: bytes
    heads: tuple[TraceHead, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    n_top: int = 0
    limits: Limits = field(default_factory=Limits)
    says_done: bool | None = None

    @property
    def most_messages(self) -> int | None:
        """Messages after which an answer is taken to be endless."""
        most = self.limits.most_tokens
        return None if most is None else MESSAGES_A_TOKEN * most + MORE_MESSAGES

    @property
    def n(self) -> int:
        """Choices that were asked for."""
        return len(self.heads)

    def request(self, headers: Sequence[tuple[str, str]]) -> tuple[h11.Request, h11.Data, h11.EndOfMessage]:
        """What is sent, with the headers of its host."""
        own = [
            ("Content-Type", "application/json"),
            ("Accept", "text/event-stream, application/json"),
            ("Content-Length", str(len(self.body))),
        ]
        head = h11.Request(method="POST", target=self.target, headers=[*headers, *own])
        return head, h11.Data(data=self.body), h11.EndOfMessage()

    def run(self, prompt_ids: tuple[int, ...] | None = None, n_prompt: int | None = None) -> Run:
        """The run that goes on the tape; with ids of the prompt that the server told, or with their number."""
        heads = self.heads
        if prompt_ids is not None or n_prompt is not None:
            heads = tuple(
                head
                if head.n_prompt is not None
                else TraceHead(
                    head.row, n_prompt if prompt_ids is None else len(prompt_ids), prompt_ids, head.prompt_text
                )
                for head in heads
            )
        return Run(traces=heads, options=self.options, seed=self.seed)
