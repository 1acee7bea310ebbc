"""One hash for each small table of a finished tape, so that a changed letter in a prompt or a note is found."""

from __future__ import annotations

import hashlib
import sqlite3

from tokentape.data.catalogue import TABLES

__all__ = ["HASHED", "hash_table", "write_manifest"]

HASHED = tuple(table.name for table in TABLES if table.name != "manifest")

ROWS_HASHED_APART = frozenset({"step", "token", "packed", "block"})
"""Tables whose rows are under digests and checksums of their own; here only their definitions count."""


def hash_table(connection: sqlite3.Connection, table: str) -> str:
    """SHA-256 of the definition of a table (and of its indexes) and of its rows, in hexadecimal digits."""
    digest = hashlib.sha256()
    definition = connection.execute(
        "select type, name, sql from sqlite_master where tbl_name = ? order by type, name", (table,)
    )
    for row in definition:
        digest.update(repr(row).encode())
    if table not in ROWS_HASHED_APART:
        for row in connection.execute(f"select * from {table} order by 1"):
            digest.update(repr(row).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def write_manifest(connection: sqlite3.Connection) -> None:
    """Hash every table anew; within the caller's transaction."""
    rows = [(table, hash_table(connection, table)) for table in HASHED]
    connection.execute("delete from manifest")
    connection.executemany("insert into manifest values (?, ?)", rows)
