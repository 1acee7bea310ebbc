"""What an honest recorder can know of a stream: read from its messages, before they become bytes.

This is the other end of the same question that a recorder of endpoints answers from the bytes, and it shares no code
with that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokentape.mock.dialects.dialect import Message

__all__ = ["Arrived", "arrived"]

_TEXTS = {"content": "text", "reasoning": "reasoning", "reasoning_content": "reasoning"}


@dataclass(slots=True)
class _Choice:
    texts: dict[str, str] = field(default_factory=dict)
    ids: list[int] = field(default_factory=list)
    n_with_text: int = 0
    n_empty: int = 0
    n_named: int = 0
    """Tokens that came with an id or a log-probability."""
    n_told: int = 0
    """Tokens that a running count told."""
    n_left_out: int = 0
    """Of those, the ones before a named token that no message had."""
    unnamed: bool = False
    untold: bool = False
    without_id: bool = False
    finish: str | None = None


@dataclass(slots=True)
class Arrived:
    """What came, and what follows from it; ``n_usage`` is the last word of the server on how many tokens there were."""

    choices: dict[int, _Choice] = field(default_factory=dict)
    n_usage: int | None = None
    done: bool = False

    @property
    def label(self) -> str | None:
        """``exact``, ``counted`` or ``coarse``; None where nothing came.

        Exact: every token has an id or a log-probability of its own, as many as usage says where it came. Counted:
        every message names its tokens, and usage or timings count others; or a running count told the tokens of each
        message; or there are as many messages with text as tokens and none without.
        """
        said = [choice for choice in self.choices.values() if choice.n_with_text or choice.n_named or choice.n_told]
        if not said:
            return None
        if not any(choice.unnamed for choice in said):
            told = self.n_usage in (None, sum(c.n_named for c in said)) and not any(c.n_left_out for c in said)
            return "exact" if told else "counted"
        if not any(choice.untold for choice in said) and self.n_usage in (None, sum(c.n_told for c in said)):
            return "counted"
        if not any(choice.n_empty for choice in said) and self.n_usage == sum(c.n_with_text for c in said):
            return "counted"
        return "coarse"


def arrived(messages: Iterable[Message]) -> Arrived:
    """Read messages up to the end of their stream."""
    found = Arrived()
    for message in messages:
        if message.ends is not None or message.only_bytes is not None or message.kind in ("done", "error"):
            found.done = message.kind == "done"
            break
        if message.payload is not None and isinstance(message.payload.get("choices", []), list):
            _read(message.payload, found)
    return found


def _read(payload: Mapping[str, Any], found: Arrived) -> None:
    usage = payload.get("usage")
    if "choices" not in payload and "content" in payload:  # llama.cpp's own route
        _read_native(payload, found)
        return
    for choice in payload["choices"]:
        if not isinstance(choice.get("index"), int):
            return
        state = found.choices.setdefault(choice["index"], _Choice())
        texts = _texts(choice)
        delta = choice.get("delta", {})
        opens = "role" in delta
        ids, n_named = choice.get("token_ids"), _n_named(choice)
        if (probs := choice.get("logprobs")) and ids is None:
            ids = [one["id"] for one in probs.get("content", []) if "id" in one] or None
        if "timings" in payload and n_named is not None:
            state.n_left_out += max(0, (_running(payload) or 0) - state.n_told - n_named)
        _note(state, texts, ids, n_named, _running(payload), silent=opens or choice.get("finish_reason") is not None)
        state.finish = choice.get("finish_reason") or state.finish
    running = _running(payload)
    if not payload["choices"] and running is not None and len(found.choices) == 1 and "timings" in payload:
        found.choices[min(found.choices)].n_told = running  # also of tokens that no message had
    if isinstance(usage, dict) and all(choice.get("finish_reason") for choice in payload["choices"]):
        found.n_usage = usage["completion_tokens"]


def _running(payload: Mapping[str, Any]) -> int | None:
    """Tokens of the choice up to here, where a message tells them."""
    usage, timings = payload.get("usage"), payload.get("timings")
    if isinstance(timings, dict):
        return int(timings["predicted_n"])
    return int(usage["completion_tokens"]) if isinstance(usage, dict) else None


def _note(
    state: _Choice,
    texts: Mapping[str, str],
    ids: list[int] | None,
    n_named: int | None,
    n_running: int | None,
    *,
    silent: bool,
) -> None:
    """Book a message of a choice; a ``silent`` one may be without text and tokens, as its role or its end explains it."""
    for channel, text in texts.items():
        state.texts[channel] = state.texts.get(channel, "") + text
    has_text = any(texts.values())
    state.n_with_text += has_text
    if ids is not None:
        state.ids += ids
        n_named = len(ids) if n_named is None else n_named
    elif has_text:
        state.without_id = True
    state.n_named += n_named or 0
    state.unnamed = state.unnamed or (has_text and not n_named)
    if n_running is not None:
        state.n_told = n_running
    elif has_text:
        state.untold = True
    state.n_empty += not has_text and not silent


def _texts(choice: Mapping[str, Any]) -> dict[str, str]:
    if "text" in choice:
        return {"text": choice["text"]} if choice["text"] else {}
    delta = choice.get("delta", {})
    texts = {channel: delta[name] for name, channel in _TEXTS.items() if delta.get(name)}
    for call in delta.get("tool_calls") or []:
        texts["tool_call"] = texts.get("tool_call", "") + call["function"].get("arguments", "")
    return texts


def _n_named(choice: Mapping[str, Any]) -> int | None:
    """How many tokens a message has by its ids or log-probabilities; None where it has neither."""
    if choice.get("token_ids") is not None:
        return len(choice["token_ids"])
    probs = choice.get("logprobs")
    if not probs:
        return None
    return len(probs["tokens"]) if "tokens" in probs else len(probs["content"])


def _read_native(payload: Mapping[str, Any], found: Arrived) -> None:
    state = found.choices.setdefault(payload.get("index", 0), _Choice())
    text = payload["content"]
    ends = bool(payload.get("stop"))
    n_running = payload.get("tokens_predicted")
    _note(state, {"text": text} if text else {}, payload.get("tokens"), None, n_running, silent=ends)
    if ends:
        state.finish = "length" if payload.get("stop_type") == "limit" else "stop"
        found.n_usage = payload.get("tokens_predicted")
        found.done = True
