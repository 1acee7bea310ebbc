"""vLLM's form, after ``vllm/entrypoints/openai/{completion,chat_completion}/serving.py`` and ``protocol.py`` (2026).

A stream begins with a role message for each choice when the first token is there; the finish reason comes with the
last token; the usage, where it was asked for, in a message of its own without choices; then ``[DONE]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from tokentape.mock.asked import Refused
from tokentape.mock.dialects import parts
from tokentape.mock.dialects.dialect import Dialect, Json, Message, Reply
from tokentape.mock.telling import Chunk

__all__ = ["Vllm"]

_TYPES = {400: "BadRequestError", 404: "NotFoundError", 429: "RateLimitError", 500: "InternalServerError"}


class Vllm(Dialect):
    """vLLM's OpenAI-compatible server."""

    name = "vllm"

    def refusal(self, route: str, body: Mapping[str, Any], model: str) -> Refused | None:
        asked = body.get("model")
        if asked is not None and asked != model:
            return Refused(404, f"The model `{asked}` does not exist.", "model")
        return None

    def told(self, reply: Reply, chunk: Chunk) -> list[Message]:
        if not reply.asked.chat:
            return [self._completion(reply, chunk)]
        opening = (
            [self._role(reply, choice) for choice in range(reply.asked.n)] if chunk.first and not chunk.choice else []
        )
        return [*opening, self._chat(reply, chunk)]

    def _completion(self, reply: Reply, chunk: Chunk) -> Message:
        asked = reply.asked
        choice = {
            "index": chunk.choice,
            "text": chunk.text,
            "logprobs": parts.legacy_logprobs(reply, chunk, chosen_first=True, offsets=True),
            "finish_reason": reply.finish if chunk.last else None,
            "stop_reason": None,
            "prompt_token_ids": list(asked.prompt) if asked.ids and chunk.first else None,
            "token_ids": [token.id for token in chunk.tokens] if asked.ids else None,
        }
        payload = {**self._head(reply), "choices": [choice]}
        if asked.continuous_usage:
            payload["usage"] = parts.usage(reply, chunk.n_after)
        return Message(payload, "text", choice=chunk.choice, n_tokens=len(chunk.tokens))

    def _role(self, reply: Reply, number: int) -> Message:
        delta = {"role": "assistant", "content": ""}
        choice = {"index": number, "delta": delta, "logprobs": None, "finish_reason": None}
        payload = {**self._head(reply), "choices": [choice]}
        if reply.asked.continuous_usage:
            payload["usage"] = parts.usage(reply, 0)
        payload["prompt_token_ids"] = list(reply.asked.prompt) if reply.asked.ids else None
        return Message(payload, "role", choice=number)

    def _chat(self, reply: Reply, chunk: Chunk) -> Message:
        asked = reply.asked
        delta: Json = {"content": chunk.text}
        if chunk.channel == "reasoning":
            delta = {"reasoning": chunk.text}
        elif chunk.channel == "tool_call":
            delta = {"tool_calls": parts.tool_calls(reply, chunk)}
        choice: Json = {
            "index": chunk.choice,
            "delta": delta,
            "logprobs": parts.chat_logprobs(reply, chunk.tokens, true_bytes=False),
            "finish_reason": reply.finish if chunk.last else None,
        }
        if chunk.last:
            choice["stop_reason"] = None
        choice["token_ids"] = [token.id for token in chunk.tokens] if asked.ids else None
        payload = {**self._head(reply), "choices": [choice]}
        if asked.continuous_usage:
            payload["usage"] = parts.usage(reply, chunk.n_after)
        return Message(payload, "text", choice=chunk.choice, n_tokens=len(chunk.tokens))

    def end(self, reply: Reply) -> list[Message]:
        if not reply.asked.usage:
            return []
        return [Message({**self._head(reply), "choices": [], "usage": self._usage(reply)}, "usage")]

    def whole(self, reply: Reply, chunks: Sequence[Chunk]) -> Json:
        asked = reply.asked
        choices = []
        for number, said in enumerate(parts.by_choice(reply, chunks)):
            ids = [token.id for token in parts.all_tokens(said)] if asked.ids else None
            choice: Json = {"index": number}
            if asked.chat:
                message = parts.message_of(reply, said, "reasoning")
                probs = parts.chat_logprobs(reply, parts.all_tokens(said), true_bytes=False)
                choice |= {"message": message, "logprobs": probs}
            else:
                whole = parts.together(said)
                probs = parts.legacy_logprobs(reply, whole, chosen_first=True, offsets=True)
                choice |= {"text": parts.text_of(said), "logprobs": probs}
            choice |= {"finish_reason": reply.finish, "stop_reason": None}
            if not asked.chat:
                choice["prompt_token_ids"] = list(asked.prompt) if asked.ids else None
            choices.append({**choice, "token_ids": ids})
        found = {**self._head(reply, whole=True), "choices": choices, "usage": self._usage(reply)}
        if asked.chat:
            found["prompt_token_ids"] = list(asked.prompt) if asked.ids else None
        return found

    def error(self, status: int, message: str, parameter: str | None = None) -> Json:
        if status == HTTPStatus.UNAUTHORIZED:
            return {"error": "Unauthorized"}
        kind = _TYPES.get(status, HTTPStatus(status).phrase)
        return {"error": {"message": message, "type": kind, "param": parameter, "code": status}}

    def models(self, model: str, created: int) -> Json:
        card = {"id": model, "object": "model", "created": created, "owned_by": "vllm", "root": model, "parent": None}
        return {"object": "list", "data": [{**card, "max_model_len": 32768, "permission": []}]}

    def _usage(self, reply: Reply) -> Json:
        found: Json = dict(parts.usage(reply, reply.n_tokens * reply.asked.n))
        if reply.script.n_cached is not None:
            found["prompt_tokens_details"] = {"cached_tokens": reply.script.n_cached}
        return found

    def _head(self, reply: Reply, *, whole: bool = False) -> Json:
        chat = reply.asked.chat
        return {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{reply.id}",
            "object": parts.object_name(reply, whole=whole),
            "created": reply.created,
            "model": reply.model,
        }
