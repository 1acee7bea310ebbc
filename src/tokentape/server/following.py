"""Following one file: told when it has changed, read again then, and shared by all pages that show it.

A look costs two calls of ``stat`` and no lock, so it is done twenty times a second; the file is opened only where it has
changed, and closed at once, since a reader that stays would keep the recorder from folding the tape together at its end. Of
what grows only the new blocks are read, and reading never takes more than half of the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tokentape.data.tape import Tape, open_tape
from tokentape.errors import TapeError, TokentapeError, UsageError
from tokentape.server.rows import Mark, Moment

__all__ = ["Derived", "Feed", "look", "refusing_gone", "settled_form"]

LOOK_SECONDS = 0.05

AGAIN_SECONDS = 1.0
"""So often a file that could not be read is tried again, and of one that stands still it is asked whether its recorder is alive."""

DERIVE_SECONDS = 1.0
"""The parts that are computed of the whole tape are computed this often at most,"""

DERIVE_SHARE = 4
"""and after each time rest this many times as long as they took."""

Form = tuple[tuple[int, ...] | None, ...]


class Maker(Protocol):
    """Makes of an open tape what pages are told."""

    def moment(self, tape: Tape, settled: str) -> Moment: ...

    def document(self, tape: Tape, mark: Mark) -> dict[str, Any]: ...


def look(path: Path) -> Form:
    """What tells a file from what it was: inode, size and time, and those of its log, which grows with every commit."""
    try:
        status = path.stat()
    except OSError:
        return (None, None)
    tape = (status.st_ino, status.st_size, status.st_mtime_ns)
    try:
        log = path.with_name(f"{path.name}-wal").stat()
    except OSError:
        return (tape, None)
    return (tape, (log.st_size, log.st_mtime_ns) if log.st_size else None)  # an empty one is made by whoever reads


@contextlib.contextmanager
def refusing_gone(*paths: Path) -> Iterator[None]:
    """Raise TapeError for a file that is not there, or goes while it is read; without the names of others beside it, which are
    not served.
    """
    _refuse_gone(paths)
    try:
        yield
    except (TapeError, UsageError):
        _refuse_gone(paths)
        raise


def _refuse_gone(paths: Iterable[Path]) -> None:
    for path in paths:
        if not path.exists():
            raise TapeError(
                f"there is no file {path}", why="it was moved or deleted", fix="put it back, or record it again"
            )


def settled_form(form: Form) -> str:
    """A form as 16 hexadecimal digits, for the mark of a tape that does not grow."""
    return hashlib.sha256(repr(form).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Derived:
    """The page's document as it was at a mark."""

    mark: Mark
    state: str
    document: dict[str, Any]


