"""Explanations as rows of the tables ``explanation`` and ``relevance``, and back.

A row of ``relevance`` holds one row of the array as JSON, with null where it is masked. Not a blob: a float's shortest decimal
form gives the same 64 bits back, any SQLite tool reads it (the view ``relevance_cell`` has a row for each cell), and there is no
NaN to leak. It costs about twice the room: 1,024 tokens on the 1,040 positions before them are 14.0 MB instead of 8.5, written
in 0.4 s and read in 0.3. Not a row for each cell either: these would be a million.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from tokentape.data.explanation import Explanation, ReplayCheck, Source
from tokentape.data.json_text import as_json
from tokentape.data.untrusted import of_kinds
from tokentape.errors import UsageError

__all__ = ["put_explanation", "read_explanation"]

_QUESTION = ("trace", "method", "options", "kind", "together", "targets", "foil_ids", "sources")
"""Columns that tell what was asked: an answer to the same question takes the place of the older one."""

_KINDS = {"trace": int, "method": str, "kind": str, "together": int, "cpu_ns": int}
"""Columns that are no JSON, which is parsed."""

_ANSWER = ("target_ids", "replay_check", "passes", "cpu_ns", "made", "notes")


def put_explanation(connection: sqlite3.Connection, explanation: Explanation) -> int:
    """Write one explanation and return its number, within the caller's transaction; the same question replaces."""
    head = _head(explanation)
    same = " and ".join(f"{name} is ?" for name in _QUESTION)
    found = connection.execute(
        f"select number from explanation where {same}", [head[name] for name in _QUESTION]
    ).fetchone()
    (number,) = found or connection.execute("select coalesce(max(number) + 1, 0) from explanation").fetchone()
    connection.execute("delete from relevance where explanation = ?", (number,))
    names = ("number", *_QUESTION, *_ANSWER)
    connection.execute(
        f"insert or replace into explanation ({', '.join(names)}) values ({', '.join('?' * len(names))})",
        (number, *(head[name] for name in names[1:])),
    )
    connection.executemany(
        "insert into relevance (explanation, row, value, ledger, relevance) values (?, ?, ?, ?, ?)",
        ((number, *row) for row in _rows(explanation)),
    )
    return int(number)


def _head(explanation: Explanation) -> dict[str, Any]:
    """The columns of the table ``explanation``, without its number."""
    lists = {name: getattr(explanation, name) for name in ("targets", "target_ids", "foil_ids")}
    sources = [[source.start, source.stop, source.label, source.kind] for source in explanation.sources]
    return {
        "trace": explanation.trace,
        "method": explanation.method,
        "kind": explanation.kind,
        "together": int(explanation.together),
        **{name: None if ids is None else as_json(ids.tolist(), name) for name, ids in lists.items()},
        "sources": as_json(sources, "the sources of an explanation"),
        "replay_check": as_json(asdict(explanation.check), "the replay check"),
        "cpu_ns": explanation.cpu_ns,
        **{name: as_json(dict(getattr(explanation, name)), name) for name in ("options", "passes", "made", "notes")},
    }


def _rows(explanation: Explanation) -> Iterator[tuple[int, float, str, str]]:
    for row, value in enumerate(explanation.value.tolist()):
        ledger = {name: float(entry[row]) for name, entry in explanation.ledger.items()}
        yield row, value, as_json(ledger, "the ledger"), as_json(explanation.relevance[row].tolist(), "relevance")


def read_explanation(connection: sqlite3.Connection, number: int) -> Explanation:
    """The explanation of that number. Raises ValueError and its like where the rows are none."""
    names = (*_QUESTION, *_ANSWER)
    found = connection.execute(f"select {', '.join(names)} from explanation where number = ?", (number,)).fetchone()
    if found is None:
        raise ValueError(f"explanation {number} is not there")
    head = dict(zip(names, found, strict=True))
    of_kinds(f"explanation {number}", [head[name] for name in _KINDS], list(_KINDS.values()))
    rows = connection.execute(
        "select row, value, ledger, relevance from relevance where explanation = ? order by row", (number,)
    ).fetchall()
    if [row[0] for row in rows] != list(range(len(rows))):
        raise ValueError(f"rows of explanation {number} are missing")
    cells = np.array([json.loads(row[3], parse_constant=_refuse) for row in rows], np.float64)
    ledgers = [json.loads(row[2]) for row in rows]
    entries = {name: np.array([ledger[name] for ledger in ledgers], np.float64) for name in (ledgers or [{}])[0]}
    parsed: dict[str, Any] = {
        name: None if head[name] is None else json.loads(head[name])
        for name in (
            "options",
            "targets",
            "target_ids",
            "foil_ids",
            "sources",
            "replay_check",
            "passes",
            "made",
            "notes",
        )
    }
    try:
        return Explanation(
            trace=head["trace"],
            method=head["method"],
            options=parsed["options"],
            kind=head["kind"],
            together=bool(head["together"]),
            targets=_ids(parsed["targets"]),
            target_ids=_ids(parsed["target_ids"]),
            foil_ids=None if parsed["foil_ids"] is None else _ids(parsed["foil_ids"]),
            sources=tuple(Source(*source) for source in parsed["sources"]),
            relevance=np.ma.MaskedArray(cells, np.isnan(cells)),
            value=np.array([row[1] for row in rows], np.float64),
            ledger=entries,
            check=ReplayCheck(**parsed["replay_check"]),
            passes=parsed["passes"],
            cpu_ns=head["cpu_ns"],
            made=parsed["made"],
            notes=parsed["notes"],
            number=number,
        )
    except UsageError as error:  # whoever reads did nothing wrong
        raise ValueError(f"explanation {number}: {error.what}") from error


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _ids(values: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)
