"""A run without its words, for tapes that are to hold none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tokentape.data.control import Outcome
from tokentape.data.request import Run

__all__ = ["without_reasons", "without_text", "words_left_out"]

WORDY = frozenset(
    {"stop_strings", "bad_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens", "force_words_ids"}
)
"""Options of ``generate()`` that hold words, or ids that stand for words."""


def without_text(run: Run) -> Run:
    """The same run without words and ids: of prompts their lengths are kept, of options that hold words how many."""
    traces = tuple(replace(head, prompt_ids=None, prompt_text=None) for head in run.traces)
    options = words_left_out(run.options)
    # what a rule is made of are words too: phrases, a schema, a prompt to be guided away from
    rules = tuple(replace(rule, description={}) for rule in run.rules)
    return replace(run, traces=traces, options=options, rules=rules)


def words_left_out(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a run; of those that hold words how many."""
    return {
        name: f"{len(value)} left out" if name in WORDY and hasattr(value, "__len__") else value
        for name, value in options.items()
    }


def without_reasons(outcomes: Sequence[Sequence[Outcome]] | None) -> Sequence[Sequence[Outcome]] | None:
    """How constraints ended, without what a validator says of the text."""
    return None if outcomes is None else [[replace(one, why=None) for one in some] for some in outcomes]
