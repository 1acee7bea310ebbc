"""The group of verbs, and what happens around every one of them: errors, exit codes, a closed pipe."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import click

from tokentape.cli.failure import failed

__all__ = ["VERBS", "program", "run"]

NAME = "tokentape"

VERBS: dict[str, tuple[str, str]] = {
    "record": ("tokentape.cli.record", "Let a model generate, and record every step and token."),
    "show": ("tokentape.cli.show", "Show a tape: figures, text, a table of its tokens."),
    "view": ("tokentape.cli.view", "Look at a tape in a browser, or write it as one page; compare two."),
    "export": (
        "tokentape.cli.export",
        "Write a tape as the files of another tool: Perfetto, OpenTelemetry, Parquet, CSV.",
    ),
    "import": ("tokentape.cli.import_", "Make a tape of the results of another benchmark tool."),
    "sweep": ("tokentape.cli.sweep", "Measure a model over a grid of contexts and batches, into one tape."),
    "fit": ("tokentape.cli.fit", "Fit the law of latency to what tapes measured."),
    "predict": ("tokentape.cli.predict", "Say what a model costs without running it."),
    "simulate": ("tokentape.cli.simulate", "Say what a server would do under load, without running one."),
    "compare": ("tokentape.cli.compare", "Compare two tapes, or two ways of running: faster, slower, same?"),
    "explain": ("tokentape.cli.explain", "Say why these tokens: what each rests on, by a replay."),
    "replay": ("tokentape.cli.replay", "Check that a model computes again what a tape says."),
    "score": ("tokentape.cli.score", "Say how likely a text is, token by token; or to which of two models."),
    "translate": ("tokentape.cli.translate", "Let a model translate, and record it."),
    "classify": ("tokentape.cli.classify", "Put texts under one of several labels."),
    "answer": ("tokentape.cli.answer", "Let a model answer questions about a text, and record it."),
    "direction": ("tokentape.cli.direction", "Compute a direction from pairs of prompts, to steer by."),
    "mock": ("tokentape.cli.mock", "Serve answers on a schedule, to test what talks to servers."),
    "ls": ("tokentape.cli.ls", "List the tapes in a folder."),
    "verify": ("tokentape.cli.verify", "Check that tapes are whole."),
    "doctor": ("tokentape.cli.doctor", "Look at this machine: what is here, what is missing."),
    "schema": ("tokentape.cli.schema", "Print the columns of a tape."),
    "completion": ("tokentape.cli.completion", "Print the completion script of a shell."),
}
"""Module and one sentence of each command; the help page needs no more, so no verb is imported for it."""


class Verbs(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(VERBS[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in VERBS and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, VERBS, n=1)
            fix = f"{NAME} {near[0]}" if near else f"{NAME} --help"
            if not near and name.endswith(".tape"):
                fix = f"{NAME} show {name}"
            from tokentape.errors import UsageError

            raise UsageError(f"no such command: {name}", why=f"there are {', '.join(VERBS)}", fix=fix)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in VERBS.items()])


EPILOG = """\b
Examples:
  tokentape record demo "The fox"
  tokentape record bigscience/bloom-560m -f prompt.txt --max-new-tokens 100 -o bloom.tape
  tokentape show bloom.tape
  tokentape view bloom.tape --html bloom.html

Every command knows --json and --help. Exit codes: 0 done, 1 failed, 2 usage, 3 a regression found, 4 something missing (an extra, a
device), 5 unreachable, 6 unreadable tape or a problem found, 130 interrupted (143 by SIGTERM, 129 by SIGHUP).
Completion: tokentape completion --help
"""


@click.group(
    cls=Verbs,
    name=NAME,
    epilog=EPILOG,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("-V", "--version", is_flag=True, help="Print the version and exit.")
@click.pass_context
def program(ctx: click.Context, version: bool) -> None:
    """The flight recorder of LLM inference: one row per step, one row per token."""
    if version:
        from tokentape._version import __version__

        click.echo(f"{NAME} {__version__}")
        ctx.exit(0)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run(arguments: list[str]) -> int:
    """Run the program; returns the exit code. What goes wrong is told on stderr, with ``--json`` also on stdout."""
    try:
        code: Any = program.main(arguments, prog_name=NAME, standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        _close_stdout()
        return 0
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except BaseException as error:
        try:
            return failed(error, arguments)
        except BrokenPipeError:
            _close_stdout()
            return 1
    return code if isinstance(code, int) else 0


def _close_stdout() -> None:
    """Nobody reads any more (``| head``): let the interpreter's last flush go nowhere, without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
