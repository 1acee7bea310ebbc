"""``tokentape import``: results of another benchmark tool as a tape."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokentape.cli.output import document, json_option, print_document, print_lines

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["command"]

_TOOLS = click.Choice(["vllm", "aiperf", "guidellm", "inference-perf", "llama-bench"])


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="TAPE", help="Where; FILE.tape unless given.")
@click.option("--from", "tool", type=_TOOLS, help="Whose results they are; known from the content unless given.")
@click.option("--part", type=int, metavar="N", help="Of a file of several benchmarks this one, counted from 0.")
@click.option("--overwrite", is_flag=True, help="Write over a tape that is there.")
@json_option
def command(
    file: Path, output: Path | None, tool: str | None, part: int | None, overwrite: bool, as_json: bool
) -> None:
    """Make a tape of FILE, the results of another benchmark tool. What FILE does not hold is null.

    \b
      vllm            vllm bench serve --save-result --save-detailed
      aiperf          profile_export.jsonl
      guidellm        guidellm run --output kind=json
      inference-perf  per_request_lifecycle_metrics.json
      llama-bench     llama-bench -o json, or jsonl

    \b
    Examples:
      tokentape import results.json
      tokentape import sweep.json --part 2 -o fast.tape
      tokentape show results.tape --dialect guidellm
    """
    from tokentape.imports.importing import import_results

    place = file.with_suffix(".tape") if output is None else output
    with import_results(file, place, tool=tool, part=part, overwrite=overwrite) as tape:
        noted = dict(tape.notes["imported"])
        facts = {"tool": noted["tool"], "n_requests": len(tape.traces), "lacks": noted["lacks"]}
        if as_json:
            print_document(document("import", tape=place, file=file, **facts))
        else:
            _report(tape, place)


def _report(tape: Tape, place: Path) -> None:
    import sys

    from tokentape.views.drawing import drawn_text
    from tokentape.views.screen import Screen

    noted, screen = tape.notes["imported"], Screen.of(sys.stderr)
    print_lines(drawn_text(str(place)))
    lacks = screen.say("import.list").join(screen.say(f"import.lacks.{name}") for name in noted["lacks"])
    lines = [
        screen.say("import.read", n=len(tape.traces), tool=noted["tool"]),
        screen.say("import.lacks", what=lacks),
        screen.say("import.next", command=drawn_text(f"tokentape show {place} --dialect {noted['tool']}")),
    ]
    print_lines("\n".join(screen.safe(line) for line in lines), err=True)
