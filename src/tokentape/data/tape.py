"""The tape as a reader sees it: ``open_tape(path)``, traces, columns."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Generic, Protocol, TypeVar, overload

import tokentape.data.files as files
from tokentape.data.database import Database, connect, understood, written
from tokentape.data.exchange import Exchange, Scrape
from tokentape.data.explanation import Explanation
from tokentape.data.place import Place
from tokentape.data.reader import Reader, Recent
from tokentape.data.reading import Reading, ReadingKind
from tokentape.data.schema import APPLICATION_ID, SCHEMA_VERSION, SERIES
from tokentape.data.setting import Setting
from tokentape.data.trace import Candidates, Columns, Piece, RecordedRun, Trace
from tokentape.data.untrusted import from_json, refuse_strange_schema
from tokentape.data.verification import Problem, check
from tokentape.display import Displayed
from tokentape.errors import DamagedTape, NewerTape, NotATape, TapeError, TapeExists, UsageError

__all__ = ["Tape", "open_tape", "tape_of", "verify"]

T = TypeVar("T")


class Growing(Protocol):
    """What is needed of a writer to look into the tape that it makes."""

    @property
    def path(self) -> Path | None: ...

    @property
    def database(self) -> Database: ...

    @property
    def closed(self) -> bool: ...


OWN_KEYS = frozenset({"state", "fingerprint"})


class Numbered(Sequence[T], Generic[T]):
    """Values by their number, each read when first asked for."""

    def __init__(self, numbers: Sequence[int], make: Callable[[int], T], noun: str) -> None:
        self._numbers = numbers
        self._make = make
        self._noun = noun
        self._recent: Recent[T] = Recent()

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> list[T]: ...
    def __getitem__(self, place: int | slice) -> T | list[T]:
        if isinstance(place, slice):
            return [self._recent.get_or_make(number, self._make) for number in self._numbers[place]]
        try:
            number = self._numbers[place]
        except IndexError:
            raise IndexError(f"no {self._noun} {place}; the tape has {len(self)}") from None
        return self._recent.get_or_make(number, self._make)

    def __len__(self) -> int:
        return len(self._numbers)

    def __repr__(self) -> str:
        return f"<{len(self)} {self._noun}s>"


class Tape(Displayed):
    """One Setting and what was recorded under it. Opened with :func:`open_tape`; reads lazily; closes itself.

    ``path`` is None for a tape in memory. ``state`` is ``"complete"``, ``"partial"`` (its recorder stopped early) or
    ``"recording"``. A tape that is growing shows one moment of it until :meth:`refresh`. ``len(tape)`` counts its traces.
    Reading damaged rows raises DamagedTape, from whatever is asked first.
    """

    def __init__(self, database: Database, path: Path | None, live: Callable[[], bool]) -> None:
        self.path = path
        self._database = database
        self._live = live
        self._reader: Reader | None = None
        self._before: Reader | None = None
        _check_identity(database)
        self.refresh()

    def refresh(self) -> None:
        """Look at the tape as it is now."""
        # Asked before reading: a recorder that ends in between is then seen as alive once more, never as dead too early.
        live = self._live()
        self._database.keep = not live
        with understood(self._database.name), self._database.snapshot() as connection:
            # An explanation that was added meanwhile may have brought the file up to date.
            (self._version,) = connection.execute("pragma user_version").fetchone()
            values = {key: from_json(value) for key, value in connection.execute("select key, value from tape")}
            facts = connection.execute("select name, value from setting").fetchall()
            self.setting = Setting({name: from_json(value) for name, value in facts})
        stored = values.get("state")
        self.state: str = stored if stored in ("complete", "partial") else "recording" if live else "partial"
        self.notes: Mapping[str, Any] = MappingProxyType({k: v for k, v in values.items() if k not in OWN_KEYS})
        self._before, self._reader = self._reader or self._before, None
        self._pieces: Mapping[int, Piece] | None = None
        self._runs: Numbered[RecordedRun] | None = None
        self._traces: Numbered[Trace] | None = None
        self._explanations: Numbered[Explanation] | None = None
        self._readings: Numbered[Reading] | None = None

    @property
    def reader(self) -> Reader:
        if self._reader is None:
            again = partial(Tape, self._database, self.path, self._live)
            self._reader = Reader(self._database, self._version, again, self._before)
            self._before = None
        return self._reader

    @property
    def runs(self) -> Sequence[RecordedRun]:
        """The runs in order; ``tape.runs[i].number == i``."""
        if self._runs is None:
            self._runs = Numbered(list(self.reader.runs), self.reader.run, "run")
        return self._runs

    @property
    def traces(self) -> Sequence[Trace]:
        """The traces in order; ``tape.traces[i].number == i``."""
        if self._traces is None:
            self._traces = Numbered(list(self.reader.traces), self.reader.trace, "trace")
        return self._traces

    @property
    def explanations(self) -> Sequence[Explanation]:
        """What was found by playing traces again, in the order it was added; empty where nobody asked."""
        if self._explanations is None:
            self._explanations = Numbered(self.reader.explanations, self.reader.explanation, "explanation")
        return self._explanations

    @property
    def readings(self) -> Sequence[Reading]:
        """What replays read off the model (attention, lens, direct attribution), in the order it was added."""
        if self._readings is None:
            self._readings = Numbered(list(self.reader.readings), self.reader.reading, "reading")
        return self._readings

    @property
    def exchanges(self) -> Mapping[int, Exchange]:
        """What passed between client and server, by the number of the run; empty where no server was asked."""
        return MappingProxyType(self.reader.exchanges)

    @property
    def scrapes(self) -> list[Scrape]:
        """Readings of a server's metrics and of its client's own state, in the order they were taken. Read anew each time."""
        return self.reader.scrapes()

    def readings_of(self, trace: int, kind: ReadingKind) -> list[Reading]:
        """The readings of one trace and kind, the widest last: that of the most positions, of those the newest.

        No other is read.
        """
        of = self.reader.readings.values()
        found = [self.readings[place] for place, asked in enumerate(of) if asked == (trace, kind)]
        return sorted(found, key=lambda reading: len(reading.question["positions"]))

    @property
    def pieces(self) -> Mapping[int, Piece]:
        """The vocabulary entries that occur in prompts, tokens and candidates, by id."""
        if self._pieces is None:
            self._pieces = MappingProxyType(self.reader.pieces())
        return self._pieces

    def columns(self, series: str) -> Columns:
        """Every row of ``"step"`` or ``"token"``, runs or traces one after another, with their number as first column.

        Overshoot tokens are included; the column ``overshoot`` tells them.
        """
        if series not in SERIES:
            raise UsageError(
                f"no series {series!r}", why="a tape has steps and tokens", fix=f"one of {', '.join(SERIES)}"
            )
        return self.reader.columns(series)

    @property
    def candidates(self) -> Candidates:
        """The candidates of every token, ``[n, k]``, in the order of ``columns("token")``. Read anew at each call."""
        return self.reader.candidates()

    def verify(self) -> list[Problem]:
        """Check the file against itself; an empty list means that nothing was found."""
        return check(self._database, self._version)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write a copy of the tape as it is now; returns where. Raises TapeExists, UsageError, RecordingError."""
        place = files.destination(path)
        if self.path is not None and place.exists() and place.samefile(self.path):
            raise TapeExists(f"{place} is this tape itself", why="a copy needs another place", fix="give another path")
        arriving = files.arriving(place, overwrite=overwrite)
        with (
            files.alone_in(place.parent),
            arriving as draft,
            written(str(place)),
            contextlib.closing(connect(draft, writing=True)) as copy,
        ):
            with self._database.connection() as connection:
                connection.backup(copy)
            copy.execute("pragma journal_mode = delete").fetchall()
        return place

    def close(self) -> None:
        """Close the file; what was read stays."""
        self._database.close()

    def __enter__(self) -> Tape:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.traces)

    def __iter__(self) -> Iterator[Trace]:
        return iter(self.traces)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"Tape({str(self.path) if self.path else 'in memory'!r}, {self.state}, {len(self)} traces)"


