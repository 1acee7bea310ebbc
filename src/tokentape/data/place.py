"""Where a tape lies: opened for reading however its recorder left it."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
import weakref
from pathlib import Path

import tokentape.data.files as files
from tokentape.data.database import connect
from tokentape.errors import TapeError

__all__ = ["Place"]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Place:
    """Opens a file for reading however its recorder left it, also where nothing may be written beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._copy: Path | None = None
        self._identity = _identity(path)

    def connect(self) -> sqlite3.Connection:
        path = self._copy or self._path
        if self._copy is None and _identity(path) != self._identity:
            raise TapeError(
                f"{path} is another file by now", why="it was replaced after it was opened", fix="open it again"
            )
        with contextlib.suppress(sqlite3.Error):
            journal = files.beside(path, "-journal")
            if journal.exists() and journal.stat().st_size:
                # A recorder was killed while it folded the tape together: only a writer can undo that.
                with contextlib.closing(connect(path, writing=True)) as writer:
                    writer.execute("select count(*) from sqlite_master").fetchone()
        connection = connect(path, writing=False)
        try:
            connection.execute("select count(*) from sqlite_master").fetchone()
        except sqlite3.OperationalError:
            connection.close()
            if self._copy is not None or not any(files.beside(path, s).exists() for s in ("-wal", "-journal")):
                raise
            self._copy_aside()
            return self.connect()
        except BaseException:
            connection.close()
            raise
        return connection

    def _copy_aside(self) -> None:
        """SQLite must write beside a file that has a log; where it may not, a copy elsewhere is read instead."""
        folder = Path(tempfile.mkdtemp(prefix="tokentape-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)  # with the last who reads of it
        for suffix in ("", "-wal", "-journal"):
            if files.beside(self._path, suffix).exists():
                shutil.copyfile(files.beside(self._path, suffix), folder / (self._path.name + suffix))
        self._copy = folder / self._path.name
