"""What is added to a tape after it was finished: explanations and readings.

A recorder marks its tape and appends for as long as it lives. Here nothing grows: one transaction holds the new rows, the hashes
that cover them and, in a tape of an older schema, the tables themselves. A process killed at any moment leaves the tape as it
was or with all of it, its state and its traces untouched in either case.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

import tokentape.data.files as files
from tokentape.data.consistency import Problem, explanation_problems, reading_problems, sequence_ids
from tokentape.data.database import Database, connect, understood, written
from tokentape.data.explanation import Explanation
from tokentape.data.manifest import manifest_problems, write_manifest
from tokentape.data.migrations import apply_missing
from tokentape.data.packing import UNPACKED, pack_run
from tokentape.data.reading import Reading
from tokentape.data.reading_rows import put_reading
from tokentape.data.relevance import put_explanation
from tokentape.data.schema import LAID_OUT_SINCE
from tokentape.data.store import TapeWriter, fold
from tokentape.data.tape import Tape, open_tape
from tokentape.data.verification import check
from tokentape.errors import DamagedTape, RecordingError, TapeBusy, UsageError

__all__ = ["add_explanations", "add_readings"]

Ids = npt.NDArray[np.int64]
Added = TypeVar("Added", Explanation, Reading)


def add_explanations(path: str | os.PathLike[str], explanations: Iterable[Explanation]) -> list[int]:
    """Put explanations into a finished tape, all or none; returns their numbers in the order given.

    One that answers the same question as an older one (trace, method, options, kind, together, targets, foils, sources) takes
    its place and its number. A tape whose recorder stopped early is first closed as ``"partial"``, which it was; one of
    an older schema is brought up to date. Raises UsageError (no such file, not writable, a trace or position that the
    tape does not have), TapeBusy, NotATape, NewerTape, DamagedTape, RecordingError.
    """
    return _added(path, list(explanations), "an explanation", explanation_problems, put_explanation)


def add_readings(path: str | os.PathLike[str], readings: Iterable[Reading]) -> list[int]:
    """Put readings into a finished tape, all or none; returns their numbers in the order given.

    One that says all that older ones of its kind and trace say (:func:`tokentape.data.reading.covers`) takes their place, and the
    number of the first of them. Otherwise as :func:`add_explanations`, which raises the same.
    """
    return _added(path, list(readings), "a reading", reading_problems, put_reading)


def _added(
    path: str | os.PathLike[str],
    given: Sequence[Added],
    noun: str,
    problems: Callable[[Added, Ids], Iterable[Problem]],
    put: Callable[[sqlite3.Connection, Added], int],
) -> list[int]:
    with open_tape(path) as tape:
        if tape.state == "recording":
            raise files.busy(files.destination(path))
        for one in given:
            ids = _ids_of(one.trace, tape, noun)
            _refuse_stranger(noun, problems(one, ids))
    if not given:
        return []
    place = files.destination(path)
    _refuse_read_only(place)
    if _is_abandoned(place):
        TapeWriter.resume(place).close("partial").close()
    with files.alone_in(place.parent), _put_down(place):
        if files.is_live(place):
            raise files.busy(place)
        database = Database(str(place), lambda: connect(place, writing=True))
        with contextlib.closing(database):
            return _put(database, lambda connection: [put(connection, one) for one in given])


def _put(database: Database, put: Callable[[sqlite3.Connection], list[int]]) -> list[int]:
    with database.transaction() as connection:
        (version,) = connection.execute("pragma user_version").fetchone()
        with understood(database.name):
            # New hashes would make what was altered look sound, and so would new packs.
            anew = version < LAID_OUT_SINCE
            problems = check(database, version) if anew else list(manifest_problems(connection, version))
        if problems:
            raise DamagedTape(
                f"{database.name} is damaged", why=str(problems[0]), fix=f"tokentape verify {database.name}"
            )
        apply_missing(connection)
        for (run,) in connection.execute(UNPACKED).fetchall():
            pack_run(connection, run)
        numbers = put(connection)
        write_manifest(connection)
    with database.connection() as connection:
        fold(connection)
    return numbers


def _ids_of(number: int, tape: Tape, noun: str) -> Ids:
    """The ids of a trace; raises UsageError where the tape has none of that number."""
    if not 0 <= number < len(tape):
        raise UsageError(
            f"{noun} of trace {number} does not belong here",
            why=f"the tape has {len(tape)} traces, counted from 0",
            fix="add it to the tape whose trace was replayed",
        )
    trace = tape.traces[number]
    return sequence_ids(trace.n_prompt, trace.prompt_ids, trace.tokens["position"].data, trace.tokens["id"].filled(-1))


def _refuse_stranger(noun: str, problems: Iterable[Problem]) -> None:
    """Raise UsageError for what is about another trace."""
    for problem in problems:
        raise UsageError(
            f"{noun} does not fit its trace", why=problem.what, fix="add it to the tape whose trace was replayed"
        )


def _refuse_read_only(place: Path) -> None:
    """SQLite needs the file and, for its journal, the folder."""
    for needed, command in ((place, "ls -l"), (place.parent, "ls -ld")):
        if not os.access(needed, os.W_OK):
            raise UsageError(
                f"{place} cannot be added to",
                why=f"{needed} is read-only",
                fix=f"{command} {needed}  # or copy the tape to a folder of your own, and explain the copy",
            )


def _is_abandoned(place: Path) -> bool:
    """Whether its recorder stopped without closing it."""
    with understood(str(place)), contextlib.closing(connect(place, writing=False)) as connection:
        (state,) = connection.execute("select value from tape where key = 'state'").fetchone()
        return bool(state == '"recording"')


@contextlib.contextmanager
def _put_down(place: Path) -> Iterator[None]:
    """Turn what writing may raise into the tape's own errors; what another process holds is not a full disk."""
    try:
        with written(str(place)):
            yield
    except RecordingError as error:
        code = (getattr(error.__cause__, "sqlite_errorcode", None) or 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise TapeBusy(
                f"{place} is held by another program", why=error.why, fix="close it there, and try again"
            ) from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise DamagedTape(f"{place} is damaged", why=error.why, fix=f"tokentape verify {place}") from error
        raise
