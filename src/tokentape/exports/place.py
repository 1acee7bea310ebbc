"""Where an export is put: checks before the work, and files that arrive whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

import tokentape.data.outputs as outputs
from tokentape.data.files import path_error
from tokentape.data.outputs import refuse_no_parent, refuse_place
from tokentape.errors import UsageError

__all__ = ["arriving", "refuse_no_file", "refuse_no_folder", "refuse_taken", "text_arriving"]


def refuse_no_file(path: Path) -> None:
    """Raise UsageError where no file can be made at ``path``."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder", why="this export is one file", fix=f"-o {path / 'cat.json'}")
    refuse_no_parent(path)


def refuse_no_folder(path: Path, suffix: str) -> None:
    """Raise UsageError where ``path`` can be no folder of files that end in ``suffix``."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file", why="this export is a folder of tables", fix="-o FOLDER")
    if path.suffix == suffix:
        why = "this export is a folder with a file for each table"
        raise UsageError(f"{path} is named like a file", why=why, fix=f"-o {path.with_suffix('')}")
    refuse_no_parent(path)


def refuse_taken(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Raise TapeExists for what is there already, unless it may be overwritten; a tape never is."""
    for path in paths:
        fix = "another -o PATH, or --overwrite (overwrite=True)"
        refuse_place(path, overwrite=overwrite, what="an export", fix=fix)


@contextlib.contextmanager
def arriving(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes its place when the body ends. Raises the errors of :func:`~tokentape.data.files.path_error`."""
    try:
        with outputs.arriving(path) as file:
            yield file
    except OSError as error:
        raise path_error(path, error) from error


@contextlib.contextmanager
def text_arriving(path: Path) -> Iterator[TextIO]:
    """The same for text in UTF-8; through gzip where the name ends in ``.gz``.

    What has no UTF-8 form (a lone surrogate) is written as its ``\\ud800``, which JSON reads back.
    """
    with arriving(path) as file:
        packed = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if path.suffix == ".gz" else None
        text = io.TextIOWrapper(packed or file, "utf-8", errors="backslashreplace", newline="")
        yield text
        text.flush()
        text.detach()
        if packed is not None:
            packed.close()
