"""Going on with a tape that an earlier call left: under the same Setting, on the same time axis, without its broken last run."""

from __future__ import annotations

import time
from pathlib import Path

from tokentape.clock import Clock
from tokentape.data.setting import Setting
from tokentape.data.store import TapeWriter
from tokentape.data.tape import Tape, open_tape
from tokentape.errors import NotATape, TapeExists, UsageError

__all__ = ["OTHER", "Resumable", "tape_there"]

OTHER = "another -o PATH, or --overwrite"
"""What to do where a tape cannot be gone on with."""


def tape_there(path: Path | None, what: str, *, resume: bool, overwrite: bool) -> Tape | None:
    """The tape at ``path`` that may be gone on with; None where a new one is to be made. ``what`` was broken off, in words.

    Raises UsageError where there is nothing to resume, TapeExists where the file is no tape.
    """
    if path is None or not path.exists():
        if resume:
            raise UsageError(
                "there is no tape to resume" if path is None else f"there is no tape {path} to resume",
                why=f"--resume goes on with {what} that was broken off",
                fix="leave out --resume" if path is not None else "name its tape: -o PATH",
            )
        return None
    if overwrite:
        if resume:
            raise UsageError("--resume together with --overwrite", why="one or the other", fix="leave one out")
        return None
    try:
        return open_tape(path)
    except NotATape as error:
        raise TapeExists(f"{path} is there, and is no tape", why=error.why, fix=OTHER) from error


class Resumable:
    """What an earlier call left at ``path``. ``broken_off`` says that its last run came to no end; ``end_ns`` is when its last step
    ended, in ns since the tape's origin, which was at ``origin_unix_ns``. For dataclasses with these fields.
    """

    __slots__ = ()

    path: Path
    setting: Setting
    broken_off: bool
    origin_unix_ns: int
    end_ns: int

    def check_setting(self, setting: Setting, again: str) -> None:
        """Raise UsageError where the tape was made under another Setting; ``again`` is what to do into another file."""
        differing = self.setting.differences(setting)
        if differing:
            raise UsageError(
                f"{self.path} was made under another Setting",
                why="; ".join(f"{name} is {now!r} now, {then!r} there" for name, (then, now) in differing.items()),
                fix=f"{again} into another file, -o PATH, and compare the two",
            )

    def writer(self) -> TapeWriter:
        """Goes on with the tape, without the run that came to no end."""
        writer = TapeWriter.resume(self.path)
        if self.broken_off:
            writer.drop_last()
        return writer

    def origin(self, clock: Clock) -> int:
        """The mark of ``clock`` at which the tape's time began."""
        # the wall clock alone goes on between two processes; what it may have been set by does not matter here
        return int(clock.mark() - max(time.time_ns() - self.origin_unix_ns, self.end_ns + 1))
