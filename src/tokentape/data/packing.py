"""Rows as packed records: numpy blobs beside the rows, so that a million rows come back without a million Python objects.

Packs are an index over the rows, as any index of a database is: derived, made again when absent, compared with the rows by
``verify()``. A part holds at most :data:`PART` rows of one run or trace:

- ``records``: the columns of the series in order, little-endian, then ``null`` (bit i set: column i is null; for tokens two
  more bits, for the text and for the candidates), for tokens also ``n_bytes`` and ``n_candidates``;
- ``candidates``: ``(id, logprob)`` records of all tokens, one after another;
- ``bytes``: the bytes of all tokens, one after another.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tokentape.data.schema import CANDIDATE_COLUMNS, LAID_OUT_SINCE, SERIES, Column

__all__ = [
    "AT_STEP",
    "CANDIDATE",
    "ENDLESS",
    "NO_CANDIDATES",
    "NO_TEXT",
    "OWNER",
    "PART",
    "RECORD",
    "UNPACKED",
    "Part",
    "bytes_of",
    "candidates_json",
    "checksums",
    "digest",
    "pack_run",
    "parts_from_packs",
    "parts_from_rows",
    "slices",
    "unpacked",
]

PART = 8192
"""Rows of a part: a trace of ordinary length is one part, and packing never holds more."""

ENDLESS = 2**63 - 1
"""A step that comes after all others."""

OWNER = {"step": "run", "token": "trace"}
"""What the rows of a series belong to."""

ORDER = {"step": "index", "token": "position"}

AT_STEP = {"step": "index", "token": "step"}
"""The column that says to which step a row belongs."""

CANDIDATE = np.dtype([(column.name, "<" + column.dtype) for column in CANDIDATE_COLUMNS])


def _record(columns: Sequence[Column], *extra: tuple[str, str]) -> np.dtype[np.void]:
    fields = [(column.name, "<" + column.dtype) for column in columns]
    return np.dtype([*fields, ("null", "<u4"), *extra])


_EXTRA: dict[str, tuple[tuple[str, str], ...]] = {"step": (), "token": (("n_bytes", "<u4"), ("n_candidates", "<u4"))}

RECORD: dict[str, np.dtype[np.void]] = {series: _record(columns, *_EXTRA[series]) for series, columns in SERIES.items()}

NO_TEXT = 1 << len(SERIES["token"])
NO_CANDIDATES = NO_TEXT << 1


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of one run or trace; ``records`` and ``candidates`` are structured arrays."""

    owner: int
    records: npt.NDArray[np.void]
    candidates: npt.NDArray[np.void]
    text: bytes
    written: str = ""

    def __len__(self) -> int:
        return len(self.records)

    def blobs(self) -> tuple[bytes, bytes, bytes]:
        """Records, candidates and text as the table ``packed`` holds them."""
        return self.records.tobytes(), self.candidates.tobytes(), self.text


def slices(lengths: npt.NDArray[np.uint32]) -> Iterator[slice]:
    """Where pieces of these lengths lie, one after another."""
    ends = np.cumsum(lengths, dtype=np.int64)
    return map(slice, (ends - lengths).tolist(), ends.tolist())


def bytes_of(records: npt.NDArray[np.void], text: bytes) -> list[bytes | None]:
    """The bytes of each token, None where it has no text."""
    missing = (records["null"] & NO_TEXT != 0).tolist()
    return [None if none else text[piece] for none, piece in zip(missing, slices(records["n_bytes"]), strict=True)]


def candidates_json(pairs: Iterable[tuple[int, float]]) -> str:
    """Candidates as the tape keeps them: ``[[id, logprob], ...]``, best first, 9 significant digits.

    Nine digits give every float32 back exactly. Minus infinity, which JSON has no word for, is written ``-9e999``: every
    parser of 64-bit floats reads it as minus infinity.
    """
    return "[" + ",".join([f"[{i},{p:.9g}]" for i, p in pairs]).replace("-inf", "-9e999") + "]"


def _question(series: str, version: int | None) -> str:
    """SELECT of one series as the fields of its record, zero where null, from a table of that schema version."""
    columns = SERIES[series]
    have = {column.name for column in columns if version is None or column.since <= version}
    values = [f'ifnull("{c.name}", 0)' if c.name in have else "0" for c in columns]
    nulls = [f'(("{c.name}" is null) << {i})' for i, c in enumerate(columns) if c.nullable and c.name in have]
    nulls += [str(1 << i) for i, c in enumerate(columns) if c.name not in have]
    extra = ""
    if series == "token":
        nulls += [f"((bytes is null) * {NO_TEXT})", f"((candidates is null) * {NO_CANDIDATES})"]
        extra = ", ifnull(length(bytes), 0), 0"
    return f"select {', '.join(values)}, {' | '.join(nulls)}{extra} {_rows_of(series)}"


def _rows_of(series: str) -> str:
    owner, order = OWNER[series], ORDER[series]
    bounds = f'"{order}" > ? and "{AT_STEP[series]}" <= ?'
    return f'from {series} where {owner} = ? and {bounds} order by "{order}" limit {PART}'


def parts_from_rows(
    connection: sqlite3.Connection, series: str, owner: int, last: int = ENDLESS, *, version: int | None = None
) -> Iterator[Part]:
    """Read the rows of one run or trace, up to the step ``last``, part by part.

    ``version`` is the schema version of the tables; where it is None, that of today.
    """
    question = _question(series, version)
    after = -1
    while True:
        key = (owner, after, last)
        records = np.fromiter(connection.execute(question, key), dtype=RECORD[series])
        if len(records) == 0:
            return
        yield (
            Part(owner, records, *_symbols(connection, records, key))
            if series == "token"
            else Part(owner, records, np.empty(0, CANDIDATE), b"")
        )
        if len(records) < PART:
            return
        after = int(records[ORDER[series]][-1])


