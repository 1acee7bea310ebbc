"""From packed records to columns: masked arrays with something loud under every mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tokentape.data.packing import Part
from tokentape.data.schema import SERIES
from tokentape.data.trace import Candidates, Columns, Masked

__all__ = ["BATCH", "batched", "candidates_of", "columns_of", "end_to_end", "frozen", "joined", "under_the_mask"]

BATCH = 32768
"""Rows unpacked at once: enough that numpy's cost for each call does not count, few enough for the processor's cache."""


_CELLS, _EMPTY = 1 << 26, 16
"""Candidates as a matrix have no more cells than so many, or than so many for each candidate: that of one token must not make the
rows of all others as long."""


def batched(parts: Iterable[npt.NDArray[np.void]]) -> Iterable[npt.NDArray[np.void]]:
    """Join small arrays into arrays of about :data:`BATCH` rows."""
    waiting: list[npt.NDArray[np.void]] = []
    n = 0
    for part in parts:
        waiting.append(part)
        n += len(part)
        if n >= BATCH:
            yield end_to_end(waiting)
            waiting, n = [], 0
    if waiting:
        yield end_to_end(waiting)


def end_to_end(arrays: Sequence[npt.NDArray[np.void]]) -> npt.NDArray[np.void]:
    """Record arrays of one dtype (at least one) as one; np.concatenate would compare their fields anew for each array."""
    if len(arrays) == 1:
        return arrays[0]
    return np.frombuffer(b"".join([array.data for array in arrays]), arrays[0].dtype)


def under_the_mask(dtype: np.dtype[Any]) -> float | int:
    """What lies under the mask of an array of this type."""
    return np.nan if dtype.kind == "f" else int(np.iinfo(dtype).min)


def frozen(data: npt.NDArray[np.generic], mask: npt.NDArray[np.bool_]) -> Masked:
    """A masked array that cannot be written to."""
    data.flags.writeable = False
    mask.flags.writeable = False
    array: Masked = np.ma.MaskedArray(data, mask=mask, copy=False, fill_value=under_the_mask(data.dtype))
    return array


def columns_of(
    series: str,
    n: int,
    records: Iterable[npt.NDArray[np.void]],
    extra: Mapping[str, npt.NDArray[np.int64]] | None = None,
) -> Columns:
    """Columns of ``n`` rows of a series, filled from record arrays in their order; ``extra`` columns come first.

    Raises ValueError where there are more or fewer than ``n`` records.
    """
    schema = SERIES[series]
    arrays = {column.name: np.empty(n, column.dtype) for column in schema}
    never = np.zeros(n, np.bool_)
    masks = {column.name: np.zeros(n, np.bool_) if column.nullable else never for column in schema}
    done = 0
    for batch in records:
        place = slice(done, done + len(batch))
        done += len(batch)
        if done > n:
            break
        nulls = batch["null"]
        some = int(np.bitwise_or.reduce(nulls))
        for bit, column in enumerate(schema):
            part = arrays[column.name][place]
            part[:] = batch[column.name]
            if column.nullable and some >> bit & 1:
                mask = masks[column.name][place]
                np.not_equal(nulls & (1 << bit), 0, out=mask)
                part[mask] = under_the_mask(part.dtype)
    if done != n:
        raise ValueError(f"{done} rows of the table {series}, {n} announced")
    first = {name: partial(frozen, values, never) for name, values in (extra or {}).items()}
    return Columns({**first, **{name: partial(frozen, values, masks[name]) for name, values in arrays.items()}}, n)


def candidates_of(counts: npt.NDArray[np.uint32], flat: npt.NDArray[np.void]) -> Candidates:
    """Candidates ``[T, k]`` from how many each token has and all of them in a row; k is the largest number.

    Raises ValueError where the counts do not add up to the candidates that are there.
    """
    total = int(counts.sum(dtype=np.int64))
    if total != len(flat):
        raise ValueError(f"{len(flat)} candidates, {total} announced")
    shape = (len(counts), int(counts.max(initial=0)))
    if shape[0] * shape[1] > max(_CELLS, _EMPTY * total):
        raise ValueError(f"{total} candidates of {shape[0]} tokens, {shape[1]} of them of one")
    ids = np.empty(shape, flat.dtype["id"].newbyteorder("="))
    logprob = np.empty(shape, flat.dtype["logprob"].newbyteorder("="))
    if total == ids.size:
        ids[:] = flat["id"].reshape(shape)
        logprob[:] = flat["logprob"].reshape(shape)
        mask = np.zeros(shape, np.bool_)
    else:
        there = np.arange(shape[1])[None, :] < counts[:, None]
        ids[there], logprob[there] = flat["id"], flat["logprob"]
        mask = ~there
        ids[mask], logprob[mask] = np.iinfo(ids.dtype).min, np.nan
    return Candidates(frozen(ids, mask), frozen(logprob, mask))


def joined(parts: list[Part]) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void], bytes]:
    """Records, candidates and text of consecutive parts (at least one)."""
    if len(parts) == 1:
        return parts[0].records, parts[0].candidates, parts[0].text
    records = end_to_end([part.records for part in parts])
    return records, end_to_end([part.candidates for part in parts]), b"".join([part.text for part in parts])
