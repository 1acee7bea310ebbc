"""The tables of rules, effects, decisions and outcomes: rows to values and back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tokentape.data.columns import frozen, under_the_mask
from tokentape.data.control import Decision, Effect, Outcome, RuleHead
from tokentape.data.json_text import as_json
from tokentape.data.schema import EFFECT_COLUMNS
from tokentape.data.trace import Columns
from tokentape.data.untrusted import from_json, of_kinds
from tokentape.errors import UsageError

__all__ = [
    "EFFECT_ROW",
    "effect_columns",
    "forget",
    "put_decisions",
    "put_effects",
    "put_outcomes",
    "put_rules",
    "read_decisions",
    "read_effects",
    "read_outcomes",
    "read_rules",
]

EFFECT_ROW = tuple[int, int, Effect]
"""Trace, position, and what one rule did there."""

_NAMES = ", ".join(column.name for column in EFFECT_COLUMNS)


def put_rules(connection: sqlite3.Connection, run: int, rules: Iterable[RuleHead]) -> None:
    """Write down the rules of a run."""
    rows = [(run, rule.number, rule.name, as_json(dict(rule.description), f"rule {rule.name}")) for rule in rules]
    connection.executemany("insert into rule values (?, ?, ?, ?)", rows)


def put_effects(connection: sqlite3.Connection, effects: Iterable[EFFECT_ROW]) -> None:
    """Add what rules did. Raises UsageError for NaN, which SQLite would turn into null without a word."""
    rows = []
    for trace, position, one in effects:
        if one.removed != one.removed or one.divergence != one.divergence:
            raise UsageError(
                f"what rule {one.rule} did at position {position} of trace {trace} is NaN",
                why="a tape says null where there is no value",
                fix="give None",
            )
        rows.append((trace, position, one.rule, one.allowed, one.removed, one.divergence, one.rule_ns))
    connection.executemany("insert into effect values (?, ?, ?, ?, ?, ?, ?)", rows)


def put_decisions(connection: sqlite3.Connection, decisions: Iterable[tuple[int, Decision]]) -> None:
    """Add what was decided about traces, numbered in the order given."""
    for trace, one in decisions:
        connection.execute(
            "insert into decision select ?, coalesce(max(number) + 1, 0), ?, ?, ?, ?, ?, ?, ? from decision where trace = ?",
            (trace, one.position, one.rule, one.action, one.start, one.stop, one.reason, one.shown, trace),
        )


def put_outcomes(connection: sqlite3.Connection, outcomes: Mapping[int, Sequence[Outcome]]) -> None:
    """Write down how the constraints ended, by trace."""
    rows = [
        (trace, one.rule, one.name, None if one.valid is None else int(one.valid), one.why)
        for trace, several in outcomes.items()
        for one in several
    ]
    connection.executemany("insert into outcome values (?, ?, ?, ?, ?)", rows)


def forget(connection: sqlite3.Connection, run: int, traces: Sequence[tuple[int]]) -> None:
    """Take away everything about a run and its traces."""
    for table in ("effect", "decision", "outcome"):
        connection.executemany(f"delete from {table} where trace = ?", traces)
    connection.execute("delete from rule where run = ?", (run,))


def read_rules(connection: sqlite3.Connection, run: int) -> tuple[RuleHead, ...]:
    """The rules of a run, in order."""
    rows = connection.execute("select number, name, description from rule where run = ? order by number", (run,))
    return tuple(RuleHead(number, name, from_json(description, dict)) for number, name, description in rows)


def read_effects(connection: sqlite3.Connection, trace: int, last: int) -> Columns:
    """The effects on a trace up to position ``last``, a row for each token and rule."""
    question = f"select {_NAMES} from effect where trace = ? and position <= ? order by position, rule"
    return effect_columns(connection.execute(question, (trace, last)).fetchall())


def effect_columns(rows: Sequence[tuple[Any, ...]]) -> Columns:
    """Rows with the values of EFFECT_COLUMNS as columns."""
    columns: list[tuple[Any, ...]] = list(zip(*rows, strict=True)) if rows else [()] * len(EFFECT_COLUMNS)
    arrays = {}
    for column, values in zip(EFFECT_COLUMNS, columns, strict=True):
        mask = np.array([value is None for value in values], np.bool_)
        absent = under_the_mask(np.dtype(column.dtype))
        data = np.array([absent if value is None else value for value in values], column.dtype)
        arrays[column.name] = frozen(data, mask)
    return Columns(arrays, len(rows))


def read_decisions(connection: sqlite3.Connection, trace: int, n: int) -> tuple[Decision, ...]:
    """The first ``n`` things that were decided about a trace, in order."""
    rows = connection.execute(
        "select position, rule, action, start, stop, reason, shown from decision where trace = ? order by number limit ?",
        (trace, n),
    )
    return tuple(Decision(*_kinds(trace, row, (int, int, str, int, int, str, str))) for row in rows)


def _kinds(trace: int, row: tuple[Any, ...], kinds: tuple[type, ...]) -> tuple[Any, ...]:
    of_kinds(f"trace {trace}", row, kinds)
    return row


def read_outcomes(connection: sqlite3.Connection, trace: int) -> tuple[Outcome, ...]:
    """How the constraints of a trace ended."""
    rows = connection.execute("select rule, name, valid, why from outcome where trace = ? order by rule", (trace,))
    found = (_kinds(trace, row, (int, str, int, str)) for row in rows)
    return tuple(Outcome(rule, name, None if valid is None else bool(valid), why) for rule, name, valid, why in found)
