"""Readings as rows of the table ``reading``, and back.

``body`` is what ``found.to_dict()`` gives, as JSON, deflated. JSON, since it comes back to the bit, has null for what is not
there and needs no layout of ours. Deflated, since the attention of 512 tokens in 24 layers of 16 heads, ten sources kept of
each head, is 67.1 MB as JSON, 41.9 with the digits that a float32 has, and 18.2 deflated at level 1, in 0.4 s (16.2 at level
6, in 3.1 s; plain arrays, deflated: 13.7). Without the sources of single heads it is 9.3 and 3.9 MB. What was asked, and with
what, stays readable to any SQLite tool. ``docs/decisions/0008-readings-are-json-deflated.md`` has the rest.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from typing import Any

from tokentape.data.database import LONGEST_VALUE
from tokentape.data.json_text import as_json
from tokentape.data.reading import READ, Reading, covers
from tokentape.data.untrusted import inflated
from tokentape.errors import DamagedTape, UsageError

__all__ = ["put_reading", "read_reading"]

LEVEL = 1

MOST_LISTS = 1 << 23
"""Lists in a reading: an empty one has two letters, and takes thirty times that in memory."""


def put_reading(connection: sqlite3.Connection, reading: Reading) -> int:
    """Write one reading and return its number, within the caller's transaction; what it covers it replaces.

    Raises UsageError for one that is too large, DamagedTape where an older one does not say what was asked.
    """
    question = dict(reading.question)
    body = as_json(reading.found.to_dict(), f"a reading of {reading.kind}").encode()
    if len(body) > LONGEST_VALUE or _lists(body) > MOST_LISTS:
        raise UsageError(
            f"{reading.kind} at {len(question['positions']):,} positions is too much for a tape",
            why=f"written down it has {len(body):,} bytes, and a value of a tape {LONGEST_VALUE:,} at most",
            fix="ask for fewer tokens, or for fewer of each: --span 0..99, --top 5",
        )
    older = connection.execute(
        "select number, question from reading where trace = ? and kind = ? order by number",
        (reading.trace, reading.kind),
    ).fetchall()
    covered = [number for number, asked in older if covers(question, _asked(number, asked))]
    connection.executemany("delete from reading where number = ?", [(number,) for number in covered])
    (free,) = connection.execute("select coalesce(max(number) + 1, 0) from reading").fetchone()
    number = covered[0] if covered else int(free)
    connection.execute(
        "insert into reading (number, trace, kind, question, made, body) values (?, ?, ?, ?, ?, ?)",
        (
            number,
            reading.trace,
            reading.kind,
            as_json(question, "what a reading was asked"),
            as_json(dict(reading.made), "'made' of a reading"),
            zlib.compress(body, LEVEL),
        ),
    )
    return int(number)


def read_reading(connection: sqlite3.Connection, number: int) -> Reading:
    """The reading of that number. Raises ValueError and its like where the row is none."""
    row = connection.execute(
        "select trace, kind, question, made, body from reading where number = ?", (number,)
    ).fetchone()
    if row is None:
        raise ValueError(f"reading {number} is not there")
    trace, kind, question, made, body = row
    try:
        found = READ[kind].from_dict(json.loads(_inflated(body), parse_constant=_refuse))
        reading = Reading(trace, found, json.loads(made), number)
    except UsageError as error:  # whoever reads did nothing wrong
        raise ValueError(f"reading {number}: {error.what}") from error
    if dict(reading.question) != json.loads(question):
        raise ValueError(f"reading {number} does not answer what its row says was asked")
    return reading


def _asked(number: int, question: str) -> dict[str, Any]:
    try:
        asked: dict[str, Any] = json.loads(question)
        covers(asked, asked)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise DamagedTape(
            f"reading {number} is damaged", why=f"{type(error).__name__}: {error}", fix="tokentape verify FILE"
        ) from error
    return asked


def _inflated(body: bytes) -> bytes:
    text = inflated(body, LONGEST_VALUE)
    if _lists(text) > MOST_LISTS:
        raise ValueError(f"the body has {_lists(text):,} lists")
    return text


def _lists(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no number")
