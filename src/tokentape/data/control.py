"""What rules did to a trace, as plain values: which they were, what each did, what a guard decided, how a constraint ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ACTIONS", "OUTCOMES", "Decision", "Effect", "Outcome", "RuleHead"]

ACTIONS = ("stop", "redact", "resample")
"""What a guard does about what it finds: end the sequence before it, show something else in its place, choose another token."""

OUTCOMES = ("complete", "unfinished", "cornered")
"""How a constraint ended: with a whole text of its language; cut off inside of one (by the length limit, an interruption, another
rule); where no token of the vocabulary could follow."""


@dataclass(frozen=True, slots=True)
class RuleHead:
    """A rule of a run, in the order in which they were applied; ``description`` is JSON-able: its kind, strength, source."""

    number: int
    name: str
    description: Mapping[str, Any] = field(default_factory=dict)

    @property
    def handed_on(self) -> dict[str, Any]:
        """The description, of a guard without the hash of its phrases: a list of words tells which word was hashed."""
        return {name: fact for name, fact in self.description.items() if self.name != "guard" or name != "sha256"}


@dataclass(frozen=True, slots=True)
class Effect:
    """What one rule did to the choice of one token; see :data:`~tokentape.data.schema.EFFECT_COLUMNS`."""

    rule: int
    allowed: int | None = None
    removed: float | None = None
    divergence: float | None = None
    rule_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Something that a guard decided.

    ``position`` is that of the token at which it was decided; ``start`` and ``stop`` the bytes of the sequence's text that it
    is about (of text that was never chosen, both the place where it would have stood); ``reason`` says what was found without
    quoting it, ``shown`` what stands in its place.
    """

    position: int
    rule: int
    action: str
    start: int
    stop: int
    reason: str
    shown: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a constraint ended for one sequence: one of :data:`OUTCOMES`.

    ``valid`` is the judgement of a validator that is not the engine (None where there was nothing whole to judge), ``why`` says
    more: the validator's complaint, or what was missing.
    """

    rule: int
    name: str
    valid: bool | None = None
    why: str | None = None
