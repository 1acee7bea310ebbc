"""One SQLite connection with its manners: settings, a lock, transactions, and errors that are tokentape's own."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokentape.data.untrusted import read_tables_alone, refuse_strange_company
from tokentape.errors import DamagedTape, NotATape, RecordingError, TapeBusy, TapeError, TokentapeError, UsageError

__all__ = ["Database", "connect", "connect_memory", "understood", "written"]

BUSY_SECONDS = 5.0
LONGEST_VALUE = 1 << 28
"""Bytes of the longest value that is read: a damaged length must not ask for the machine's memory."""


def _settle(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
    connection.execute("pragma trusted_schema = off")
    connection.execute("pragma cell_size_check = on")
    return connection


def connect(path: Path, *, writing: bool) -> sqlite3.Connection:
    """Open an existing file; nothing is created.

    The address is a URI, so that ``?``, ``#``, ``%`` and spaces in a name are a name's letters. Raises DamagedTape for what
    lies beside it as nothing of a tape does.
    """
    refuse_strange_company(path, writing=writing)
    address = f"{path.absolute().as_uri()}?mode={'rw' if writing else 'ro'}"
    connection = sqlite3.connect(
        address, uri=True, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False, cached_statements=64
    )
    try:
        _settle(connection)
        if not writing:
            connection.execute("pragma query_only = on")
            read_tables_alone(connection)
            if sys.version_info >= (3, 12):
                connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_memory() -> sqlite3.Connection:
    """An empty database that lives as long as its connection."""
    return _settle(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))


def _code(error: sqlite3.Error) -> int:
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


@contextlib.contextmanager
def understood(name: str) -> Iterator[None]:
    """Turn whatever reading a broken file may raise into the tape's own errors."""
    try:
        yield
    except TokentapeError:
        raise
    except sqlite3.Error as error:
        raise _unreadable(name, error) from error
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError, RecursionError) as error:
        raise _damaged(name, f"{type(error).__name__}: {error}") from error


def _damaged(name: str, why: str) -> DamagedTape:
    return DamagedTape(f"{name} is damaged", why=why, fix=f"tokentape doctor {name}  # or take it again from a copy")


def _unreadable(name: str, error: sqlite3.Error) -> TapeError:
    code = _code(error)
    if code == sqlite3.SQLITE_NOTADB:
        return NotATape(
            f"{name} is not a tape", why="it is no SQLite file", fix="give a file that `tokentape record` wrote"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return TapeBusy(f"{name} is locked by another process", why=str(error), fix="try again when it has finished")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return TapeError(f"{name} cannot be opened", why=str(error), fix=f"ls -l {name}")
    return _damaged(name, str(error))


@contextlib.contextmanager
def written(name: str) -> Iterator[None]:
    """Turn whatever writing may raise into :class:`RecordingError`, or :class:`UsageError` where the rows are wrong."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError) as error:
        raise UsageError(
            f"rows that do not fit the schema were refused by {name}",
            why=str(error),
            fix="give plain Python values in the order of STEP_COLUMNS and TOKEN_COLUMNS",
        ) from error
    except (OverflowError, UnicodeEncodeError) as error:
        raise UsageError(
            f"a value that no tape can hold was refused by {name}",
            why=str(error),
            fix="integers have 64 bits, text is valid Unicode without lone surrogates",
        ) from error
    except (sqlite3.Error, OSError) as error:
        full = isinstance(error, sqlite3.Error) and _code(error) == sqlite3.SQLITE_FULL
        raise RecordingError(
            f"{name} could not be written",
            why="the disk is full" if full else str(error),
            fix="make room and record again; what was written before stays readable",
        ) from error


class Database:
    """A connection that any thread may use, one at a time.

    ``open_again`` makes a connection. With ``keep`` False each use opens and closes one: a connection left open to a tape
    that is growing would keep its recorder from folding the file together at the end.
    """

    def __init__(self, name: str, open_again: Callable[[], sqlite3.Connection], *, keep: bool = True) -> None:
        self.name = name
        self.keep = keep
        self._open_again = open_again
        self._held: sqlite3.Connection | None = None
        self._lock = threading.RLock()
        self._depth = 0
        self._source: Database | None = None
        self.closed = False

    def view(self) -> Database:
        """The same connection under the same lock; closing the view leaves it to its owner."""
        view = Database(self.name, self._open_again)
        view._source, view._lock = self, self._lock
        return view

    @contextlib.contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone; raises UsageError when the tape has been closed."""
        with self._lock:
            if self.closed:
                raise UsageError(f"{self.name} is closed", why="close() was called", fix="open the tape again")
            if self._held is None:
                self._held = self._open_again()
            self._depth += 1
            try:
                yield self._held
            finally:
                self._depth -= 1
                if not self.keep and self._depth == 0:
                    self._drop()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing: committed at the end, rolled back on any exception."""
        with self.connection() as connection:
            connection.execute("begin immediate")
            try:
                yield connection
                connection.execute("commit")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("rollback")
                raise

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Several reads of one moment, whatever is written meanwhile."""
        with self.connection() as connection:
            nested = connection.in_transaction
            if not nested:
                connection.execute("begin")
            try:
                yield connection
            finally:
                if not nested and connection.in_transaction:
                    connection.execute("rollback")

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of one question."""
        with self.connection() as connection:
            return connection.execute(sql, values).fetchall()

    def execute(self, sql: str, values: Sequence[Any]) -> None:
        """One statement on a connection that is open already, for whoever is in a hurry."""
        with self._lock:
            if self._held is None or self.closed:
                with self.connection() as connection:
                    connection.execute(sql, values)
            else:
                self._held.execute(sql, values)

    def _drop(self) -> None:
        if self._held is not None:
            if self._source is None:
                self._held.close()
            self._held = None

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        with self._lock:
            self.closed = True
            self._drop()

    def __del__(self) -> None:
        # A tape that nobody closed must not warn about SQLite's own resources.
        with contextlib.suppress(Exception):
            self._drop()
