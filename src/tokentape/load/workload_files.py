"""Files of prompts and of recorded traffic, read into workloads.

* ``azure`` and ``mooncake``: :mod:`tokentape.study.traffic.recorded`;
* ``sharegpt``: JSON, a list of ``{"id", "conversations": [{"from": "human" | "gpt", "value"}]}``;
* ``jsonl``: JSON lines with ``prompt`` (text or ids) or ``messages``, and as they like ``max_tokens``, ``timestamp`` (s);
* ``text``: a prompt a line.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tokentape.errors import UsageError
from tokentape.load.workloads import Listed, Sized, Turn, Workload
from tokentape.study.traffic.lines import is_amount, objects, refuse, text_of
from tokentape.study.traffic.recorded import AZURE_COLUMNS, recorded_in
from tokentape.study.traffic.recorded import FORMATS as RECORDED

__all__ = ["FORMATS", "read_workload"]

FORMATS = (*RECORDED, "sharegpt", "jsonl", "text")

BYTES_A_TOKEN = 4
"""What an answer of a ShareGPT conversation is reckoned with, to limit the one that is asked for: it is no measurement."""


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
    text = text_of(path)
    if not text.strip():
        raise UsageError(f"{path} is empty", why="a workload has at least one request", fix="another --workload FILE")
    form = form or _form(path, text)
    readers: dict[str, Callable[[Path, str, int | None], Workload]] = {
        **{name: partial(_sized, name) for name in RECORDED},
        "sharegpt": _sharegpt,
        "jsonl": _jsonl,
        "text": _lines,
    }
    return readers[form](path, text, n_new)


def _form(path: Path, text: str) -> str:
    first = text.lstrip()[:2000].splitlines()[0].strip()
    if first.startswith("["):
        return "sharegpt"
    if path.suffix == ".csv" or first.split(",")[0] == AZURE_COLUMNS[0]:
        return "azure"
    if first.startswith("{"):
        return "mooncake" if '"input_length"' in first else "jsonl"
    return "jsonl" if path.suffix in (".jsonl", ".ndjson", ".json") else "text"


# Recorded traffic


def _sized(form: str, path: Path, text: str, n_new: int | None) -> Workload:
    found = recorded_in(text, path, form)
    limited = found.n_output if n_new is None else array("q", [min(one, n_new) for one in found.n_output])
    return Sized(found.at_ns, found.n_prompt, limited, found.source, found.blocks)


# JSON lines


def _jsonl(path: Path, text: str, n_new: int | None) -> Workload:
    fix = '{"prompt": "..."}, or {"messages": [{"role": "user", "content": "..."}]}, also with "max_tokens": 100'
    turns: list[tuple[Turn, ...]] = []
    times: list[Any] = []
    for line, row in objects(path, text, fix):
        limit = row.get("max_tokens", n_new)
        if limit is not None and not (is_amount(limit) and limit == int(limit) and limit >= 1):
            refuse(path, line, f"max_tokens {str(limit)[:40]}", "a whole number from 1", fix)
        turns.append((_asked(path, line, row, None if limit is None else int(limit), fix),))
        at_s = row.get("timestamp")
        if at_s is not None and not is_amount(at_s):
            refuse(path, line, f"timestamp {str(at_s)[:40]}", "a number of seconds from 0", fix)
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
    refuse(
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
        refuse(path, line, f"no JSON ({error})", "a list of conversations", fix)
    if not isinstance(value, list):
        refuse(path, 1, f"a {type(value).__name__}", "a list of conversations", fix)
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
