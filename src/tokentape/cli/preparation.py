"""What every command that measures does first: find a place for its tape, and load its model."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tokentape.errors import TapeExists

__all__ = ["inode", "loaded", "refuse_no_folder", "refuse_taken", "tape_place"]


def tape_place(output: Path | None, model: str, what: str = "") -> Path:
    """Where the tape goes: ``output``, or a new file in that folder, in TOKENTAPE_DIR, or here. Raises UsageError.

    A new file is named after the model, ``what`` is done with it, and the time.
    """
    path = output
    if path is None or path.is_dir():
        folder = path or Path(os.environ.get("TOKENTAPE_DIR") or ".")
        path = _unused(folder, f"{_short(model)}{what and f'-{what}'}-{datetime.now():%Y%m%d-%H%M%S}")
    refuse_no_folder(path)
    return path


def refuse_no_folder(path: Path) -> None:
    """Raise UsageError where the folder of a file to be made is not there."""
    from tokentape.data.outputs import refuse_no_parent

    refuse_no_parent(path)


def refuse_taken(path: Path, *, overwrite: bool, other: str = "another -o PATH") -> None:
    """Raise TapeExists where a file to be made is there already: now rather than after a model has been loaded."""
    if path.exists() and not overwrite:
        raise TapeExists(f"{path} already exists", why="nothing is overwritten unasked", fix=f"{other}, or --overwrite")


def inode(path: Path) -> int | None:
    """What tells a file from the one that takes its place; None where there is none."""
    return path.stat().st_ino if path.exists() else None


def _short(model: str) -> str:
    """The last part of a model's name, as part of a file name."""
    name = Path(model)
    if name.exists():
        name = name.resolve()
        name = name.parent if name.name == "config.json" else name
    else:
        name = Path(model.partition("@")[0])
    return re.sub(r"[^\w.-]+", "-", name.name).strip("-.") or "model"


def _unused(folder: Path, stem: str) -> Path:
    path, number = folder / f"{stem}.tape", 2
    while path.exists():
        path, number = folder / f"{stem}-{number}.tape", number + 1
    return path


def loaded(model: str, options: Mapping[str, Any], threads: int | None) -> Any:
    """The model as a source, by the ``options`` of :func:`tokentape.local`, with so many threads of torch."""
    import tokentape
    from tokentape.models.runtime import require_torch, require_transformers

    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # read once, when torch is first imported
    require_transformers()  # says how to get it, where importing the source would only fail
    source = tokentape.local(model, **options)
    if threads is not None:
        require_torch().set_num_threads(threads)
    return source
