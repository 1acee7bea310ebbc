"""``tokentape show``: a tape as text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from tokentape.cli.completion import complete_tapes
from tokentape.cli.output import document, json_option, print_document, print_lines

__all__ = ["command"]


@click.command("show")
@click.argument("file", type=click.Path(path_type=Path), shell_complete=complete_tapes)
@click.option(
    "--rows", type=click.IntRange(min=0), default=40, show_default=True, help="Tokens in each table; 0 for all."
)
@click.option("--trace", "numbers", type=int, multiple=True, metavar="N", help="Show this sequence only (repeatable).")
@json_option
def command(file: Path, rows: int, numbers: tuple[int, ...], as_json: bool) -> None:
    """Show a tape: figures, prompt and continuation, a table of its tokens.

    FILE is what `tokentape record` wrote; a tape that is still growing can be shown too.

    \b
    Columns of the table:
      pos          position in the sequence, prompt included
      ms           time since the token before; for the first, since the start (TTFT)
      logprob      nats, under the model's own distribution
      rank         1 is the model's first choice
      entropy      nats, of that distribution
      after rules  logprob after temperature, filters, penalties (where there were any)
    """
    from tokentape.data.tape import open_tape
    from tokentape.errors import UsageError
    from tokentape.views.screen import Screen
    from tokentape.views.text import show
    from tokentape.views.units import count

    with open_tape(file) as tape:
        there = range(len(tape.traces))
        for number in numbers:
            if number not in there:
                has = f"sequences 0 to {there[-1]}" if len(there) > 1 else f"{count(len(there), 'sequence')}, from 0"
                raise UsageError(f"no sequence {number}", why=f"{file} has {has}", fix=f"tokentape show {file}")
        if as_json:
            print_document(document("show", **_document(tape, numbers)))
        else:
            print_lines(show(tape, Screen.of(sys.stdout), rows=rows or None, traces=numbers or None))


def _document(tape: Any, numbers: tuple[int, ...]) -> dict[str, Any]:
    from tokentape.views.document import tape_document

    return tape_document(tape, traces=numbers or None)
