"""Rules that were asked for, made for one run of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tokentape.control.rule import Begins, Control, Rule, Steers, Vetoes
from tokentape.errors import UsageError
from tokentape.models.causal import CausalModel

__all__ = ["bind_rules"]


def bind_rules(options: Mapping[str, Any], causal: CausalModel) -> dict[str, Any]:
    """The options with their ``rules`` among the logits processors, each made for this run of the model.

    A rule that was bound before is taken as it is. Raises UsageError for what is no rule.
    """
    prepared = dict(options)
    rules = prepared.pop("rules", None)
    if not rules:
        return prepared
    several = isinstance(rules, Iterable) and not isinstance(rules, Control | Rule)
    bound = [_bound(rule, causal) for rule in (rules if several else [rules])]
    steering = [rule.name for rule in bound if isinstance(rule, Steers)]
    if len(steering) > 1:
        raise UsageError(
            f"{len(steering)} rules that change the forward pass",
            why="what each of them did could not be told apart",
            fix="one direction with vectors for several layers, or a run for each",
        )
    if options.get("streamer") is not None and any(isinstance(rule, Vetoes) for rule in bound):
        raise UsageError(
            "a streamer beside a guard",
            why="it is given each token as it comes, before the guard has judged it",
            fix="leave the streamer out, and read trace.shown; or feed guard.stream() with the text of your own",
        )
    rereading = [rule.name for rule in bound if isinstance(rule, Begins) and rule.believes]
    if rereading and options.get("past_key_values") is not None:
        raise UsageError(
            f"{rereading[0]} with a window, or a cache of your own",
            why="it reads the text a second time, with a cache that keeps all of it from the first prompt on",
            fix="leave out one of them",
        )
    prepared["logits_processor"] = [*(prepared.get("logits_processor") or ()), *bound]
    return prepared


def _bound(rule: Any, causal: CausalModel) -> Rule:
    if isinstance(rule, type) or not isinstance(rule, Control | Rule):
        raise UsageError(
            f"{rule!r:.80} is no rule",
            why="rules are grammars, guidances, guards, or objects of your own that can be bound to a model",
            fix="rules=[tt.Grammar.regex('[0-9]+')]; a logits processor goes into logits_processor=[...]",
        )
    return rule.bound(causal) if isinstance(rule, Control) else rule
