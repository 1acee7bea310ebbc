"""What a replay plays where a server did not give all ids: the local model's tokenizer makes them, and the check says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tokentape.data.trace import Trace
from tokentape.errors import ReplayError, UsageError
from tokentape.explain.replay import ids_of, recorded_ids
from tokentape.models.causal import CausalModel
from tokentape.models.chat import chat_prompt

__all__ = ["Played", "is_greedy", "played"]


@dataclass(frozen=True, slots=True)
class Played:
    """The ids that a trace is replayed with; the first ``n_prompt`` are its prompt.

    ``how`` says where they come from: ``"ids"`` from the tape, ``"prompt"`` where those of the prompt were made here,
    ``"text"`` where all were. So many of the recorded tokens, ``n_aligned``, are the first of those that follow the prompt; none
    where the text was cut up otherwise. ``other`` says why this can hardly be what the server read; None where nothing speaks
    against it.
    """

    ids: tuple[int, ...]
    n_prompt: int
    n_aligned: int
    how: str = "ids"
    other: str | None = None


def played(trace: Trace, causal: CausalModel) -> Played:
    """What a trace is to be replayed with. Raises ReplayError where neither ids nor text are there."""
    missing = trace.tokens["id"].mask.any()
    if (trace.prompt_ids is not None and not missing) or trace.exchange is None:
        return Played(ids_of(trace, causal.vocab_size), int(trace.n_prompt or 0), trace.tokens.n_rows)
    prompt = _prompt(trace, causal)
    counted = trace.exchange.n_prompt
    other = None
    if counted is not None and counted != len(prompt):
        other = f"the server read a prompt of {counted} tokens, and this tokenizer makes {len(prompt)} of it"
    if not missing:
        recorded = recorded_ids(trace, causal.vocab_size)
        return Played((*prompt, *recorded), len(prompt), len(recorded), "prompt", other)
    said = _said(trace, causal, prompt)
    pieces = [causal.pieces.piece(token_id).bytes for token_id in said]
    recorded_bytes = trace.token_bytes
    while recorded_bytes and not recorded_bytes[-1]:
        recorded_bytes.pop()  # the end of the text, which is a token without one
    aligned = pieces == recorded_bytes or _holds_ids(trace, said)
    return Played((*prompt, *said), len(prompt), len(said) if aligned else 0, "text", other)


def _holds_ids(trace: Trace, said: tuple[int, ...]) -> bool:
    """Whether ids of the text are those that the server told, where it told some: it leaves out tokens inside characters.

    What the tape has behind them is without text.
    """
    ids, n = trace.tokens["id"], len(said)
    told = ~np.ma.getmaskarray(ids)[:n]
    same = np.asarray(ids)[:n][told] == np.asarray(said[: len(told)])[told]
    return bool(told.any()) and len(told) == n and bool(same.all()) and not any(trace.token_bytes[n:])


def is_greedy(trace: Trace) -> bool:
    """Whether the request asked for the likeliest token each time."""
    options = trace.run.options
    if options.get("temperature") == 0 or options.get("do_sample") is False:
        return True
    own = options.get("generation_config")
    try:
        found = json.loads(own) if isinstance(own, str) else None
    except ValueError:
        return False
    return isinstance(found, Mapping) and found.get("do_sample") is False


def _prompt(trace: Trace, causal: CausalModel) -> tuple[int, ...]:
    if trace.prompt_ids is not None:
        return tuple(map(int, trace.prompt_ids))
    messages = trace.run.options.get("messages")
    if isinstance(messages, list):
        try:
            return tuple(chat_prompt(causal, messages))
        except UsageError as error:
            raise ReplayError(
                f"the messages of sequence {trace.number} cannot be put together as the server did it",
                why=error.what,
                fix="record it with --api completions, or from a server that gives the ids of the prompt",
            ) from error
    if trace.prompt_text is None:
        raise ReplayError(
            f"sequence {trace.number} has neither ids nor a text of its prompt",
            why="a replay needs what was read, and the tape was recorded without text",
            fix="record it again without --no-text",
        )
    return tuple(causal.encode(trace.prompt_text))


def _said(trace: Trace, causal: CausalModel, prompt: tuple[int, ...]) -> tuple[int, ...]:
    """Ids of what was said: of prompt and text together where that leaves the prompt as it is, as a model would read it."""
    text = trace.text
    if not text:
        raise ReplayError(
            f"sequence {trace.number} has no text",
            why="its server gave no ids, and without them a replay needs the text",
            fix="record it again without --no-text",
        )
    if trace.prompt_text is not None and "messages" not in trace.run.options:
        together = tuple(causal.encode(trace.prompt_text + text))
        if together[: len(prompt)] == prompt:
            return together[len(prompt) :]
    return tuple(causal.encode(text, bos=False))
