"""``tokentape sweep``: measure a model over a grid of contexts and batches."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from tokentape.cli.completion import complete_tapes
from tokentape.cli.output import document, json_option, print_document
from tokentape.cli.sections import SectionedCommand, in_section
from tokentape.errors import UsageError

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.experiment.sweep import Progress
    from tokentape.experiment.visits import Plan
    from tokentape.recorder.tick import Source

__all__ = ["command"]

INTERRUPTED = 130
PLAIN_SECONDS = 10.0
"""How often a line of progress is printed where there is no terminal."""

_COUNT = click.IntRange(min=1)
_grid = partial(in_section, "Grid")
_model = partial(in_section, "Model")
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
    _model("--dtype", default="auto", show_default=True, metavar="TYPE", help="auto, float32, bfloat16, float16."),
    _model("--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps."),
    _model("--revision", metavar="REV", help="Branch, tag or commit on the hub."),
    _model("--attn-implementation", metavar="NAME", help="eager, sdpa, ...; default: transformers' own choice."),
    _model("--trust-remote-code", is_flag=True, help="Let the model run code of its own. Off, and never asked for."),
    _model("--random-weights", type=int, metavar="SEED", help="Random weights: MODEL is a config.json or its folder."),
    _model("--threads", type=_COUNT, metavar="N", help="Threads of torch on the CPU."),
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


def _with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command("sweep", cls=SectionedCommand, epilog=EPILOG)
@click.argument("model")
@_with_options
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    """Measure how long MODEL takes to decode and to prefill, over a grid of contexts and batches.

    One tape holds all of it. Its path goes to stdout, the rest to stderr. Ctrl-C keeps what was measured.
    """
    from tokentape.cli.record import second_interrupt_quits
    from tokentape.data.tape import open_tape
    from tokentape.experiment.sweep import carry_out

    plan, path, memory_bytes = _plan(given), _place(given), _bytes(given["memory"])
    quiet = given["quiet"] or given["as_json"]
    interrupted = False
    with _Line(f"loading {given['model']}", quiet=quiet) as line, second_interrupt_quits():
        try:
            tape = carry_out(
                plan,
                lambda: _load(given),
                memory_bytes=memory_bytes,
                path=path,
                resume=given["resume"],
                overwrite=given["overwrite"],
                observer=line.show,
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
    if output is None or output.is_dir():
        if given["resume"]:
            raise UsageError("--resume without a tape", why="it goes on with the one at -o", fix="-o PATH --resume")
        folder = output or Path(os.environ.get("TOKENTAPE_DIR") or ".")
        output = folder / f"{_short(given['model'])}-sweep-{datetime.now():%Y%m%d-%H%M%S}.tape"
    if not output.parent.is_dir():
        raise UsageError(
            f"the folder {output.parent} does not exist",
            why="the tape would be made in it",
            fix=f"mkdir -p {output.parent}",
        )
    return output


def _short(model: str) -> str:
    """The last part of a model's name, as part of a file name."""
    path = Path(model.partition("@")[0])
    name = path.resolve().parent.name if path.name == "config.json" else path.name
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"


def _seconds(text: str | None) -> float | None:
    found = None if text is None else re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|)", text.strip().lower())
    if text is None:
        return None
    if found is None:
        raise UsageError(f"--budget {text} is no time", why="it is a number of s, m or h", fix="--budget 10m")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}[found[2]]


def _bytes(text: str | None) -> int | None:
    found = None if text is None else re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", text.strip().lower())
    if text is None:
        return None
    if found is None:
        raise UsageError(f"--memory {text} is no size", why="it is a number of bytes, MB or GB", fix="--memory 8GB")
    unit: int = (1024 if found[3] else 1000) ** " kmgt".index(found[2] or " ")
    return round(float(found[1]) * unit)


def _load(given: dict[str, Any]) -> Source:
    if given["threads"] is not None:
        os.environ["OMP_NUM_THREADS"] = str(given["threads"])  # read once, when torch is first imported
    import tokentape
    from tokentape.models.runtime import require_torch, require_transformers

    require_transformers()
    names = ("dtype", "device", "revision", "attn_implementation", "trust_remote_code", "random_weights")
    source = tokentape.local(given["model"], **{name: given[name] for name in names})
    if given["threads"] is not None:
        require_torch().set_num_threads(given["threads"])
    return source


class _Line:
    """The line of progress on stderr: drawn over itself on a terminal, printed now and then elsewhere."""

    def __init__(self, waiting_for: str, *, quiet: bool) -> None:
        from tokentape.views.drawing import drawn_text
        from tokentape.views.screen import Screen, is_terminal

        self._screen = Screen.of(sys.stderr)
        self._drawn = is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb" and not quiet
        self._plain = not self._drawn and not quiet
        self._printed = time.monotonic()
        if self._drawn:
            self._draw(drawn_text(waiting_for))

    def show(self, progress: Progress) -> None:
        """A visit was made."""
        from tokentape.views.sweep_text import visit_text

        now = time.monotonic()
        text = visit_text(str(progress.visit.cell), progress.step_ns, progress.n_done, progress.n_all, progress.left_s)
        if self._drawn:
            self._draw(text)
        elif self._plain and now - self._printed >= PLAIN_SECONDS:
            self._printed = now
            click.echo(self._screen.safe(text), err=True)

    def _draw(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{self._screen.safe(text)[: self._screen.width - 1]}")
        sys.stderr.flush()

    def __enter__(self) -> _Line:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            self._draw("")


def _report(tape: Tape, as_json: bool, quiet: bool, interrupted: bool) -> None:
    from tokentape.experiment.visits import account_of
    from tokentape.views.card import shown_path
    from tokentape.views.sweep_text import account_text

    account = account_of(tape)
    if as_json:
        facts = {"tape": tape.path, "state": tape.state, "interrupted": interrupted, "setting": tape.setting.facts}
        print_document(document("sweep", **facts, **account))
        return
    path = shown_path(tape.path) if tape.path is not None else ""
    click.echo(path)
    if not quiet:
        click.echo(account_text(account, path), err=True)
