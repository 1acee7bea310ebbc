"""The form of ``transformers serve`` 5.23, after
``src/transformers/cli/serving/{server,chat_completion,completion,utils}.py``.

Fields that nobody knows are refused with 422; log-probabilities, ``n`` and ``stream_options`` are taken and ignored.
A chat begins with its role message before anything is computed. Tokens that are there at the same time come in one
piece, and one that leaves a character unfinished comes in no message. The last message has the finish reason and
always the usage; there is no ``[DONE]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from tokentape.mock.asked import CHAT, COMPLETIONS, Asked, Refused
from tokentape.mock.dialects import parts
from tokentape.mock.dialects.dialect import Dialect, Json, Message, Reply
from tokentape.mock.telling import Chunk

__all__ = ["Transformers"]

_BOTH = """frequency_penalty generation_config logit_bias logprobs max_tokens model n presence_penalty seed stop stream
stream_options temperature top_p user""".split()
_COMPLETIONS = "best_of echo prompt suffix".split()
_CHAT = """audio chat_template_kwargs function_call functions max_completion_tokens messages metadata modalities moderation
parallel_tool_calls prediction prompt_cache_key prompt_cache_options prompt_cache_retention reasoning_effort response_format
safety_identifier service_tier store tool_choice tools top_logprobs verbosity web_search_options""".split()

_FIELDS: Mapping[str, frozenset[str]] = {COMPLETIONS: frozenset(_BOTH + _COMPLETIONS), CHAT: frozenset(_BOTH + _CHAT)}
"""What each route takes; ``mock`` is ours."""


class Transformers(Dialect):
    """``transformers serve``."""

    name = "transformers"
    ends_with_done = False
    routes: ClassVar[tuple[str, ...]] = (COMPLETIONS, CHAT)

    def refusal(self, route: str, body: Mapping[str, Any], model: str) -> Refused | None:
        unexpected = set(body) - _FIELDS[route] - {"mock"}
        if unexpected:
            return Refused(422, f"Unexpected fields in the request: {unexpected}", min(unexpected))
        if route == COMPLETIONS and not isinstance(body.get("prompt", ""), str):
            return Refused(400, "prompt must be a string.", "prompt")
        asked = body.get("model")
        if asked is not None and asked != model:
            return Refused(400, f"Server is pinned to '{model}'; requested '{asked}'.", "model")
        return None

    def taken(self, asked: Asked) -> Asked:
        return replace(asked, n=1, n_top=None)

    def begin(self, reply: Reply) -> list[Message]:
        if not reply.asked.chat:
            return []
        return [Message(self._chat_part(reply, {"role": "assistant"}), "role", choice=0)]

    def told(self, reply: Reply, chunk: Chunk) -> list[Message]:
        messages: list[Message] = []
        if chunk.channel == "tool_call" and reply.asked.chat:
            return self._call(reply, chunk)
        for text in filter(None, chunk.texts):
            if reply.asked.chat:
                name = "reasoning_content" if chunk.channel == "reasoning" else "content"
                part = self._chat_part(reply, {name: text})
            else:
                part = self._completion_part(reply, {"index": 0, "text": text})
            messages.append(Message(part, "text", choice=0, n_tokens=1, joined=bool(messages)))
        return messages

    def _call(self, reply: Reply, chunk: Chunk) -> list[Message]:
        """A tool call comes whole, when its last token is there; one that is cut off does not come."""
        if chunk.n_after < reply.script.n_tokens:
            return []
        said = [part for beat in reply.script.beats if beat.channel == "tool_call" for part in beat.says or ()]
        arguments = "".join(part if isinstance(part, str) else part.decode("utf-8", "replace") for part in said)
        function = {"arguments": arguments, "name": reply.script.tool}
        call = {"index": 0, "id": f"{reply.id}_tool_call_0", "function": function, "type": "function"}
        part = self._chat_part(reply, {"tool_calls": [call]})
        return [Message(part, "text", choice=0, n_tokens=len(said))]

    def end(self, reply: Reply) -> list[Message]:
        total = self._usage(reply)
        if reply.asked.chat:
            part = self._chat_part(reply, {}, reply.finish)
        else:
            part = self._completion_part(reply, {"finish_reason": reply.finish, "index": 0, "text": ""})
        return [Message({**part, "usage": total}, "finish", choice=0)]

    def whole(self, reply: Reply, chunks: Sequence[Chunk]) -> Json:
        said = parts.by_choice(reply, chunks)[0]
        if reply.asked.chat:
            message = parts.message_of(reply, said, "reasoning_content")
            message = {"content": message.pop("content"), **message}
            choice: Json = {"finish_reason": reply.finish, "index": 0, "message": message}
            head = {"created": reply.created, "model": reply.model, "object": "chat.completion"}
        else:
            choice = {"finish_reason": reply.finish, "index": 0, "text": parts.text_of(said)}
            head = {"created": reply.created, "model": reply.model, "object": "text_completion"}
        return {"id": reply.id, "choices": [choice], **head, "usage": self._usage(reply)}

    def error(self, status: int, message: str, parameter: str | None = None) -> Json:
        return {"detail": message}

    def error_event(self, message: str) -> Json:
        return {"error": message}

    def extra_head(self, request_id: str | None) -> list[tuple[str, str]]:
        return [] if request_id is None else [("x-request-id", request_id)]

    def _usage(self, reply: Reply) -> Json:
        total = parts.usage(reply, reply.n_tokens)
        return {name: total[name] for name in ("completion_tokens", "prompt_tokens", "total_tokens")}

    def _completion_part(self, reply: Reply, choice: Json) -> Json:
        head = {"created": reply.created, "model": reply.model, "object": "text_completion"}
        return {"id": reply.id, "choices": [choice], **head}

    def _chat_part(self, reply: Reply, delta: Json, finish: str | None = None) -> Json:
        choice: Json = {"delta": delta, "index": 0}
        if finish is not None:
            choice["finish_reason"] = finish
        head = {"created": reply.created, "model": reply.model, "object": "chat.completion.chunk"}
        return {"id": reply.id, "choices": [choice], **head, "system_fingerprint": ""}
