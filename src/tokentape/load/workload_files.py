"""Files of prompts and of recorded traffic, read into workloads.

* ``azure``: CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens; the timestamps of 2023
  (``2023-11-16 18:15:46.6805900``) and of 2024 (``2024-05-10 00:00:00.009930+00:00``);
* ``mooncake``: JSON lines with ``timestamp`` (ms), ``input_length``, ``output_length``, and ``hash_ids``, one for each begun
  block of 512 tokens: requests with the same ids at the start have the same prefix;
* ``sharegpt``: JSON, a list of ``{"id", "conversations": [{"from": "human" | "gpt", "value"}]}``;
* ``jsonl``: JSON lines with ``prompt`` (text or ids) or ``messages``, and as they like ``max_tokens``, ``timestamp`` (s);
* ``text``: a prompt a line.

Sources of the formats: Azure/AzurePublicDataset, ``AzureLLMInferenceDataset2023.md`` and ``...2024.md``; kvcache-ai/Mooncake,
``FAST25-release/README.md``; R. Qin et al., "Mooncake: Trading More Storage for Less Computation", FAST 2025.
"""

from __future__ import annotations

import csv
import json
from array import array
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from tokentape.errors import UsageError
from tokentape.load.workloads import Listed, Sized, Turn, Workload

__all__ = ["BLOCK_TOKENS", "FORMATS", "read_workload"]

FORMATS = ("azure", "mooncake", "sharegpt", "jsonl", "text")
BLOCK_TOKENS = 512
"""Tokens of a block of the Mooncake traces."""

BYTES_A_TOKEN = 4
"""What an answer of a ShareGPT conversation is reckoned with, to limit the one that is asked for: it is no measurement."""

_AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST = 10_000_000
"""The most tokens that one request can be said to have."""


def read_workload(path: str | Path, form: str | None = None, *, n_new: int | None = None) -> Workload:
    """The workload in a file. ``form`` is one of :data:`FORMATS`; without it the file's name and first line decide.

    ``n_new`` limits each answer where the file does not, and the lengths of recorded traffic. Raises UsageError, with the line,
    for what is not in the format.
    """
    path = Path(path)
    if form is not None and form not in FORMATS:
        raise UsageError(
            f"no format {form!r}",
            why=f"there are {', '.join(FORMATS)}",
            fix="leave --workload-format out, or --workload-format jsonl",
        )
    text = _text(path)
    if not text.strip():
        raise UsageError(f"{path} is empty", why="a workload has at least one request", fix="another --workload FILE")
    form = form or _form(path, text)
    readers: dict[str, Callable[[Path, str, int | None], Workload]] = {
        "azure": _azure,
        "mooncake": _mooncake,
        "sharegpt": _sharegpt,
        "jsonl": _jsonl,
        "text": _lines,
    }
    return readers[form](path, text, n_new)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8", why=str(error), fix="iconv -t UTF-8") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read", why=error.strerror or str(error), fix="check the path") from error


def _form(path: Path, text: str) -> str:
    first = text.lstrip()[:2000].splitlines()[0].strip()
    if first.startswith("["):
        return "sharegpt"
    if path.suffix == ".csv" or first.split(",")[0] == _AZURE[0]:
        return "azure"
    if first.startswith("{"):
        return "mooncake" if '"input_length"' in first else "jsonl"
    return "jsonl" if path.suffix in (".jsonl", ".ndjson", ".json") else "text"


def _refuse(path: Path, line: int, found: str, expected: str, fix: str) -> NoReturn:
    raise UsageError(f"{path}, line {line}: {found}", why=f"expected is {expected}", fix=fix)


# Azure


