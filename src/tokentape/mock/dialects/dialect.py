"""What a dialect decides, and what all dialects share: log-probabilities in two styles, usage, tool calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tokentape.mock.asked import CHAT, Asked, Refused
from tokentape.mock.script import Script
from tokentape.mock.telling import Chunk, finish_of, n_tokens_of
from tokentape.mock.vocabulary import Token, decoded, spelling

__all__ = ["Dialect", "Message", "Reply", "chat_logprobs", "legacy_logprobs", "tool_calls", "usage"]

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


def usage(reply: Reply, n_completion: int) -> dict[str, int]:
    """Tokens of the prompt, of the answer, and of both."""
    return {
        "prompt_tokens": reply.n_prompt,
        "total_tokens": reply.n_prompt + n_completion,
        "completion_tokens": n_completion,
    }


def readable(data: bytes) -> str:
    """The text of one token alone: what is no whole character becomes U+FFFD."""
    return data.decode("utf-8", "replace")


def _named(token_id: int, data: bytes, as_id: bool) -> str:
    return f"token_id:{token_id}" if as_id else readable(data)


def legacy_logprobs(reply: Reply, chunk: Chunk, *, chosen_first: bool, offsets: bool) -> Json:
    """Log-probabilities as ``/v1/completions`` has them: four lists, one entry a token.

    With ``chosen_first`` the token itself is the first of its candidates, beside the ``n_top`` likeliest. Without
    ``offsets`` they are -1.
    """
    as_ids, n_top = reply.asked.tokens_as_ids, reply.asked.n_top or 0
    found: Json = {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}
    offset = chunk.n_characters
    for token, text in zip(chunk.tokens, chunk.texts, strict=True):
        name = _named(token.id, token.data, as_ids)
        found["text_offset"].append(offset if offsets else -1)
        found["token_logprobs"].append(token.logprob)
        found["tokens"].append(name)
        top = {name: token.logprob} if chosen_first else {}
        for other, logprob in token.candidates(n_top):
            top.setdefault(_named(other, _data(token, other), as_ids), logprob)
        found["top_logprobs"].append(top)
        offset += len(text)
    return found


def chat_logprobs(reply: Reply, tokens: Sequence[Token], *, true_bytes: bool) -> Json:
    """Log-probabilities as the chat has them: an entry a token, with its bytes.

    Without ``true_bytes`` they are those of the readable text, so U+FFFD for a part of a character: as vLLM and
    SGLang have it.
    """
    as_ids, n_top = reply.asked.tokens_as_ids, reply.asked.n_top or 0

    def entry(token_id: int, data: bytes, logprob: float) -> Json:
        shown = data if true_bytes else readable(data).encode()
        return {"token": _named(token_id, data, as_ids), "logprob": logprob, "bytes": list(shown)}

    content = []
    for token in tokens:
        top = [entry(other, _data(token, other), logprob) for other, logprob in token.candidates(n_top)]
        content.append({**entry(token.id, token.data, token.logprob), "top_logprobs": top})
    return {"content": content}


def _data(token: Token, token_id: int) -> bytes:
    return token.data if token_id == token.id else spelling(token_id)


def tool_calls(reply: Reply, chunk: Chunk) -> list[Json]:
    """The part of a tool call that a chunk has; its first part has the name."""
    if not chunk.first_of_channel:
        return [{"index": 0, "function": {"arguments": chunk.text}}]
    function = {"name": reply.script.tool, "arguments": chunk.text}
    return [{"id": f"call_{reply.id[-8:]}_{chunk.choice}", "type": "function", "index": 0, "function": function}]


def by_choice(reply: Reply, chunks: Sequence[Chunk]) -> list[list[Chunk]]:
    """The chunks of each choice."""
    return [[chunk for chunk in chunks if chunk.choice == choice] for choice in range(reply.asked.n)]


def text_of(chunks: Sequence[Chunk], channel: str | None = None) -> str:
    """The text of a choice, or of one channel of it."""
    return "".join(chunk.text for chunk in chunks if channel is None or chunk.channel == channel)


def message_of(reply: Reply, chunks: Sequence[Chunk], reasoning: str) -> Json:
    """The message of a choice in an answer of one piece; its reasoning stands in the field ``reasoning``."""
    message: Json = {"role": "assistant", "content": text_of(chunks, "text")}
    if thought := text_of(chunks, "reasoning"):
        message[reasoning] = thought
    if call := text_of(chunks, "tool_call"):
        function = {"name": reply.script.tool, "arguments": call}
        message["tool_calls"] = [
            {"id": f"call_{reply.id[-8:]}_{chunks[0].choice}", "type": "function", "function": function}
        ]
    return message


def all_tokens(chunks: Sequence[Chunk]) -> list[Token]:
    """The tokens of a choice."""
    return [token for chunk in chunks for token in chunk.tokens]


def together(chunks: Sequence[Chunk]) -> Chunk:
    """All of a choice as one chunk."""
    tokens = tuple(all_tokens(chunks))
    texts = tuple(text for chunk in chunks for text in chunk.texts)
    return Chunk(0.0, chunks[0].choice, tokens, texts, "text", 0, 0, True, True, True)


def prompt_text(reply: Reply) -> str:
    """The prompt as far as its ids have a spelling."""
    return decoded([spelling(token_id) for token_id in reply.asked.prompt])
