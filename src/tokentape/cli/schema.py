"""``tokentape schema``: the columns of a tape."""

from __future__ import annotations

import sys

import click

from tokentape.cli.output import document, json_option, print_document, print_lines

__all__ = ["command"]


@click.command("schema")
@json_option
def command(as_json: bool) -> None:
    """Print the columns of a tape: type, unit, meaning.

    The same names hold in Python (trace.tokens["logprob"]) and in the SQLite file itself.
    """
    from tokentape.views.listing import schema_document, schema_table
    from tokentape.views.screen import Screen

    if as_json:
        print_document(document("schema", **schema_document()))
    else:
        print_lines(schema_table(Screen.of(sys.stdout)))
