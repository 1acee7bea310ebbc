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

from tokentape.data.schema import CANDIDATE_COLUMNS, SERIES, Column

__all__ = [
    "AT_STEP",
    "CANDIDATE",
    "NO_CANDIDATES",
    "NO_TEXT",
    "OWNER",
    "PART",
    "RECORD",
    "Part",
    "bytes_of",
    "candidates_json",
    "checksums",
    "pack",
    "parts_from_packs",
    "parts_from_rows",
    "slices",
]

PART = 8192
"""Rows of a part: a trace of ordinary length is one part, and packing never holds more."""

OWNER = {"step": "run", "token": "trace"}
"""What the rows of a series belong to."""

ORDER = {"step": "index", "token": "position"}

AT_STEP = {"step": "index", "token": "step"}
"""The column that says to which step a row belongs."""

CANDIDATE = np.dtype([(column.name, "<" + column.dtype) for column in CANDIDATE_COLUMNS])


def _record(columns: Sequence[Column], *extra: tuple[str, str]) -> np.dtype[np.void]:
    fields = [(column.name, "<" + column.dtype) for column in columns]
    return np.dtype([*fields, ("null", "<u4"), *extra])


RECORD: dict[str, np.dtype[np.void]] = {
    "step": _record(SERIES["step"]),
    "token": _record(SERIES["token"], ("n_bytes", "<u4"), ("n_candidates", "<u4")),
}

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

    def sha256(self) -> bytes:
        """Digest of the rows; ``written`` is in it, so that a digit beyond float32's ninth counts too."""
        digest = hashlib.sha256()
        for piece in (*self.blobs(), self.written.encode()):
            digest.update(len(piece).to_bytes(8, "little"))
            digest.update(piece)
        return digest.digest()

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


def _question(series: str, present: Iterable[str] | None) -> str:
    """SELECT of one series as the fields of its record, zero where null, from a table that has the columns ``present``."""
    columns = SERIES[series]
    have = {column.name for column in columns} if present is None else set(present)
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
    connection: sqlite3.Connection, series: str, owner: int, last: int = 2**63 - 1, present: Iterable[str] | None = None
) -> Iterator[Part]:
    """Read the rows of one run or trace, up to the step ``last``, part by part."""
    question = _question(series, present)
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


def pack(connection: sqlite3.Connection, series: str, owner: int) -> Iterator[tuple[Any, ...]]:
    """Rows of the table ``packed``, one for each part of the run or trace."""
    for number, part in enumerate(parts_from_rows(connection, series, owner)):
        blobs = part.blobs()
        yield (series, owner, number, len(part), *checksums(owner, number, blobs), part.sha256(), *blobs)


def checksums(owner: int, number: int, blobs: Sequence[bytes]) -> tuple[int, ...]:
    """CRC-32 of each blob, begun with whose it is, so that a part in another's place is found."""
    begun = zlib.crc32(f"{owner} {number}".encode())
    return tuple(zlib.crc32(blob, begun) for blob in blobs)


def parts_from_packs(
    connection: sqlite3.Connection, series: str, first: int, last: int, *, symbols: bool
) -> Iterator[Part]:
    """Read the packed parts of the runs or traces ``first`` to ``last``; candidates and text only with ``symbols``.

    Raises ValueError where a part does not have its checksum.
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
        records = np.frombuffer(values[0], RECORD[series])
        if len(records) != n:
            raise ValueError(
                f"packed {series}s of {OWNER[series]} {owner}, part {number}: {len(records)} rows, {n} announced"
            )
        if symbols:
            yield Part(owner, records, np.frombuffer(values[1], CANDIDATE), values[2])
        else:
            yield Part(owner, records, np.empty(0, CANDIDATE), b"")
