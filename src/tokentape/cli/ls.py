"""``tokentape ls``: the tapes in a folder."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path

import click

from tokentape.cli.output import document, json_option, print_document, print_lines

__all__ = ["command"]


@click.command("ls")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@json_option
def command(folder: Path | None, as_json: bool) -> None:
    """List the tapes in FOLDER, oldest first; one that cannot be read says why.

    Without FOLDER: the one that TOKENTAPE_DIR names, else the current one.
    """
    from tokentape.errors import UsageError
    from tokentape.views.folder import line_of, tapes_in
    from tokentape.views.listing import tape_list
    from tokentape.views.screen import Screen

    place = folder or Path(os.environ.get("TOKENTAPE_DIR") or ".")
    if place.is_file():
        paths = [place]
    elif place.is_dir():
        paths = tapes_in(place)
    else:
        raise UsageError(f"there is no folder {place}", why="ls lists the tapes of a folder", fix="tokentape ls .")
    lines = [line_of(path) for path in paths]
    if as_json:
        print_document(document("ls", folder=place, tapes=[asdict(line) for line in lines]))
    elif lines:
        print_lines(tape_list(lines, Screen.of(sys.stdout)))
    else:
        screen = Screen.of(sys.stderr)
        print_lines(screen.safe(screen.say("listing.empty", folder=str(place))), err=True)
