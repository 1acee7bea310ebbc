"""One hash for each small table of a finished tape, so that a changed letter in a prompt or a note is found."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator

from tokentape.data.catalogue import TABLES, VIEWS
from tokentape.data.consistency import Problem

__all__ = ["manifest_problems", "write_manifest"]

SINCE = {**{table.name: table.since for table in TABLES if table.name != "manifest"}, **VIEWS}
"""What has a hash, and the first schema version that has it."""

ROWS_HASHED_APART = frozenset({"step", "token", "packed", "block", *VIEWS})
"""Tables whose rows are under digests and checksums of their own, or are made of others'; here only their definitions count."""


def hash_table(connection: sqlite3.Connection, table: str) -> str:
    """SHA-256 of the definition of a table (and of its indexes) and of its rows, in hexadecimal digits."""
    digest = hashlib.sha256()
    definition = connection.execute(
        "select type, name, sql from sqlite_master where tbl_name = ? order by type, name", (table,)
    )
    for row in definition:
        digest.update(repr(row).encode())
    if table not in ROWS_HASHED_APART:
        for row in connection.execute(f"select * from {table} order by 1, 2"):
            digest.update(repr(row).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def write_manifest(connection: sqlite3.Connection) -> None:
    """Hash every table anew; within the caller's transaction."""
    rows = [(table, hash_table(connection, table)) for table in SINCE]
    connection.execute("delete from manifest")
    connection.executemany("insert into manifest values (?, ?)", rows)


def manifest_problems(connection: sqlite3.Connection, version: int) -> Iterator[Problem]:
    """What is not as it was when the tape was finished; nothing in a tape that is not. ``version`` is its schema version."""
    (state,) = connection.execute("select value from tape where key = 'state'").fetchone()
    if state == '"recording"':
        return
    if state not in ('"complete"', '"partial"'):
        yield Problem("tape", f"its state is {state}")
    hashes = dict(connection.execute("select name, sha256 from manifest"))
    known = {table for table, since in SINCE.items() if since <= version}
    for table in sorted({*known, *hashes}):
        if table not in hashes:
            yield Problem(table, "a finished tape has a hash of each table, and of this one none")
        elif table not in known or hash_table(connection, table) != hashes[table]:
            yield Problem(table, "the table is not as it was when the tape was finished")
