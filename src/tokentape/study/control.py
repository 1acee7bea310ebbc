"""What rules did to a tape: how much probability they took away, how often the model wanted something else, what that cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tokentape.study.times import plain_values

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["ControlSummary", "RuleSummary", "control_summary", "log_weights", "overruled"]


@dataclass(frozen=True, slots=True)
class RuleSummary:
    """One rule over the tokens at which it was measured.

    ``removed_nats`` and ``divergence_nats`` are sums, ``rule_ns`` is the mean over its steps.
    """

    name: str
    description: Mapping[str, Any]
    n_tokens: int
    removed_nats: float | None
    divergence_nats: float | None
    median_allowed: int | None
    rule_ns: float | None


@dataclass(frozen=True, slots=True)
class ControlSummary:
    """What the rules of a tape did.

    ``removed_nats`` is the sum of ``-ln Z`` over all tokens: minus the log importance weight of what was said. ``n_overruled`` of
    the ``n_compared`` tokens are not what the same draw would have given without our rules; ``n_forced`` were given.
    ``rules_share`` is the time of the rules over that of rules and forward calls together. ``outcomes`` and ``decisions``
    count how constraints ended and what guards did; ``n_invalid`` texts failed their validator.
    """

    n_tokens: int
    removed_nats: float | None
    n_compared: int
    n_overruled: int
    n_forced: int
    rules_share: float | None
    rules: tuple[RuleSummary, ...]
    outcomes: Mapping[str, int]
    n_invalid: int
    decisions: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return asdict(self)


def control_summary(tape: Tape) -> ControlSummary | None:
    """What the rules of a tape did, all its runs together; None where none was measured."""
    traces = [trace for trace in tape.traces if trace.run.rules]
    if not traces:
        return None
    removed = [value for trace in traces for value in plain_values(trace.tokens["removed"])]
    compared = [flag for trace in traces for flag in overruled(trace) if flag is not None]
    ended = [one for trace in traces for one in trace.outcomes]
    return ControlSummary(
        n_tokens=sum(value is not None for value in removed),
        removed_nats=_sum(removed),
        n_compared=len(compared),
        n_overruled=sum(compared),
        n_forced=sum(sum(plain_values(trace.tokens["forced"])) for trace in traces),
        rules_share=_share(traces),
        rules=tuple(_rules(traces)),
        outcomes=dict(Counter(one.name for one in ended)),
        n_invalid=sum(one.valid is False for one in ended),
        decisions=dict(Counter(one.action for trace in traces for one in trace.decisions)),
    )


def overruled(trace: Trace) -> list[bool | None]:
    """For each token whether the model's own draw would have been another; None where that is not known."""
    wanted, ids = plain_values(trace.tokens["wanted"]), plain_values(trace.tokens["id"])
    return [None if want is None else want != token for want, token in zip(wanted, ids, strict=True)]


def log_weights(trace: Trace) -> list[float | None]:
    """The log importance weight of the text up to each token, in nats: the sum of ``ln Z``; null from where one is not known."""
    weights: list[float | None] = []
    total: float | None = 0.0
    for removed in plain_values(trace.tokens["removed"]):
        total = None if total is None or removed is None else total - removed
        weights.append(total)
    return weights


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if known else None


def _share(traces: Sequence[Trace]) -> float | None:
    """Each run is counted once, whatever its batch."""
    rules = forward = 0
    for trace in {trace.run.number: trace for trace in traces}.values():
        for ruled, called in zip(
            plain_values(trace.steps["rules_ns"]), plain_values(trace.steps["forward_ns"]), strict=True
        ):
            if ruled is not None and called is not None:
                rules, forward = rules + ruled, forward + called
    return rules / (rules + forward) if rules + forward else None


def _rules(traces: Sequence[Trace]) -> Iterable[RuleSummary]:
    """The rules by their names and descriptions, in the order in which they were first applied."""
    found: dict[tuple[str, str], list[dict[str, list[Any]]]] = {}
    heads = {}
    for trace in traces:
        columns = {name: plain_values(trace.effects[name]) for name in trace.effects}
        for rule in trace.run.rules:
            key = (rule.name, repr(rule.description))
            heads[key] = rule
            mine = [place for place, number in enumerate(columns["rule"]) if number == rule.number]
            found.setdefault(key, []).append({name: [values[i] for i in mine] for name, values in columns.items()})
    for key, parts in found.items():
        values = {name: [value for part in parts for value in part[name]] for name in parts[0]}
        allowed = sorted(value for value in values["allowed"] if value is not None)
        times = [value for value in values["rule_ns"] if value is not None]
        yield RuleSummary(
            name=heads[key].name,
            description=heads[key].description,
            n_tokens=len(values["rule"]),
            removed_nats=_sum(values["removed"]),
            divergence_nats=_sum(values["divergence"]),
            median_allowed=allowed[len(allowed) // 2] if allowed else None,
            rule_ns=sum(times) / len(times) if times else None,
        )
