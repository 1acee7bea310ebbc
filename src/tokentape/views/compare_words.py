"""What the study says of a comparison in English, as messages: its notes, the reasons of a verdict, its caveat."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokentape.study.comparability import told_loads
from tokentape.views.drawing import drawn_text
from tokentape.words.catalogue import Message

if TYPE_CHECKING:
    from tokentape.study.comparability import Difference

__all__ = ["caveat_message", "loads_message", "told_message"]


_TOLD: tuple[tuple[str, str], ...] = (
    (r"(?P<side>[AB]) is (?P<state>partial|recording): what it lacks is not compared", "note_state"),
    (r"(?P<left>\d+) of the (?P<n>\d+) sequences of (?P<side>[AB]) have no counterpart", "note_left"),
    (r"(?P<name>\S+) was named as the question, and is the same on both: (?P<value>.*)", "note_alike"),
    (r"(?P<n>\d+) of the (?P<first>\d+) pairs that the first look needs", "reason_look"),
    (r"one measurement a side has no spread", "reason_one"),
    (r"(?P<steps>\d+) steps at equal context and (?P<runs>\d+) runs a side; it takes .*", "reason_few"),
    (r"the (?P<n>\d+) pairs are used up", "reason_used"),
    (
        r"the budget was spent after (?P<n>\d+) of .*?(?:; at this noise, at most (?P<time>.*) would do)?",
        "reason_budget",
    ),
    (r"interrupted after (?P<n>\d+) of .*", "reason_interrupted"),
)
"""What `study` says in English, and the phrase of the page that says the same."""


def told_message(text: str) -> Message:
    """A note or a reason as a message; one that is not known stands for itself."""
    for pattern, key in _TOLD:
        if (match := re.fullmatch(pattern, text, re.DOTALL)) is not None:
            given = {name: drawn_text(value) for name, value in match.groupdict().items() if value is not None}
            if "state" in given:
                return Message(f"page_compare.{key}", {**given, "state": Message(f"page_compare.{given['state']}")})
            if key == "reason_budget" and "time" not in given:
                key = "reason_budget_plain"
            return Message(f"page_compare.{key}", {n: int(v) if v.isdigit() else v for n, v in given.items()})
    return Message("page_compare.as_told", {"text": drawn_text(text)})


def loads_message(found: Sequence[Difference]) -> Message | None:
    """What two loads were told to do differently, such as their rates; None where nothing."""
    return Message("page_compare.loads", {"names": drawn_text(told_loads(found))}) if found else None


def caveat_message(caveat: str) -> Message:
    """What to bear in mind where two tapes were not recorded in turns, and which of them was first."""
    order = re.match(r"([AB]) was recorded before ([AB]); ", caveat)
    if order is None:
        return Message("page_compare.apart")
    return Message("page_compare.apart_order", {"first": order[1], "second": order[2]})
