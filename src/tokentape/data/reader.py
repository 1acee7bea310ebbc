"""Reading rows and packs of one tape, at one moment of its growth."""

from __future__ import annotations

import itertools
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tokentape.data.blocks import NO_BLOCKS, Blocks, read_blocks
from tokentape.data.columns import batched, candidates_of, columns_of, end_to_end, joined
from tokentape.data.control import Decision, Outcome, RuleHead
from tokentape.data.control_rows import effect_columns, read_decisions, read_effects, read_outcomes, read_rules
from tokentape.data.database import Database, understood
from tokentape.data.exchange import Exchange, Scrape
from tokentape.data.exchange_rows import read_exchanges, read_scrapes
from tokentape.data.explanation import Explanation
from tokentape.data.packing import AT_STEP, ENDLESS, OWNER, Part, bytes_of, parts_from_packs, parts_from_rows
from tokentape.data.reading import Reading
from tokentape.data.reading_rows import read_reading
from tokentape.data.relevance import read_explanation
from tokentape.data.request import FINISH_REASONS
from tokentape.data.schema import CONTROLLED_SINCE, EXPLAINED_SINCE, GROWN_SINCE, READ_SINCE, SERVED_SINCE
from tokentape.data.trace import Candidates, Columns, Piece, RecordedRun, Symbols, Trace
from tokentape.data.untrusted import from_json, of_kinds

__all__ = ["Reader"]

T = TypeVar("T")
RECENT = 64
"""Traces and runs whose columns are kept in memory."""


class Recent(OrderedDict[int, T]):
    """The values used last, made when asked for."""

    def get_or_make(self, key: int, make: Callable[[int], T]) -> T:
        if key in self:
            self.move_to_end(key)
            return self[key]
        value = self[key] = make(key)
        if len(self) > RECENT:
            self.popitem(last=False)
        return value


