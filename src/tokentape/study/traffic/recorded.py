"""Traffic that production services recorded: when requests came, how long prompt and answer were.

* ``azure``: CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens; the timestamps of 2023
  (``2023-11-16 18:15:46.6805900``) and of 2024 (``2024-05-10 00:00:00.009930+00:00``);
* ``mooncake``: JSON lines with ``timestamp`` (ms), ``input_length``, ``output_length``, and ``hash_ids``, one for each begun
  block of 512 tokens: requests with the same ids at the start have the same prefix.

Sources: Azure/AzurePublicDataset, ``AzureLLMInferenceDataset2023.md`` and ``...2024.md``; kvcache-ai/Mooncake,
``FAST25-release/README.md``; R. Qin et al., "Mooncake: Trading More Storage for Less Computation", FAST 2025.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tokentape.errors import UsageError
from tokentape.study.traffic.lines import is_amount, objects, refuse, text_of

__all__ = ["AZURE_COLUMNS", "BLOCK_TOKENS", "FORMATS", "Recorded", "read_recorded", "recorded_in"]

AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
BLOCK_TOKENS = 512
"""Tokens of a block of the Mooncake traces."""

MOST_TOKENS = 10_000_000
"""The most tokens that one request can be said to have."""
_MOST_MS = 1e12
"""Of a time: far beyond any trace, and as nanoseconds within 64 bits."""
_LAST_YEAR = 2200
"""The same for a calendar."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENT = re.compile(r"([^.]+?)(?:\.([0-9]+))?(Z|[+-][0-9]{2}:?[0-9]{2})?")

Row = tuple[int, int, int, tuple[int, ...]]
"""Nanoseconds of any origin, tokens of prompt and answer, ids of blocks."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Requests in the order of their times, ``[n]`` each: nanoseconds since the first, tokens of prompt and answer, at least 1.

    ``blocks`` are the ids of :data:`BLOCK_TOKENS` tokens each by which prompts share their beginning, None where none are known.
    """

    at_ns: array[int]
    n_prompt: array[int]
    n_output: array[int]
    source: str
    blocks: list[tuple[int, ...]] | None = None


def read_recorded(path: Path, form: str) -> Recorded:
    """The traffic in a file, of a format of :data:`FORMATS`. Raises UsageError for what is not in it, with the line."""
    return recorded_in(text_of(path), path, form)


def recorded_in(text: str, path: Path, form: str) -> Recorded:
    """The same of a text that was read from ``path``.

    Some traces are not quite sorted, and some have requests of no tokens: whoever sends one asks with one and for one.
    """
    rows = sorted(FORMATS[form](path, text), key=lambda row: row[0])
    if not rows:
        raise UsageError(f"{path} has no rows", why="there is nothing to replay", fix="a file with requests")
    first = rows[0][0]
    blocks = [row[3] for row in rows]
    return Recorded(
        array("q", [row[0] - first for row in rows]),
        array("q", [max(1, row[1]) for row in rows]),
        array("q", [max(1, row[2]) for row in rows]),
        form,
        blocks if any(blocks) else None,
    )


def _azure(path: Path, text: str) -> Iterable[Row]:
    fix = "a file of the Azure dataset, or the name of the format that it has"
    rows = csv.reader(text.splitlines())
    try:
        header = [name.strip() for name in next(rows, [])]
        if not set(AZURE_COLUMNS) <= set(header):
            refuse(path, 1, f"the columns {', '.join(header)[:80]}", ",".join(AZURE_COLUMNS), fix)
        at, prompt, output = map(header.index, AZURE_COLUMNS)
        for row in rows:
            if not row:
                continue
            found, line = f"the row {','.join(row)[:80]!r}", rows.line_num
            if len(row) != len(header):
                refuse(path, line, found, f"the columns {','.join(header)[:80]}", fix)
            at_ns = _moment_ns(row[at])
            if at_ns is None:
                refuse(path, line, found, "a time like 2023-11-16 18:15:46.6805900 as TIMESTAMP", fix)
            n_prompt, n_output = _tokens(row[prompt]), _tokens(row[output])
            if n_prompt is None or n_output is None:
                refuse(path, line, found, f"whole numbers of tokens, at most {MOST_TOKENS}", fix)
            yield at_ns, n_prompt, n_output, ()
    except csv.Error as error:
        refuse(path, rows.line_num, f"no CSV ({error})", ",".join(AZURE_COLUMNS), fix)


def _moment_ns(text: str) -> int | None:
    """A timestamp with any number of decimals, and a time zone or none, in nanoseconds since 1970."""
    found = _MOMENT.fullmatch(text.strip())
    if found is None:
        return None
    whole, decimals, zone = found.groups("")
    try:
        moment = datetime.fromisoformat(whole + zone)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if not _EPOCH.year <= moment.year <= _LAST_YEAR:
        return None
    since = moment - _EPOCH
    # datetime holds microseconds, these traces tenths of one
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + int(decimals.ljust(9, "0")[:9])


def _tokens(text: str) -> int | None:
    digits = text.strip()
    if not digits.isdecimal() or len(digits) > len(str(MOST_TOKENS)):
        return None
    n = int(digits)
    return n if n <= MOST_TOKENS else None


def _mooncake(path: Path, text: str) -> Iterable[Row]:
    fix = '{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}'
    for line, row in objects(path, text, fix):
        at_ms, n_prompt, n_output = (row.get(name) for name in ("timestamp", "input_length", "output_length"))
        if not (is_amount(at_ms, _MOST_MS) and is_amount(n_prompt) and is_amount(n_output)):
            names = ", ".join(map(str, row))[:80]
            refuse(path, line, f"the fields {names}", "timestamp, input_length and output_length, numbers from 0", fix)
        if max(n_prompt, n_output) > MOST_TOKENS:
            refuse(path, line, f"{max(n_prompt, n_output)} tokens", f"at most {MOST_TOKENS}", fix)
        yield round(at_ms * 1e6), int(n_prompt), int(n_output), _blocks(path, line, row, int(n_prompt), fix)


def _blocks(path: Path, line: int, row: Mapping[str, Any], n_prompt: int, fix: str) -> tuple[int, ...]:
    ids = row.get("hash_ids", [])
    if not (isinstance(ids, list) and all(type(one) is int and one >= 0 for one in ids)):
        refuse(path, line, f"hash_ids {str(ids)[:60]}", "a list of whole numbers from 0", fix)
    if len(ids) > max(1, -(-n_prompt // BLOCK_TOKENS)):
        found = f"{len(ids)} hash_ids for {n_prompt} tokens"
        refuse(path, line, found, f"one for each begun block of {BLOCK_TOKENS}", fix)
    return tuple(ids)


FORMATS: dict[str, Callable[[Path, str], Iterable[Row]]] = {"azure": _azure, "mooncake": _mooncake}
"""Readers of rows by the names of their formats."""
