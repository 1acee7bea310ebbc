"""What may be said of an answer when it is over: why it ended, how many tokens it had, and how much the server told of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tokentape.data.exchange import IN_ONE_PIECE
from tokentape.sources.endpoint.chunks import Chunks
from tokentape.sources.endpoint.fitting import fitted, name_of
from tokentape.sources.endpoint.messages import MOST_PROMPT, whole

__all__ = ["concluded", "finish_reasons", "missing"]

LONGEST_FINISH, MOST_FINISHES = 60, 100
"""Characters of a reason, and reasons, of those that are kept as the server writes them."""

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


def missing(chunks: Chunks, *, said_done: bool, says: bool) -> tuple[str | None, str | None]:
    """What is wrong with a stream that has ended: that its last word is missing, or more.

    ``said_done`` is whether that was ``[DONE]``, and ``says`` whether it should have been.
    """
    if not chunks.some_finished:
        # a server that says that it is done has not broken off
        whole = said_done and chunks.n_tokens > 0
        return "no_done" if whole else "cut_short", "the stream ended without a finish reason"
    if said_done or not says:
        return None, None
    return "no_done", "the stream ended without [DONE]"


def concluded(
    chunks: Chunks, n_prompt: int | None, unsecret: Callable[[str], str], *, whole_answer: bool, streamed: bool = True
) -> dict[str, Any]:
    """The fields of an :class:`~tokentape.data.exchange.Exchange` that tell of tokens.

    ``n_prompt`` is what the messages told of the prompt; of an answer that is not whole the server's count says nothing. Why the
    label is not ``exact``, or what else a server contradicts, stands with what it says of itself, as ``label_reason``; so does
    that an answer came in one piece, where it is not ``streamed``. ``unsecret`` takes secrets out of texts.
    """
    label, reason = chunks.label(whole_answer=whole_answer)
    usage = chunks.usage if chunks.usage is not None else _of_choices(chunks)
    server = {**(fitted(chunks.timings, unsecret) or {}), **({} if streamed else IN_ONE_PIECE)}
    if reason is not None:
        server["label_reason"] = reason
    finishes = [name_of(row.finish, unsecret, LONGEST_FINISH) for row in chunks.rows]
    return {
        "label": label,
        "finish": finishes[0] if len(set(finishes)) == 1 else ", ".join(map(str, finishes[:MOST_FINISHES])),
        "n_prompt": _n_prompt(usage, n_prompt),
        "n_completion": chunks.n_completion,
        "n_reasoning": _detail(usage, "completion_tokens_details", "reasoning_tokens"),
        "n_cached": _detail(usage, "prompt_tokens_details", "cached_tokens"),
        "usage": fitted(usage, unsecret),
        "server": server or None,
    }


def _n_prompt(usage: Mapping[str, Any] | None, told: int | None) -> int | None:
    """Tokens of the prompt by usage, and what a message ``told`` where that has none that can be."""
    counted = _count(usage, "prompt_tokens")
    return told if counted is None or counted > MOST_PROMPT else counted


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
