"""``tokentape compare``: two tapes, or two ways of running that take turns until the verdict is clear."""

from __future__ import annotations

import secrets
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokentape.cli.completion import complete_tapes
from tokentape.cli.failure import INTERRUPTED
from tokentape.cli.output import document, json_option, print_document, print_lines
from tokentape.cli.sections import SectionedCommand, in_section
from tokentape.cli.status import StatusLine
from tokentape.errors import UsageError

if TYPE_CHECKING:
    from tokentape.experiment.pairs import Measured, Moment
    from tokentape.study.compare import Comparison
    from tokentape.study.verdict import Question
    from tokentape.views.screen import Screen

__all__ = ["command"]

REGRESSION = 3

EPILOG = """\b
Examples:
  tokentape compare monday.tape tuesday.tape
  tokentape compare small.tape large.tape --across model
  tokentape compare --run "demo --threads 1" --run "demo --threads 2"
  tokentape compare --run "demo" --run "demo --dtype bfloat16" --fail-over 5% --markdown
"""


@click.command("compare", cls=SectionedCommand, epilog=EPILOG)
@click.argument("files", nargs=-1, metavar="[A B]", type=click.Path(path_type=Path), shell_complete=complete_tapes)
@in_section(
    "Tapes",
    "--across",
    metavar="NAME,NAME",
    help="What may differ because it is the question: dtype, model, machine, threads, prompt, ..., any.",
)
@in_section(
    "Runs", "--run", "runs", multiple=True, metavar="'MODEL ...'", help="As for record; give it twice, A then B."
)
@in_section("Runs", "--pairs", type=int, metavar="N", help="At most N pairs. Default: 10.")
@in_section(
    "Runs",
    "--budget",
    default="2m",
    show_default=True,
    metavar="TIME",
    help="At most 90s, 2m, 1h, loading not counted.",
)
@in_section("Runs", "--isolated", is_flag=True, help="A process for each; they then take turns by runs, not by steps.")
@in_section(
    "Runs",
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder of A.tape and B.tape.",
)
@in_section("Runs", "--overwrite", is_flag=True, help="Replace tapes that are already there.")
@in_section("Runs", "--seed", type=int, metavar="N", help="Of the order of the pairs, and of sampling.")
@in_section(
    "Verdict",
    "--of",
    type=click.Choice(["decode", "ttft", "e2e"]),
    default="decode",
    show_default=True,
    help="Steps after the prompt, time to first token, or whole runs.",
)
@in_section(
    "Verdict", "--threshold", metavar="SHARE", help="Size of the difference that matters. Default: 3%, or --fail-over."
)
@in_section(
    "Verdict", "--confidence", type=float, metavar="C", help="That the interval holds, over all looks. Default: 0.99."
)
@in_section("Verdict", "--fail-over", metavar="SHARE", help="Exit 3 where B is SLOWER at this size, by more than it.")
@in_section("Output", "--markdown", is_flag=True, help="A summary in Markdown, for the page of a build.")
@in_section("Output", "-q", "--quiet", is_flag=True, help="No progress on stderr.")
@json_option
@click.pass_context
def command(ctx: click.Context, /, files: tuple[Path, ...], **given: Any) -> None:
    """Compare two tapes, or two ways of running: what changed in text and time, and is B slower?

    The verdict is SLOWER, FASTER, SAME or UNCLEAR at a size. SAME: the difference is certainly below the size.
    SLOWER: certainly above half of it. With --run the two take turns, so that what the machine does meanwhile meets
    both, until the verdict is clear or the budget is spent. Two tapes that were recorded one after the other get
    theirs with the words that a drift between them cannot be told from a difference.

    A --run without a prompt reads 32 random tokens and goes on for 64.
    """
    from tokentape.experiment.amounts import share
    from tokentape.study.compare import fails

    fail_over = None if given["fail_over"] is None else share(given["fail_over"], "--fail-over")
    threshold = fail_over if given["threshold"] is None else share(given["threshold"], "--threshold")
    found, ended = _found(files, given, threshold)
    failed = fail_over is not None and fails(found.verdict, fail_over)
    _report(found, given, fail_over, failed)
    if ended == "interrupted":
        ctx.exit(INTERRUPTED)
    if failed:
        ctx.exit(REGRESSION)


