"""Blocks: the steps and tokens of a run while it is under way, many of them in one row of the file.

Rows are what a tape is read as, but making them would cost whoever is in a loop several times as much as the block does. So a
run that is being recorded grows by blocks, and becomes rows when the tape is closed. A reader sees no difference:
:func:`read_blocks` gives what the rows will say.

A block is written by columns, for most of them say the same in every row of it. The blobs ``steps`` and ``tokens`` are chunks, one
after another: the number of rows (uint32), then each column as a byte and what it announces, little-endian:

- 0: null in every row;
- 1: one value for all rows;
- 2: a value a row;
- 3: a byte a row, 1 where it is null, then a value a row.

The columns of ``steps`` are STEP_COLUMNS, those of ``tokens`` the trace, TOKEN_COLUMNS, the number of bytes (null where there
is no text) and the number of candidates (null where none were kept). ``candidates`` and ``bytes`` are as in
:mod:`tokentape.data.packing`.
"""

from __future__ import annotations

import sqlite3
import struct
import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tokentape.data.columns import end_to_end, joined
from tokentape.data.packing import (
    CANDIDATE,
    ENDLESS,
    NO_CANDIDATES,
    NO_TEXT,
    OWNER,
    RECORD,
    Part,
    bytes_of,
    candidates_json,
    slices,
)
from tokentape.data.schema import SCHEMA_VERSION, SERIES
from tokentape.errors import UsageError

__all__ = ["INSERT_ROW", "NO_BLOCKS", "Blocks", "Draft", "DraftTokens", "block_row", "lay_out", "read_blocks"]

_OWNED = {series: np.dtype([("trace", "<i8"), ("record", record)]) for series, record in RECORD.items()}
_NO_STEPS = np.empty(0, RECORD["step"])

_CODES = {"i8": "q", "i4": "i", "u4": "I", "u1": "B", "f8": "d", "f4": "f"}
"""Types of :mod:`array` and :mod:`struct`."""

_COLUMNS: dict[str, tuple[tuple[str, str], ...]] = {
    "step": tuple((column.name, _CODES[column.dtype]) for column in SERIES["step"]),
    "token": (
        ("trace", "q"),
        *((column.name, _CODES[column.dtype]) for column in SERIES["token"]),
        ("n_bytes", "I"),
        ("n_candidates", "I"),
    ),
}
"""Names and types of the columns of a chunk."""

_MARKS = {
    "step": tuple(1 << bit for bit in range(len(SERIES["step"]))),
    "token": (0, *(1 << bit for bit in range(len(SERIES["token"]))), NO_TEXT, NO_CANDIDATES),
}
"""What a null in each of them is in ``null`` of a record."""

_NULL, _ONE, _EACH, _SOME = (bytes([kind]) for kind in range(4))

Values = Sequence[Any] | int | float | None
"""A column of some rows: a value for each, or one for all of them."""


@dataclass(frozen=True, slots=True)
class DraftTokens:
    """``n`` tokens: their traces, their columns in the order of TOKEN_COLUMNS, the bytes of each (or None where no text is
    to be kept), and its candidates, best first (likewise).
    """

    n: int
    traces: Values
    columns: Sequence[Values]
    data: Sequence[bytes | None] | None
    candidates: Sequence[Sequence[tuple[int, float]] | None] | None


class Draft:
    """A block that is being filled. Raises UsageError for what no tape can hold, and has nothing of it then."""

    def __init__(self) -> None:
        self._n_steps = self._first = 0
        self.clear()

    def __len__(self) -> int:
        """How many steps it holds."""
        return self._n_steps

    @property
    def first(self) -> int:
        """Index of its first step."""
        return self._first

    def add(self, n: int, columns: Sequence[Values], tokens: DraftTokens | None) -> None:
        """``n`` steps, their columns in the order of STEP_COLUMNS, and the tokens that they gave."""
        steps = _chunk("step", n, columns)
        packed = (b"", b"", []) if tokens is None else _packed(tokens)
        if not self._n_steps:
            self._first = int.from_bytes(steps[5:13], "little")  # after the number of rows and the kind of column
        self._steps.append(steps)
        self._n_steps += n
        self._tokens.append(packed[0])
        self._candidates.append(packed[1])
        self._text += packed[2]

    def blobs(self) -> tuple[bytes, bytes, bytes, bytes]:
        """Steps, tokens, candidates and bytes as the table ``block`` holds them."""
        return b"".join(self._steps), b"".join(self._tokens), b"".join(self._candidates), b"".join(self._text)

    def clear(self) -> None:
        """Begin the next block."""
        self._n_steps = self._first = 0
        self._steps: list[bytes] = []
        self._tokens: list[bytes] = []
        self._candidates: list[bytes] = []
        self._text: list[bytes] = []