class Reader:
    """A view of the rows as they were when it was made; what is appended later is not seen.

    ``version`` is the schema version of the file: an older one lacks columns, which are null here. Where the file was brought up to
    date since, its packs are others, and rows are read. ``again`` opens the tape of these rows as it is when that is called.
    What an ``earlier`` reader of the same file read of blocks that are still there is not read again.
    """

    def __init__(
        self,
        database: Database,
        version: int,
        again: Callable[[], Any] | None = None,
        earlier: Reader | None = None,
    ) -> None:
        self.again = again
        self._database = database
        self._version = version
        self._steps: Recent[Columns] = Recent()
        with understood(database.name), database.snapshot() as connection:
            self.runs: dict[int, tuple[Any, ...]] = {
                row[0]: row
                for row in connection.execute(
                    "select number, start_ns, options, seed, n_traces, finished, packed, n_steps from run order by number"
                )
            }
            self.traces: dict[int, tuple[Any, ...]] = {
                row[0]: row
                for row in connection.execute(
                    "select number, run, row, n_prompt, finish_reason, n_tokens from trace order by number"
                )
            }
            self.explanations: list[int] = []
            self.readings: dict[int, tuple[int, str]] = {}
            self._ruled: frozenset[int] = frozenset()
            self._decided: dict[int, int] = {}
            # Tables of these names in an older tape are someone else's.
            if version >= EXPLAINED_SINCE:
                rows = connection.execute("select number from explanation order by number")
                self.explanations = [number for (number,) in rows]
            if version >= CONTROLLED_SINCE:
                self._ruled = frozenset(run for (run,) in connection.execute("select distinct run from rule"))
                self._decided = dict(
                    connection.execute("select trace, count(*) from decision group by trace").fetchall()
                )
            if version >= READ_SINCE:
                rows = connection.execute("select number, trace, kind from reading order by number")
                self.readings = {number: (trace, kind) for number, trace, kind in rows}
            self._all_packed = all(row[6] for row in self.runs.values())
            # Only steps that were there now are read later, so that everything a Reader says is of one moment.
            self._grows = version >= GROWN_SINCE
            self._last = {
                number: self._last_step(connection, number) for number in self.runs if not self._packed("step", number)
            }
            self._blocks: Recent[Blocks] = Recent()
            self._earlier: Mapping[int, Blocks] = {} if earlier is None else {**earlier._earlier, **earlier._blocks}

    def _last_step(self, connection: sqlite3.Connection, run: int) -> int:
        """Index of the last step of a run so far, -1 where it has none."""
        questions = ['select max("index") from step where run = ?']
        if self._grows:
            questions.append("select max(first_step + n_steps - 1) from block where run = ?")
        found = [connection.execute(question, (run,)).fetchone()[0] for question in questions]
        return max((int(last) for last in found if last is not None), default=-1)

    def _run_of(self, series: str, owner: int) -> int:
        return owner if series == "step" else int(self.traces[owner][1])

    def _packed(self, series: str, owner: int) -> bool:
        return bool(self.runs[self._run_of(series, owner)][6])

    def run(self, number: int) -> RecordedRun:
        """One run, its options parsed."""
        with understood(self._database.name):
            _, start_ns, options, seed, n_traces, finished, *_ = self.runs[number]
            of_kinds(f"run {number}", (start_ns, options, seed, n_traces), (int, str, int, int))
            asked = from_json(options, dict)
            return RecordedRun(number, start_ns, asked, seed, n_traces, bool(finished), self._rules(number))

    def trace(self, number: int) -> Trace:
        """One trace, which reads the rest of itself later."""
        with understood(self._database.name):
            _, run, row, n_prompt, reason, _ = self.traces[number]
            of_kinds(f"trace {number}", (run, row, n_prompt, reason), (int, int, int, str))
            if reason is not None and reason not in FINISH_REASONS:
                raise ValueError(f"trace {number} ended by {reason!r:.40}")
            return Trace(number, self.run(run), row, n_prompt, reason, self)

    def _rules(self, run: int) -> tuple[RuleHead, ...]:
        if run not in self._ruled:
            return ()
        with self._database.snapshot() as connection:
            return read_rules(connection, run)

    def effects(self, trace: int, last: int) -> Columns:
        """What the rules did to a trace up to position ``last``."""
        if self._run_of("token", trace) not in self._ruled:
            return effect_columns(())
        with understood(self._database.name), self._database.snapshot() as connection:
            return read_effects(connection, trace, last)

    def decisions(self, trace: int) -> tuple[Decision, ...]:
        """What a guard decided about a trace."""
        if trace not in self._decided:
            return ()
        with understood(self._database.name), self._database.snapshot() as connection:
            return read_decisions(connection, trace, self._decided[trace])

    def outcomes(self, trace: int) -> tuple[Outcome, ...]:
        """How the constraints of a trace ended; nothing as long as its run has not."""
        run = self._run_of("token", trace)
        if run not in self._ruled or not self.runs[run][5]:
            return ()
        with understood(self._database.name), self._database.snapshot() as connection:
            return read_outcomes(connection, trace)

    @cached_property
    def exchanges(self) -> dict[int, Exchange]:
        """What passed between client and server for each run that had ended, by its number."""
        if self._version < SERVED_SINCE:
            return {}
        with understood(self._database.name), self._database.snapshot() as connection:
            found = read_exchanges(connection)
        return {run: one for run, one in found.items() if run in self.runs and self.runs[run][5]}

    def exchange(self, run: int) -> Exchange | None:
        """What passed between client and server for a run; None where no server was asked."""
        return self.exchanges.get(run)

    def scrapes(self) -> list[Scrape]:
        """Readings of a server and of its client, in the order in which they were taken."""
        if self._version < SERVED_SINCE:
            return []
        with understood(self._database.name), self._database.snapshot() as connection:
            return list(read_scrapes(connection))

    def prompt(self, trace: int) -> tuple[str | None, npt.NDArray[np.int64] | None]:
        """Text and ids of a trace's prompt."""
        with understood(self._database.name):
            ((text, ids),) = self._database.rows("select prompt_text, prompt_ids from trace where number = ?", (trace,))
            of_kinds(f"trace {trace}", (text, ids), (str, str))
            if ids is None:
                return text, None
            array = np.array(from_json(ids, list), dtype=np.int64).reshape(-1)
            array.flags.writeable = False
            return text, array

    def explanation(self, number: int) -> Explanation:
        """The explanation of that number, with its arrays."""
        with understood(self._database.name), self._database.snapshot() as connection:
            found = read_explanation(connection, number)
            there = found.trace in self.traces
            return replace(found, withheld=True) if there and self.trace(found.trace).has_withheld else found

    def reading(self, number: int) -> Reading:
        """The reading of that number, with its arrays."""
        with understood(self._database.name), self._database.snapshot() as connection:
            return read_reading(connection, number)

    def pieces(self) -> dict[int, Piece]:
        """The vocabulary entries that occur in the tape, by id."""
        with understood(self._database.name):
            rows = self._database.rows("select id, token, bytes, special from piece order by id")
            for row in rows:
                of_kinds("a piece", row, (int, str, bytes, int))
            return {i: Piece(i, token, raw, bool(special)) for i, token, raw, special in rows}

    def _parts(self, series: str, owners: list[int], *, symbols: bool) -> Iterator[Part]:
        """The parts of some runs or traces, in ascending order; from packs where they are, from rows where not."""
        with self._database.snapshot() as connection:
            (version,) = connection.execute("pragma user_version").fetchone()
            whole = self._all_packed and version == self._version and bool(owners)
            stretches: Iterable[tuple[bool, Iterable[int]]] = (
                [(True, owners)]
                if whole
                else itertools.groupby(owners, lambda owner: version == self._version and self._packed(series, owner))
            )
            for packed, stretch in stretches:
                numbers = list(stretch)
                if packed:
                    first, last = numbers[0], numbers[-1]
                    yield from parts_from_packs(connection, series, first, last, symbols=symbols, version=version)
                    continue
                for owner in numbers:
                    yield from self._unpacked(connection, series, owner, version)

    def _unpacked(self, connection: sqlite3.Connection, series: str, owner: int, version: int) -> Iterator[Part]:
        """The rows of a run or trace, and after them what is still in blocks; ``version`` is the file's now."""
        run = self._run_of(series, owner)
        read_to, last = -1, self._last.get(run, ENDLESS)
        for part in parts_from_rows(connection, series, owner, last, version=version):
            read_to = int(part.records[AT_STEP[series]][-1])
            yield part
        if not self._grows or read_to >= last:
            return
        # what was in blocks when they were read may be rows by now, and then these have it all
        earlier = self._earlier.get(run, NO_BLOCKS)
        blocks = self._blocks.get_or_make(
            run, lambda run: read_blocks(connection, run, last, version=version, earlier=earlier)
        )
        empty = _EMPTY[0]
        rest = Part(owner, blocks.steps, empty.candidates, b"") if series == "step" else blocks.tokens.get(owner, empty)
        if len(rest) and int(rest.records[AT_STEP[series]][0]) > read_to:
            yield rest

    def _announced(self, series: str, owner: int) -> int | None:
        """Rows of a packed run or trace, as counted when it ended."""
        if not self._packed(series, owner):
            return None
        return int(self.runs[owner][7] if series == "step" else self.traces[owner][5])

    def steps(self, run: int) -> Columns:
        """Columns of the steps of one run."""
        with understood(self._database.name):
            return self._steps.get_or_make(run, self._read_steps)

    def _read_steps(self, run: int) -> Columns:
        parts = [part.records for part in self._parts("step", [run], symbols=False)]
        announced = self._announced("step", run)
        return columns_of("step", sum(map(len, parts)) if announced is None else announced, parts)

    def symbols(self, trace: int) -> tuple[Symbols, Symbols]:
        """The tokens of one trace, and those past its end."""
        with understood(self._database.name):
            parts = list(self._parts("token", [trace], symbols=True))
            announced = self._announced("token", trace)
            if not parts:
                parts = list(_EMPTY)
            records, flat, text = joined(parts)
            if announced is not None and announced != len(records):
                raise ValueError(f"trace {trace} has {len(records)} tokens, {announced} announced")
            past = records["overshoot"] != 0
            n_bytes = int(records["n_bytes"].sum(dtype=np.int64))
            if n_bytes != len(text):
                raise ValueError(f"trace {trace} has {len(text)} bytes of text, {n_bytes} announced")
            texts = bytes_of(records, text)
            of_token = np.repeat(past, records["n_candidates"])
            if len(of_token) != len(flat):
                raise ValueError(f"trace {trace} has {len(flat)} candidates, {len(of_token)} announced")
            if not past.any():
                return _symbols(records, texts, flat), _NOTHING
            return (
                _symbols(records[~past], [t for t, p in zip(texts, past, strict=True) if not p], flat[~of_token]),
                _symbols(records[past], [t for t, p in zip(texts, past, strict=True) if p], flat[of_token]),
            )

    def columns(self, series: str) -> Columns:
        """All rows of the tape, in the order of runs or traces, which is the first column."""
        owners = list(self.runs if series == "step" else self.traces)
        with understood(self._database.name):
            numbers: list[int] = []
            lengths: list[int] = []

            def records() -> Iterator[npt.NDArray[np.void]]:
                for part in self._parts(series, owners, symbols=False):
                    numbers.append(part.owner)
                    lengths.append(len(part))
                    yield part.records

            found: Iterable[npt.NDArray[np.void]] = records()
            if self._all_packed:
                n = sum(self._announced(series, owner) or 0 for owner in owners)
            else:
                found = list(found)
                n = sum(lengths)
            column = np.empty(n, np.int64)
            columns = columns_of(series, n, batched(found), {OWNER[series]: column.view()})
            column[:] = np.repeat(np.array(numbers, np.int64), lengths)
            return columns

    def candidates(self) -> Candidates:
        """The candidates of all tokens of the tape, in the order of :meth:`columns`."""
        with understood(self._database.name):
            counts: list[npt.NDArray[np.uint32]] = []
            flat: list[npt.NDArray[np.void]] = []
            for part in self._parts("token", list(self.traces), symbols=True):
                counts.append(part.records["n_candidates"].copy())  # a copy, or it would keep the records in memory
                flat.append(part.candidates)
            if not counts:
                return candidates_of(np.zeros(0, np.uint32), _EMPTY[0].candidates)
            return candidates_of(np.concatenate(counts), end_to_end(flat))


def _empty() -> tuple[Part]:
    from tokentape.data.packing import CANDIDATE, RECORD

    return (Part(0, np.empty(0, RECORD["token"]), np.empty(0, CANDIDATE), b""),)


_EMPTY = _empty()


def _symbols(records: npt.NDArray[np.void], texts: list[bytes | None], flat: npt.NDArray[np.void]) -> Symbols:
    columns = columns_of("token", len(records), [records])
    return Symbols(columns, texts, candidates_of(records["n_candidates"], flat))


_NOTHING = _symbols(_EMPTY[0].records, [], _EMPTY[0].candidates)
