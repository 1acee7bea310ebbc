"""What rules did, in the lines of a card and the columns of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tokentape.study.control import ControlSummary, RuleSummary, control_summary
from tokentape.views.screen import Screen
from tokentape.views.units import ABSENT, duration

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["control_lines"]

_SHOWN = 5
"""Rules that have a line of their own."""


def control_lines(tape: Tape, screen: Screen) -> list[tuple[str, str]]:
    """Names of labels and texts of what the rules of a tape did; nothing where none was measured."""
    found = control_summary(tape)
    if found is None:
        return []
    lines = [("rules", _total(found, screen))]
    lines += [("", _rule(rule, screen)) for rule in found.rules[:_SHOWN]]
    if len(found.rules) > _SHOWN:
        lines.append(("", screen.say("card.more_rules", n=len(found.rules) - _SHOWN)))
    if found.outcomes:
        outcome = _counted(found.outcomes)
        judged = screen.say("card.invalid", outcome=outcome, n=found.n_invalid) if found.n_invalid else outcome
        lines.append(("outcome", judged))
    if found.decisions:
        lines.append(("guard", _counted(found.decisions)))
    return lines


def _total(found: ControlSummary, screen: Screen) -> str:
    say = screen.say
    parts = [] if found.removed_nats is None else [say("card.removed", nats=f"{found.removed_nats:.3f}")]
    if found.n_compared:
        parts.append(say("card.overruled", n=found.n_overruled, of=found.n_compared))
    if found.n_forced:
        parts.append(say("card.forced", n=found.n_forced))
    if found.rules_share is not None:
        parts.append(say("card.share", share=f"{found.rules_share:.1%}"))
    return say("card.list").join(parts) or ABSENT


def _rule(rule: RuleSummary, screen: Screen) -> str:
    say = screen.say
    if not rule.n_tokens:
        return say("card.not_measured", name=rule.name)
    parts = []
    if rule.divergence_nats is not None:
        parts.append(say("card.divergence", nats=f"{rule.divergence_nats:.3f}"))
    if rule.removed_nats is not None:
        parts.append(say("card.rule_removed", nats=f"{rule.removed_nats:.3f}"))
    if rule.median_allowed is not None:
        parts.append(say("card.left", n=rule.median_allowed))
    if rule.rule_ns is not None:
        parts.append(say("card.a_step", time=duration(round(rule.rule_ns))))
    return say("card.rule", name=rule.name, parts=say("card.list").join(parts))


def _counted(counts: Mapping[str, int]) -> str:
    (only, n), *more = counts.items()
    return only if n == 1 and not more else ", ".join(f"{n:,} {name}" for name, n in counts.items())
