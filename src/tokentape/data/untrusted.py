"""What a file of somebody else must not have: all by which SQLite, asked for rows, would do more than read them, and values of
another kind than those of a tape.

A view, a virtual table or a computed column in the place of what a tape has computes what it likes when it is read, without
end if it likes; a trigger does when something is added. A journal that names another file has that file deleted.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import sqlite3
import stat
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokentape.data.catalogue import TABLES
from tokentape.errors import DamagedTape

__all__ = ["from_json", "inflated", "of_kinds", "read_tables_alone", "refuse_strange_company", "refuse_strange_schema"]

_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")
"""The last bytes of a journal that names another, that of a transaction over several files."""

_KINDS = ("CREATE TABLE %", "CREATE INDEX %", "CREATE UNIQUE INDEX %", "CREATE VIEW %")
"""How the definitions begin that SQLite writes for tables, indexes and views."""

_COMPUTED = {"step": {"kind_name"}, "token": {"bytes", "channel_name"}}
"""The computed columns of a tape."""


def refuse_strange_schema(connection: sqlite3.Connection, version: int) -> None:
    """Raise ValueError where what a tape of that schema version has is not made as it is there."""
    known = " and ".join(["sql not like ?"] * len(_KINDS))
    for kind, name in connection.execute(f"select type, name from sqlite_master where {known} limit 1", _KINDS):
        raise ValueError(f"it has a {kind} {name!r}, and a tape has tables, indexes and views")
    tables = {name for (name,) in connection.execute("select name from sqlite_master where sql like 'CREATE TABLE %'")}
    for table in TABLES:
        if table.since > version:  # a table of this name is somebody's own
            continue
        if table.name not in tables:
            raise ValueError(f"no such table: {table.name}")
        for column, hidden in connection.execute("select name, hidden from pragma_table_xinfo(?)", (table.name,)):
            if hidden and column not in _COMPUTED.get(table.name, ()):
                raise ValueError(f"the column {column!r} of its table {table.name} is computed")


def read_tables_alone(connection: sqlite3.Connection) -> None:
    """Let the connection read no view, under whatever name it comes, and set off no trigger."""

    def allowed(action: int, first: str | None, second: str | None, database: str | None, inside: str | None) -> int:
        return sqlite3.SQLITE_OK if inside is None else sqlite3.SQLITE_DENY

    connection.set_authorizer(allowed)


def refuse_strange_company(path: Path, *, writing: bool) -> None:
    """Raise DamagedTape for what lies beside a tape as no log and no journal of a tape does.

    What is no ordinary file (a pipe) SQLite would wait for. A file that a journal names it would delete, where it may write.
    """
    for suffix in ("-wal", "-journal"):
        place = path.with_name(f"{path.name}{suffix}")
        try:
            ordinary = stat.S_ISREG(place.stat().st_mode)
        except OSError:
            continue
        if not ordinary:
            raise _strange(path, f"{place.name} is no ordinary file", place)
        if writing and suffix == "-journal" and _names_another(place):
            raise _strange(path, f"{place.name} names another file, which the journal of a tape never does", place)


def _names_another(journal: Path) -> bool:
    with contextlib.suppress(OSError), journal.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - len(_SUPER_JOURNAL)))
        return file.read() == _SUPER_JOURNAL
    return False


def _strange(path: Path, why: str, place: Path) -> DamagedTape:
    fix = f"rm {shlex.quote(str(place))}  # if you know the tape to be whole; else take both again from a copy"
    return DamagedTape(f"{path} is damaged", why=why, fix=fix)


def of_kinds(where: str, row: Sequence[Any], kinds: Sequence[type]) -> None:
    """Raise ValueError where a value of a row is neither null nor of its kind: a column of SQLite takes whatever it is given."""
    for value, kind in zip(row, kinds, strict=True):
        if value is not None and type(value) is not kind:
            raise ValueError(f"{where} has {value!r:.40}, where a value is {kind.__name__}")


def inflated(body: bytes, most: int) -> bytes:
    """What was deflated, of no more bytes than ``most``: a small file must not ask for the machine's memory."""
    inflating = zlib.decompressobj()
    try:
        text = inflating.decompress(body, most)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not inflating.eof or inflating.unused_data:
        raise ValueError("the body is cut short, too long, or followed by something else")
    return text


def from_json(text: str, kind: type = object) -> Any:
    """What JSON says, as a tape writes it: raises ValueError for NaN, infinity, and what is not of the kind asked for."""
    value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    if not isinstance(value, kind):
        raise ValueError(f"{text:.40} is no {kind.__name__}")
    return value


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _refuse(digits)
