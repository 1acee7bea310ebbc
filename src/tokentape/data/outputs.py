"""Files that are made of a tape, such as pages and exports: what they may take the place of, and how they arrive."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tokentape.errors import TapeExists, UsageError

__all__ = ["arriving", "refuse_no_parent", "refuse_place"]


def refuse_no_parent(path: Path) -> None:
    """Raise UsageError where the folder of a file to be made is not there."""
    if not path.parent.is_dir():
        why = f"{path.name} would be made in it"
        raise UsageError(f"the folder {path.parent} does not exist", why=why, fix=f"mkdir -p {path.parent}")


def refuse_place(path: Path, *, overwrite: bool, what: str, fix: str) -> None:
    """Raise TapeExists where ``what`` (a page, an export) may not be put: over what is there, unless ``overwrite``, which ``fix``
    tells how to ask for; over a tape, or over what is no file (a folder, a device), in any case.
    """
    if not path.exists():
        return
    if not overwrite:
        raise TapeExists(f"{path} already exists", why="nothing is overwritten unasked", fix=fix)
    if path.suffix == ".tape" or not path.is_file():
        why = f"{what} never takes the place of a tape" if path.is_file() else "it is no ordinary file"
        raise TapeExists(f"{path} already exists", why=why, fix="give another path")


@contextlib.contextmanager
def arriving(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes its place when the body ends, and leaves nothing behind if it raises. Raises OSError."""
    draft = path.with_name(f".draft-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with draft.open("xb") as file:
            yield file
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
