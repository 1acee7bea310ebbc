"""Checking a tape against itself: SQLite's own check, hashes, packs against rows, and what rows mean to one another."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from tokentape.data.blocks import NO_BLOCKS, read_blocks
from tokentape.data.consistency import (
    Problem,
    decision_problems,
    effect_problems,
    exchange_problems,
    explanation_problems,
    joint_problems,
    outcome_problems,
    reading_problems,
    recorded_ids,
    step_problems,
    token_problems,
)
from tokentape.data.control_rows import read_decisions, read_effects, read_outcomes, read_rules
from tokentape.data.database import Database, understood
from tokentape.data.exchange_rows import read_exchanges, read_scrapes
from tokentape.data.manifest import manifest_problems
from tokentape.data.packing import ENDLESS, OWNER, RECORD, checksums, digest, parts_from_rows, unpacked
from tokentape.data.reading_rows import read_reading
from tokentape.data.relevance import read_explanation
from tokentape.data.request import FINISH_REASONS
from tokentape.data.schema import CONTROLLED_SINCE, EXPLAINED_SINCE, GROWN_SINCE, READ_SINCE, SERVED_SINCE
from tokentape.data.setting import fingerprint
from tokentape.errors import TapeError

__all__ = ["Problem", "check"]

Examination = Callable[[sqlite3.Connection], Iterable[Problem]]
_Sequences = dict[int, npt.NDArray[np.int64] | None]
"""The ids of the traces that have an explanation or a reading; None until, and unless, they could be read."""


def check(database: Database, version: int) -> list[Problem]:
    """Everything that is wrong with a tape; that its recorder stopped early is not."""
    found: list[Problem] = []
    ask = partial(_ask, database, found)
    with understood(database.name), database.snapshot():
        ask("sqlite", _sqlite)
        if found:
            return found  # what follows would say the same in other words
        ask("manifest", partial(manifest_problems, version=version))
        ask("setting", _fingerprint)
        ask("token", _texts)
        explained: dict[int, int] = {}
        looked: dict[int, int] = {}
        if version >= EXPLAINED_SINCE:
            ask("explanation", partial(_of_traces, explained, "explanation"))
        if version >= READ_SINCE:
            ask("reading", partial(_of_traces, looked, "reading"))
        if version >= SERVED_SINCE:
            ask("exchange", _exchanges)
            ask("scrape", _scrapes)
        sequences: _Sequences = dict.fromkeys([*explained.values(), *looked.values()])
        runs: list[_RunRow] = []
        ask("run", partial(_runs, runs))
        for run in runs:
            ask(f"run {run.number}", partial(_run, run, sequences, version))
        for number, trace in explained.items():
            ask(f"explanation {number}", partial(_explanation, number, sequences[trace]))
        for number, trace in looked.items():
            ask(f"reading {number}", partial(_reading, number, sequences[trace]))
    return found


def _ask(database: Database, found: list[Problem], where: str, examine: Examination) -> None:
    """Add what one examination finds; where the file does not let it finish, that is the finding."""
    try:
        with understood(database.name), database.connection() as connection:
            found.extend(examine(connection))
    except TapeError as error:
        found.append(Problem(where, error.why or error.what))


def _sqlite(connection: sqlite3.Connection) -> Iterator[Problem]:
    for (line,) in connection.execute("pragma integrity_check(20)"):
        if line != "ok":
            yield Problem("sqlite", line)
    for table, row, parent, _ in connection.execute("pragma foreign_key_check").fetchmany(20):
        yield Problem("sqlite", f"row {row} of {table} points to a {parent} that is not there")


def _fingerprint(connection: sqlite3.Connection) -> Iterator[Problem]:
    (stored,) = connection.execute("select value from tape where key = 'fingerprint'").fetchone()
    facts = connection.execute("select name, value from setting where compared = 1")
    computed = fingerprint({name: json.loads(value) for name, value in facts})
    if json.loads(stored) != computed:
        yield Problem("setting", f"the fingerprint of its facts is {computed}, the tape says {stored}")


_MISTYPED = """
select trace, position from token
where typeof(text) not in ('text', 'null') or typeof(raw) not in ('blob', 'null') or typeof(candidates) not in ('text', 'null')
limit 20
"""


def _texts(connection: sqlite3.Connection) -> Iterator[Problem]:
    """Text is text and UTF-8, and bytes stand in ``raw`` only where they are none."""
    for trace, position in connection.execute(_MISTYPED):
        yield Problem(f"trace {trace}", f"the token at position {position} has bytes for text, or text for bytes")
    for _ in connection.execute("select text from token where text is not null"):
        pass  # reading says so
    for trace, position, raw in connection.execute("select trace, position, raw from token where raw is not null"):
        try:
            raw.decode()
        except UnicodeDecodeError:
            continue
        yield Problem(f"trace {trace}", f"the token at position {position} has text among its raw bytes")


@dataclass(frozen=True, slots=True)
class _RunRow:
    number: int
    finished: int
    packed: int
    n_traces: int
    n_steps: int | None


def _runs(found: list[_RunRow], connection: sqlite3.Connection) -> Iterable[Problem]:
    for row in connection.execute("select number, finished, packed, n_traces, n_steps from run order by number"):
        found.append(_RunRow(*row))
    return ()


def _of_traces(found: dict[int, int], table: str, connection: sqlite3.Connection) -> Iterable[Problem]:
    """The trace of each explanation, or reading."""
    found.update(connection.execute(f"select number, trace from {table} order by number"))
    return ()


def _exchanges(connection: sqlite3.Connection) -> Iterator[Problem]:
    """Exchanges can be read, and their moments follow one another."""
    starts = dict(connection.execute("select number, start_ns from run"))
    for run, one in read_exchanges(connection).items():
        yield from exchange_problems(one, starts.get(run))


def _scrapes(connection: sqlite3.Connection) -> Iterator[Problem]:
    for _ in read_scrapes(connection):
        pass  # reading says so
    return iter(())


def _explanation(number: int, ids: npt.NDArray[np.int64] | None, connection: sqlite3.Connection) -> Iterator[Problem]:
    """An explanation can be read, and names what its trace has."""
    explanation = read_explanation(connection, number)
    if ids is not None:
        yield from explanation_problems(explanation, ids)


def _reading(number: int, ids: npt.NDArray[np.int64] | None, connection: sqlite3.Connection) -> Iterator[Problem]:
    """A reading can be read, and names what its trace has."""
    reading = read_reading(connection, number)
    if ids is not None:
        yield from reading_problems(reading, ids)


def _run(run: _RunRow, sequences: _Sequences, version: int, connection: sqlite3.Connection) -> Iterator[Problem]:
    """The steps and traces of one run, and what they say of one another."""
    where = f"run {run.number}"
    rules = [rule.number for rule in read_rules(connection, run.number)] if version >= CONTROLLED_SINCE else None
    traces = connection.execute(
        "select number, n_prompt, prompt_ids, finish_reason, n_tokens from trace where run = ? order by number",
        (run.number,),
    ).fetchall()
    if len(traces) != run.n_traces:
        yield Problem(where, f"it has {len(traces)} traces, {run.n_traces} were begun")
    blocks = read_blocks(connection, run.number, version=version) if version >= GROWN_SINCE else NO_BLOCKS
    compared = partial(_rows_and_packs, connection, packed=bool(run.packed), version=version)
    steps, problems = compared("step", run.number)
    steps = np.concatenate([steps, blocks.steps])
    yield from problems
    if run.packed and run.n_steps != len(steps):
        yield Problem(where, f"{len(steps)} steps, {run.n_steps} when it was packed")
    yield from step_problems(where, steps)
    pointed_at = np.zeros(len(steps), np.int64)
    for number, n_prompt, prompt_ids, reason, n_tokens in traces:
        tokens, problems = compared("token", number)
        yield from problems
        if number in blocks.tokens:
            tokens = np.concatenate([tokens, blocks.tokens[number].records])
        yield from _trace(f"trace {number}", n_prompt, prompt_ids, reason)
        if run.packed and n_tokens != len(tokens):
            yield Problem(f"trace {number}", f"{len(tokens)} tokens, {n_tokens} when it was packed")
        yield from token_problems(f"trace {number}", tokens, n_prompt, len(steps))
        if rules is not None:
            yield from _control(connection, number, rules, tokens, n_prompt)
        if number in sequences:
            sequences[number] = recorded_ids(n_prompt, None if prompt_ids is None else json.loads(prompt_ids), tokens)
        inside = tokens["step"][(tokens["step"] >= 0) & (tokens["step"] < len(steps))]
        pointed_at += np.bincount(inside, minlength=len(steps))[: len(steps)]
    yield from joint_problems(where, steps, pointed_at)


def _trace(where: str, n_prompt: int | None, prompt_ids: str | None, reason: str | None) -> Iterator[Problem]:
    if prompt_ids is not None and len(json.loads(prompt_ids)) != n_prompt:
        yield Problem(where, f"{len(json.loads(prompt_ids))} prompt ids, but n_prompt is {n_prompt}")
    if reason is not None and reason not in FINISH_REASONS:
        yield Problem(where, f"unknown finish reason {reason!r}")


def _control(
    connection: sqlite3.Connection, trace: int, rules: list[int], tokens: npt.NDArray[np.void], n_prompt: int | None
) -> Iterator[Problem]:
    where = f"trace {trace}"
    yield from effect_problems(where, read_effects(connection, trace, ENDLESS), rules, tokens)
    yield from decision_problems(where, read_decisions(connection, trace, ENDLESS), rules, tokens, n_prompt)
    yield from outcome_problems(where, read_outcomes(connection, trace), rules)


_PACKS = """
select part, n, sha256, records_crc32, candidates_crc32, bytes_crc32, records, candidates, bytes
from packed where series = ? and owner = ? order by part
"""


def _rows_and_packs(
    connection: sqlite3.Connection, series: str, owner: int, *, packed: bool, version: int
) -> tuple[npt.NDArray[np.void], list[Problem]]:
    """The rows of one run or trace as records, and what is wrong between them and their packs."""
    problems: list[Problem] = []
    where = f"{OWNER[series]} {owner}"
    records = [np.empty(0, RECORD[series])]
    packs = connection.execute(_PACKS, (series, owner)).fetchall() if packed else []
    parts = parts_from_rows(connection, series, owner, version=version)
    for place, (part, pack) in enumerate(itertools.zip_longest(parts, packs)):
        if part is not None:
            records.append(part.records)
        if not packed:
            continue
        if part is None or pack is None:
            problems.append(Problem(where, f"its {series}s fill more parts as rows than packed, or fewer"))
            break
        number, n, sha256, *sums = pack[:6]
        blobs = tuple(pack[6:])
        said = (unpacked(series, blobs[0], version).tobytes(), *blobs[1:])
        if (number, n) != (place, len(part)) or part.blobs() != said:
            problems.append(Problem(where, f"part {place} of its packed {series}s is not what its rows say"))
        elif digest(blobs, part.written) != sha256 or checksums(owner, number, blobs) != tuple(sums):
            problems.append(
                Problem(where, f"its {series}s are not as they were when the run was finished (part {place})")
            )
    return np.concatenate(records), problems
