"""``tokentape replay``: does a model compute again what a tape says it computed?"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokentape.cli.completion import complete_tapes
from tokentape.cli.output import document, json_option, print_document, print_lines
from tokentape.cli.replaying import loaded_model, model_options, progress_line
from tokentape.cli.sections import SectionedCommand, in_section
from tokentape.cli.sequences import chosen_sequences

if TYPE_CHECKING:
    from tokentape.data.explanation import ReplayCheck
    from tokentape.data.trace import Trace

__all__ = ["command"]

DISAGREES = 3
"""Exit code where a replay does not agree: what ran and what is here are not the same."""


@click.command("replay", cls=SectionedCommand)
@click.argument("file", type=click.Path(path_type=Path), shell_complete=complete_tapes)
@click.option("--trace", "numbers", type=int, multiple=True, metavar="N", help="This sequence only (repeatable).")
@in_section(
    "Check", "--tolerance", type=click.FloatRange(min=0), metavar="NATS",
    help="Largest difference of a log-probability that passes; by dtype unless given.",
)  # fmt: skip
@model_options
@json_option
@click.pass_context
def command(ctx: click.Context, /, file: Path, numbers: tuple[int, ...], tolerance: float | None, **given: Any) -> None:
    """Play the ids of FILE through its model again, and compare log-probabilities with the recorded ones.

    The replay is teacher-forced: one pass over prompt and recorded tokens. A causal model gives the same numbers in it as in
    the run. Where it does not, something else was computed: other weights, another precision, an engine with a fault.
    A tape of an endpoint is replayed on a local copy of its model (--model).

    Exit code 0 where all agree, 3 where one does not.
    """
    from tokentape.data.tape import open_tape
    from tokentape.explain.checking import check

    as_json = given.pop("as_json")
    with open_tape(file) as tape:
        traces = chosen_sequences(tape, file, numbers)
        causal = loaded_model(tape, given, quiet=as_json)
        with progress_line("replaying", "tokens", quiet=as_json) as progress:
            found = check(traces, causal, tape.setting, tolerance=tolerance, progress=progress)
    if as_json:
        checks = [{"trace": t.number, **asdict(c)} for t, c in zip(traces, found, strict=True)]
        print_document(document("replay", tape=str(file), model=causal.name, checks=checks, passed=_all(found)))
    else:
        _print(traces, found)
    ctx.exit(0 if _all(found) else DISAGREES)


def _all(found: list[ReplayCheck]) -> bool:
    return all(one.passed for one in found)


def _print(traces: list[Trace], found: list[ReplayCheck]) -> None:
    from tokentape.views.explanation_text import check_sentence
    from tokentape.views.screen import Screen

    screen = Screen.of(sys.stdout)
    for trace, one in zip(traces, found, strict=True):
        told = check_sentence(one, screen)
        if len(traces) > 1:
            told = screen.say("explanation.of_sequence", trace=str(trace.number), check=told)
        told = screen.safe(told)
        print_lines(told if one.passed else screen.paint(told, "red"))
