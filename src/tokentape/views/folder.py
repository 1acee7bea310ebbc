"""The tapes of a folder: which there are, and one line about each."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from tokentape.data.database import understood
from tokentape.data.tape import open_tape
from tokentape.errors import TokentapeError
from tokentape.study.metrics import tape_tokens_per_s
from tokentape.study.served import is_served
from tokentape.study.served_summary import served_summary
from tokentape.views.card import model_name
from tokentape.views.listing import TapeLine

__all__ = ["line_of", "tapes_in"]

DATE = "%Y-%m-%d %H:%M"


def tapes_in(folder: Path) -> list[Path]:
    """The files of the folder whose name ends in ``.tape``, oldest first; those that vanish meanwhile are left out.

    A link that leads nowhere, or in a circle, comes first, to be told as such.
    """
    found = []
    for path in folder.glob("*.tape"):
        try:
            found.append((path.stat().st_mtime_ns, path.name, path))
        except OSError:
            if path.is_symlink():
                found.append((0, path.name, path))
    return [path for *_, path in sorted(found)]


def line_of(path: Path) -> TapeLine:
    """What a list says of one file; of one that cannot be read, why."""
    try:
        with understood(str(path)), open_tape(path) as tape:  # one that is made of nonsense must not hide the others
            traces = list(tape.traces)
            asked = served_summary(tape) if is_served(tape) else None
            return TapeLine(
                path=path,
                state=tape.state,
                model=model_name(tape),
                prompt=traces[0].prompt_text if traces else None,
                n_tokens=sum(trace.tokens.n_rows for trace in traces) if asked is None else asked.n_tokens,
                n_traces=len(traces),
                tokens_per_s=tape_tokens_per_s(tape) if asked is None else asked.tokens_per_s,
                n_requests=None if asked is None else asked.n_requests,
                requests_per_s=None if asked is None else asked.requests_per_s,
                created=_local(tape.notes.get("created_utc")),
            )
    except TokentapeError as error:
        return TapeLine(
            path=path, state="unreadable", problem=f"{error.what}: {error.why}" if error.why else error.what
        )


def _local(created: Any) -> str | None:
    """A time of day here; None for what is none."""
    try:
        return datetime.fromisoformat(created).astimezone().strftime(DATE)
    except (TypeError, ValueError, OverflowError):
        return None