class Feed:
    """What there is of one tape, for any number of pages: :meth:`news` waits until there is more.

    ``moment`` has the rows, ``derived`` the document with all that is computed of the whole tape, which comes later and less
    often; ``trouble`` says why the file cannot be read now. Each has a counter that tells new from old. It follows only
    while somebody listens.
    """

    def __init__(self, path: Path, maker: Maker) -> None:
        self.path = path
        self.moment: Moment | None = None
        self.derived: Derived | None = None
        self.trouble: TokentapeError | None = None
        self.counters = (0, 0, 0)
        self._maker = maker
        self._form: Form | None = None
        self._tape: Tape | None = None
        self._inode = 0
        self._again_at = self._derived_at = self._derive_after = self._took = 0.0
        self._changed = asyncio.Event()
        self._listeners = 0
        self._following: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Feed:
        self._listeners += 1
        if self._listeners == 1:
            self._form = None
            self._following = [asyncio.create_task(self._follow()), asyncio.create_task(self._derive())]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._listeners -= 1
        if self._listeners == 0:
            for task in self._following:
                task.cancel()
            await asyncio.gather(*self._following, return_exceptions=True)
            self._following = []

    async def news(self, seen: tuple[int, int, int], seconds: float) -> bool:
        """Wait until a counter differs from ``seen``, at most so long; whether one does."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.counters == seen:
                    await self._changed.wait()
        return self.counters != seen

    def _tell(self, which: int) -> None:
        counters = list(self.counters)
        counters[which] += 1
        self.counters = (counters[0], counters[1], counters[2])
        self._changed.set()
        self._changed = asyncio.Event()

    async def _follow(self) -> None:
        while True:
            rest = 0.0
            form = look(self.path)
            unsure = self.trouble is not None or (self.moment is not None and self.moment.state == "recording")
            if form != self._form or (unsure and time.monotonic() >= self._again_at):
                self._form = form
                began = time.monotonic()
                await self._read(form)
                rest = time.monotonic() - began
                self._again_at = time.monotonic() + AGAIN_SECONDS
            await asyncio.sleep(max(LOOK_SECONDS, rest))

    async def _read(self, form: Form) -> None:
        try:
            moment = await asyncio.to_thread(self._moment, form)
        except (TapeError, UsageError) as error:
            self._say(error)
            return
        except Exception as error:  # told, and tried again: the pages must not wait for a task that is no more
            traceback.print_exception(error)
            self._say(_unexpected(error))
            return
        self._say(None)
        if self.moment is None or (moment.mark, moment.state) != (self.moment.mark, self.moment.state):
            self.moment = moment
            self._tell(0)

    def _say(self, trouble: TokentapeError | None) -> None:
        if str(trouble) != str(self.trouble):
            self.trouble = trouble
            self._tell(2)

    async def _derive(self) -> None:
        """Compute the parts again whenever there are new rows, but never most of the time."""
        while True:
            wait = self._wait()
            if wait is None or wait > 0:
                await self.news(self.counters, AGAIN_SECONDS if wait is None else wait)
                continue
            began = time.monotonic()
            try:
                self.derived = await asyncio.to_thread(self._derived)
                self._tell(1)
            except (TapeError, UsageError):  # replaced or deleted meanwhile, which _follow tells
                self._form, self._derive_after = None, began + AGAIN_SECONDS
            except Exception as error:
                traceback.print_exception(error)
                self._say(_unexpected(error))
                self._derive_after = began + AGAIN_SECONDS
            self._derived_at = time.monotonic()
            self._took = self._derived_at - began

    def _wait(self) -> float | None:
        """Seconds until the parts are to be computed again; None where nothing is new."""
        moment, derived = self.moment, self.derived
        if moment is None or (derived is not None and derived.mark == moment.mark):
            return None
        rest = DERIVE_SHARE * self._took
        if derived is not None and (derived.mark.tape, derived.mark.run) == (moment.mark.tape, moment.mark.run):
            # the same run, whose rows are there without it; but what has ended is shown as it ended
            rest = 0.0 if moment.mark.settled else max(DERIVE_SECONDS, rest)
        return max(self._derived_at + rest, self._derive_after) - time.monotonic()

    def _moment(self, form: Form) -> Moment:
        """Read what is new. A tape that grows stays open, which holds no connection to it, and keeps what it has read."""
        tape, self._tape = self._tape, None
        moment = None
        if tape is not None and form[0] is not None and form[0][0] == self._inode:
            tape.refresh()
            moment = self._maker.moment(tape, settled_form(form))
            if self.moment is None or moment.mark.tape != self.moment.mark.tape:
                moment = None  # another recording, in a file to which the system gave the same number
        if tape is None or moment is None:
            with refusing_gone(self.path):
                tape = open_tape(self.path)
                moment = self._maker.moment(tape, settled_form(form))
        if tape.state == "recording" and form[0] is not None:
            self._tape, self._inode = tape, form[0][0]
        else:
            tape.close()
        return moment

    def _derived(self) -> Derived:
        form = look(self.path)
        with refusing_gone(self.path), open_tape(self.path) as tape:
            mark = self._maker.moment(tape, settled_form(form)).mark
            return Derived(mark, tape.state, self._maker.document(tape, mark))


def _unexpected(error: Exception) -> TokentapeError:
    return TokentapeError(
        "the page could not be computed",
        why=f"{type(error).__name__}: {error}",
        fix="the server printed where; please report it",
    )
