"""What rules did, in the lines of a card and the columns of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tokentape.study.control import ControlSummary, RuleSummary, control_summary
from tokentape.views.units import ABSENT, count, duration

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["control_lines"]

_SHOWN = 5
"""Rules that have a line of their own."""


def control_lines(tape: Tape) -> list[tuple[str, str]]:
    """Labels and texts of what the rules of a tape did; nothing where none was measured."""
    found = control_summary(tape)
    if found is None:
        return []
    lines = [("rules", _total(found))]
    lines += [("", _rule(rule)) for rule in found.rules[:_SHOWN]]
    if len(found.rules) > _SHOWN:
        lines.append(("", f"and {count(len(found.rules) - _SHOWN, 'more rule')}"))
    if found.outcomes:
        judged = f"; {count(found.n_invalid, 'text')} failed the validator" if found.n_invalid else ""
        lines.append(("outcome", _counted(found.outcomes) + judged))
    if found.decisions:
        lines.append(("guard", _counted(found.decisions)))
    return lines


def _total(found: ControlSummary) -> str:
    parts = [] if found.removed_nats is None else [f"removed {found.removed_nats:.3f} nats of probability"]
    if found.n_compared:
        parts.append(f"overruled {found.n_overruled:,} of {count(found.n_compared, 'choice')}")
    if found.n_forced:
        parts.append(f"{count(found.n_forced, 'token')} forced")
    if found.rules_share is not None:
        parts.append(f"{found.rules_share:.1%} of the time")
    return ", ".join(parts) or ABSENT


def _rule(rule: RuleSummary) -> str:
    if not rule.n_tokens:
        return f"{rule.name}: not measured"
    parts = []
    if rule.divergence_nats is not None:
        parts.append(f"divergence {rule.divergence_nats:.3f} nats")
    if rule.removed_nats is not None:
        parts.append(f"removed {rule.removed_nats:.3f}")
    if rule.median_allowed is not None:
        parts.append(f"median {count(rule.median_allowed, 'token')} left")
    if rule.rule_ns is not None:
        parts.append(f"{duration(round(rule.rule_ns))} a step")
    return f"{rule.name}: {', '.join(parts)}"


def _counted(counts: Mapping[str, int]) -> str:
    (only, n), *more = counts.items()
    return only if n == 1 and not more else ", ".join(f"{n:,} {name}" for name, n in counts.items())
