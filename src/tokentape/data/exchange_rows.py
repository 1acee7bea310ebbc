"""The tables of exchanges and scrapes: rows to values and back."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from tokentape.data.database import LONGEST_VALUE
from tokentape.data.exchange import LABELS, STAMPS, Exchange, Scrape
from tokentape.data.json_text import as_json
from tokentape.data.schema import EXCHANGE_COLUMNS
from tokentape.data.untrusted import from_json, inflated, of_kinds

__all__ = ["put_exchange", "put_scrapes", "read_exchanges", "read_scrapes"]

_NAMES = tuple(column.name for column in EXCHANGE_COLUMNS)
_KINDS: tuple[type, ...] = tuple(int if column.dtype == "i8" else str for column in EXCHANGE_COLUMNS)
_JSON = frozenset(column.name for column in EXCHANGE_COLUMNS if column.dtype == "json")
_PUT = f"insert or replace into exchange ({', '.join(_NAMES)}) values ({', '.join('?' * len(_NAMES))})"
_LEVEL = 1


def put_exchange(connection: sqlite3.Connection, run: int, one: Exchange) -> None:
    """Write down what passed for a run, within the caller's transaction."""
    values: list[Any] = []
    for name in _NAMES:
        value: Any = run if name == "run" else getattr(one, name)
        if name in _JSON and value is not None:
            value = as_json(dict(value), f"the {name} of run {run}")
        values.append(value)
    connection.execute(_PUT, values)


def read_exchanges(connection: sqlite3.Connection) -> dict[int, Exchange]:
    """Every exchange by the number of its run. Raises ValueError where a row is none."""
    found: dict[int, Exchange] = {}
    for row in connection.execute(f"select {', '.join(_NAMES)} from exchange order by run"):
        of_kinds(f"the exchange of run {row[0]}", row, _KINDS)
        values = dict(zip(_NAMES, row, strict=True))
        for name in _JSON:
            if values[name] is not None:
                values[name] = from_json(values[name], dict)
        one = Exchange(**values)
        if one.label not in (None, *LABELS) or one.stamps not in (None, *STAMPS):
            raise ValueError(
                f"the exchange of run {one.run} has the label {one.label!r:.40}, stamped by {one.stamps!r:.40}"
            )
        found[one.run] = one
    return found


def put_scrapes(connection: sqlite3.Connection, scrapes: Iterable[Scrape]) -> None:
    """Add readings, in the order given, within the caller's transaction."""
    rows = []
    for one in scrapes:
        body = as_json(dict(one.values), f"a reading of {one.source}").encode()
        rows.append((one.source, one.began_ns, one.ended_ns, zlib.compress(body, _LEVEL)))
    connection.executemany("insert into scrape (source, began_ns, ended_ns, body) values (?, ?, ?, ?)", rows)


def read_scrapes(connection: sqlite3.Connection) -> Iterator[Scrape]:
    """Every reading in the order in which they were taken. Raises ValueError where a row is none."""
    rows = connection.execute("select number, source, began_ns, ended_ns, body from scrape order by number").fetchall()
    for number, source, began_ns, ended_ns, body in rows:
        of_kinds(f"scrape {number}", (source, began_ns, ended_ns, body), (str, int, int, bytes))
        values = from_json(inflated(body, LONGEST_VALUE).decode(), dict)
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values.values()):
            raise ValueError(f"scrape {number} has values that are no numbers: {json.dumps(values)[:80]}")
        yield Scrape(source, began_ns, ended_ns, values)
