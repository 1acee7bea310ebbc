"""Make the reference page of the commands from the commands themselves.

python tools/commands_reference.py            write it
python tools/commands_reference.py --check    exit 1 if the committed page is not what this makes
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from tokentape.cli.program import NAME, VERBS, program

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "commands.md"

INTRODUCTION = """\
<!-- Made by tools/commands_reference.py from src/tokentape/cli. Do not edit: `make docs-reference` writes it again. -->
# Commands

`tokentape VERB --help` prints the same. Data goes to stdout, everything else to stderr; `--json` prints one document with its
`schema_version` instead. Messages are in English or Chinese, as `TOKENTAPE_LANG` (`en`, `zh`) or the locale has it.

Exit codes: 0 done, 1 failed, 2 usage, 3 a regression found, 4 something missing (an extra, a device), 5 unreachable, 6 an
unreadable tape or a problem found, 130 interrupted.
"""

WIDTH = 110


def _help(command: click.Command, name: str) -> str:
    """What ``--help`` prints, at one width whatever the terminal."""
    context = click.Context(command, info_name=name, **_settings())
    return "\n".join(line.rstrip() for line in command.get_help(context).splitlines())


def _settings() -> dict[str, object]:
    return {"terminal_width": WIDTH, "max_content_width": WIDTH, "help_option_names": ["-h", "--help"]}


def page() -> str:
    """The page: the program, then each verb in the order of its list."""
    return "\n".join([INTRODUCTION, *_parts()])


def _parts() -> Iterator[str]:
    context = click.Context(program, info_name=NAME, **_settings())
    for verb, (_, sentence) in VERBS.items():
        command = program.get_command(context, verb)
        assert command is not None
        yield f"## `{NAME} {verb}`\n\n{sentence}\n\n```text\n{_help(command, f'{NAME} {verb}')}\n```\n"


def main() -> int:
    made = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(made, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == made:
        return 0
    print(f"{PAGE} is not what tools/commands_reference.py makes; fix: make docs-reference", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
