"""What a file of somebody else must not have: all by which SQLite, asked for rows, would do more than read them.

A view, a virtual table or a computed column in the place of what a tape has computes what it likes when it is read, without
end if it likes; a trigger does when something is added. A journal that names another file has that file deleted.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tokentape.data.catalogue import TABLES
from tokentape.errors import DamagedTape

__all__ = ["read_tables_alone", "refuse_strange_journal", "refuse_strange_schema"]

_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")
"""The last bytes of a journal that names another, that of a transaction over several files."""

_KINDS = ("CREATE TABLE %", "CREATE INDEX %", "CREATE UNIQUE INDEX %", "CREATE VIEW %")
"""How the definitions begin that SQLite writes for tables, indexes and views."""

_COMPUTED = {"step": {"kind_name"}, "token": {"bytes"}}
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


def refuse_strange_journal(path: Path) -> None:
    """Raise DamagedTape where SQLite would delete a file that the journal beside a tape names: a tape's own names none."""
    place = path.with_name(f"{path.name}-journal")
    if not place.is_file():
        return
    try:
        with place.open("rb") as journal:
            journal.seek(max(0, journal.seek(0, 2) - len(_SUPER_JOURNAL)))
            strange = journal.read() == _SUPER_JOURNAL
    except OSError:
        return
    if strange:
        raise DamagedTape(
            f"{path} is damaged",
            why=f"the journal {place.name} names a file beside the tape, which that of a tape never does",
            fix=f"rm {place}  # if you know the tape to be whole; otherwise take both again from a copy",
        )
