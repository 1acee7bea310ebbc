"""How a load ends before its time: by a signal, by a server that is gone, by a client process that died."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import click

from tokentape.cli.failure import INTERRUPTED
from tokentape.errors import RecordingError
from tokentape.words.catalogue import phrase
from tokentape.words.language import language_of

__all__ = ["Ending", "Written", "died", "ends_in_order"]


@dataclass
class Ending:
    """What ended a load: a signal, by its name; of a sweep also an error, and what is told of steps whose client processes died."""

    by: str | None = None
    error: Exception | None = None
    died: list[RecordingError] = field(default_factory=list)

    @property
    def code(self) -> int:
        """The exit code where a signal ended it."""
        from tokentape.load.signals import exit_code

        return INTERRUPTED if self.by is None else exit_code(self.by)

    def heard(self, left: BaseException) -> None:
        """A signal came while none was sent, and ended what was done as ``left`` says."""
        from tokentape.load.signals import name_of_code

        self.by = name_of_code(left.code if isinstance(left, SystemExit) else INTERRUPTED)


@dataclass(frozen=True)
class Written:
    """Whether there is a tape that was not there before."""

    path: Path
    before: tuple[int, int] | None

    @classmethod
    def since_now(cls, path: Path) -> Written:
        return cls(path, _identity(path))

    def __bool__(self) -> bool:
        now = _identity(self.path)
        return now is not None and now != self.before


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        known = path.stat()
    except OSError:
        return None
    return known.st_ino, known.st_mtime_ns


def died(notes: Mapping[str, Any], where: str) -> RecordingError | None:
    """The error that a load is whose client process died; None where none did."""
    found = (notes.get("client") or {}).get("died")
    if not found:
        return None
    return RecordingError(
        "a client process died, so that the load was not what was asked for",
        why=f"{'; '.join(found)}; what came until then is in {where}",
        fix="see what ended it (memory, a limit of the scheduler), then load again",
    )


@contextlib.contextmanager
def ends_in_order() -> Iterator[None]:
    """Being told to end unwinds what is going on, and the exit code says by what; a second time ends the process there and then.

    While requests are sent the load hears of it itself. What a signal breaks off may say that it failed, as an import of compiled
    code does: that is not what happened.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    from tokentape.load.signals import exit_code

    heard: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        heard.append(signal.Signals(number).name)
        if number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        _leave(number)

    before = {number: signal.signal(number, note) for number in _heeded()}
    try:
        yield
    except click.exceptions.Exit:
        raise
    except Exception as error:
        if not heard:
            raise
        if heard[-1] == "SIGINT":
            raise KeyboardInterrupt from error
        raise SystemExit(exit_code(heard[-1])) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _heeded() -> list[int]:
    """Signals that nobody else has a use for."""
    from tokentape.load.signals import ENDING

    return [one for one in ENDING if signal.getsignal(one) in (signal.SIG_DFL, signal.default_int_handler)]


def _leave(number: int) -> None:
    from tokentape.load.signals import exit_code, leave_terminal

    signal.signal(number, signal.SIG_DFL)
    name = signal.Signals(number).name
    if name == "SIGHUP":
        leave_terminal()
    click.echo(phrase("failure.interrupted", language_of()), err=True)
    raise SystemExit(exit_code(name))
