"""A tape as CSV: a file for each table, for spreadsheets and for every tool that reads lines.

RFC 4180 with ``\\n`` at line ends, UTF-8, no byte order mark, one header line. A null is an empty cell, an empty text
is ``""``, text is always between quotes, numbers never. Units of time, size and information are the last word of a
header (``start_ns``, ``cache_bytes``, ``logprob_nats``); everything else counts what it is named after.

Text is written as :func:`~tokentape.exports.escaping.escaped` has it, so that each row is one line and holds no control
character; the bytes themselves are beside it as hexadecimal digits. JSON is plain ASCII and stands as it is. A text
that begins with ``=``, ``+``, ``-`` or ``@`` (or their full-width forms), which a spreadsheet would take for a formula,
gets an apostrophe before it, and so does one that begins with an apostrophe: taking one apostrophe away gives the text
back in every case. A semicolon before such a letter is escaped, as ``\\x3B`` or in JSON ``\\u003b``: where commas stand in
numbers spreadsheets part cells at semicolons, between quotes too if the cell does not begin with one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tokentape.data.packing import candidates_json
from tokentape.exports.escaping import escaped
from tokentape.exports.place import text_arriving
from tokentape.exports.tables import Field, Lists, Table

__all__ = ["SUFFIX", "cell_text", "header", "write_csv"]

SUFFIX = ".csv"

_ROWS = 4096
_UNITS = ("ns", "bytes", "nats")
_FORMULA = tuple("=+-@＝＋－＠'")
_PARTS = re.compile(r"""; *(?=[" \\]*[=+@＝＋－＠-])""")
"""A semicolon that would begin a cell with a formula."""


def write_csv(makers: Iterable[Callable[[], Table]], folder: Path) -> list[Path]:
    """Write each table as ``NAME.csv`` into ``folder``; returns the files."""
    written = []
    for make in makers:
        table = make()
        written.append(folder / f"{table.name}{SUFFIX}")
        with text_arriving(written[-1]) as file:
            file.writelines(_lines(table))
    return written


def header(field: Field) -> str:
    """The name of a column, with its unit at its end where it has one of time, size or information."""
    if field.kind == "binary":
        return f"{field.name}_hex"
    named = field.unit not in _UNITS or field.kind == "candidates" or field.name.endswith(f"_{field.unit}")
    return field.name if named else f"{field.name}_{field.unit}"


def cell_text(text: str | bytes) -> str:
    """A text as a cell, between its quotes."""
    safe = _PARTS.sub(lambda found: found[0].replace(";", r"\x3B"), escaped(text))
    if safe.startswith(_FORMULA):
        safe = f"'{safe}"
    return '"' + safe.replace('"', '""') + '"'


def _json_cell(text: str) -> str:
    """JSON in plain ASCII as a cell; a semicolon stands in its strings alone."""
    return '"' + _PARTS.sub(lambda found: found[0].replace(";", r"\u003b"), text).replace('"', '""') + '"'


def _lines(table: Table) -> Iterator[str]:
    yield ",".join(header(field) for field in table.fields) + "\n"
    columns = [_cells(field, column) for field, column in zip(table.fields, table.columns, strict=True)]
    for row in zip(*columns, strict=True):
        yield ",".join(row) + "\n"


def _cells(field: Field, column: Any) -> Iterator[str]:
    if isinstance(column, Lists):
        yield from _lists(column)
        return
    write = _WRITERS[field.kind]
    for value in _plain(column):
        yield "" if value is None else write(value)


def _plain(column: Any) -> Iterator[Any]:
    if not isinstance(column, np.ma.MaskedArray):
        yield from column
        return
    for at in range(0, len(column), _ROWS):  # a list of the whole column would be many times its size
        yield from column[at : at + _ROWS].tolist()


def _lists(column: Lists) -> Iterator[str]:
    at = 0
    for n in column.counts.tolist():
        part = slice(at, at + n)
        at += n
        pairs = zip(column.parts[0][part].tolist(), column.parts[1][part].tolist(), strict=True)
        yield f'"{candidates_json(pairs)}"' if n else ""


_WRITERS: dict[str, Callable[[Any], str]] = {
    "int64": str,
    "int32": str,
    "float64": repr,
    "bool": lambda value: "true" if value else "false",
    "string": cell_text,
    "text": cell_text,
    "json": _json_cell,
    "binary": lambda value: f'"{value.hex()}"',
    "ids": lambda value: '"[' + ",".join(map(str, value)) + ']"',
}
