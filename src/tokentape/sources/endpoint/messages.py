"""What a message of a stream says: its JSON, in the forms that servers give it, as plain values.

The forms were read from what these servers send: vLLM (vllm/entrypoints/openai), SGLang (python/sglang/srt/entrypoints/openai),
llama.cpp (tools/server), ``transformers serve``. What has another type than it may have is a problem of the message, and left out;
what is good of it is kept. What is no message at all raises :class:`Malformed`: a hostile server gets no other exception
out of this module.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tokentape.sources.endpoint.entries import (
    Entry,
    Malformed,
    entries_of,
    entry_of,
    is_id,
    list_of,
    object_of,
    text_of,
)

__all__ = ["LARGEST_COUNT", "MOST_PROMPT", "Choice", "Malformed", "Message", "error_text", "message_of", "whole"]

LARGEST_COUNT = (1 << 31) - 1
MOST_PROMPT = 1 << 24
"""No prompt has more tokens: what a server says beyond it is not believed."""

T = TypeVar("T")
_Problems = list[str]


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
    """One message of a stream. ``error`` is the server's own text where it says that something failed.

    ``problems`` are what was left out of it because it is none.
    """

    choices: list[Choice] = field(default_factory=list)
    usage: Mapping[str, Any] | None = None
    timings: Mapping[str, Any] | None = None
    prompt_ids: tuple[int, ...] | None = None
    n_prompt: int | None = None
    model: str | None = None
    request_id: str | None = None
    error: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def message_of(data: bytes) -> Message:
    """The message in the data of an event. Raises :class:`Malformed` for what is none."""
    found = _json(data)
    if not isinstance(found, dict):
        raise Malformed(f"no object, but {type(found).__name__}")
    if (told := error_text(found)) is not None:
        return Message(error=told, raw=found)
    choices = found.get("choices")
    if choices is None:
        if "content" in found and "stop" in found:
            return _native(found)
        choices = []
    problems: _Problems = []
    given: list[Any] = _good(list_of, choices, problems=problems, otherwise=[])
    good = [one for one in given if _is_object(one, problems)]
    message = Message(
        [one for choice in good if (one := _choice(choice, problems)) is not None],
        _good(_maybe_object, found, "usage", problems=problems, otherwise=None),
        _good(_maybe_object, found, "timings", problems=problems, otherwise=None),
        model=_good(text_of, found, "model", problems=problems, otherwise=None),
        request_id=_good(text_of, found, "id", problems=problems, otherwise=None),
        raw=found,
        problems=problems,
    )
    message.prompt_ids = _good(_prompt_ids, found, good, problems=problems, otherwise=None)
    message.n_prompt = _n_prompt(message)
    return message


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except RecursionError as error:
        raise Malformed(f"no JSON: {error}") from error
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
            raise Malformed(f"no JSON: {error}") from error
        try:  # an integer of thousands of digits; the rest of the message is what it is
            return json.loads(data, parse_int=lambda digits: int(digits) if len(digits) < 20 else None)
        except (ValueError, RecursionError) as other:
            raise Malformed(f"no JSON: {other}") from other


def _good(read: Callable[..., T], *given: Any, problems: _Problems, otherwise: T) -> T:
    """What is read, and ``otherwise`` where that is malformed, which is a problem of the message and not the end of it."""
    try:
        return read(*given)
    except Malformed as error:
        problems.append(str(error))
        return otherwise


def _is_object(value: Any, problems: _Problems) -> bool:
    return _good(object_of, value, "a choice", problems=problems, otherwise=None) is not None


def _native(found: Mapping[str, Any]) -> Message:
    """A message of llama.cpp's own route, ``/completion``."""
    problems: _Problems = []
    n_prompt, n_completion = whole(found.get("tokens_evaluated")), whole(found.get("tokens_predicted"))
    usage = {"prompt_tokens": n_prompt, "completion_tokens": n_completion}
    message = Message(
        [],
        {name: n for name, n in usage.items() if n is not None} or None,
        _good(_maybe_object, found, "timings", problems=problems, otherwise=None),
        n_prompt=None if n_prompt is None or n_prompt > MOST_PROMPT else n_prompt,
        model=_good(text_of, found, "model", problems=problems, otherwise=None),
        raw=found,
        problems=problems,
    )
    index = _index(found, problems)
    if index is None:
        return message
    choice = Choice(index, _good(text_of, found, "content", problems=problems, otherwise=None) or "")
    choice.ids = _good(_ids, found.get("tokens"), "tokens", problems=problems, otherwise=None) or None
    told = found.get("completion_probabilities")
    choice.entries = _good(_native_entries, told, problems=problems, otherwise=None) or None
    if found["stop"] is True:
        choice.finish = "length" if found.get("stop_type") == "limit" else "stop"
        choice.stop = _good(text_of, found, "stopping_word", problems=problems, otherwise=None) or None
    message.choices.append(choice)
    return message