def _packed(tokens: DraftTokens) -> tuple[bytes, bytes, list[bytes]]:
    """A chunk of tokens, their candidates and their bytes."""
    data, candidates = tokens.data, tokens.candidates
    n_bytes = n_candidates = None
    flat: list[float] = []
    if data is not None:
        n_bytes = [None if raw is None else len(raw) for raw in data]
    if candidates is not None:
        n_candidates = [None if some is None else len(some) for some in candidates]
        flat = [number for some in candidates if some for pair in some for number in pair]
    chunk = _chunk("token", tokens.n, (tokens.traces, *tokens.columns, n_bytes, n_candidates))
    return chunk, _packed_candidates(flat), [raw for raw in data or () if raw]


def _chunk(series: str, n: int, columns: Sequence[Values]) -> bytes:
    """``n`` rows as a chunk. By :mod:`array`, not numpy: for the few rows of a block numpy would cost several times as much."""
    pieces = [_little(array("I", (n,)))]
    for (name, code), values in zip(_COLUMNS[series], columns, strict=True):
        if values is None:
            pieces.append(_NULL)
            continue
        try:
            if isinstance(values, int | float):
                pieces += (_ONE, _little(array(code, (values,))))
            elif isinstance(values, list | tuple) and None in values:
                filled = array(code, [0 if value is None else value for value in values])
                pieces += (_SOME, bytes([value is None for value in values]), _little(filled))
            else:
                pieces += (_EACH, _little(array(code, values)))
        except (TypeError, OverflowError) as error:
            raise _misfit(series, name, str(error)) from error
        if code == "d" and _has_nan(values):
            raise _misfit(series, name, "it is NaN, and a tape says null where there is no value")
    return b"".join(pieces)


def _little(values: array[Any]) -> bytes:
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def _has_nan(values: Sequence[float] | float) -> bool:
    return values != values if isinstance(values, int | float) else any(value != value for value in values)


