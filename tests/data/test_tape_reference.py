"""The reference page says what the file is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tokentape.data import SCHEMA_VERSION, SERIES, Setting, TapeWriter
from tokentape.data.catalogue import TABLES

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_what_the_tool_makes():
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "reference.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_page_names_every_column():
    page = (ROOT / "docs" / "reference" / "tape.md").read_text(encoding="utf-8")
    assert f"page is {SCHEMA_VERSION}" in page
    for columns in SERIES.values():
        for column in columns:
            assert f"| `{column.name}` |" in page and column.meaning in page and f"| {column.unit} |" in page
            row = next(
                line for line in page.splitlines() if line.startswith(f"| `{column.name}` |") and column.meaning in line
            )
            assert (f"(since version {column.since})" in row) is (column.since > 1)


def test_the_page_names_every_table():
    page = (ROOT / "docs" / "reference" / "tape.md").read_text(encoding="utf-8")
    for table in TABLES:
        _, _, own = page.partition(f"\n## `{table.name}`\n")
        own, _, _ = own.partition("\n## ")
        assert table.meaning in own and (table.since == 1 or f"Since schema version {table.since}." in own), table.name
        assert [row.split("`")[1] for row in own.splitlines() if row.startswith("| `")] == [
            c.name for c in table.columns
        ]


def test_the_catalogue_is_what_the_tables_are():
    writer = TapeWriter.create(None, Setting())
    names = {row[0] for row in writer.database.rows("select name from sqlite_master where type = 'table'")}
    assert names == {table.name for table in TABLES}
    for table in TABLES:
        rows = writer.database.rows(f"pragma table_xinfo({table.name})")
        assert {row[1] for row in rows} == {column.name for column in table.columns}
        keys = sorted((row[5], row[1]) for row in rows if row[5])
        assert tuple(name for _, name in keys) == table.key
        columns = {column.name: column for column in table.columns}
        for _, name, kind, not_null, _, key, hidden in rows:
            assert kind.upper() == columns[name].sql_type, (table.name, name)
            if not hidden:
                assert bool(not_null or key) is not columns[name].nullable, (table.name, name)
    writer.close().close()
