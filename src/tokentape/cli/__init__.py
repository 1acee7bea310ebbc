"""The command ``tokentape``: one file per verb, loaded when it is called.

This module stays cheap: ``tokentape --version`` is answered here, before anything else is imported.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from tokentape._version import __version__

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given and given[0] in ("--version", "-V"):
        _print_version(as_json="--json" in given)
        raise SystemExit(0)
    from tokentape.cli.program import run

    raise SystemExit(run(given))


def _print_version(as_json: bool) -> None:
    if as_json:
        print(f'{{"schema_version": 1, "command": "version", "version": "{__version__}"}}')
    else:
        print(f"tokentape {__version__}")