def _packed_candidates(flat: Sequence[float]) -> bytes:
    """``flat`` has id, log-probability, id, log-probability, ..."""
    try:
        return struct.pack("<" + "if" * (len(flat) // 2), *flat)
    except OverflowError:  # a number beyond float32, which is infinite there
        least = float(np.finfo(np.float32).min)
        return _packed_candidates([-np.inf if number < least else number for number in flat])
    except struct.error as error:
        raise _misfit("token", "a candidate", str(error)) from error


def _misfit(series: str, name: str, why: str) -> UsageError:
    return UsageError(
        f"{name} of a {series} does not fit the schema",
        why=why,
        fix="give plain Python values of the column's type; None where there is none",
    )


_INSERT_BLOCK = """
insert into block (run, first_step, n_steps, crc32, steps, tokens, candidates, bytes) values (?, ?, ?, ?, ?, ?, ?, ?)
"""


def block_row(run: int, draft: Draft) -> tuple[str, tuple[Any, ...]]:
    """The statement that appends a block to a run, and its values."""
    blobs = draft.blobs()
    return _INSERT_BLOCK, (run, draft.first, len(draft), _checksum(run, draft.first, blobs), *blobs)


def _checksum(run: int, first: int, blobs: Iterable[bytes]) -> int:
    crc = zlib.crc32(f"{run} {first}".encode())
    for blob in blobs:
        crc = zlib.crc32(blob, crc)
    return crc


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of one run, joined: records of its steps, and for each trace a part with its tokens."""

    steps: npt.NDArray[np.void]
    tokens: Mapping[int, Part]
    span: tuple[int, int, int] = (-1, -1, -1)
    """Number and first step of the first block, and the number of the last."""


NO_BLOCKS = Blocks(_NO_STEPS, {})


def _read(
    connection: sqlite3.Connection, run: int, version: int, after: int = -1, last: int = ENDLESS
) -> Iterator[tuple[npt.NDArray[np.void], npt.NDArray[np.void], npt.NDArray[np.void], bytes]]:
    """Steps, tokens, candidates, bytes of each block after number ``after``, up to step ``last``; ValueError for a checksum."""
    rows = connection.execute(
        "select first_step, n_steps, crc32, steps, tokens, candidates, bytes from block "
        "where run = ? and number > ? and first_step <= ? order by number",
        (run, after, last),
    )
    for first, n_steps, crc, *blobs in rows:
        if _checksum(run, first, blobs) != crc:
            raise ValueError(f"the block of run {run} that begins with step {first}: the checksum is another")
        steps = _decoded("step", blobs[0], version)
        if len(steps) != n_steps:
            raise ValueError(f"the block of run {run} that begins with step {first}: {len(steps)} steps, not {n_steps}")
        yield steps["record"], _decoded("token", blobs[1], version), np.frombuffer(blobs[2], CANDIDATE), blobs[3]


def _decoded(series: str, blob: bytes, version: int) -> npt.NDArray[np.void]:
    """Chunks as records, each with its trace (0 for steps); a column that the schema did not have yet is null."""
    later = {column.name for column in SERIES[series] if column.since > version}
    chunks = [np.empty(0, _OWNED[series])]
    at = 0
    while at < len(blob):
        (n,) = struct.unpack_from("<I", blob, at)
        at += 4
        if n > 1 and len(blob) - at < 8 * n:  # several rows differ by index, position or trace, of 8 bytes each
            raise ValueError(f"{n} {series}s in {len(blob) - at} bytes")
        rows = np.zeros(n, _OWNED[series])
        records = rows["record"]
        for place, (name, code) in enumerate(_COLUMNS[series]):
            mark = _MARKS[series][place]
            if name in later:
                records["null"] |= np.uint32(mark)
                continue
            kind = blob[at : at + 1]
            at += 1
            if kind == _NULL:
                records["null"] |= np.uint32(mark)
                continue
            if kind == _SOME:
                records["null"] |= np.frombuffer(blob, np.uint8, n, at) * np.uint32(mark)
                at += n
            values = np.frombuffer(blob, np.dtype(code).newbyteorder("<"), 1 if kind == _ONE else n, at)
            at += values.nbytes
            (rows if name == "trace" else records)[name] = values
        chunks.append(rows)
    return end_to_end(chunks)


def read_blocks(
    connection: sqlite3.Connection,
    run: int,
    last: int = ENDLESS,
    *,
    version: int = SCHEMA_VERSION,
    earlier: Blocks = NO_BLOCKS,
) -> Blocks:
    """What the blocks of a run, of schema ``version``, say up to step ``last``; raises ValueError for a damaged one.

    ``earlier`` is what they said before: where these blocks are still there, only those after them are read.
    """
    span = _span(connection, run, last)
    known = earlier if earlier.span[:2] == span[:2] and earlier.span[2] <= span[2] else NO_BLOCKS
    steps, tokens, candidates = [known.steps], [np.empty(0, _OWNED["token"])], [np.empty(0, CANDIDATE)]
    text = []
    for some_steps, some_tokens, some_candidates, some_text in _read(connection, run, version, known.span[2], last):
        steps.append(some_steps)
        tokens.append(some_tokens)
        candidates.append(some_candidates)
        text.append(some_text)
    records = np.concatenate(steps)  # fields of larger records, so not end to end
    by_trace = _by_trace(end_to_end(tokens), end_to_end(candidates), np.frombuffer(b"".join(text), np.uint8), last)
    for trace, part in known.tokens.items():
        by_trace[trace] = Part(trace, *joined([part, by_trace[trace]])) if trace in by_trace else part
    return Blocks(records[records["index"] <= last], by_trace, span)


def _span(connection: sqlite3.Connection, run: int, last: int) -> tuple[int, int, int]:
    ends = "select min(number), min(first_step), max(number) from block where run = ? and first_step <= ?"
    found: tuple[Any, ...] = connection.execute(ends, (run, last)).fetchone()
    return NO_BLOCKS.span if found[0] is None else (int(found[0]), int(found[1]), int(found[2]))


def _by_trace(
    tokens: npt.NDArray[np.void], candidates: npt.NDArray[np.void], text: npt.NDArray[np.uint8], last: int
) -> dict[int, Part]:
    records = tokens["record"]
    lengths = {"n_candidates": len(candidates), "n_bytes": len(text)}
    for name, there in lengths.items():
        if int(records[name].sum(dtype=np.int64)) != there:
            raise ValueError(f"blocks with {there} entries, where {name} announces others")
    parts = {}
    for trace in np.unique(tokens["trace"]).tolist():
        chosen = (tokens["trace"] == trace) & (records["step"] <= last)
        mine = records[chosen]
        parts[trace] = Part(
            trace,
            mine,
            candidates[np.repeat(chosen, records["n_candidates"])],
            text[np.repeat(chosen, records["n_bytes"])].tobytes(),
        )
    return parts


# -- from blocks to rows -----------------------------------------------------------------------------------------------


def _insert(series: str, *extra: str) -> str:
    names = [OWNER[series], *(f'"{column.name}"' for column in SERIES[series]), *extra]
    return f"insert into {series} ({', '.join(names)}) values ({', '.join('?' * len(names))})"


INSERT_ROW = {"step": _insert("step"), "token": _insert("token", "text", "raw", "candidates")}
"""One row of a series: its owner, its columns, and of a token its text, its bytes where they are none, its candidates."""


def lay_out(connection: sqlite3.Connection, run: int, version: int = SCHEMA_VERSION) -> None:
    """Turn the blocks of a run, written under that schema version, into rows of the present one; within the caller's transaction.

    Raises ValueError for a damaged block.
    """
    for steps, tokens, candidates, text in _read(connection, run, version):
        connection.executemany(INSERT_ROW["step"], _step_rows(run, steps))
        connection.executemany(INSERT_ROW["token"], _token_rows(tokens, candidates, text))
    connection.execute("delete from block where run = ?", (run,))


def _step_rows(run: int, records: npt.NDArray[np.void]) -> Iterator[tuple[Any, ...]]:
    return zip([run] * len(records), *_values("step", records), strict=True)


def _token_rows(
    tokens: npt.NDArray[np.void], candidates: npt.NDArray[np.void], text: bytes
) -> Iterator[tuple[Any, ...]]:
    records = tokens["record"]
    texts: list[str | None] = []
    raws: list[bytes | None] = []
    for raw in bytes_of(records, text):
        try:
            texts.append(None if raw is None else raw.decode())
            raws.append(None)
        except UnicodeDecodeError:
            texts.append(None)
            raws.append(raw)
    shown = _shown(candidates, records)
    return zip(tokens["trace"].tolist(), *_values("token", records), texts, raws, shown, strict=True)


def _values(series: str, records: npt.NDArray[np.void]) -> list[list[Any]]:
    """The columns of records as plain values, None where null."""
    columns = []
    nulls = records["null"]
    some = int(np.bitwise_or.reduce(nulls)) if len(nulls) else 0
    for bit, column in enumerate(SERIES[series]):
        values = records[column.name].tolist()
        if some >> bit & 1:
            missing = (nulls >> bit & 1).tolist()
            values = [None if absent else value for value, absent in zip(values, missing, strict=True)]
        columns.append(values)
    return columns


def _shown(candidates: npt.NDArray[np.void], records: npt.NDArray[np.void]) -> list[str | None]:
    """The candidates of each token as the row has them."""
    pairs = candidates.tolist()
    missing = (records["null"] & NO_CANDIDATES != 0).tolist()
    mine = slices(records["n_candidates"])
    return [None if none else candidates_json(pairs[piece]) for none, piece in zip(missing, mine, strict=True)]
