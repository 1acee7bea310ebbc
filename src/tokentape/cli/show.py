"""``tokentape show``: a tape as text."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokentape.cli.completion import complete_tapes
from tokentape.cli.output import document, json_option, print_document, print_lines
from tokentape.cli.sequences import check_sequences, chosen_sequences
from tokentape.cli.show_sweep import print_sweeps, swept_files

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["command"]

ROWS = 40

MEASURES = ("surprise", "latency", "entropy", "constraint")
"""As the views have them, which this module imports only when it runs."""


@click.command("show")
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path), shell_complete=complete_tapes
)
@click.option("--rows", type=click.IntRange(min=0), help=f"Tokens in each table, {ROWS} unless given; 0 for all.")
@click.option("--trace", "numbers", type=int, multiple=True, metavar="N", help="Show this sequence only (repeatable).")
@click.option("--series", "names", metavar="NAME,...", help="Print series as columns instead: gap,entropy; list; all.")
@click.option("--dialect", metavar="NAME", help="Print the metrics as vllm, aiperf, guidellm, ... define them; all.")
@click.option(
    "--slo", "objectives", metavar="NAME=TIME,...", help="Print how often ttft=500ms,gap=50ms,e2e=10s was met."
)
@click.option(
    "--from",
    "since",
    type=click.Choice(["start", "due"]),
    help="Count metrics from when a request was sent (start), or from when an open loop had it due; --slo: due, if any was.",
)
@click.option("--step", type=int, metavar="N", help="Show one step in full: times, state, candidates, sources.")
@click.option("--diagram", is_flag=True, help="Print the run, or with --step that step, as a Mermaid flowchart.")
@click.option(
    "--ribbon",
    "measure",
    type=click.Choice([*MEASURES, "none"]),
    default="surprise",
    show_default=True,
    help="What colours the continuation on a terminal.",
)
@json_option
def command(files: tuple[Path, ...], as_json: bool, **given: Any) -> None:
    """Show a tape: figures, prompt and continuation, a table of its tokens.

    FILE is what `tokentape record` wrote; a tape that is still growing can be shown too. Several FILEs, or a folder, are the
    loads of a sweep: a table over its rates, with the knee. `tokentape show sweep.tape` finds what
    `record --rate 1,2,4 -o sweep.tape` wrote.

    \b
    Columns of the table:
      pos          position in the sequence, prompt included
      ms           time since the token before; for the first, since the start (TTFT)
      logprob      nats, under the model's own distribution
      rank         1 is the model's first choice
      entropy      nats, of that distribution
      after rules  logprob after temperature, filters, penalties, grammar (where there were any)
      allowed      tokens that the rules left to choose from (with a grammar, guidance, a guard)
      removed      nats: minus the logarithm of the probability that they left
      instead of   what the same draw would have chosen without them

    \b
    Instead of it:
      --series gap,entropy         columns for a plot or a spreadsheet, all rows
      --dialect vllm               the numbers that vLLM's benchmark would give; `all` compares them
      --slo ttft=500ms,gap=50ms    metrics, goodput and fluidity; with --dialect, that tool's goodput
      --slo ttft=1s --from start   the same, without what a request of an open loop waited before it was sent
      --step 12                    that step: what it took, what it left, what it chose from
      --diagram                    a Mermaid figure of the run, or of one step, for a Markdown page
    """
    asked = [option for name, option in _OF_ONE.items() if _is_given(given[name])]
    if swept := swept_files(files):
        _refuse_of_sweep(asked if given["dialect"] is None else ["--dialect", *asked])
        print_sweeps(files, swept, given["objectives"], given["since"], as_json=as_json)
    else:
        _shown(files[0], given, asked, as_json=as_json)


_OF_ONE = {
    "names": "--series",
    "numbers": "--trace",
    "rows": "--rows",
    "step": "--step",
    "diagram": "--diagram",
}
"""Options that are about the rows of one tape, by the names of their values."""


def _is_given(value: Any) -> bool:
    return value is not None and value is not False and value != ()  # 0 is a step, and all rows


def _shown(file: Path, given: Mapping[str, Any], asked: list[str], *, as_json: bool) -> None:
    """One tape: its text and tokens, or what was asked for instead."""
    from tokentape.cli.metrics_options import print_metrics, print_series
    from tokentape.data.tape import open_tape

    figures = any(given[name] is not None for name in ("dialect", "objectives", "since"))
    single = given["step"] is not None or given["diagram"]
    rows, numbers = given["rows"], given["numbers"]
    _refuse_idle(asked, figures=figures, single=single)
    with open_tape(file) as tape:
        check_sequences(tape, file, numbers)
        if given["names"] is not None:
            print_series(tape, given["names"], rows or None, numbers or None, as_json=as_json)
        elif figures:
            print_metrics(tape, given["dialect"], given["objectives"], given["since"], as_json=as_json)
        elif single:
            _single(tape, file, given["step"], numbers, diagram=given["diagram"], as_json=as_json)
        else:
            _show(tape, ROWS if rows is None else rows, numbers, given["measure"], as_json=as_json)


def _refuse_of_sweep(asked: list[str]) -> None:
    """Refuse options that mean nothing to a table over several tapes."""
    from tokentape.errors import UsageError

    for option in asked:
        raise UsageError(f"{option} of several tapes", why="a sweep is a table of its rates", fix="give one tape")


def _refuse_idle(asked: list[str], *, figures: bool, single: bool) -> None:
    """Refuse options that would change nothing beside the others."""
    from tokentape.errors import UsageError

    for option in asked:
        if figures:
            beside, why = "--dialect, --slo or --from", "the metrics are of the whole tape"
        elif single and option in ("--series", "--rows"):
            beside, why = "--step or --diagram", "a step and a diagram have no table that it could shorten or replace"
        else:
            continue
        raise UsageError(f"{option} with {beside}", why=why, fix=f"leave {option} out, or ask for it alone")


def _show(tape: Tape, rows: int, numbers: tuple[int, ...], measure: str, *, as_json: bool) -> None:
    from tokentape.views.screen import Screen
    from tokentape.views.text import show

    if as_json:
        print_document(document("show", **_document(tape, numbers)))
    else:
        coloured = None if measure == "none" else measure
        print_lines(show(tape, Screen.of(sys.stdout), rows=rows or None, traces=numbers or None, measure=coloured))


def _single(
    tape: Tape, file: Path, step: int | None, numbers: tuple[int, ...], *, diagram: bool, as_json: bool
) -> None:
    """One step, or a diagram: of the sequence asked for; a step of all sequences of the first one's run, where none was."""
    from tokentape.views.diagram import run_diagram, step_diagram
    from tokentape.views.screen import Screen
    from tokentape.views.step_shape import step_row
    from tokentape.views.step_text import step_document, step_text

    chosen = chosen_sequences(tape, file, numbers)
    same_run = [trace for trace in chosen if trace.run.number == chosen[0].run.number]
    screen = Screen.of(sys.stdout)
    if diagram:
        one = chosen[0]
        figure = run_diagram(tape, one, screen) if step is None else step_diagram(tape, one, step, screen)
        print_lines(figure) if not as_json else print_document(document("show", tape=tape.path, diagram=figure))
        return
    assert step is not None
    found = step_row(tape, step, same_run)
    if as_json:
        print_document(document("show", tape=tape.path, **step_document(found)))
    else:
        print_lines(step_text(found, screen))


def _document(tape: Any, numbers: tuple[int, ...]) -> dict[str, Any]:
    from tokentape.views.document import tape_document

    return tape_document(tape, traces=numbers or None)