def _found(files: tuple[Path, ...], given: dict[str, Any], threshold: float | None) -> tuple[Comparison, str | None]:
    from tokentape.study.compare import compare

    runs = given["runs"]
    if files and runs:
        raise UsageError("tapes together with --run", why="one or the other is compared", fix="leave one out")
    if runs:
        if len(runs) != 2:
            raise UsageError(f"{len(runs)} --run", why="two are compared", fix="--run A --run B")
        if given["across"]:
            raise UsageError("--across with --run", why="what the runs ask for is the question", fix="leave it out")
        return _recorded(given, threshold)
    if len(files) != 2:
        fix = "tokentape compare A.tape B.tape, or --run A --run B"
        raise UsageError(f"{len(files)} tape{'' if len(files) == 1 else 's'} given", why="two are compared", fix=fix)
    if given["pairs"] is not None:
        raise UsageError("--pairs without --run", why="these tapes are recorded already", fix="leave it out")
    across = [fact for fact in (given["across"] or "").split(",") if fact]
    return compare(*files, across=across, of=given["of"], threshold=threshold, confidence=given["confidence"]), None


def _recorded(given: dict[str, Any], threshold: float | None) -> tuple[Comparison, str]:
    """Let the two runs take turns, keep them on two tapes, and compare those."""
    from tokentape.cli.run_strings import open_sides, parsed_run, places
    from tokentape.experiment.amounts import seconds
    from tokentape.experiment.pairs import measure
    from tokentape.experiment.sides import noted
    from tokentape.study.compare import compare
    from tokentape.study.turns import NOTE
    from tokentape.study.verdict import Question
    from tokentape.views.screen import Screen

    screen = Screen.of(sys.stderr)
    default = Question()
    question = Question(
        threshold or default.threshold, given["confidence"] or default.confidence, given["pairs"] or default.max_pairs
    )
    budget_ns = round(seconds(given["budget"], "--budget") * 1e9)
    runs = (parsed_run(given["runs"][0]), parsed_run(given["runs"][1]))
    paths = places(given["output"], f"compare-{datetime.now():%Y%m%d-%H%M%S}", overwrite=given["overwrite"])
    seed = secrets.randbits(31) if given["seed"] is None else given["seed"]
    with StatusLine("loading", quiet=given["quiet"]) as line:
        sides, turns = open_sides(
            runs, paths, given["of"], seed, isolated=given["isolated"], overwrite=given["overwrite"]
        )
        try:
            found: Measured = measure(
                sides[0],
                sides[1],
                question,
                turns=turns,
                budget_ns=budget_ns,
                seed=seed,
                watch=lambda moment: line.say(_moment_text(moment, question, screen)),
            )
        finally:
            for side in sides:
                side.close().close()
    layout = {**found.layout(question), "of": given["of"], "id": secrets.token_hex(8), "reason": found.verdict.reason}
    for path, letter in zip(paths, "AB", strict=True):
        noted(path, NOTE, {**layout, "side": letter})
    return compare(*paths, of=given["of"]), found.ended


def _moment_text(moment: Moment, question: Question, screen: Screen) -> str:
    from tokentape.views.units import duration

    if moment.n_pairs is None:
        where = screen.say("compare.warming")
    else:
        where = screen.say("compare.pair", n=str(moment.n_pairs + 1), most=str(question.max_pairs))
    facts = {"where": where, "n": str(moment.n_units), "time": duration(moment.elapsed_ns)}
    if moment.verdict is None or moment.verdict.low is None or moment.verdict.high is None:
        return screen.say("compare.moment", **facts)
    ends = {"low": f"{100 * moment.verdict.low:+.1f}", "high": f"{100 * moment.verdict.high:+.1f}"}
    return screen.say("compare.moment_so_far", **facts, **ends)


def _report(found: Comparison, given: dict[str, Any], fail_over: float | None, failed: bool) -> None:
    from tokentape.views.comparison import comparison_markdown, comparison_text
    from tokentape.views.screen import Screen

    if given["as_json"]:
        gate = None if fail_over is None else {"fail_over": fail_over, "failed": failed}
        print_document(document("compare", comparison=found.as_dict(), gate=gate))
    elif given["markdown"]:
        print_lines(comparison_markdown(found))
    else:
        print_lines(comparison_text(found, Screen.of(sys.stdout)))
    if fail_over is not None:
        told = Screen.of(sys.stderr)
        key = "regression" if failed else "no_regression"
        click.echo(told.safe(told.say(f"compare.{key}", limit=f"{100 * fail_over:g} %")), err=True)