def _check_identity(database: Database) -> None:
    """Raises NotATape, NewerTape, DamagedTape where a file is no tape that can be read here."""
    with understood(database.name), database.connection() as connection:
        (application,) = connection.execute("pragma application_id").fetchone()
        (version,) = connection.execute("pragma user_version").fetchone()
        connection.execute("select count(*) from sqlite_master").fetchone()
    if application != APPLICATION_ID:
        raise NotATape(
            f"{database.name} is not a tape",
            why="it is some other SQLite file",
            fix="give a file that `tokentape record` wrote",
        )
    if version > SCHEMA_VERSION:
        raise NewerTape(
            f"{database.name} was written by a later tokentape",
            why=f"its schema version is {version}, this tokentape knows {SCHEMA_VERSION}",
            fix="pip install --upgrade tokentape",
        )
    if version < 1:
        raise DamagedTape(
            f"{database.name} is damaged",
            why=f"no tape has schema version {version}",
            fix="take it again from a copy",
        )
    with understood(database.name), database.connection() as connection:
        refuse_strange_schema(connection, version)


def open_tape(source: str | os.PathLike[str] | Growing) -> Tape:
    """Open a tape to read it, or look into one that a writer of this process is making.

    Raises UsageError where there is no such file, NotATape, NewerTape, DamagedTape.
    """
    if not isinstance(source, str | os.PathLike):
        if source.path is None:
            return Tape(source.database.view(), None, lambda: not source.closed)
        return open_tape(source.path)
    path = _existing(source)
    database = Database(str(path), Place(path).connect, keep=False)
    try:
        _check_length(database, path)
        return Tape(database, path, lambda: files.is_live(path))
    except BaseException:
        database.close()
        raise


