"""What every command that measures does first: find a place for its tape, and load its model."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tokentape.errors import UsageError

__all__ = ["loaded", "tape_place"]


def tape_place(output: Path | None, model: str, what: str = "") -> Path:
    """Where the tape goes: ``output``, or a new file in that folder, in TOKENTAPE_DIR, or here. Raises UsageError.

    A new file is named after the model, ``what`` is done with it, and the time.
    """
    path = output
    if path is None or path.is_dir():
        folder = path or Path(os.environ.get("TOKENTAPE_DIR") or ".")
        path = _unused(folder, f"{_short(model)}{what and f'-{what}'}-{datetime.now():%Y%m%d-%H%M%S}")
    if not path.parent.is_dir():
        raise UsageError(
            f"the folder {path.parent} does not exist",
            why="the tape would be made in it",
            fix=f"mkdir -p {path.parent}",
        )
    return path


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
