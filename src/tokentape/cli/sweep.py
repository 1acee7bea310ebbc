"""``tokentape sweep``: measure a model over a grid of contexts and batches."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokentape.cli.completion import complete_tapes
from tokentape.cli.failure import INTERRUPTED
from tokentape.cli.output import document, json_option, print_document
from tokentape.cli.preparation import loaded, tape_place
from tokentape.cli.record_options import LOAD_NAMES, MODEL_OPTIONS
from tokentape.cli.sections import SectionedCommand, in_section, with_all
from tokentape.cli.status import StatusLine
from tokentape.errors import UsageError

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.experiment.visits import Plan
    from tokentape.recorder.tick import Source

__all__ = ["command"]

_COUNT = click.IntRange(min=1)
_grid = partial(in_section, "Grid")
_tape = partial(in_section, "Tape")

_OPTIONS = [
    _grid(
        "--context", required=True, metavar="RANGE", help="64..4096 doubles; 64..4096/9 nine at equal ratios; 64,100."
    ),
    _grid("--batch", default="1", show_default=True, metavar="RANGE", help="Sequences side by side: 1,2,4,8 or 1..8."),
    _grid("--repeat", type=_COUNT, default=3, show_default=True, metavar="R", help="Visits of each cell."),
    _grid("--steps", type=_COUNT, default=16, show_default=True, metavar="N", help="Decode steps of a visit."),
    _grid("--decode/--no-decode", default=True, help="Measure decoding."),
    _grid("--prefill/--no-prefill", default=True, help="Measure prefills."),
    _grid(
        "--prefill-tokens", type=_COUNT, metavar="N", help="Most tokens of one prefill. Default: the longest context."
    ),
    _grid(
        "--budget", metavar="TIME", help="Visit what narrows the law most until 90s, 10m or 1h are over; no --repeat."
    ),
    _grid(
        "--memory", metavar="SIZE", help="Leave out what needs more beside the weights: 8GB. Default: 90 % of the free."
    ),
    _grid("--seed", type=int, default=0, show_default=True, metavar="N", help="Decides the order and the token ids."),
    *MODEL_OPTIONS,
    _tape(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        metavar="PATH",
        shell_complete=complete_tapes,
        help="The tape. Default: MODEL-sweep-DATE-TIME.tape in $TOKENTAPE_DIR, else here.",
    ),
    _tape("--resume", is_flag=True, help="Go on with the tape at -o; one that is complete is left as it is."),
    _tape("--overwrite", is_flag=True, help="Replace a tape that is already there."),
    _tape("--quiet", "-q", is_flag=True, help="No progress and no figures on stderr."),
    json_option,
]

EPILOG = """\b
Examples:
  tokentape sweep demo --context 16..256 --batch 1,2,4 -o demo-sweep.tape
  tokentape sweep bigscience/bloom-560m --context 64..4096 --batch 1,2,4,8 --budget 10m
  tokentape sweep config.json --random-weights 0 --context 128..2048/9 --no-prefill

The same command with the same -o goes on with a sweep that was broken off.
"""


@click.command("sweep", cls=SectionedCommand, epilog=EPILOG)
@click.argument("model")
@with_all(*_OPTIONS)
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    """Measure how long MODEL takes to decode and to prefill, over a grid of contexts and batches.

    One tape holds all of it. Its path goes to stdout, the rest to stderr. Ctrl-C keeps what was measured.
    """
    from tokentape.cli.record import second_interrupt_quits
    from tokentape.data.tape import open_tape
    from tokentape.experiment.sweep import carry_out
    from tokentape.views.screen import Screen
    from tokentape.views.sweep_text import cell_text, visit_text

    plan, path, memory_bytes = _plan(given), _place(given), _bytes(given["memory"])
    screen = Screen.of(sys.stderr)
    quiet = given["quiet"] or given["as_json"]
    interrupted = False
    with StatusLine(f"loading {given['model']}", quiet=quiet) as line, second_interrupt_quits():
        try:
            tape = carry_out(
                plan,
                lambda: _load(given),
                memory_bytes=memory_bytes,
                path=path,
                resume=given["resume"],
                overwrite=given["overwrite"],
                observer=lambda made: line.say(
                    visit_text(
                        cell_text(made.visit.cell, screen), made.step_ns, made.n_done, made.n_all, made.left_s, screen
                    )
                ),
            )
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        if not path.exists():
            click.echo("interrupted; nothing was recorded", err=True)
            ctx.exit(INTERRUPTED)
        click.echo(f"interrupted; to go on, the same command with -o {path} --resume", err=True)
        tape = open_tape(path)
    with tape:
        _report(tape, given["as_json"], quiet, interrupted)
    if interrupted:
        ctx.exit(INTERRUPTED)


def _plan(given: dict[str, Any]) -> Plan:
    from tokentape.experiment.grid import read_axis
    from tokentape.experiment.visits import Plan

    return Plan(
        contexts=read_axis(given["context"], "context"),
        batches=read_axis(given["batch"], "batch"),
        kinds=tuple(kind for kind in ("decode", "prefill") if given[kind]),
        repeat=given["repeat"],
        steps=given["steps"],
        seed=given["seed"],
        prefill_tokens=given["prefill_tokens"],
        budget_s=_seconds(given["budget"]),
    )


def _place(given: dict[str, Any]) -> Path:
    """Where the tape goes."""
    output: Path | None = given["output"]
    if given["resume"] and (output is None or output.is_dir()):
        raise UsageError("--resume without a tape", why="it goes on with the one at -o", fix="-o PATH --resume")
    return tape_place(output, given["model"], "sweep")


def _seconds(text: str | None) -> float | None:
    from tokentape.experiment.amounts import seconds

    return None if text is None else seconds(text, "--budget", above_zero=False)


def _bytes(text: str | None) -> int | None:
    found = None if text is None else re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", text.strip().lower())
    if text is None:
        return None
    if found is None:
        raise UsageError(f"--memory {text} is no size", why="it is a number of bytes, MB or GB", fix="--memory 8GB")
    unit: int = (1024 if found[3] else 1000) ** " kmgt".index(found[2] or " ")
    return round(float(found[1]) * unit)


def _load(given: dict[str, Any]) -> Source:
    source: Source = loaded(given["model"], {name: given[name] for name in LOAD_NAMES}, given["threads"])
    return source


def _report(tape: Tape, as_json: bool, quiet: bool, interrupted: bool) -> None:
    from tokentape.experiment.visits import account_of
    from tokentape.views.card import shown_path
    from tokentape.views.screen import Screen
    from tokentape.views.sweep_text import account_text

    account = account_of(tape)
    if as_json:
        facts = {"tape": tape.path, "state": tape.state, "interrupted": interrupted, "setting": tape.setting.facts}
        print_document(document("sweep", **facts, **account))
        return
    path = shown_path(tape.path) if tape.path is not None else ""
    click.echo(path)
    if not quiet:
        click.echo(account_text(account, path, Screen.of(sys.stderr)), err=True)
