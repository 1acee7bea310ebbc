"""``tokentape view``: the page of a tape, served while it grows, or written as a file that stands for itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from tokentape.cli.completion import complete_tapes
from tokentape.cli.output import document, json_option, print_document
from tokentape.cli.report import parse_size, tell_report, write_report
from tokentape.cli.sections import SectionedCommand, in_section, with_all
from tokentape.cli.serving import serve, serve_options
from tokentape.errors import UsageError

__all__ = ["command"]

EPILOG = """\b
Examples:
  tokentape view cat.tape
  tokentape view cat.tape --html cat.html
  tokentape view before.tape after.tape --html compared.html
  tokentape view . --port 8000
"""

_page = partial(in_section, "Page")

_PAGE = [
    _page("--html", "out", type=click.Path(path_type=Path), metavar="OUT", help="Write the page to the file OUT."),
    _page("--overwrite", is_flag=True, help="Replace a file that is already there."),
    _page("--trace", "numbers", type=int, multiple=True, metavar="N", help="Only this sequence (repeatable)."),
    _page(
        "--across",
        metavar="NAME,...",
        help="What may differ between two tapes because it is the question, as in `tokentape compare`.",
    ),
    _page(
        "--lang",
        type=click.Choice(["en", "zh"]),
        help="The page's language; default: $TOKENTAPE_LANG, else that of the reader's browser.",
    ),
    _page(
        "--max-bytes",
        metavar="SIZE",
        default="6MB",
        show_default=True,
        help="Leave out, and say so, what makes the file larger; 0 leaves out nothing.",
    ),
    _page("--withheld", is_flag=True, help="Show also what a guard withheld."),
]


@click.command("view", cls=SectionedCommand, epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path), shell_complete=complete_tapes)
@click.argument(
    "other", metavar="[FILE2]", required=False, type=click.Path(path_type=Path), shell_complete=complete_tapes
)
@with_all(*_PAGE, *serve_options, json_option)
def command(file: Path, other: Path | None, as_json: bool, **given: Any) -> None:
    """Look at a tape in a browser: text, times, probabilities, attention, cost.

    FILE is what `tokentape record` wrote, also while it grows, or a folder of tapes; with two FILEs they are compared. The page is
    served on this machine alone, until Ctrl-C. With --html it is written to one file instead, which needs no server, no network
    and no tokentape.
    """
    files = [file] if other is None else [file, other]
    max_bytes = parse_size(given["max_bytes"])
    if other is not None and given["numbers"]:
        why = "two tapes are compared whole"
        raise UsageError("--trace with two tapes", why=why, fix="leave out --trace, or give one tape")
    if other is None and given["across"]:
        raise UsageError("--across with one tape", why="there is nothing to compare", fix="give two tapes")
    if given["out"] is None:
        _refuse_of_files(given, as_json=as_json)
        serve(files, given)
        return
    report = write_report(
        files,
        given["out"],
        overwrite=given["overwrite"],
        traces=given["numbers"] or None,
        lang=given["lang"],
        max_bytes=max_bytes,
        withheld=given["withheld"],
        across=(given["across"] or "").split(","),
    )
    if as_json:
        print_document(document("view", **report))
    else:
        click.echo(str(given["out"]))
        tell_report(report)


def _refuse_of_files(given: Mapping[str, Any], *, as_json: bool) -> None:
    """Options of the file where none is written."""
    for option, there in (("--overwrite", given["overwrite"]), ("--json", as_json)):
        if there:
            raise UsageError(f"{option} without --html", why="no file is written", fix="--html OUT.html")
