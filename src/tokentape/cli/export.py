"""``tokentape export``: a tape as the files of another tool."""

from __future__ import annotations

from pathlib import Path

import click

from tokentape.cli.completion import complete_tapes
from tokentape.cli.output import document, json_option, print_document, print_lines

__all__ = ["command"]

_NEXT = {
    "perfetto": "open it at https://ui.perfetto.dev (it stays in your browser)",
    "otlp": "curl -H 'Content-Type: application/json' --data-binary @{path} http://127.0.0.1:4318/v1/traces",
    "parquet": "duckdb -c \"select * from '{path}/tokens.parquet' limit 5\"",
    "csv": "duckdb -c \"select * from '{path}/tokens.csv' limit 5\"",
}


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path), shell_complete=complete_tapes)
@click.option(
    "--to", type=click.Choice(list(_NEXT)), required=True,
    help="A timeline (JSON), OpenTelemetry spans (JSON), or a folder of tables.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="OUT", help="Where; beside FILE unless given.")
@click.option("--overwrite", is_flag=True, help="Write over what an earlier export left there.")
@click.option("--trace", "numbers", type=int, multiple=True, metavar="N", help="This sequence only (repeatable).")
@click.option("--no-text", is_flag=True, help="Leave prompts, tokens and their ids out.")
@click.option("--content", is_flag=True, help="otlp: prompt and answer too, which are left out unless asked for.")
@click.option("--withheld", is_flag=True, help="Also the tokens of sequences of which a guard withheld something.")
@click.option("--tokens", is_flag=True, help="otlp: an event for each token.")
@json_option
def command(
    file: Path,
    to: str,
    output: Path | None,
    overwrite: bool,
    numbers: tuple[int, ...],
    no_text: bool,
    content: bool,
    withheld: bool,
    tokens: bool,
    as_json: bool,
) -> None:
    """Write FILE, a tape, as the files of another tool.

    \b
      perfetto  FILE.perfetto.json  steps, tokens and memory on a timeline (ui.perfetto.dev)
      otlp      FILE.otlp.json      a span for each sequence, gen_ai.* names, no content
      parquet   FILE-parquet/       runs, traces, steps, tokens, relevance
      csv       FILE-csv/           the same, for spreadsheets

    JSON is compressed where OUT ends in .gz. A tape that is still growing is exported as it is now.
    """
    from tokentape.cli.sequences import check_sequences
    from tokentape.data.tape import open_tape
    from tokentape.errors import UsageError
    from tokentape.exports.exporting import export

    _refuse_idle(to, no_text=no_text, content=content, tokens=tokens)
    with open_tape(file) as tape:
        check_sequences(tape, file, numbers)
        if not len(tape.traces):
            raise UsageError(f"{file} has no sequence", why="nothing was recorded into it", fix="give another tape")
        done = export(
            tape,
            output,
            to=to,  # type: ignore[arg-type]
            traces=numbers or None,
            text=False if no_text else True if content else None,
            tokens=tokens,
            withheld=withheld,
            overwrite=overwrite,
        )
    if as_json:
        files = [{"path": one, "bytes": one.stat().st_size} for one in done.files]
        facts = {"to": to, "path": done.path, "files": files, "text": done.text, "n_traces": done.n_traces}
        print_document(document("export", tape=file, **facts))
    else:
        _report(done.path, to, done.files)


def _refuse_idle(to: str, *, no_text: bool, content: bool, tokens: bool) -> None:
    """Refuse what was given and would change nothing, or contradicts itself."""
    from tokentape.errors import UsageError

    for flag, given in (("--content", content), ("--tokens", tokens)):
        if given and to != "otlp":
            why = f"{to} has the text anyway" if flag == "--content" else f"{to} has the tokens anyway"
            raise UsageError(f"{flag} together with --to {to}", why=why, fix=f"leave {flag} out")
    if content and no_text:
        raise UsageError("--content together with --no-text", why="one or the other", fix="leave one out")


def _report(path: Path, to: str, files: tuple[Path, ...]) -> None:
    import sys

    from tokentape.views.drawing import drawn_text
    from tokentape.views.screen import Screen
    from tokentape.views.units import bytes_text

    screen = Screen.of(sys.stderr)
    for one in files:
        print_lines(drawn_text(str(one)))
    size = bytes_text(sum(one.stat().st_size for one in files))
    following = screen.safe(drawn_text(_NEXT[to].format(path=path)))
    print_lines(f"{screen.paint('wrote', 'dim')}  {size}\n{screen.paint('next', 'dim')}   {following}", err=True)
