"""A Reading: what a replay read off a model (where it looked, what its layers said and added), as a tape keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

from tokentape.data.attention import AttentionSummary
from tokentape.data.explanation import fixed_json
from tokentape.data.layers import DirectAttribution, Lens
from tokentape.errors import UsageError

__all__ = ["READ", "Found", "Reading", "ReadingKind", "covers"]

ReadingKind = Literal["attention", "lens", "direct"]

Found: TypeAlias = AttentionSummary | Lens | DirectAttribution

READ: Mapping[ReadingKind, type[Found]] = MappingProxyType(
    dict(zip(get_args(ReadingKind), get_args(Found), strict=True))
)
"""What is found, by the kind of a reading."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What was read off a model while a trace was played again.

    ``trace`` is the trace's number, ``found`` an :class:`AttentionSummary`, a :class:`Lens` or a :class:`DirectAttribution`,
    ``made`` says with what (versions, model, hash of its weights), ``number`` is its place in a tape, null before it has one.
    Raises UsageError for what is none of these, and where JSON cannot hold ``made``.
    """

    trace: int
    found: Found
    made: Mapping[str, Any] = field(default_factory=dict)
    number: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.found, get_args(Found)):
            raise UsageError(
                f"{type(self.found).__name__} is no reading",
                why=f"readings are of the kinds {', '.join(READ)}",
                fix="Reading(trace.number, attend(replay))",
            )
        object.__setattr__(self, "made", fixed_json("'made' of a reading", self.made))

    @property
    def kind(self) -> ReadingKind:
        """``"attention"``, ``"lens"`` or ``"direct"``."""
        return next(kind for kind, found in READ.items() if isinstance(self.found, found))

    @cached_property
    def question(self) -> Mapping[str, Any]:
        """What was asked, as plain values.

        All kinds have ``positions``; attention and lens the sources or tokens kept, ``top_k``; attention the positions whose
        ``heads`` are kept; direct attribution what was taken apart, ``of``, ``against`` what, and whether ``together``.
        """
        found = self.found
        if isinstance(found, AttentionSummary):
            asked = {"positions": found.positions, "heads": found.head_positions, "top_k": found.top_k}
        elif isinstance(found, Lens):
            asked = {"positions": found.positions, "top_k": int(found.top_ids.shape[-1])}
        else:
            asked = {
                "positions": found.targets,
                "of": found.kind,
                "together": bool(found.together),
                "against": found.foil_ids,
            }
        plain = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in asked.items()}
        return MappingProxyType(plain)

    def __repr__(self) -> str:
        of = "" if self.number is None else f"{self.number}: "
        return f"Reading({of}trace {self.trace}, {self.kind} at {len(self.question['positions'])} positions)"


def covers(newer: Mapping[str, Any], older: Mapping[str, Any]) -> bool:
    """Whether the answer to one question says all that the answer to another of the same kind and trace says.

    It is asked about the same positions and perhaps more (with the same foils), of the same quantity, and keeps as much or
    more of each. What is summed over positions says nothing of other sums.
    """
    if older.get("together") or newer.get("together"):
        return dict(newer) == dict(older)
    return (
        newer.get("of") == older.get("of")
        and newer.get("top_k", 0) >= older.get("top_k", 0)
        and _pairs(newer) >= _pairs(older)
        and set(newer.get("heads", ())) >= set(older.get("heads", ()))
    )


def _pairs(question: Mapping[str, Any]) -> set[tuple[int, int | None]]:
    """Positions, each with what it is asked against."""
    positions = question["positions"]
    return set(zip(positions, question.get("against") or [None] * len(positions), strict=True))
