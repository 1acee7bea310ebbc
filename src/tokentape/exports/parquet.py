"""A tape as Parquet: a file for each table, with the columns' own types, null where there is no value, units in the
metadata.

The metadata of each column have its ``unit`` and ``meaning``, those of each file under ``tokentape`` the schema version
of the tape, its Setting with the fingerprint, and the recorder's notes, as JSON. A text that is no UTF-8 by itself (a
piece of a character) is null in ``text`` and whole in ``bytes``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape._version import __version__
from tokentape.data.schema import SCHEMA_VERSION
from tokentape.errors import MissingExtra
from tokentape.exports.place import arriving
from tokentape.exports.tables import Field, Lists, Table

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["SUFFIX", "refuse_no_pyarrow", "write_parquet"]

SUFFIX = ".parquet"

_ROWS = 65_536
"""Rows of a row group."""


def refuse_no_pyarrow() -> Any:
    """The module pyarrow; raises MissingExtra where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra(
            "Parquet needs pyarrow, which is not installed",
            why="it comes with the extra [parquet]; perfetto, otlp and csv need nothing",
            fix="pip install 'tokentape[parquet]'",
        ) from error
    return pyarrow


def write_parquet(tape: Tape, makers: Iterable[Callable[[], Table]], folder: Path) -> list[Path]:
    """Write each table as ``NAME.parquet`` into ``folder``; returns the files. Raises MissingExtra."""
    pa = refuse_no_pyarrow()
    facts = _facts(tape)
    written = []
    for make in makers:
        table = make()
        written.append(folder / f"{table.name}{SUFFIX}")
        columns = [_array(pa, field, column) for field, column in zip(table.fields, table.columns, strict=True)]
        fields = [
            pa.field(field.name, array.type, metadata={"unit": field.unit, "meaning": field.meaning})
            for field, array in zip(table.fields, columns, strict=True)
        ]
        whole = pa.table(columns, schema=pa.schema(fields, metadata={"tokentape": facts}))
        with arriving(written[-1]) as file:
            pa.parquet.write_table(whole, file, compression="zstd", row_group_size=_ROWS)
    return written


def _facts(tape: Tape) -> str:
    facts = {
        "schema_version": SCHEMA_VERSION,
        "tokentape_version": __version__,
        "fingerprint": tape.setting.fingerprint,
        "setting": dict(tape.setting.facts),
        "notes": dict(tape.notes),
        "state": tape.state,
    }
    return json.dumps(facts, allow_nan=False)


def _array(pa: Any, field: Field, column: Any) -> Any:
    kind = _types(pa)[field.kind]
    if isinstance(column, Lists):
        return _candidates(pa, kind, column)
    if isinstance(column, np.ma.MaskedArray):
        return pa.array(column.data, kind, mask=np.ma.getmaskarray(column))
    if field.kind == "text":
        column = [_utf8(value) if isinstance(value, bytes) else value for value in column]
    return pa.array(column, kind)


def _utf8(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _candidates(pa: Any, kind: Any, column: Lists) -> Any:
    ids, logprob = (pa.array(part) for part in column.parts)
    offsets = np.concatenate([[0], np.cumsum(column.counts)]).astype(np.int32)
    structs = pa.StructArray.from_arrays([ids, logprob], fields=list(kind.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets), structs, type=kind, mask=pa.array(column.counts == 0))


def _types(pa: Any) -> dict[str, Any]:
    candidate = pa.struct([("id", pa.int32()), ("logprob", pa.float32())])
    return {
        "int64": pa.int64(),
        "int32": pa.int32(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
        "string": pa.string(),
        "text": pa.string(),
        "json": pa.string(),
        "binary": pa.binary(),
        "ids": pa.list_(pa.int64()),
        "candidates": pa.list_(candidate),
    }
