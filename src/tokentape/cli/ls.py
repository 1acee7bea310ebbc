"""``tokentape ls``: the tapes in a folder."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokentape.cli.output import document, json_option, print_document, print_lines

if TYPE_CHECKING:
    from tokentape.views.listing import TapeLine

__all__ = ["command"]

DATE = "%Y-%m-%d %H:%M"


@click.command("ls")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@json_option
def command(folder: Path | None, as_json: bool) -> None:
    """List the tapes in FOLDER, oldest first; one that cannot be read says why.

    Without FOLDER: the one that TOKENTAPE_DIR names, else the current one.
    """
    from tokentape.errors import UsageError
    from tokentape.views.listing import tape_list
    from tokentape.views.screen import Screen

    place = folder or Path(os.environ.get("TOKENTAPE_DIR") or ".")
    if place.is_file():
        paths = [place]
    elif place.is_dir():
        paths = sorted(place.glob("*.tape"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    else:
        raise UsageError(f"there is no folder {place}", why="ls lists the tapes of a folder", fix="tokentape ls .")
    lines = [_line_of(path) for path in paths]
    if as_json:
        print_document(document("ls", folder=place, tapes=[asdict(line) for line in lines]))
    elif lines:
        print_lines(tape_list(lines, Screen.of(sys.stdout)))
    else:
        print_lines(f"no tapes in {place}; make one: tokentape record demo 'The fox'", err=True)


def _line_of(path: Path) -> TapeLine:
    """What the list says of one file."""
    from tokentape.data.tape import open_tape
    from tokentape.errors import TokentapeError
    from tokentape.study.metrics import tape_tokens_per_s
    from tokentape.views.card import model_name
    from tokentape.views.listing import TapeLine

    try:
        with open_tape(path) as tape:
            traces = list(tape.traces)
            created = tape.notes.get("created_utc")
            return TapeLine(
                path=path,
                state=tape.state,
                model=model_name(tape),
                prompt=traces[0].prompt_text if traces else None,
                n_tokens=sum(len(trace.tokens["step"]) for trace in traces),
                n_traces=len(traces),
                tokens_per_s=tape_tokens_per_s(tape),
                created=None if created is None else datetime.fromisoformat(created).astimezone().strftime(DATE),
            )
    except TokentapeError as error:
        return TapeLine(
            path=path, state="unreadable", problem=f"{error.what}: {error.why}" if error.why else error.what
        )
