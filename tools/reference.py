"""Writes the reference pages in ``docs/reference`` from the code they describe.

python tools/reference.py            write them
python tools/reference.py --check    exit 1 if a committed page is not what this makes
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from tokentape.data.catalogue import TABLES, Table
from tokentape.data.packing import CANDIDATE, PART, RECORD
from tokentape.data.schema import APPLICATION_ID, SCHEMA_VERSION, Column

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
DTYPES = {
    "i8": "int64",
    "i4": "int32",
    "u1": "uint8",
    "f8": "float64",
    "f4": "float32",
    "u4": "uint32",
    "text": "text",
    "json": "JSON text",
    "blob": "bytes",
}

INTRODUCTION = f"""\
# The tape file

<!-- Made by tools/reference.py from src/tokentape/data. Do not edit: `make docs-reference` writes it again. -->

A tape is a SQLite file: `application_id` is `0x{APPLICATION_ID:08x}` (`tokt`), `user_version` the schema version, which on this
page is {SCHEMA_VERSION}. Any SQLite tool reads it:

```console
$ sqlite3 cat.tape "select position, text, logprob from token where trace = 0"
$ sqlite3 cat.tape 'select "index", kind_name, end_ns - start_ns from step where run = 0'
```

While a tape grows, SQLite's `-wal` and `-shm` stand beside it, and what comes is in the table `block`; `tokentape` reads it like
rows. When the tape is closed, it is one file, and all of it is rows. What is unavailable is null, in
the file as in the arrays (masked), never zero and never NaN. All times are on the host clock named in the notes, in
nanoseconds since the tape's origin; `origin_unix_ns` says when that was.
"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _meaning(column: Column, table_since: int) -> str:
    words = ": " + ", ".join(f"{i} {word}" for i, word in enumerate(column.choices)) if column.choices else ""
    since = f" (since version {column.since})" if column.since > table_since else ""
    return _cell(column.meaning) + words + since


def _table(table: Table) -> Iterator[str]:
    yield f"## `{table.name}`"
    yield ""
    yield table.meaning + (f" Since schema version {table.since}." if table.since > 1 else "")
    yield ""
    yield f"Key: {', '.join(f'`{name}`' for name in table.key)}."
    yield ""
    yield "| column | dtype | SQLite | null | unit | meaning |"
    yield "|---|---|---|---|---|---|"
    for column in table.columns:
        null = "may be" if column.nullable else "never"
        dtype = DTYPES[column.dtype]
        yield f"| `{column.name}` | {dtype} | {column.sql_type} | {null} | {column.unit} | {_meaning(column, table.since)} |"
    yield ""


def _records() -> Iterator[str]:
    yield "## Packed records"
    yield ""
    yield (
        f"A part holds at most {PART:,} rows. Fields follow one another without gaps, little-endian. Bit *i* of `null` says that"
        " column *i* of the series is null, and its field is then zero; after the columns of `token` come two bits more, for"
        " the text and for the candidates. In a tape of an older schema version the columns that came later are not in the record,"
        " and the two bits follow those of the columns that are. `n_bytes` and `n_candidates` say how much of the blobs"
        " `bytes` and `candidates` is the row's."
    )
    yield ""
    yield "| record | bytes | fields |"
    yield "|---|---|---|"
    for name, dtype in (*RECORD.items(), ("candidate", CANDIDATE)):
        fields = ", ".join(f"`{field}` {DTYPES[dtype[field].str[1:]]}" for field in dtype.names or ())
        yield f"| {name} | {dtype.itemsize} | {fields} |"


def tape_page() -> str:
    """The page of the file format."""
    lines = [INTRODUCTION]
    for table in TABLES:
        lines += _table(table)
    lines += _records()
    return "\n".join(lines) + "\n"


PAGES = {"tape.md": tape_page}


def main() -> int:
    stale = []
    for name, make in PAGES.items():
        path = FOLDER / name
        made = make()
        if "--check" not in sys.argv[1:]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != made:
            stale.append(path)
    for path in stale:
        print(f"{path} is not what tools/reference.py makes; fix: make docs-reference", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
