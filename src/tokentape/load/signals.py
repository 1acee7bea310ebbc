"""Signals that ask a load to end: Ctrl-C, what schedulers send, and a terminal that is closed.

The first one ends it in order: what is under way is broken off, and tape, card and verdict are made. A second one, whichever, ends
it at once, with what is on the tape.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

__all__ = ["ENDING", "deaf", "exit_code", "hearing", "leave_terminal", "name_of_code"]

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_CODE = 128
"""What a shell adds to the number of a signal."""


def exit_code(name: str) -> int:
    """The exit code of a program that ended by a signal, by its name; that of Ctrl-C for a name that is none."""
    return _CODE + getattr(signal.Signals, name, signal.SIGINT).value


def name_of_code(code: object) -> str:
    """The signal of an exit code; SIGINT for a code of none."""
    return signal.Signals(code - _CODE).name if isinstance(code, int) and code > _CODE else signal.SIGINT.name


@contextlib.contextmanager
def hearing(heard: Callable[[str], None] | None) -> Iterator[None]:
    """Tell of each signal by its name, rather than raise in the middle of writing; one that is ignored stays so (``nohup``).

    Only the main thread can: on another, and with None, nothing changes.
    """
    if heard is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def tell(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if name == "SIGHUP":
            leave_terminal()
        heard(name)

    before = {}
    for number in ENDING:
        now = signal.getsignal(number)
        if number == signal.SIGINT or now not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, tell)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Who is started in here hears none of them, as they often go to a whole group; what comes meanwhile is heard afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set(ENDING))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_terminal() -> None:
    """A terminal that was closed takes no more: let what is written there go nowhere, rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):  # isatty() does not know it any more
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
