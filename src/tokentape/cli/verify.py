"""``tokentape verify``: are these tapes whole?"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tokentape.cli.completion import complete_tapes
from tokentape.cli.output import document, json_option, print_document, print_lines

__all__ = ["command"]

PROBLEM = 6


@click.command("verify")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), shell_complete=complete_tapes)
@json_option
@click.pass_context
def command(ctx: click.Context, files: tuple[Path, ...], as_json: bool) -> None:
    """Check that tapes are whole: structure, rows, hashes.

    Leaves with 6 if any FILE has a problem, or is no tape that can be read. All files are checked.
    """
    from tokentape.data.tape import verify
    from tokentape.errors import TapeError, UsageError
    from tokentape.views.listing import verify_report
    from tokentape.views.screen import Screen

    results: list[tuple[Path, list[str]]] = []
    missing = False
    for path in files:
        try:
            results.append((path, [str(problem) for problem in verify(path)]))
        except (TapeError, UsageError) as error:
            if len(files) == 1:
                raise
            missing = missing or isinstance(error, UsageError)
            results.append((path, [": ".join(part for part in (error.what, error.why) if part)]))
    if as_json:
        found = [{"path": path, "ok": not problems, "problems": problems} for path, problems in results]
        print_document(document("verify", ok=not any(problems for _, problems in results), files=found))
    else:
        print_lines(verify_report(results, Screen.of(sys.stdout)))
    if any(problems for _, problems in results):
        ctx.exit(2 if missing else PROBLEM)