def _azure(path: Path, text: str, n_new: int | None) -> Workload:
    rows = csv.reader(text.splitlines())
    header = tuple(name.strip() for name in next(rows))
    fix = "a file of the Azure dataset; or --workload-format, one of " + ", ".join(FORMATS)
    if header != _AZURE:
        _refuse(path, 1, f"the columns {', '.join(header)[:80]}", ",".join(_AZURE), fix)
    times, prompt, new = array("q"), array("q"), array("q")
    for row in rows:
        if not row:
            continue
        found, line = f"the row {','.join(row)[:80]!r}", rows.line_num
        if len(row) != 3:
            _refuse(path, line, found, f"three columns, {','.join(_AZURE)}", fix)
        at_ns = _moment_ns(row[0])
        if at_ns is None:
            _refuse(path, line, found, "a time like 2023-11-16 18:15:46.6805900 in the first column", fix)
        if not (row[1].strip().isdecimal() and row[2].strip().isdecimal()):
            _refuse(path, line, found, "whole numbers of tokens in the second and third column", fix)
        times.append(at_ns)
        prompt.append(_length(path, line, int(row[1]), fix))
        new.append(_length(path, line, int(row[2]), fix))
    return _sized(path, times, prompt, _at_most(new, n_new), "azure")


def _moment_ns(text: str) -> int | None:
    """A timestamp with any number of decimals, and a time zone or none, in nanoseconds since 1970."""
    head, dot, rest = text.strip().partition(".")
    digits = ""
    while dot and rest[:1].isdecimal():
        digits, rest = digits + rest[0], rest[1:]
    try:
        moment = datetime.fromisoformat(head + (rest if dot else ""))
    except ValueError:
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000 + int(digits.ljust(9, "0")[:9] or 0)


def _length(path: Path, line: int, n: int, fix: str) -> int:
    if n > _LONGEST:
        _refuse(path, line, f"{n} tokens", f"at most {_LONGEST}", fix)
    return n


def _at_most(lengths: array[int], limit: int | None) -> array[int]:
    return lengths if limit is None else array("q", [min(one, limit) for one in lengths])


def _sized(
    path: Path,
    times: array[int],
    prompt: array[int],
    new: array[int],
    source: str,
    blocks: list[tuple[int, ...]] | None = None,
) -> Workload:
    """Rows in the order of their times: some traces are not quite sorted."""
    if not times:
        raise UsageError(f"{path} has no rows", why="there is nothing to replay", fix="another --workload FILE")
    order = sorted(range(len(times)), key=times.__getitem__)
    first = times[order[0]]
    return Sized(
        array("q", [times[i] - first for i in order]),
        array("q", [max(1, prompt[i]) for i in order]),
        array("q", [new[i] for i in order]),
        source,
        None if blocks is None else [blocks[i] for i in order],
    )


# JSON lines


