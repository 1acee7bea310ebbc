"""Files with a request a line, read so that what is refused is named by its line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from tokentape.errors import UsageError

__all__ = ["is_amount", "objects", "refuse", "text_of"]


def text_of(path: Path) -> str:
    """The text of a file, without a byte order mark. Raises UsageError."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read", why=error.strerror or str(error), fix="check the path") from error
    except UnicodeDecodeError as error:
        if b"\0" in error.object:
            why, fix = "it has zero bytes, and is no UTF-8", "give a file with a request on each line"
            raise UsageError(f"{path} holds no text", why=why, fix=fix) from error
        raise UsageError(
            f"{path} is not UTF-8", why=str(error), fix=f"iconv -f LATIN1 -t UTF-8 {path}, if it is Latin-1"
        ) from error


def objects(path: Path, text: str, fix: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The JSON objects of a text, one a line, each with the number of its line. Raises UsageError for a line that is none."""
    for line, body in enumerate(text.split("\n"), 1):
        if not body.strip():
            continue
        try:
            value = json.loads(body)
        except (ValueError, RecursionError) as error:
            refuse(path, line, f"no JSON, {body.strip()[:60]!r} ({error})", "an object on each line", fix)
        if not isinstance(value, dict):
            refuse(path, line, f"{body.strip()[:60]!r}", "an object on each line", fix)
        yield line, value


def is_amount(value: Any, below: float = 1e15) -> TypeGuard[float]:
    """Whether a value of JSON is a number from 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < below


def refuse(path: Path, line: int, found: str, expected: str, fix: str) -> NoReturn:
    """Raise UsageError for a line."""
    raise UsageError(f"{path}, line {line}: {found}", why=f"expected is {expected}", fix=fix)
