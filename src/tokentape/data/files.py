"""Where a tape is put: the checks before, the atomic arrival of a new file, and the mark of a recorder that is alive.

A recorder that is alive holds an advisory lock on the ``-wal`` file that SQLite keeps beside a tape while it grows. Not on
the tape itself: closing any other descriptor of *that* file would drop SQLite's own locks in the same process, as POSIX has
it. The kernel lets go of the mark when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sqlite3
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tokentape.data.database import connect
from tokentape.data.schema import APPLICATION_ID
from tokentape.errors import DamagedTape, RecordingError, TapeBusy, TapeExists, TokentapeError, UsageError

if sys.platform != "win32":
    import fcntl

__all__ = ["LiveMark", "alone_in", "arriving", "beside", "destination", "is_live", "path_error", "refuse_taken"]

PATIENCE_SECONDS = 0.5


def beside(path: Path, suffix: str) -> Path:
    """One of SQLite's companions of a tape: ``-wal``, ``-shm``, ``-journal``."""
    return path.with_name(path.name + suffix)


def path_error(path: Path, error: OSError) -> TokentapeError:
    """The error to raise for a file that the system would not let us make."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RecordingError(f"{path} could not be written", why="the disk is full", fix=f"df -h {path.parent}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UsageError(f"cannot write into {path.parent}", why=error.strerror or "", fix=f"ls -ld {path.parent}")
    if error.errno == errno.ENAMETOOLONG:
        return UsageError(
            f"the name {path.name[:40]}... is too long for the file system", why=str(error), fix="give a shorter name"
        )
    return RecordingError(f"{path} could not be written", why=str(error), fix=f"ls -ld {path.parent}")


def destination(path: str | os.PathLike[str]) -> Path:
    """The file that ``path`` means, links followed; raises UsageError where no file can be."""
    text = os.fspath(path)
    if not text or "\0" in text:
        raise UsageError(
            "the path of the tape is empty", why="no file can have it", fix="give a name, such as cat.tape"
        )
    place = Path(os.path.realpath(text))
    try:
        mode = place.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    except OSError as error:
        raise path_error(place, error) from error
    if mode is not None and stat.S_ISDIR(mode):
        raise UsageError(
            f"{text} is a folder", why="a tape is one file", fix=f"give a name inside it: {place / 'cat.tape'}"
        )
    if mode is not None and not stat.S_ISREG(mode):
        raise UsageError(
            f"{text} is no ordinary file", why="a tape is a file that can be read again", fix="give another path"
        )
    if not place.parent.is_dir():
        why = "there is a file of that name" if place.parent.exists() else ""
        raise UsageError(f"the folder {place.parent} does not exist", why=why, fix=f"mkdir -p {place.parent}")
    return place


def _lock(descriptor: int, *, shared: bool = False) -> bool:
    """Try to lock; False when someone else holds it. A file system without locks counts as nobody holding it."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def is_live(path: Path) -> bool:
    """Whether a recorder is writing into the tape now."""
    try:
        descriptor = os.open(beside(path, "-wal"), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait
    except OSError:
        return False
    try:
        return not _lock(descriptor, shared=True)
    finally:
        os.close(descriptor)


class LiveMark:
    """Held from the first row to the last; :meth:`release` after SQLite has closed the file."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(beside(path, "-wal"), os.O_RDWR)
        until = time.monotonic() + PATIENCE_SECONDS
        while not _lock(self._descriptor):  # a reader asking is_live() holds it for microseconds
            if time.monotonic() > until:
                self.release()
                raise busy(path)
            time.sleep(0.005)

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def busy(path: Path) -> TapeBusy:
    """The error for a tape that another process is recording into, with its number."""
    who = "another process"
    with contextlib.suppress(sqlite3.Error), contextlib.closing(connect(path, writing=False)) as connection:
        who = f"process {connection.execute('select value from tape where key = ?', ('pid',)).fetchone()[0]}"
    return TapeBusy(
        f"{path} is being recorded into by {who}",
        why="a tape has one recorder at a time",
        fix="record to another path, or wait",
    )


def refuse_taken(path: Path, *, overwrite: bool) -> None:
    """Raise TapeBusy for a tape that is growing, TapeExists for one that is finished unless ``overwrite``.

    What is no tape is never overwritten.
    """
    if not path.exists():
        return
    if is_live(path):
        raise busy(path)
    if not overwrite:
        raise TapeExists(
            f"{path} already exists",
            why="nothing is overwritten unasked",
            fix="give another path, or --overwrite (overwrite=True)",
        )
    if path.stat().st_size and not _is_tape(path):
        raise TapeExists(
            f"{path} already exists and is no tape", why="only a tape is overwritten", fix="give another path"
        )


def _is_tape(path: Path) -> bool:
    try:
        with contextlib.closing(connect(path, writing=False)) as connection:
            return bool(connection.execute("pragma application_id").fetchone()[0] == APPLICATION_ID)
    except sqlite3.DatabaseError:
        # Damaged further in: the header's own bytes decide. Nobody of this process has the file open by now.
        with path.open("rb") as file:
            return file.read(72)[68:72] == APPLICATION_ID.to_bytes(4, "big")


def _clear_companions(path: Path) -> None:
    """Fold what is beside an old tape into it, then remove it: a stale ``-wal`` would be read as part of the new tape."""
    if not any(beside(path, suffix).exists() for suffix in ("-wal", "-journal")):
        return
    with (
        contextlib.suppress(sqlite3.Error, DamagedTape),
        contextlib.closing(connect(path, writing=True)) as connection,
    ):
        connection.execute("pragma wal_checkpoint(truncate)").fetchall()
    for suffix in ("-wal", "-shm", "-journal"):
        beside(path, suffix).unlink(missing_ok=True)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep a second process from making a tape in the same folder at the same moment, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        until = time.monotonic() + 10 * PATIENCE_SECONDS
        while not _lock(descriptor) and time.monotonic() < until:
            time.sleep(0.005)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def arriving(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Make a new file beside ``path`` and put it there whole: gives the draft, an empty file in the same folder.

    What was at ``path`` before stays until the draft is complete, and for good if the body raises.
    """
    refuse_taken(path, overwrite=overwrite)
    draft = path.with_name(f".tape-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
    except OSError as error:
        raise path_error(path, error) from error
    try:
        yield draft
        _publish(draft, path, overwrite=overwrite)
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            beside(draft, suffix).unlink(missing_ok=True)


def _settle_on_disk(path: Path) -> None:
    """Wait for the disk: a power cut must not find the old tape replaced by one that is not there yet."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(draft: Path, path: Path, *, overwrite: bool) -> None:
    try:
        if overwrite:
            _settle_on_disk(draft)
            _clear_companions(path)
            os.replace(draft, path)
            return
        for suffix in ("-wal", "-shm", "-journal"):  # of a tape that someone deleted without them
            beside(path, suffix).unlink(missing_ok=True)
        try:
            os.link(draft, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o666))
            os.replace(draft, path)
    except FileExistsError as error:
        raise TapeExists(
            f"{path} already exists", why="it came while this one was made", fix="give another path"
        ) from error
    except OSError as error:
        raise path_error(path, error) from error