def _symbols(
    connection: sqlite3.Connection, records: npt.NDArray[np.void], key: tuple[int, int, int]
) -> tuple[npt.NDArray[np.void], bytes, str]:
    """The candidates and bytes of the rows behind ``records``, whose ``n_candidates`` are filled in."""
    rows = connection.execute(f"select bytes, candidates {_rows_of('token')}", key).fetchall()
    text = b"".join([raw for raw, _ in rows if raw is not None])
    lists = [one or "[]" for _, one in rows]
    written = ",".join(lists)
    records["n_candidates"] = [one.count("[") - 1 for one in lists]
    # One flat list of numbers is parsed several times faster than a list for each token.
    flat = ",".join([one for one in lists if one != "[]"]).replace("[", "").replace("]", "")
    numbers = json.loads(f"[{flat}]")
    candidates = np.empty(len(numbers) // 2, CANDIDATE)
    candidates["id"] = numbers[0::2]
    with np.errstate(over="ignore"):  # a number beyond float32 is infinite
        candidates["logprob"] = numbers[1::2]
    return candidates, text, written


UNPACKED = """
select number from run where finished = 1 and packed = 0 and number not in (select run from block) order by number
"""
"""Runs whose rows are all there, and not packed."""
_INSERT_PACK = f"insert into packed values ({', '.join('?' * 11)})"
_COUNT_TOKENS = "update trace set n_tokens = (select count(*) from token where trace = number) where run = ?"
_COUNT_STEPS = "update run set packed = 1, n_steps = (select count(*) from step where run = number) where number = ?"


def pack_run(connection: sqlite3.Connection, run: int) -> None:
    """Pack the rows of a run and of its traces anew, and count them, part by part, within the caller's transaction."""
    traces = connection.execute("select number from trace where run = ? order by number", (run,)).fetchall()
    series = [("step", run), *(("token", trace) for (trace,) in traces)]
    connection.executemany("delete from packed where series = ? and owner = ?", series)
    for name, owner in series:
        connection.executemany(_INSERT_PACK, _packs(connection, name, owner))
    connection.execute(_COUNT_TOKENS, (run,))
    connection.execute(_COUNT_STEPS, (run,))


def _packs(connection: sqlite3.Connection, series: str, owner: int) -> Iterator[tuple[Any, ...]]:
    """Rows of the table ``packed``, one for each part of the run or trace."""
    for number, part in enumerate(parts_from_rows(connection, series, owner)):
        blobs = part.blobs()
        sums = checksums(owner, number, blobs)
        yield (series, owner, number, len(part), *sums, digest(blobs, part.written), *blobs)


def digest(blobs: Iterable[bytes], written: str) -> bytes:
    """SHA-256 of rows: of their blobs, and of their candidates as ``written``, so that a digit past float32's ninth counts too."""
    whole = hashlib.sha256()
    for piece in (*blobs, written.encode()):
        whole.update(len(piece).to_bytes(8, "little"))
        whole.update(piece)
    return whole.digest()


def checksums(owner: int, number: int, blobs: Sequence[bytes]) -> tuple[int, ...]:
    """CRC-32 of each blob, begun with whose it is, so that a part in another's place is found."""
    begun = zlib.crc32(f"{owner} {number}".encode())
    return tuple(zlib.crc32(blob, begun) for blob in blobs)


def unpacked(series: str, blob: bytes, version: int) -> npt.NDArray[np.void]:
    """The records of a blob that was packed under that schema ``version``; a column that it did not have yet is null.

    Raises ValueError where the blob is no whole number of records.
    """
    if version >= LAID_OUT_SINCE:
        return np.frombuffer(blob, RECORD[series])
    columns = [column for column in SERIES[series] if column.since <= version]
    n_then, n_now = len(columns), len(SERIES[series])
    old = np.frombuffer(blob, _record(columns, *_EXTRA[series]))
    records = np.zeros(len(old), RECORD[series])
    for name in old.dtype.names or ():
        records[name] = old[name]
    of_columns = np.uint32((1 << n_then) - 1)
    later = np.uint32((1 << n_now) - (1 << n_then))
    records["null"] = old["null"] & of_columns | later | (old["null"] & ~of_columns) << np.uint32(n_now - n_then)
    return records


def parts_from_packs(
    connection: sqlite3.Connection,
    series: str,
    first: int,
    last: int,
    *,
    symbols: bool,
    version: int,
) -> Iterator[Part]:
    """Read the packed parts of the runs or traces ``first`` to ``last`` of a tape of that schema ``version``.

    Candidates and text come only with ``symbols``. Raises ValueError where a part does not have its checksum.
    """
    blobs = ("records", "candidates", "bytes") if symbols else ("records",)
    names = ", ".join([*(f"{blob}_crc32" for blob in blobs), *blobs])
    rows = connection.execute(
        f"select owner, part, n, {names} from packed where series = ? and owner between ? and ? order by owner, part",
        (series, first, last),
    )
    for owner, number, n, *rest in rows:
        sums, values = tuple(rest[: len(blobs)]), rest[len(blobs) :]
        if checksums(owner, number, values) != sums:
            raise ValueError(f"packed {series}s of {OWNER[series]} {owner}, part {number}: the checksum is another")
        records = unpacked(series, values[0], version)
        if len(records) != n:
            raise ValueError(
                f"packed {series}s of {OWNER[series]} {owner}, part {number}: {len(records)} rows, {n} announced"
            )
        if symbols:
            yield Part(owner, records, np.frombuffer(values[1], CANDIDATE), values[2])
        else:
            yield Part(owner, records, np.empty(0, CANDIDATE), b"")
