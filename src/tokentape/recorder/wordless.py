"""A run without its words, for tapes that are to hold none."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tokentape.data.control import Outcome
from tokentape.data.exchange import Exchange
from tokentape.data.request import Run

__all__ = ["exchange_without_text", "without_reasons", "without_text", "words_left_out"]

WORDY = frozenset(
    {"stop_strings", "bad_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens", "force_words_ids"}
)
"""Options of ``generate()`` that hold words, or ids that stand for words."""

PLAIN = frozenset(
    {
        *(
            "model",
            "stream",
            "stream_options",
            "max_tokens",
            "max_completion_tokens",
            "min_tokens",
            "n",
            "best_of",
            "seed",
        ),
        *("temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty", "presence_penalty"),
        *("frequency_penalty", "ignore_eos", "logprobs", "top_logprobs", "prompt_logprobs", "return_token_ids"),
        *("return_tokens_as_token_ids", "timings_per_token", "n_predict", "n_probs", "cache_prompt", "echo", "api"),
        *("include_usage", "continuous_usage_stats"),
    }
)
"""Fields of a request to a server whose values hold no words; of every other field but numbers only its size is kept."""

OF_REQUESTS = frozenset({"stream", "messages", "prompt", "max_tokens", "max_completion_tokens"})
"""What tells the fields of a request to a server from the options of ``generate()``."""

ENDS = frozenset({"stop", "length", "tool_calls", "function_call", "content_filter", "abort", "error"})
"""Reasons of servers for an end; another one may be a word of the answer."""

_COUNTED = re.compile(
    r"[a-z0-9_]*(token|count|cache|draft|predicted|prompt|_ms|_n|time|per_second|details|settings)[a-z0-9_]*|n|choices"
)
"""Names under which servers count and time; another one may be a word of the prompt."""


def without_text(run: Run) -> Run:
    """The same run without words and ids: of prompts their lengths are kept, of options that hold words how many."""
    traces = tuple(replace(head, prompt_ids=None, prompt_text=None) for head in run.traces)
    options = words_left_out(run.options)
    # what a rule is made of are words too: phrases, a schema, a prompt to be guided away from
    rules = tuple(replace(rule, description={}) for rule in run.rules)
    return replace(run, traces=traces, options=options, rules=rules)


def words_left_out(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a run; of those that hold words how many."""
    served = not OF_REQUESTS.isdisjoint(options)
    return {name: _unworded(name, value, served=served) for name, value in options.items()}


def _unworded(name: str, value: Any, *, served: bool) -> Any:
    holds_none = name in PLAIN if served else name not in WORDY
    return value if holds_none or not hasattr(value, "__len__") else f"{len(value)} left out"


def exchange_without_text(one: Exchange | None) -> Exchange | None:
    """What passed with a server, without what may quote the prompt or the answer: of what it said of itself numbers are kept."""
    if one is None:
        return None
    usage, server = (None if told is None else _numbers(told) for told in (one.usage, one.server))
    finish = one.finish if one.finish in ENDS else None
    return replace(one, error=None, finish=finish, model=None, request_id=None, usage=usage, server=server)


def _numbers(told: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a value of JSON, and what holds them, under names that servers have for them."""
    kept = {
        name: _numbers(value) if isinstance(value, Mapping) else value
        for name, value in told.items()
        if _COUNTED.fullmatch(name)
    }
    return {name: value for name, value in kept.items() if value is None or isinstance(value, int | float | dict)}


def without_reasons(outcomes: Sequence[Sequence[Outcome]] | None) -> Sequence[Sequence[Outcome]] | None:
    """How constraints ended, without what a validator says of the text."""
    return None if outcomes is None else [[replace(one, why=None) for one in some] for some in outcomes]
