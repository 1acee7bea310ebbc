"""What a message of a stream says: its JSON, in the forms that servers give it, as plain values.

The forms were read from what these servers send: vLLM (vllm/entrypoints/openai), SGLang (python/sglang/srt/entrypoints/openai),
llama.cpp (tools/server), ``transformers serve``. What has another type than it may have raises :class:`Malformed`: a hostile
server gets no other exception out of this module.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Choice", "Entry", "Malformed", "Message", "message_of"]

LARGEST_ID = (1 << 31) - 1
_NAMED_ID = "token_id:"
"""How vLLM writes a token where it is asked to return tokens as ids."""


class Malformed(ValueError):
    """A message is not what a server of this kind may send; the text says where."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One token as log-probabilities tell it. ``top`` are the likeliest tokens: ``(text, id, log-probability, bytes)``."""

    token: str | None
    id: int | None
    data: bytes | None
    logprob: float | None
    top: tuple[tuple[str | None, int | None, float, bytes | None], ...] = ()


@dataclass(slots=True)
class Choice:
    """What a message adds to one choice.

    ``ids`` and ``entries`` are None where the message has none; ``finish`` where it is not the last. ``stop`` is the stop string
    that ended it, where the server says so; ``has_role`` whether the message says who speaks.
    """

    index: int
    text: str = ""
    reasoning: str = ""
    tool: str = ""
    ids: tuple[int, ...] | None = None
    entries: tuple[Entry, ...] | None = None
    finish: str | None = None
    stop: str | None = None
    has_role: bool = False


@dataclass(slots=True)
class Message:
    """One message of a stream. ``error`` is the server's own text where it says that something failed."""

    choices: list[Choice] = field(default_factory=list)
    usage: Mapping[str, Any] | None = None
    timings: Mapping[str, Any] | None = None
    prompt_ids: tuple[int, ...] | None = None
    n_prompt: int | None = None
    model: str | None = None
    request_id: str | None = None
    error: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)


def message_of(data: bytes) -> Message:
    """The message in the data of an event. Raises :class:`Malformed`."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"no JSON: {error}") from error
    if not isinstance(found, dict):
        raise Malformed(f"no object, but {type(found).__name__}")
    if (told := error_text(found)) is not None:
        return Message(error=told, raw=found)
    choices = found.get("choices")
    if choices is None:
        if "content" in found and "stop" in found:
            return _native(found)
        choices = []
    if not isinstance(choices, list):
        raise Malformed("choices is no list")
    message = Message(
        [_choice(_object(choice, "a choice")) for choice in choices],
        _maybe_object(found, "usage"),
        _maybe_object(found, "timings"),
        model=_text(found, "model"),
        request_id=_text(found, "id"),
        raw=found,
    )
    message.prompt_ids = _prompt_ids(found, choices)
    message.n_prompt = _n_prompt(message)
    return message


def _native(found: Mapping[str, Any]) -> Message:
    """A message of llama.cpp's own route, ``/completion``."""
    index = found.get("index", 0)
    if type(index) is not int or index < 0:
        raise Malformed("the index of a message is no number")
    choice = Choice(index, _text(found, "content") or "", ids=_ids(found.get("tokens"), "tokens") or None)
    entries = _list(found.get("completion_probabilities"))
    choice.entries = tuple(_entry(_object(one, "a token")) for one in entries) or None
    if found["stop"] is True:
        choice.finish = "length" if found.get("stop_type") == "limit" else "stop"
        choice.stop = _text(found, "stopping_word") or None
    n_prompt, n_completion = whole(found.get("tokens_evaluated")), whole(found.get("tokens_predicted"))
    usage = {"prompt_tokens": n_prompt, "completion_tokens": n_completion}
    return Message(
        [choice],
        {name: n for name, n in usage.items() if n is not None} or None,
        _maybe_object(found, "timings"),
        n_prompt=n_prompt,
        model=_text(found, "model"),
        raw=found,
    )


def error_text(found: Mapping[str, Any]) -> str | None:
    """What a JSON object says went wrong, in the form of any of the servers; None where it says nothing of the kind."""
    error = found.get("error")
    if error is None and found.get("object") == "error":
        error = found
    if error is None and "detail" in found and "choices" not in found:
        error = found["detail"]
    if error is None or error is False:
        return None
    if isinstance(error, Mapping):
        error = error.get("message") or error.get("msg") or error
    if isinstance(error, list) and all(isinstance(one, Mapping) for one in error):
        error = "; ".join(f"{'.'.join(map(str, _list(one.get('loc'))))}: {one.get('msg')}" for one in error)
    return error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)


def whole(value: Any) -> int | None:
    """A count, where the value is one."""
    return value if type(value) is int and 0 <= value < 1 << 62 else None


def _choice(choice: Mapping[str, Any]) -> Choice:
    index = choice.get("index", 0)
    if type(index) is not int or index < 0:
        raise Malformed("the index of a choice is no number")
    found = Choice(index)
    delta = choice.get("delta")
    if delta is None:
        delta = choice.get("message")
    if delta is not None:
        delta = _object(delta, "delta")
        found.text = _content(delta)
        # vLLM and SGLang: reasoning_content, of late reasoning; the same text where both are there
        found.reasoning = _text(delta, "reasoning_content") or _text(delta, "reasoning") or ""
        found.tool = _tool_text(delta)
        found.has_role = delta.get("role") is not None
    else:
        found.text = _text(choice, "text") or ""
    found.finish = _text(choice, "finish_reason")
    stop = choice.get("stop_reason", choice.get("matched_stop"))
    found.stop = stop if isinstance(stop, str) else None
    found.ids = _ids(choice.get("token_ids"), "token_ids")
    logprobs = choice.get("logprobs")
    if logprobs is not None:
        found.entries = _entries(_object(logprobs, "logprobs"))
    return found


