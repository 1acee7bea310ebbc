"""What a request asks for, read from its JSON by the rules of a dialect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokentape.mock.vocabulary import prompt_ids

__all__ = ["CHAT", "COMPLETIONS", "NATIVE", "Asked", "Refused", "asked_of"]

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
NATIVE = "/completion"
"""llama.cpp's own route."""

_MOST_CHOICES = 128


class Refused(Exception):
    """The request is answered with an HTTP error; ``parameter`` is the field that is at fault."""

    def __init__(self, status: int, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.parameter = parameter


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, understood.

    ``n_top`` is None where no log-probabilities are asked for, -1 for those of the whole vocabulary.
    """

    route: str
    model: str
    prompt: tuple[int, ...]
    stream: bool = False
    n: int = 1
    max_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    n_top: int | None = None
    usage: bool = False
    continuous_usage: bool = False
    ids: bool = False
    tokens_as_ids: bool = False
    timings_per_token: bool = False

    @property
    def chat(self) -> bool:
        return self.route == CHAT


def asked_of(route: str, body: Mapping[str, Any], model: str) -> Asked:
    """Read the fields of a body; raises :class:`Refused` for one of the wrong type."""
    options = body.get("stream_options") or {}
    if not isinstance(options, Mapping):
        raise Refused(400, "stream_options is no object", "stream_options")
    limit = _whole(body, "max_completion_tokens", None) if route == CHAT else None
    if limit is None:
        limit = _whole(body, "max_tokens", _whole(body, "n_predict", None))
    return Asked(
        route=route,
        model=str(body.get("model") or model),
        prompt=tuple(_prompt(route, body)),
        stream=_truth(body, "stream"),
        n=_choices(body),
        max_tokens=None if limit is None or limit < 0 else limit,
        min_tokens=_whole(body, "min_tokens", 0) or 0,
        ignore_eos=_truth(body, "ignore_eos"),
        n_top=_n_top(route, body),
        usage=_truth(options, "include_usage"),
        continuous_usage=_truth(options, "include_usage") and _truth(options, "continuous_usage_stats"),
        ids=_truth(body, "return_token_ids"),
        tokens_as_ids=_truth(body, "return_tokens_as_token_ids"),
        timings_per_token=_truth(body, "timings_per_token"),
    )


def _n_top(route: str, body: Mapping[str, Any]) -> int | None:
    if route == NATIVE:
        return _whole(body, "n_probs", 0) or None
    given = body.get("logprobs")
    if route == COMPLETIONS:
        if isinstance(given, bool):
            return 1 if given else None
        return _whole(body, "logprobs", None)
    if given is None or given is False:
        return None
    if given is not True:
        raise Refused(400, "logprobs is true or false", "logprobs")
    return _whole(body, "top_logprobs", 0) or 0


def _choices(body: Mapping[str, Any]) -> int:
    n = _whole(body, "n", 1)
    if n is None:
        return 1
    if not 1 <= n <= _MOST_CHOICES:
        raise Refused(400, f"n must be between 1 and {_MOST_CHOICES}, got {n}", "n")
    return n


def _prompt(route: str, body: Mapping[str, Any]) -> list[int]:
    """The ids of the prompt: those given, or those of its text; a chat is the roles and texts of its messages."""
    if route == CHAT:
        messages = body.get("messages")
        if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
            raise Refused(400, "messages is no list of messages", "messages")
        return prompt_ids("".join(f"{m.get('role', '')}: {_content(m)}\n" for m in messages) + "assistant:")
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt_ids(prompt)
    if isinstance(prompt, list) and all(type(token_id) is int for token_id in prompt):
        return prompt
    raise Refused(400, "prompt is neither a text nor a list of token ids", "prompt")


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return "" if content is None else str(content)


def _whole(body: Mapping[str, Any], name: str, default: int | None) -> int | None:
    value = body.get(name, default)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise Refused(400, f"{name} must be an integer", name)


def _truth(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise Refused(400, f"{name} must be true or false", name)
