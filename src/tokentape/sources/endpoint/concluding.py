"""What may be said of an answer when it is over: why it ended, how many tokens it had, and how much the server told of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokentape.sources.endpoint.chunks import Chunks
from tokentape.sources.endpoint.messages import whole

__all__ = ["concluded", "finish_reasons"]

REASONS = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "abort": "error",
    "error": "error",
}
"""Reasons of a trace by those that servers give."""


def finish_reasons(chunks: Chunks, *, otherwise: str) -> list[str | None]:
    """One reason a trace: the server's, and ``otherwise`` where it gave none."""
    found: list[str | None] = []
    for row in chunks.rows:
        if row.finish is None:
            found.append(otherwise)
            continue
        reason = REASONS.get(row.finish, "unsaid")
        found.append("stop_string" if reason == "stop" and row.stop is not None else reason)
    return found


def concluded(chunks: Chunks, n_prompt: int | None, *, whole_answer: bool) -> dict[str, Any]:
    """The fields of an :class:`~tokentape.data.exchange.Exchange` that tell of tokens.

    ``n_prompt`` is what the messages told of the prompt; of an answer that is not whole the server's count says nothing. Why the
    label is not ``exact`` stands with what the server says of itself, as ``label_reason``.
    """
    label, reason = chunks.label(whole_answer=whole_answer)
    usage = chunks.usage if chunks.usage is not None else _of_choices(chunks)
    server = dict(chunks.timings or {})
    if reason is not None:
        server["label_reason"] = reason
    finishes = [row.finish for row in chunks.rows]
    counted = _count(usage, "prompt_tokens")
    return {
        "label": label,
        "finish": finishes[0] if len(set(finishes)) == 1 else ", ".join(str(finish) for finish in finishes),
        "n_prompt": n_prompt if counted is None else counted,
        "n_completion": chunks.n_completion,
        "n_reasoning": _detail(usage, "completion_tokens_details", "reasoning_tokens"),
        "n_cached": _detail(usage, "prompt_tokens_details", "cached_tokens"),
        "usage": usage,
        "server": server or None,
    }


def _of_choices(chunks: Chunks) -> dict[str, Any] | None:
    """What the server says of each choice, where it says nothing of all together."""
    known = [dict(row.usage) for row in chunks.rows if row.usage is not None]
    return {"choices": known} if known else None


def _count(usage: Mapping[str, Any] | None, name: str) -> int | None:
    return None if usage is None else whole(usage.get(name))


def _detail(usage: Mapping[str, Any] | None, group: str, name: str) -> int | None:
    """A count among the details; SGLang has it beside them."""
    details = None if usage is None else usage.get(group)
    found = whole(details.get(name)) if isinstance(details, dict) else None
    return _count(usage, name) if found is None else found
