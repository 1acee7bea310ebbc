"""What goes to stdout: text as it is, or one JSON document."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import click

__all__ = ["SCHEMA_VERSION", "document", "json_option", "print_document", "print_lines"]

SCHEMA_VERSION = 1
"""Version of the documents that ``--json`` prints; a field that changes its meaning or goes raises it."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")


def document(command: str | None, **fields: Any) -> dict[str, Any]:
    """A document: its version, the command, and the fields as plain values (no NaN, no bytes)."""
    return {"schema_version": SCHEMA_VERSION, "command": command, **{k: _plain(v) for k, v in fields.items()}}


def print_document(found: Mapping[str, Any]) -> None:
    """Print one document and a line end."""
    try:
        text = json.dumps(found, ensure_ascii=False, allow_nan=False, indent=1)
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(found, allow_nan=False, indent=1)
    click.echo(text)


def print_lines(text: str, *, err: bool = False) -> None:
    """Print what a view made, for the stream it was made for: colours are in it where they are wanted."""
    click.echo(text, err=err, color=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        return _plain(value.tolist())
    return str(value)
