"""Writing a tape: small transactions, so that a process killed at any moment loses nothing it had committed."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import tokentape.data.files as files
from tokentape.data.blocks import INSERT_ROW, Draft, block_row, lay_out
from tokentape.data.control import Decision, Outcome
from tokentape.data.control_rows import EFFECT_ROW, forget, put_decisions, put_effects, put_outcomes, put_rules
from tokentape.data.database import Database, connect, connect_memory, understood, written
from tokentape.data.exchange import Exchange, Scrape
from tokentape.data.exchange_rows import put_exchange, put_scrapes
from tokentape.data.founding import found, head_of, now_utc
from tokentape.data.json_text import as_json
from tokentape.data.manifest import write_manifest
from tokentape.data.migrations import migrate
from tokentape.data.packing import UNPACKED, pack_run
from tokentape.data.request import Run
from tokentape.data.schema import TOKEN_COLUMNS
from tokentape.data.setting import Setting
from tokentape.data.tape import Tape, open_tape
from tokentape.errors import RecordingError, UsageError

__all__ = ["BegunRun", "TapeWriter"]

STATES = ("complete", "partial")
PAGES_BETWEEN_CHECKPOINTS = 1000

Entry = tuple[int, str | None, bytes, bool]
"""An entry of the vocabulary: id, token, bytes, special."""

_FLOATS = tuple((1 + place, column.name) for place, column in enumerate(TOKEN_COLUMNS) if column.dtype == "f8")
_TOKEN_WIDTH = 1 + len(TOKEN_COLUMNS) + 3
_PAIR = r"\[\d{1,10},\s?-?\d+(?:\.\d+)?(?:e[+-]?\d+)?\]"
_CANDIDATES = re.compile(rf"\[(?:{_PAIR}(?:,\s?{_PAIR})*)?\]")

_FORGET_RELEVANCE = "delete from relevance where explanation in (select number from explanation where trace = ?)"


@dataclass(frozen=True, slots=True)
class BegunRun:
    """The numbers a run was given: its own, and one for each of its traces in their order."""

    number: int
    trace_numbers: tuple[int, ...]


def _refuse_nonsense(tokens: Sequence[tuple[Any, ...]]) -> None:
    """SQLite would turn NaN into null without a word; and a pack needs candidates that can be read."""
    for row in tokens:
        if len(row) != _TOKEN_WIDTH:
            raise UsageError(
                f"a token has {len(row)} values, not {_TOKEN_WIDTH}",
                why="a row has one value a column",
                fix="give (trace, *TOKEN_COLUMNS, text, raw, candidates)",
            )
        for place, name in _FLOATS:
            if row[place] != row[place]:
                raise UsageError(
                    f"{name} of the token at position {row[1]} of trace {row[0]} is NaN",
                    why="a tape says null where there is no value",
                    fix="give None",
                )
        if row[-1] is not None and not (isinstance(row[-1], str) and _CANDIDATES.fullmatch(row[-1])):
            raise UsageError(
                f"candidates of the token at position {row[1]} of trace {row[0]} are not [[id, logprob], ...]: {row[-1][:60]!r}",
                why="only this form can be packed and read back",
                fix="make them with tokentape.data.candidates_json(pairs)",
            )


class TapeWriter:
    """A tape that is growing. Any one thread may write at a time, not only the one that made it.

    Make one with :meth:`create`. Every method raises :class:`RecordingError` when the file cannot be written; what was
    committed before stays readable, and the call may be made again.
    """

    def __init__(self, database: Database, path: Path | None, mark: files.LiveMark | None) -> None:
        self.database = database
        self.path = path
        self._mark = mark
        self._name = database.name
        self.closed = False

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str] | None,
        setting: Setting,
        *,
        notes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> TapeWriter:
        """Begin a tape at ``path``, or in memory where that is None.

        ``notes`` are JSON-able facts about the tape (``origin_unix_ns``, clock names, probes). A tape that is there already
        stays until the new one has taken its place. Raises UsageError, TapeExists, TapeBusy, RecordingError.
        """
        head = head_of(setting, notes or {})
        if path is None:
            memory = connect_memory()
            database = Database("the tape in memory", lambda: memory)
            with written(database.name):
                found(memory, head)
            return cls(database, None, None)
        place = files.destination(path)
        with files.alone_in(place.parent), written(str(place)):
            arriving = files.arriving(place, overwrite=overwrite)
            with arriving as draft, contextlib.closing(connect(draft, writing=True)) as connection:
                # Nobody sees the draft before it is whole, so that a journal would protect nothing.
                connection.execute("pragma journal_mode = off").fetchall()
                connection.execute("pragma synchronous = off")
                found(connection, head)
            return cls._taking(place)

    @classmethod
    def resume(cls, path: str | os.PathLike[str]) -> TapeWriter:
        """Go on with a tape whose recorder stopped early, or that was finished; an older schema is brought up to date.

        Raises TapeBusy where its recorder is alive, UsageError where there is no file, NotATape, NewerTape, DamagedTape,
        RecordingError.
        """
        open_tape(path).close()
        place = files.destination(path)
        with understood(str(place)), files.alone_in(place.parent), written(str(place)):
            if files.is_live(place):
                raise files.busy(place)
            return cls._taking(place)

    @classmethod
    def _taking(cls, place: Path) -> TapeWriter:
        """A writer of the tape at ``place``, marked as alive."""
        connection = connect(place, writing=True)
        try:
            # NORMAL: a killed process loses nothing; a power cut may lose the last steps but not the file.
            connection.execute("pragma journal_mode = wal").fetchall()
            connection.execute("pragma synchronous = normal")
            # A checkpoint waits for the disk, and whoever appends may be in a loop: closing makes up for it.
            connection.execute("pragma wal_autocheckpoint = 0").fetchall()
            migrate(connection)
            connection.execute(
                "insert or replace into tape values ('pid', ?), ('state', '\"recording\"')", (str(os.getpid()),)
            )
            mark = files.LiveMark(place)
        except BaseException:
            connection.close()
            raise
        return cls(Database(str(place), lambda: connection), place, mark)

    def begin(self, run: Run) -> BegunRun:
        """Write down a run and its traces, before their first step."""
        heads = [
            (
                head.row,
                head.n_prompt,
                head.prompt_text,
                None if head.prompt_ids is None else as_json([int(i) for i in head.prompt_ids], "prompt_ids"),
            )
            for head in run.traces
        ]
        options = as_json(dict(run.options), "the options of the run")
        with written(self._name), self.database.transaction() as connection:
            (number,) = connection.execute("select coalesce(max(number) + 1, 0) from run").fetchone()
            (first,) = connection.execute("select coalesce(max(number) + 1, 0) from trace").fetchone()
            numbers = tuple(range(first, first + len(heads)))
            connection.execute(
                "insert into run (number, start_ns, options, seed, n_traces) values (?, ?, ?, ?, ?)",
                (number, run.start_ns, options, run.seed, len(heads)),
            )
            put_rules(connection, number, run.rules)
            connection.executemany(
                "insert into trace (number, run, row, n_prompt, prompt_text, prompt_ids) values (?, ?, ?, ?, ?, ?)",
                [(trace, number, *head) for trace, head in zip(numbers, heads, strict=True)],
            )
        return BegunRun(number, numbers)

    def append(self, steps: Iterable[tuple[Any, ...]], tokens: Iterable[tuple[Any, ...]]) -> None:
        """Commit some steps and their tokens, all or none.

        A step is ``(run, *values)`` in the order of STEP_COLUMNS; a token ``(trace, *values, text, raw, candidates)`` in the
        order of TOKEN_COLUMNS, with ``raw`` (bytes) only where ``text`` is None, and ``candidates`` as
        :func:`~tokentape.data.candidates_json` makes them, or None. Raises UsageError for NaN and for what does not fit.
        """
        steps, tokens = list(steps), list(tokens)
        _refuse_nonsense(tokens)
        with written(self._name), self.database.transaction() as connection:
            for run in {step[0] for step in steps}:
                lay_out(connection, run)  # rows never follow blocks
            connection.executemany(INSERT_ROW["step"], steps)
            connection.executemany(INSERT_ROW["token"], tokens)

    def append_block(
        self,
        run: int,
        draft: Draft,
        pieces: Collection[Entry] = (),
        effects: Collection[EFFECT_ROW] = (),
        decisions: Collection[tuple[int, Decision]] = (),
    ) -> None:
        """Commit some steps and their tokens as one block, with the vocabulary entries, effects and decisions that came with them,
        all or none.

        The way for whoever is in a loop: a fraction of the time of :meth:`append`. Blocks become rows in :meth:`lay_out`.
        """
        if not (pieces or effects or decisions):
            try:
                self.database.execute(*block_row(run, draft))  # one statement is a transaction by itself
            except Exception:
                with written(self._name):
                    raise
            return
        with written(self._name), self.database.transaction() as connection:
            _add_pieces(connection, pieces)
            put_effects(connection, effects)
            put_decisions(connection, decisions)
            connection.execute(*block_row(run, draft))

    def add_pieces(self, pieces: Iterable[Entry]) -> None:
        """Keep entries of the vocabulary, each ``(id, token, bytes, special)``; those known already are left as they are."""
        with written(self._name), self.database.transaction() as connection:
            _add_pieces(connection, pieces)

    def lay_out(self) -> None:
        """Turn all blocks into rows, a run at a time; some 30 us a step. :meth:`close` does it too."""
        with understood(self._name), written(self._name):
            for (run,) in self.database.rows("select distinct run from block order by run"):
                with self.database.transaction() as connection:
                    lay_out(connection, run)

    def end(
        self,
        run: int,
        finish_reasons: Sequence[str | None],
        outcomes: Sequence[Sequence[Outcome]] | None = None,
        decisions: Collection[tuple[int, Decision]] = (),
        exchange: Exchange | None = None,
    ) -> None:
        """Say why each trace of the run ended, how its constraints did, what was decided at the last, what passed with a server.

        :meth:`close` packs its rows.
        """
        with written(self._name), self.database.transaction() as connection:
            traces = connection.execute("select number from trace where run = ? order by number", (run,)).fetchall()
            for what, given in (("reasons", finish_reasons), ("lists of outcomes", outcomes or traces)):
                if len(given) != len(traces):
                    raise UsageError(
                        f"run {run} has {len(traces)} traces, but {len(given)} {what} were given",
                        why="each trace ends for a reason of its own",
                        fix="give one a trace: None where it did not end, an empty list where nothing constrained it",
                    )
            pairs = [(reason, trace) for reason, (trace,) in zip(finish_reasons, traces, strict=True)]
            connection.executemany("update trace set finish_reason = ? where number = ?", pairs)
            connection.execute("update run set finished = 1 where number = ?", (run,))
            put_decisions(connection, decisions)
            if exchange is not None:
                put_exchange(connection, run, exchange)
            if outcomes:
                put_outcomes(connection, {trace: one for (trace,), one in zip(traces, outcomes, strict=True)})

    def drop_last(self) -> None:
        """Take the last run off the tape, with all that belongs to it: one that came to no end, and is to be made again.

        Raises UsageError where the tape has none.
        """
        with written(self._name), self.database.transaction() as connection:
            (run,) = connection.execute("select max(number) from run").fetchone()
            if run is None:
                raise UsageError("the tape has no run", why="nothing was recorded", fix="begin one first")
            traces = connection.execute("select number from trace where run = ?", (run,)).fetchall()
            connection.executemany("delete from packed where series = 'token' and owner = ?", traces)
            connection.executemany("delete from token where trace = ?", traces)
            forget(connection, run, traces)
            connection.executemany(_FORGET_RELEVANCE, traces)
            connection.executemany("delete from explanation where trace = ?", traces)
            connection.executemany("delete from reading where trace = ?", traces)
            connection.execute("delete from packed where series = 'step' and owner = ?", (run,))
            connection.execute("delete from exchange where run = ?", (run,))
            for table, column in (("block", "run"), ("step", "run"), ("trace", "run"), ("run", "number")):
                connection.execute(f"delete from {table} where {column} = ?", (run,))

    def add_scrapes(self, scrapes: Iterable[Scrape]) -> None:
        """Keep readings of a server or of its client, in the order in which they were taken."""
        with written(self._name), self.database.transaction() as connection:
            put_scrapes(connection, scrapes)

    def note(self, key: str, value: object) -> None:
        """Write down one JSON-able fact about the tape, in place of an earlier one of that name."""
        text = as_json(value, f"the note {key!r}")
        with written(self._name), self.database.transaction() as connection:
            connection.execute("insert or replace into tape values (?, ?)", (key, text))

    def close(self, state: str = "complete") -> Tape:
        """Say how it ended, fold the tape into a single file, let go of it, and open it to be read.

        A second call only opens it again.
        """
        if state not in STATES:
            raise UsageError(
                f"a tape cannot be closed as {state!r}",
                why="it is whole or it is not",
                fix=f"one of {', '.join(STATES)}",
            )
        if not self.closed:
            self.closed = True
            try:
                with written(self._name):
                    self._finish(state)
            finally:
                if self.path is not None:
                    self.database.close()
                if self._mark is not None:
                    self._mark.release()
        return open_tape(self)

    def __enter__(self) -> TapeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("complete" if error is None else "partial").close()

    def _finish(self, state: str) -> None:
        with self.database.connection() as connection:
            connection.execute(f"pragma wal_autocheckpoint = {PAGES_BETWEEN_CHECKPOINTS}").fetchall()
        with contextlib.suppress(RecordingError):  # what has no room as rows stays as blocks
            self.lay_out()
        for (run,) in self.database.rows(UNPACKED):
            # in one transaction: a kill leaves all of its packs or none
            with (
                contextlib.suppress(RecordingError),
                written(self._name),
                self.database.transaction() as connection,
            ):
                pack_run(connection, run)
        with self.database.transaction() as connection:
            values = [("state", as_json(state, "state")), ("finished_utc", as_json(now_utc(), "finished_utc"))]
            connection.executemany("insert or replace into tape values (?, ?)", values)
            write_manifest(connection)
        if self.path is not None:
            with self.database.connection() as connection:
                fold(connection)


def fold(connection: sqlite3.Connection) -> None:
    """Make a single file of a tape and its log."""
    connection.execute("pragma wal_checkpoint(truncate)").fetchall()
    # A reader of another program may hold the file: then it stays as two files, nothing is lost.
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute("pragma journal_mode = delete").fetchall()


def _add_pieces(connection: sqlite3.Connection, pieces: Iterable[Entry]) -> None:
    rows = [(i, token, bytes(raw), int(special)) for i, token, raw, special in pieces]
    connection.executemany("insert or ignore into piece values (?, ?, ?, ?)", rows)
