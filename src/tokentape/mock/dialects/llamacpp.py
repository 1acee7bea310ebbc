"""llama.cpp's form, after ``tools/server/server-task.cpp`` and ``README.md`` of its server (2026).

The head of a stream waits for the first token; every token is a message of its own, and one that leaves a character
unfinished is not sent: neither its id nor its log-probability is seen in a stream. The last message has no text;
``timings`` are in it, in ``/v1/completions`` also ``usage``. The server's own route ``/completion`` ends with
``"stop": true`` and no ``[DONE]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tokentape.mock.asked import CHAT, COMPLETIONS, NATIVE
from tokentape.mock.dialects import parts
from tokentape.mock.dialects.dialect import Dialect, Json, Message, Reply
from tokentape.mock.telling import Chunk
from tokentape.mock.vocabulary import Token

__all__ = ["LlamaCpp"]

_BUILD = "b9999-mock"
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    500: "server_error",
    501: "not_supported_error",
    503: "unavailable_error",
}


class LlamaCpp(Dialect):
    """The server of llama.cpp."""

    name = "llama.cpp"
    early_head = False
    names_itself = True
    server = "llama.cpp"
    routes: ClassVar[tuple[str, ...]] = (COMPLETIONS, CHAT, NATIVE)
    stream_type = "text/event-stream"

    def told(self, reply: Reply, chunk: Chunk) -> list[Message]:
        messages: list[Message] = []
        for place, (token, text) in enumerate(zip(chunk.tokens, chunk.texts, strict=True)):
            n = chunk.n_before + place + 1
            if n == 1 and reply.asked.chat:
                opening = self._chat_part(reply, chunk.choice, {"role": "assistant", "content": None})
                messages.append(Message(opening, "role", choice=chunk.choice))
            if not text:
                continue
            part = self._part(reply, chunk, token, text, n, opens_call=place == 0 and chunk.first_of_channel)
            if reply.asked.timings_per_token:
                part["timings"] = self._timings(reply, n)
            messages.append(Message(part, "text", choice=chunk.choice, n_tokens=1))
        return messages

    def _part(self, reply: Reply, chunk: Chunk, token: Token, text: str, n: int, *, opens_call: bool) -> Json:
        asked = reply.asked
        shown = _Shown(token, text)
        probs = None if asked.n_top is None else [shown.entry(asked.n_top)]
        if asked.route == NATIVE:
            part: Json = {"index": chunk.choice, "content": text, "tokens": [token.id], "stop": False, "id_slot": -1}
            part |= {"tokens_predicted": n, "tokens_evaluated": reply.n_prompt}
            return part if probs is None else {**part, "completion_probabilities": probs}
        if asked.chat:
            delta: Json = {"content": text}
            if chunk.channel == "reasoning":
                delta = {"reasoning_content": text}
            elif chunk.channel == "tool_call":
                delta = {"tool_calls": [self._call(reply, chunk.choice, text, opens=opens_call)]}
            part = self._chat_part(reply, chunk.choice, delta)
            if probs is not None:
                part["choices"][0]["logprobs"] = {"content": probs}
            return part
        logprobs = None if probs is None else {"content": probs}
        choice = {"text": text, "index": chunk.choice, "logprobs": logprobs, "finish_reason": None}
        return self._completion_part(reply, choice)

    def _call(self, reply: Reply, choice: int, text: str, *, opens: bool) -> Json:
        if not opens:
            return {"index": 0, "function": {"arguments": text}}
        function = {"name": reply.script.tool, "arguments": text}
        return {"index": 0, "id": f"call_{reply.id[-8:]}_{choice}", "type": "function", "function": function}

    def end(self, reply: Reply) -> list[Message]:
        return [message for number in range(reply.asked.n) for message in self._ends(reply, number)]

    def _ends(self, reply: Reply, number: int) -> list[Message]:
        """The last messages of a choice."""
        timings = self._timings(reply, reply.n_tokens)
        if reply.asked.route == NATIVE:
            part = {"index": number, "content": "", "tokens": [], "id_slot": 0, "stop": True, **self._facts(reply)}
            return [Message({**part, "timings": timings}, "finish", choice=number)]
        if not reply.asked.chat:
            choice = {"text": "", "index": number, "logprobs": None, "finish_reason": reply.finish}
            part = self._completion_part(reply, choice, self._usage(reply))
            return [Message({**part, "timings": timings}, "finish", choice=number)]
        finish = self._chat_part(reply, number, {}, reply.finish)
        if not reply.asked.usage:
            return [Message({**finish, "timings": timings}, "finish", choice=number)]
        last = {**self._chat_part(reply, number, {}), "choices": [], "usage": self._usage(reply), "timings": timings}
        return [Message(finish, "finish", choice=number), Message(last, "usage")]

    def done(self, reply: Reply) -> bool:
        return reply.asked.route != NATIVE

    def whole(self, reply: Reply, chunks: Sequence[Chunk]) -> Json:
        choices, probs = [], []
        for number, said in enumerate(parts.by_choice(reply, chunks)):
            shown = [
                _Shown(token, text) for chunk in said for token, text in zip(chunk.tokens, chunk.texts, strict=True)
            ]
            probs = [] if reply.asked.n_top is None else [one.entry(reply.asked.n_top) for one in shown]
            logprobs = {"content": probs} if probs else None
            if reply.asked.chat:
                message = parts.message_of(reply, said, "reasoning_content")
                choice: Json = {"finish_reason": reply.finish, "index": number, "message": message}
                choices.append(choice if logprobs is None else {**choice, "logprobs": logprobs})
            else:
                choice = {"text": parts.text_of(said), "index": number, "logprobs": logprobs}
                choices.append({**choice, "finish_reason": reply.finish})
        timings = self._timings(reply, reply.n_tokens)
        if reply.asked.route == NATIVE:
            first = parts.by_choice(reply, chunks)[0]
            ids = [token.id for token in parts.all_tokens(first)]
            native = {
                "index": 0,
                "content": parts.text_of(first),
                "tokens": ids,
                "id_slot": 0,
                "stop": True,
                **self._facts(reply),
            }
            return {**native, "timings": timings} | ({"completion_probabilities": probs} if probs else {})
        return {
            "choices": choices,
            "created": reply.created,
            "model": reply.model,
            "system_fingerprint": _BUILD,
            "object": parts.object_name(reply, whole=True),
            "usage": self._usage(reply),
            "id": f"chatcmpl-{reply.id}",
            "timings": timings,
        }

    def error(self, status: int, message: str, parameter: str | None = None) -> Json:
        if status == 401:
            message = "Invalid API Key"
        return {"error": {"code": status, "message": message, "type": _TYPES.get(status, "server_error")}}

    def models(self, model: str, created: int) -> Json:
        meta = {
            "vocab_type": 2,
            "n_vocab": 650,
            "n_ctx_train": 32768,
            "n_embd": 64,
            "n_params": 1_000_000,
            "size": 4_000_000,
        }
        card = {"id": model, "object": "model", "created": created, "owned_by": "llamacpp", "meta": meta}
        return {"object": "list", "data": [card]}

    def _facts(self, reply: Reply) -> Json:
        """What the last message of the server's own route tells beside its text."""
        return {
            "model": reply.model,
            "tokens_predicted": reply.n_tokens,
            "tokens_evaluated": reply.n_prompt,
            "generation_settings": {"n_predict": -1 if reply.asked.max_tokens is None else reply.asked.max_tokens},
            "prompt": parts.prompt_text(reply),
            "has_new_line": False,
            "truncated": False,
            "stop_type": "limit" if reply.finish == "length" else "eos",
            "stopping_word": "",
            "tokens_cached": reply.n_prompt + reply.n_tokens - 1,
        }

    def _usage(self, reply: Reply) -> Json:
        total = parts.usage(reply, reply.n_tokens)
        counts = {name: total[name] for name in ("completion_tokens", "prompt_tokens", "total_tokens")}
        return {**counts, "prompt_tokens_details": {"cached_tokens": reply.script.n_cached or 0}}

    def _timings(self, reply: Reply, n: int) -> Json:
        """The server's own times, which are those of the script."""
        beats = reply.script.beats
        prompt_ms = beats[0].after_us / 1000
        seen, predicted_us = 0, 0.0
        for number, beat in enumerate(beats):
            if seen >= n:
                break
            seen += beat.n_tokens
            predicted_us += beat.after_us if number else 0.0
        predicted_ms = predicted_us / 1000 or 0.001
        n_cached = min(reply.script.n_cached or 0, reply.n_prompt)
        n_prompt = max(reply.n_prompt - n_cached, 1)
        return {
            "cache_n": n_cached,
            "prompt_n": n_prompt,
            "prompt_ms": prompt_ms,
            "prompt_per_token_ms": prompt_ms / n_prompt,
            "prompt_per_second": 1000 * n_prompt / prompt_ms if prompt_ms else 0.0,
            "predicted_n": n,
            "predicted_ms": predicted_ms,
            "predicted_per_token_ms": predicted_ms / max(n, 1),
            "predicted_per_second": 1000 * n / predicted_ms,
        }

    def _completion_part(self, reply: Reply, choice: Json, total: Json | None = None) -> Json:
        head = {"choices": [choice], "created": reply.created, "model": reply.model, "system_fingerprint": _BUILD}
        counts = {} if total is None else {"usage": total}
        return {**head, "object": "text_completion", **counts, "id": f"chatcmpl-{reply.id}"}

    def _chat_part(self, reply: Reply, number: int, delta: Json, finish: str | None = None) -> Json:
        return {
            "choices": [{"finish_reason": finish, "index": number, "delta": delta}],
            "created": reply.created,
            "id": f"chatcmpl-{reply.id}",
            "model": reply.model,
            "system_fingerprint": _BUILD,
            "object": "chat.completion.chunk",
        }


class _Shown:
    """A token as a log-probability entry shows it: with the text that was sent at it."""

    def __init__(self, token: Token, text: str) -> None:
        self.token = token
        self.text = text

    def entry(self, n_top: int) -> Json:
        top = [self._one(other, logprob) for other, logprob in self.token.candidates(n_top)]
        own = {
            "id": self.token.id,
            "token": self.text,
            "bytes": list(self.text.encode()),
            "logprob": self.token.logprob,
        }
        return {**own, "top_logprobs": top}

    def _one(self, token_id: int, logprob: float) -> Json:
        data = parts.data_of(self.token, token_id)
        return {"id": token_id, "token": data.decode("utf-8", "ignore"), "bytes": list(data), "logprob": logprob}