def _content(delta: Mapping[str, Any]) -> str:
    content = delta.get("content")
    if isinstance(content, list):
        return "".join(_text(_object(part, "a part of content"), "text") or "" for part in content)
    return (_text(delta, "content") or "") + (_text(delta, "refusal") or "")


def _tool_text(delta: Mapping[str, Any]) -> str:
    """Name and arguments of calls of tools, as they come."""
    calls = _list(delta.get("tool_calls"))
    if (call := delta.get("function_call")) is not None:
        calls = [*calls, {"function": call}]
    parts = []
    for call in calls:
        function = _object(call, "a tool call").get("function")
        if function is not None:
            function = _object(function, "the function of a tool call")
            parts.append((_text(function, "name") or "") + (_text(function, "arguments") or ""))
    return "".join(parts)


def _entries(logprobs: Mapping[str, Any]) -> tuple[Entry, ...] | None:
    if "content" in logprobs or "tokens" not in logprobs:
        content = logprobs.get("content")
        return None if content is None else tuple(_entry(_object(one, "a token")) for one in _list(content))
    tokens = _list(logprobs["tokens"])
    values = _list(logprobs.get("token_logprobs"))
    tops = _list(logprobs.get("top_logprobs"))
    if values and len(values) != len(tokens):
        raise Malformed("tokens and token_logprobs differ in length")
    found = []
    for i, token in enumerate(tokens):
        if not isinstance(token, str):
            raise Malformed("a token is no text")
        top = tops[i] if i < len(tops) else None
        text, token_id = _named(token)
        found.append(Entry(text, token_id, _encoded(text), _logprob(values[i] if values else None), _legacy_top(top)))
    return tuple(found)


def _legacy_top(top: Any) -> tuple[tuple[str | None, int | None, float, bytes | None], ...]:
    if top is None:
        return ()
    found = []
    for token, value in _object(top, "top_logprobs").items():
        logprob = _logprob(value)
        if logprob is not None:
            text, token_id = _named(token)
            found.append((text, token_id, logprob, _encoded(text)))
    return tuple(found)


def _entry(one: Mapping[str, Any]) -> Entry:
    token, token_id, data = _token(one)
    top = []
    for other in _list(one.get("top_logprobs")):
        other = _object(other, "a candidate")
        logprob = _logprob(other.get("logprob"))
        if logprob is not None:
            text, other_id, other_data = _token(other)
            top.append((text, other_id, logprob, other_data))
    return Entry(token, token_id, data, _logprob(one.get("logprob")), tuple(top))


def _token(one: Mapping[str, Any]) -> tuple[str | None, int | None, bytes | None]:
    """Text, id and bytes of a token; the bytes of its text where none are given."""
    text, named = _named(_text(one, "token"))
    token_id = one.get("id")
    if token_id is not None and not _is_id(token_id):
        raise Malformed("the id of a token is no id")
    data = one.get("bytes")
    if named is not None or data is None:
        return text, token_id if token_id is not None else named, _encoded(text)
    if not isinstance(data, list) or not all(type(byte) is int and 0 <= byte < 256 for byte in data):
        raise Malformed("the bytes of a token are no list of bytes")
    return text, token_id, bytes(data)


def _named(token: str | None) -> tuple[str | None, int | None]:
    """Text and id of a token that may be written as its id."""
    if token is not None and token.startswith(_NAMED_ID):
        digits = token.removeprefix(_NAMED_ID)
        if digits.isascii() and digits.isdigit() and int(digits) <= LARGEST_ID:
            return None, int(digits)
    return token, None


def _encoded(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", errors="surrogatepass")


def _logprob(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Malformed("a log-probability is no number")
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def _prompt_ids(found: Mapping[str, Any], choices: Sequence[Any]) -> tuple[int, ...] | None:
    """Ids of the prompt: vLLM has them beside the choices of a chat, and in the choice of a completion."""
    given = found.get("prompt_token_ids")
    if given is None:
        given = next((one["prompt_token_ids"] for one in choices if one.get("prompt_token_ids") is not None), None)
    return _ids(given, "prompt_token_ids")


def _n_prompt(message: Message) -> int | None:
    """Tokens of the prompt, as far as a message tells."""
    if message.prompt_ids is not None:
        return len(message.prompt_ids)
    if message.usage is not None and (n := whole(message.usage.get("prompt_tokens"))) is not None:
        return n
    progress = message.raw.get("prompt_progress")
    if isinstance(progress, Mapping) and (n := whole(progress.get("total"))) is not None:
        return n
    if message.timings is not None:
        read, cached = whole(message.timings.get("prompt_n")), whole(message.timings.get("cache_n"))
        if read is not None and cached is not None and read + cached:
            return read + cached
    return None


def _ids(value: Any, name: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(map(_is_id, value)):
        raise Malformed(f"{name} is no list of ids")
    return tuple(value)


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_ID


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{what} is no object")
    return value


def _maybe_object(found: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = found.get(name)
    return None if value is None else _object(value, name)


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise Malformed(f"a list is wanted, and {type(value).__name__} came")
    return value


def _text(found: Mapping[str, Any], name: str) -> str | None:
    value = found.get(name)
    if value is not None and not isinstance(value, str):
        raise Malformed(f"{name} is no text")
    return value
