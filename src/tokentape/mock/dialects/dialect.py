"""What a dialect decides; what several of them have alike is in :mod:`tokentape.mock.dialects.parts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tokentape.mock.asked import CHAT, Asked, Refused
from tokentape.mock.script import Script
from tokentape.mock.telling import Chunk, finish_of, n_tokens_of

__all__ = ["Dialect", "Json", "Message", "Reply"]

Json = dict[str, Any]


@dataclass(slots=True)
class Message:
    """One message of a stream: a JSON object, or ``raw`` text that may be anything.

    ``kind`` is role, text, finish, usage, done, error or other; ``n_tokens`` the tokens that it has; ``n_beats`` the
    beats of the script since the message before. A ``joined`` message is sent in one piece with the one before.
    """

    payload: Json | None
    kind: str
    after_us: float = 0.0
    choice: int | None = None
    n_tokens: int = 0
    raw: str | None = None
    joined: bool = False
    n_beats: int = 0
    only_bytes: int | None = None
    """So many bytes of it are sent, and then it ends."""
    ends: str | None = None
    """No message, but the end: hold (nothing comes any more), cut, reset."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: what was asked, what the script says, and the names in it."""

    asked: Asked
    script: Script
    model: str
    id: str
    created: int

    @property
    def n_prompt(self) -> int:
        return len(self.asked.prompt)

    @property
    def n_tokens(self) -> int:
        """Tokens of one choice."""
        return n_tokens_of(self.script, self.asked)

    @property
    def finish(self) -> str | None:
        return finish_of(self.script, self.asked)


class Dialect:
    """The form of one server's answers; the four differ by what they override."""

    name: ClassVar[str]
    early_head: ClassVar[bool] = True
    """Whether the head of a stream goes out before there is a first message."""
    ends_with_done: ClassVar[bool] = True
    names_itself: ClassVar[bool] = False
    """Whether an answer names the model that is served, whatever name was asked for."""
    server: ClassVar[str] = "uvicorn"
    routes: ClassVar[tuple[str, ...]] = ("/v1/completions", CHAT)
    stream_type: ClassVar[str] = "text/event-stream; charset=utf-8"

    def refusal(self, route: str, body: Mapping[str, Any], model: str) -> Refused | None:
        """Why a request is refused, where it is."""
        return None

    def taken(self, asked: Asked) -> Asked:
        """What of a request is honoured: fields that are ignored without a word have no effect."""
        return asked

    def begin(self, reply: Reply) -> list[Message]:
        """Messages that come before the first token."""
        return []

    def told(self, reply: Reply, chunk: Chunk) -> list[Message]:
        """The messages of a chunk."""
        raise NotImplementedError

    def end(self, reply: Reply) -> list[Message]:
        """Messages after the last token, but for [DONE]."""
        return []

    def done(self, reply: Reply) -> bool:
        """Whether the stream says [DONE]."""
        return self.ends_with_done

    def whole(self, reply: Reply, chunks: Sequence[Chunk]) -> Json:
        """The answer in one piece."""
        raise NotImplementedError

    def error(self, status: int, message: str, parameter: str | None = None) -> Json:
        """The body of an HTTP error."""
        raise NotImplementedError

    def error_event(self, message: str) -> Json:
        """The JSON of an error in the middle of a stream."""
        return self.error(500, message)

    def models(self, model: str, created: int) -> Json:
        """What ``/v1/models`` says."""
        return {"object": "list", "data": [{"id": model, "object": "model", "created": created, "owned_by": self.name}]}

    def extra_head(self, request_id: str | None) -> list[tuple[str, str]]:
        """Header fields beside those that every answer has."""
        return []
