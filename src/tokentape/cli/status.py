"""One line on stderr that says how far something has come: drawn over itself on a terminal, now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Any, Self

import click

__all__ = ["PLAIN_SECONDS", "Drawing", "StatusLine", "draws_on"]

PLAIN_SECONDS = 10.0
"""How often a line is printed where there is no terminal; what takes less prints none."""

DRAWN_SECONDS = 0.1
"""How often the line is drawn at most."""


def draws_on() -> bool:
    """Whether stderr is a terminal that can draw over a line."""
    from tokentape.views.screen import is_terminal

    return is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"


class Drawing:
    """What rich draws over itself on stderr, gone when it is left; ``_live`` is None where nothing is drawn."""

    _live: Any = None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()


class StatusLine:
    """The line; gone without a trace when it is left.

    What it is given in English, by a phrase of ``live.doing``, it says in the reader's language.
    """

    def __init__(self, waiting_for: str, *, quiet: bool) -> None:
        from tokentape.views.screen import Screen

        self._screen = Screen.of(sys.stderr)
        self._quiet = quiet
        self._drawn = draws_on()
        self._due = 0.0 if self._drawn else time.monotonic() + PLAIN_SECONDS
        self.say(waiting_for)

    def say(self, text: str) -> None:
        """What is going on now."""
        from tokentape.views.drawing import drawn_text
        from tokentape.words.retold import retold

        now = time.monotonic()
        if self._quiet or now < self._due:
            return
        text = drawn_text(retold(text, self._screen.lang, "live.doing"))
        if self._drawn:
            self._due = now + DRAWN_SECONDS
            self._draw(text)
        else:
            self._due = now + PLAIN_SECONDS
            click.echo(self._screen.safe(text), err=True)

    def _draw(self, text: str) -> None:
        from tokentape.views.screen import fit

        sys.stderr.write(f"\r\x1b[K{fit(self._screen.safe(text), self._screen.width - 1)}")
        sys.stderr.flush()

    def __enter__(self) -> StatusLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn and not self._quiet:
            self._draw("")