def tape_of(trace: Trace) -> Tape:
    """The tape that a trace is of, as it is now. Raises UsageError where it was closed."""
    if not isinstance(trace.loader, Reader) or trace.loader.again is None:
        raise UsageError("the trace is of no tape", why="it was made by hand", fix="take it from tape.traces")
    tape: Tape = trace.loader.again()
    return tape


def _check_length(database: Database, path: Path) -> None:
    """SQLite forgives a last page that is cut short; a tape that lacks a byte is damaged all the same."""
    with understood(database.name):
        ((pages,),), ((page_bytes,),) = database.rows("pragma page_count"), database.rows("pragma page_size")
        n_bytes = path.stat().st_size
        if not files.beside(path, "-wal").exists() and n_bytes < pages * page_bytes:
            raise ValueError(f"the file has {n_bytes} of {pages * page_bytes} bytes")


def verify(path: str | os.PathLike[str]) -> list[Problem]:
    """Check a file against itself; an empty list means that nothing was found.

    A file too damaged to be opened is one problem. Raises UsageError, NotATape and NewerTape as :func:`open_tape` does.
    """
    try:
        with open_tape(path) as tape:
            return tape.verify()
    except DamagedTape as error:
        return [Problem("file", f"{error.what}: {error.why}")]


def _existing(source: str | os.PathLike[str]) -> Path:
    path = Path(source)
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise _missing(path, error) from error
    if path.is_dir():
        raise NotATape(f"{path} is a folder", why="a tape is one file", fix=f"ls {path}/*.tape")
    if not path.is_file():
        raise NotATape(
            f"{path} is not a tape", why="it is no ordinary file", fix="give a file that `tokentape record` wrote"
        )
    if size == 0:
        raise NotATape(f"{path} is not a tape", why="it is empty", fix="give a file that `tokentape record` wrote")
    if not os.access(path, os.R_OK):
        raise TapeError(f"{path} cannot be read", why="permission denied", fix=f"chmod u+r {path}")
    return path


def _missing(path: Path, error: Exception) -> UsageError:
    try:
        names = sorted(name for name in os.listdir(path.parent) if name.endswith(".tape"))
    except (OSError, ValueError):
        return UsageError(f"there is no file {path}", why=str(error), fix="give the path of a tape")
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.4) or names[:3]
    fix = (
        f"did you mean {' or '.join(str(path.with_name(name)) for name in near)}" if near else "give the path of a tape"
    )
    return UsageError(
        f"there is no file {path}", why=f"{path.parent} has {len(names)} tapes, none of that name", fix=fix
    )
