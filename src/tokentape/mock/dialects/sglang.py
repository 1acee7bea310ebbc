"""SGLang's form, after ``python/sglang/srt/entrypoints/openai/{serving_completions,serving_chat,sse_utils}.py`` (2026).

The head of a stream waits for the first token. In a chat each choice has its role message just before its first
token, ids are not given, and the finish reasons come in messages of their own after all text. The usage, where it was
asked for, has no choices; then ``[DONE]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from tokentape.mock.dialects import parts
from tokentape.mock.dialects.dialect import Dialect, Json, Message, Reply
from tokentape.mock.telling import Chunk

__all__ = ["Sglang"]


class Sglang(Dialect):
    """SGLang's OpenAI-compatible server."""

    name = "sglang"
    early_head = False

    def told(self, reply: Reply, chunk: Chunk) -> list[Message]:
        if not reply.asked.chat:
            return [self._completion(reply, chunk)]
        opening = [self._role(reply, chunk.choice)] if chunk.first else []
        return [*opening, self._chat(reply, chunk)]

    def _completion(self, reply: Reply, chunk: Chunk) -> Message:
        asked = reply.asked
        choice: Json = {
            "index": chunk.choice,
            "text": chunk.text,
            "logprobs": parts.legacy_logprobs(reply, chunk, chosen_first=False, offsets=False)
            if chunk.tokens
            else None,
            "finish_reason": reply.finish if chunk.last else None,
            "matched_stop": None,
        }
        if asked.ids:
            choice["token_ids"] = [token.id for token in chunk.tokens]
            if chunk.first:
                choice["prompt_token_ids"] = list(asked.prompt)
        payload = {**self._head(reply), "choices": [choice]}
        payload["usage"] = self._usage(reply, chunk.n_after) if asked.continuous_usage else None
        return Message(payload, "text", choice=chunk.choice, n_tokens=len(chunk.tokens))

    def _role(self, reply: Reply, number: int) -> Message:
        return Message(self._part(reply, number, {"role": "assistant", "content": ""}), "role", choice=number)

    def _chat(self, reply: Reply, chunk: Chunk) -> Message:
        asked = reply.asked
        delta: Json = {"content": chunk.text}
        if chunk.channel == "reasoning":
            delta = {"reasoning_content": chunk.text}
        elif chunk.channel == "tool_call":
            delta = {"content": None, "tool_calls": parts.tool_calls(reply, chunk)}
        logprobs = parts.chat_logprobs(reply, chunk.tokens, true_bytes=False) if chunk.tokens else None
        payload = self._part(reply, chunk.choice, delta, logprobs=logprobs)
        if asked.continuous_usage:
            payload["usage"] = self._usage(reply, chunk.n_after)
        return Message(payload, "text", choice=chunk.choice, n_tokens=len(chunk.tokens))

    def _part(self, reply: Reply, number: int, delta: Json, **more: Any) -> Json:
        choice = {
            "index": number,
            "delta": {"reasoning_content": None, **delta},
            "logprobs": more.get("logprobs"),
            "finish_reason": more.get("finish_reason"),
            "matched_stop": None,
        }
        return {**self._head(reply), "choices": [choice]}

    def end(self, reply: Reply) -> list[Message]:
        ends: list[Message] = []
        if reply.asked.chat:
            for number in range(reply.asked.n):
                part = self._part(reply, number, {}, finish_reason=reply.finish)
                ends.append(Message(part, "finish", choice=number))
        if reply.asked.usage:
            total = self._usage(reply, reply.n_tokens * reply.asked.n)
            if not reply.asked.chat:
                total = {name: value for name, value in total.items() if value is not None}
            ends.append(Message({**self._head(reply), "choices": [], "usage": total}, "usage"))
        return ends

    def whole(self, reply: Reply, chunks: Sequence[Chunk]) -> Json:
        asked = reply.asked
        choices = []
        for number, said in enumerate(parts.by_choice(reply, chunks)):
            choice: Json = {"index": number}
            if asked.chat:
                message = {
                    "reasoning_content": None,
                    "tool_calls": None,
                    **parts.message_of(reply, said, "reasoning_content"),
                }
                probs = parts.chat_logprobs(reply, parts.all_tokens(said), true_bytes=False)
                choice |= {"message": message, "logprobs": probs}
            else:
                whole = parts.together(said)
                probs = parts.legacy_logprobs(reply, whole, chosen_first=False, offsets=False)
                choice |= {"text": parts.text_of(said), "logprobs": probs}
            choice |= {"finish_reason": reply.finish, "matched_stop": None}
            if asked.ids and not asked.chat:
                choice["token_ids"] = [token.id for token in parts.all_tokens(said)]
                choice["prompt_token_ids"] = list(asked.prompt)
            choices.append(choice)
        total = self._usage(reply, reply.n_tokens * asked.n)
        return {
            **self._head(reply, whole=True),
            "choices": choices,
            "usage": total,
            "metadata": {"weight_version": "default"},
        }

    def error(self, status: int, message: str, parameter: str | None = None) -> Json:
        if status == HTTPStatus.UNAUTHORIZED:
            return {"error": "Unauthorized"}
        kind = "BadRequestError" if status == HTTPStatus.BAD_REQUEST else HTTPStatus(status).phrase.replace(" ", "")
        return {"object": "error", "message": message, "type": kind, "param": parameter, "code": status}

    def error_event(self, message: str) -> Json:
        return {"error": self.error(500, message)}

    def models(self, model: str, created: int) -> Json:
        card = {"id": model, "object": "model", "created": created, "owned_by": "sglang", "root": model, "parent": None}
        return {"object": "list", "data": [{**card, "max_model_len": 32768}]}

    def _usage(self, reply: Reply, n: int) -> Json:
        n_reasoning = sum(b.n_tokens for b in reply.script.beats if b.channel == "reasoning")
        details = None if reply.script.n_cached is None else {"cached_tokens": reply.script.n_cached}
        return {
            **parts.usage(reply, n),
            "prompt_tokens_details": details,
            "reasoning_tokens": min(n, n_reasoning * reply.asked.n) if reply.asked.chat else 0,
        }

    def _head(self, reply: Reply, *, whole: bool = False) -> Json:
        return {
            "id": reply.id,
            "object": parts.object_name(reply, whole=whole),
            "created": reply.created,
            "model": reply.model,
        }
