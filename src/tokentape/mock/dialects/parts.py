"""The parts of answers that several dialects have alike: log-probabilities in two styles, usage, tool calls, whole messages."""

from __future__ import annotations

from collections.abc import Sequence

from tokentape.mock.dialects.dialect import Json, Reply
from tokentape.mock.telling import Chunk
from tokentape.mock.vocabulary import Token, decoded, spelling

__all__ = [
    "all_tokens",
    "by_choice",
    "chat_logprobs",
    "data_of",
    "legacy_logprobs",
    "message_of",
    "object_name",
    "prompt_text",
    "text_of",
    "together",
    "tool_calls",
    "usage",
]


def usage(reply: Reply, n_completion: int) -> dict[str, int]:
    """Tokens of the prompt, of the answer, and of both."""
    return {
        "prompt_tokens": reply.n_prompt,
        "total_tokens": reply.n_prompt + n_completion,
        "completion_tokens": n_completion,
    }


def object_name(reply: Reply, *, whole: bool) -> str:
    """The ``object`` that an answer, or a message of its stream, says it is."""
    if not reply.asked.chat:
        return "text_completion"
    return "chat.completion" if whole else "chat.completion.chunk"


def readable(data: bytes) -> str:
    """The text of one token alone: what is no whole character becomes U+FFFD."""
    return data.decode("utf-8", "replace")


def _named(token_id: int, data: bytes, as_id: bool) -> str:
    return f"token_id:{token_id}" if as_id else readable(data)


def legacy_logprobs(reply: Reply, chunk: Chunk, *, chosen_first: bool, offsets: bool) -> Json | None:
    """Log-probabilities as ``/v1/completions`` has them: four lists, one entry a token. None where none were asked for.

    With ``chosen_first`` the token itself is the first of its candidates, beside the ``n_top`` likeliest. Without
    ``offsets`` they are -1.
    """
    as_ids, n_top = reply.asked.tokens_as_ids, reply.asked.n_top
    if n_top is None:
        return None
    found: Json = {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}
    offset = chunk.n_characters
    for token, text in zip(chunk.tokens, chunk.texts, strict=True):
        name = _named(token.id, token.data, as_ids)
        found["text_offset"].append(offset if offsets else -1)
        found["token_logprobs"].append(token.logprob)
        found["tokens"].append(name)
        top = {name: token.logprob} if chosen_first else {}
        for other, logprob in token.candidates(n_top):
            top.setdefault(_named(other, data_of(token, other), as_ids), logprob)
        found["top_logprobs"].append(top)
        offset += len(text)
    return found


def chat_logprobs(reply: Reply, tokens: Sequence[Token], *, true_bytes: bool) -> Json | None:
    """Log-probabilities as the chat has them: an entry a token, with its bytes. None where none were asked for.

    Without ``true_bytes`` they are those of the readable text, so U+FFFD for a part of a character: as vLLM and
    SGLang have it.
    """
    as_ids, n_top = reply.asked.tokens_as_ids, reply.asked.n_top
    if n_top is None:
        return None

    def entry(token_id: int, data: bytes, logprob: float) -> Json:
        shown = data if true_bytes else readable(data).encode()
        return {"token": _named(token_id, data, as_ids), "logprob": logprob, "bytes": list(shown)}

    content = []
    for token in tokens:
        top = [entry(other, data_of(token, other), logprob) for other, logprob in token.candidates(n_top)]
        content.append({**entry(token.id, token.data, token.logprob), "top_logprobs": top})
    return {"content": content}


def data_of(token: Token, token_id: int) -> bytes:
    """The bytes of a candidate of a token."""
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
