"""A file of results as documents of JSON: one, or one a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from tokentape.errors import UsageError

__all__ = ["LARGEST_BYTES", "documents"]

LARGEST_BYTES = 1 << 30
"""A larger file is not read: its values would take many times its size in memory."""


def documents(path: Path) -> list[Any]:
    """The documents of a file, at least one. Raises UsageError for what is no JSON, or not to be read."""
    text = _text(path)
    if text.startswith("build_commit,") or text.lstrip().startswith("CREATE TABLE IF NOT EXISTS llama_bench"):
        raise UsageError(
            f"{path} holds averages of llama-bench, not its samples",
            why="its CSV and SQL leave the single measurements out, and a tape holds nothing else",
            fix="llama-bench -o json",
        )
    try:
        return [_parsed(text)]
    except json.JSONDecodeError as error:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if len(lines) < 2:
            raise _no_json(path, str(error)) from None
    found = []
    for number, line in lines:
        try:
            found.append(_parsed(line))
        except json.JSONDecodeError as error:
            raise _no_json(path, f"line {number}: {error.msg}") from None
    return found


def _text(path: Path) -> str:
    try:
        n_bytes = path.stat().st_size
        if not path.is_file():
            raise UsageError(f"{path} is no file", why="results are one file of JSON", fix="give the file itself")
        if n_bytes > LARGEST_BYTES:
            why = f"it has {n_bytes} bytes, and up to {LARGEST_BYTES} are read"
            raise UsageError(f"{path} is too large", why=why, fix="import a part of it")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise UsageError(f"cannot read {path}", why=why, fix="give the results of a benchmark tool") from error
    except UnicodeDecodeError:
        raise _no_json(path, "it is not UTF-8") from None
    if not text.strip():
        raise UsageError(f"{path} is empty", why="nothing was measured, or nothing saved", fix="run the tool again")
    return text


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise json.JSONDecodeError("it is nested too deeply", "", 0) from None
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError):
            raise
        raise json.JSONDecodeError(f"{error}"[:80], "", 0) from None  # an integer of thousands of digits


def _no_number(name: str) -> NoReturn:
    raise json.JSONDecodeError(f"{name} is no number", "", 0)


def _no_json(path: Path, why: str) -> UsageError:
    fix = "give the JSON or JSON lines that the tool wrote, whole"
    return UsageError(f"{path} is no JSON", why=why, fix=fix)