def _objects(path: Path, text: str, fix: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, body in enumerate(text.split("\n"), 1):
        if not body.strip():
            continue
        try:
            value = json.loads(body)
        except (ValueError, RecursionError) as error:
            _refuse(path, line, f"no JSON, {body.strip()[:60]!r} ({error})", "an object on each line", fix)
        if not isinstance(value, dict):
            _refuse(path, line, f"{body.strip()[:60]!r}", "an object on each line", fix)
        yield line, value


def _mooncake(path: Path, text: str, n_new: int | None) -> Workload:
    fix = '{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}'
    times, prompt, new = array("q"), array("q"), array("q")
    blocks: list[tuple[int, ...]] = []
    for line, row in _objects(path, text, fix):
        numbers = [row.get(name) for name in ("timestamp", "input_length", "output_length")]
        if not all(_is_amount(value) for value in numbers):
            names = ", ".join(map(str, row))[:80]
            _refuse(path, line, f"the fields {names}", "timestamp, input_length and output_length, numbers from 0", fix)
        ids = row.get("hash_ids", [])
        if not (
            isinstance(ids, list)
            and all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in ids)
        ):
            _refuse(path, line, f"hash_ids {str(ids)[:60]}", "a list of whole numbers from 0", fix)
        at_ms, n_prompt, n_out = numbers
        needed = -(-int(n_prompt or 0) // BLOCK_TOKENS)
        if ids and len(ids) > max(1, needed):
            _refuse(
                path,
                line,
                f"{len(ids)} hash_ids for {n_prompt} tokens",
                f"one for each begun block of {BLOCK_TOKENS}",
                fix,
            )
        times.append(round(float(at_ms or 0) * 1e6))
        prompt.append(_length(path, line, int(n_prompt or 0), fix))
        new.append(_length(path, line, int(n_out or 0), fix))
        blocks.append(tuple(ids))
    return _sized(path, times, prompt, _at_most(new, n_new), "mooncake", blocks if any(blocks) else None)


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15


def _jsonl(path: Path, text: str, n_new: int | None) -> Workload:
    fix = '{"prompt": "..."}, or {"messages": [{"role": "user", "content": "..."}]}, also with "max_tokens": 100'
    turns: list[tuple[Turn, ...]] = []
    times: list[Any] = []
    for line, row in _objects(path, text, fix):
        limit = row.get("max_tokens", n_new)
        if limit is not None and not (_is_amount(limit) and limit == int(limit) and limit >= 1):
            _refuse(path, line, f"max_tokens {str(limit)[:40]}", "a whole number from 1", fix)
        turns.append((_asked(path, line, row, None if limit is None else int(limit), fix),))
        at_s = row.get("timestamp")
        if at_s is not None and not _is_amount(at_s):
            _refuse(path, line, f"timestamp {str(at_s)[:40]}", "a number of seconds from 0", fix)
        times.append(at_s)
    if any(at is None for at in times):
        return Listed(tuple(turns), source="jsonl")
    moments_ns = [round(at_s * 1e9) for at_s in times]
    order = sorted(range(len(times)), key=moments_ns.__getitem__)
    moments = tuple(moments_ns[i] for i in order)
    return Listed(tuple(turns[i] for i in order), source="jsonl", times_ns=moments)


def _asked(path: Path, line: int, row: Mapping[str, Any], limit: int | None, fix: str) -> Turn:
    messages, prompt = row.get("messages"), row.get("prompt", row.get("text"))
    if isinstance(messages, list) and messages and all(isinstance(one, dict) and "role" in one for one in messages):
        return Turn(messages=tuple(messages), n_new=limit)
    if isinstance(prompt, str) and prompt:
        return Turn(prompt=prompt, n_new=limit)
    if isinstance(prompt, list) and prompt and all(isinstance(i, int) and not isinstance(i, bool) for i in prompt):
        return Turn(prompt=tuple(prompt), n_new=limit)
    _refuse(
        path, line, f"the fields {', '.join(map(str, row))[:80]}", "a prompt (text or ids), or messages with roles", fix
    )


def _lines(path: Path, text: str, n_new: int | None) -> Workload:
    return Listed(tuple((Turn(prompt=line, n_new=n_new),) for line in text.splitlines() if line.strip()), source="text")


# ShareGPT


def _sharegpt(path: Path, text: str, n_new: int | None) -> Workload:
    fix = '[{"id": "...", "conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}]'
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        _refuse(path, line, f"no JSON ({error})", "a list of conversations", fix)
    if not isinstance(value, list):
        _refuse(path, 1, f"a {type(value).__name__}", "a list of conversations", fix)
    found, names = [], []
    for place, one in enumerate(value):
        messages = one.get("conversations", one.get("conversation")) if isinstance(one, dict) else None
        if not isinstance(messages, list):
            raise UsageError(
                f"{path}, entry {place}: {json.dumps(one, ensure_ascii=False)[:80]}",
                why="expected is an object with conversations",
                fix=fix,
            )
        if turns := _turns(messages, n_new):
            found.append(turns)
            names.append(str(one.get("id", place)))
    if not found:
        raise UsageError(
            f"{path} has no conversation with words of a user", why="each of them begins with one", fix=fix
        )
    return Listed(tuple(found), tuple(names), source="sharegpt")


def _turns(messages: list[Any], n_new: int | None) -> tuple[Turn, ...]:
    """What users said, each limited by the length of the answer that it got; what stands before the first of them is left out,
    but for a system's message.
    """
    turns: list[Turn] = []
    before: list[Mapping[str, Any]] = []
    for place, message in enumerate(messages):
        said = message.get("value") if isinstance(message, dict) else None
        if not isinstance(said, str) or not said.strip():
            continue
        role = message.get("from")
        if role == "system" and not turns:
            before = [{"role": "system", "content": said}]
        elif role in ("human", "user"):
            after = messages[place + 1] if place + 1 < len(messages) else None
            answer = after.get("value") if isinstance(after, dict) and after.get("from") in ("gpt", "chatgpt") else None
            limit = n_new or (max(1, len(answer.encode()) // BYTES_A_TOKEN) if isinstance(answer, str) else None)
            turns.append(Turn(messages=(*before, {"role": "user", "content": said}), n_new=limit))
            before = []
    return tuple(turns)
