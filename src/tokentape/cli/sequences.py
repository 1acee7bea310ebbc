"""Sequences of a tape by their numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["check_sequences", "chosen_sequences"]


def check_sequences(tape: Tape, file: Path, numbers: tuple[int, ...]) -> None:
    """Raise UsageError for a number that the tape does not have."""
    from tokentape.errors import UsageError
    from tokentape.views.units import count

    there = range(len(tape.traces))
    for number in numbers:
        if number not in there:
            has = f"sequences 0 to {there[-1]}" if len(there) > 1 else f"{count(len(there), 'sequence')}, from 0"
            raise UsageError(f"no sequence {number}", why=f"{file} has {has}", fix=f"tokentape show {file}")


def chosen_sequences(tape: Tape, file: Path, numbers: tuple[int, ...]) -> list[Trace]:
    """The sequences asked for, all of them where none was. Raises UsageError for one that is not there, and for none at all."""
    from tokentape.errors import UsageError

    check_sequences(tape, file, numbers)
    found = [tape.traces[number] for number in (numbers or range(len(tape.traces)))]
    if not found:
        raise UsageError(f"{file} has no sequence", why="nothing was recorded into it", fix="give another tape")
    return found