def _native_entries(told: Any) -> tuple[Entry, ...]:
    return tuple(entry_of(object_of(one, "a token")) for one in list_of(told))


def error_text(found: Mapping[str, Any]) -> str | None:
    """What a JSON object says went wrong, in the form of any of the servers; None where it says nothing of the kind."""
    error = found.get("error")
    if not error and found.get("object") == "error":
        error = found
    if not error and found.keys() == {"detail"}:  # with other fields beside it, it is one of many things
        error = found["detail"]
    if not error:
        return None
    if isinstance(error, Mapping):
        error = error.get("message") or error.get("msg") or error
    if isinstance(error, list) and all(isinstance(one, Mapping) for one in error):
        places = [one.get("loc") if isinstance(one.get("loc"), list) else [] for one in error]
        error = "; ".join(
            f"{'.'.join(map(str, loc))}: {one.get('msg')}" for loc, one in zip(places, error, strict=True)
        )
    return error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)


def whole(value: Any) -> int | None:
    """A count, where the value is one."""
    return value if type(value) is int and 0 <= value <= LARGEST_COUNT else None


def _index(found: Mapping[str, Any], problems: _Problems) -> int | None:
    index = found.get("index", 0)
    if type(index) is not int or index < 0:
        problems.append("the index of a choice is no number")
        return None
    return index


def _choice(choice: Mapping[str, Any], problems: _Problems) -> Choice | None:
    """What is good of a choice; None where it is not known which one it is."""
    index = _index(choice, problems)
    if index is None:
        return None

    def good(read: Callable[..., T | None], *given: Any) -> T | None:
        return _good(read, *given, problems=problems, otherwise=None)

    found = Choice(index)
    delta = choice.get("delta")
    if delta is None:
        delta = choice.get("message")
    if delta is not None:
        delta = good(object_of, delta, "delta") or {}
        found.text = good(_content, delta) or ""
        # vLLM and SGLang: reasoning_content, of late reasoning; the same text where both are there
        found.reasoning = good(text_of, delta, "reasoning_content") or good(text_of, delta, "reasoning") or ""
        found.tool = good(_tool_text, delta) or ""
        found.has_role = delta.get("role") is not None
    else:
        found.text = good(text_of, choice, "text") or ""
    found.finish = good(text_of, choice, "finish_reason")
    stop = choice.get("stop_reason", choice.get("matched_stop"))
    found.stop = stop if isinstance(stop, str) else None
    found.ids = good(_ids, choice.get("token_ids"), "token_ids")
    logprobs = choice.get("logprobs")
    if logprobs is not None:
        found.entries = good(lambda: entries_of(object_of(logprobs, "logprobs")))
    return found


def _content(delta: Mapping[str, Any]) -> str:
    content = delta.get("content")
    if isinstance(content, list):
        return "".join(text_of(object_of(part, "a part of content"), "text") or "" for part in content)
    return (text_of(delta, "content") or "") + (text_of(delta, "refusal") or "")


def _tool_text(delta: Mapping[str, Any]) -> str:
    """Name and arguments of calls of tools, as they come."""
    calls = list_of(delta.get("tool_calls"))
    if (call := delta.get("function_call")) is not None:
        calls = [*calls, {"function": call}]
    parts = []
    for call in calls:
        function = object_of(call, "a tool call").get("function")
        if function is not None:
            function = object_of(function, "the function of a tool call")
            parts.append((text_of(function, "name") or "") + (text_of(function, "arguments") or ""))
    return "".join(parts)


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
    found = None
    if message.usage is not None:
        found = whole(message.usage.get("prompt_tokens"))
    progress = message.raw.get("prompt_progress")
    if found is None and isinstance(progress, Mapping):
        found = whole(progress.get("total"))
    if found is None and message.timings is not None:
        read, cached = whole(message.timings.get("prompt_n")), whole(message.timings.get("cache_n"))
        if read is not None and cached is not None and read + cached:
            found = read + cached
    return None if found is None or found > MOST_PROMPT else found


def _ids(value: Any, name: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(map(is_id, value)):
        raise Malformed(f"{name} is no list of ids")
    return tuple(value)


def _maybe_object(found: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = found.get(name)
    return None if value is None else object_of(value, name)
