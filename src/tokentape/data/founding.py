"""The first rows of a tape: its notes, and the facts of its Setting."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tokentape._version import __version__
from tokentape.data.json_text import as_json
from tokentape.data.migrations import migrate
from tokentape.data.setting import NOTED, Setting

__all__ = ["Head", "found", "head_of", "now_utc"]


@dataclass(frozen=True, slots=True)
class Head:
    """The notes and the facts of the Setting, as rows."""

    values: list[tuple[str, str]]
    facts: list[tuple[str, str, int]]


def now_utc() -> str:
    """The time, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def head_of(setting: Setting, notes: Mapping[str, Any]) -> Head:
    """The first rows of a tape; raises UsageError for what JSON cannot hold, before any file is touched."""
    facts = []
    for name, value in setting.facts.items():
        as_json(name, f"the fact {name!r}")
        facts.append((name, as_json(value, f"the fact {name!r}"), int(name not in NOTED)))
    own = {
        "created_utc": now_utc(),
        "tokentape_version": __version__,
        "state": "recording",
        "pid": os.getpid(),
        "fingerprint": setting.fingerprint,
    }
    return Head([(key, as_json(value, f"the note {key!r}")) for key, value in {**notes, **own}.items()], facts)


def found(connection: sqlite3.Connection, head: Head) -> None:
    """Make the tables and write the first rows."""
    connection.execute("pragma page_size = 4096")
    migrate(connection)
    connection.execute("begin immediate")
    connection.executemany("insert into tape values (?, ?)", head.values)
    connection.executemany("insert into setting values (?, ?, ?)", head.facts)
    connection.execute("commit")
