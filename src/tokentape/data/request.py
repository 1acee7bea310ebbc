"""What was asked: the request of one trace, and the run that its batch shared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokentape.data.control import RuleHead

__all__ = ["FINISH_REASONS", "Request", "Run", "TraceHead"]

FINISH_REASONS = (
    "stop",
    "stop_string",
    "length",
    "criteria",
    "grammar",
    "cornered",
    "guard",
    "given",
    "tool_calls",
    "content_filter",
    "unsaid",
    "interrupted",
    "error",
)
"""Why a trace ended: end-of-text token, stop string, length limit, another stopping criterion, a grammar that was complete where
the model has no end-of-text token, a grammar that left no token, a guard; the text was given, not generated; a
server's call of a tool, its filter of content, a server that ended without saying why; Ctrl-C, an exception."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a source is asked for: prompts, and the options of ``generate()``.

    ``prompts`` holds texts or token ids; a batch has several. ``options`` are the names and values of transformers'
    ``generate()`` (``max_new_tokens``, ``temperature``, ...). ``seed`` None means that none was asked for.
    """

    prompts: tuple[str | tuple[int, ...], ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class TraceHead:
    """One sequence of a run, as known before its first token.

    ``n_prompt`` counts the prompt's tokens without padding, and so is the position of the first token that follows; where it is
    None, as of a server that tells it at the end or never, positions count from 0;
    ``prompt_ids`` is None where the ids are not known or not to be kept, ``prompt_text`` also where there is no tokenizer.
    """

    row: int
    n_prompt: int | None
    prompt_ids: tuple[int, ...] | None
    prompt_text: str | None


@dataclass(frozen=True, slots=True)
class Run:
    """One call of a source: one time axis, shared by the traces of its batch.

    ``start_ns`` is the host clock since the tape's origin when the request was handed over (null until resolved);
    ``options`` are the settings that held, defaults filled in, as JSON-able values; ``rules`` what stood between the model's logits
    and the choice, in order, where it is to be measured.
    """

    traces: tuple[TraceHead, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    start_ns: int | None = None
    rules: tuple[RuleHead, ...] = ()
