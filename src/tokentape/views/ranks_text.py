"""What the card says of the ranks that a model was shared out among."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokentape.views.screen import Screen

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["rank_lines"]

NOTE = "ranks"
"""Where a tape's notes hold the times of all ranks."""


def rank_lines(tape: Tape, screen: Screen) -> list[tuple[str, str]]:
    """The slowest rank against rank 0, whose times are the tape's; nothing where one process had the whole model."""
    note: Any = tape.notes.get(NOTE)
    times = note.get("forward_ns") if isinstance(note, Mapping) else None
    if not isinstance(times, list) or len(times) < 2 or not times[0]:
        return []
    slowest = max(range(len(times)), key=times.__getitem__)
    key = "card.ranks_alike" if slowest == 0 else "card.ranks_slowest"
    return [("ranks", screen.say(key, n=len(times), rank=slowest, more=f"{times[slowest] / times[0] - 1:+.1%}"))]
