"""How a command fails: ``error / why / fix`` on stderr, one document on stdout with ``--json``, an exit code."""

from __future__ import annotations

import os
import sys

import click

from tokentape.cli.output import document, print_document
from tokentape.errors import TokentapeError, UsageError
from tokentape.words.catalogue import phrase
from tokentape.words.language import language_of

__all__ = ["INTERRUPTED", "failed", "told"]

INTERRUPTED = 130
"""The exit code after Ctrl-C."""


def failed(error: BaseException, arguments: list[str]) -> int:
    """Tell what went wrong, and return the exit code."""
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        click.echo(phrase("failure.interrupted", language_of()), err=True)
        if "--json" in _options(arguments):
            print_document(document(_command(arguments), interrupted=True))
        return INTERRUPTED
    if os.environ.get("TOKENTAPE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    shown = _as_own(error, arguments)
    if "--json" in _options(arguments):
        print_document(document(_command(arguments), error=told(shown, error)))
    _print(shown)
    return shown.exit_code


def told(shown: TokentapeError, error: BaseException) -> dict[str, object]:
    """An error as plain values."""
    return {
        "type": type(error).__name__,
        "what": shown.what,
        "why": shown.why or None,
        "fix": shown.fix or None,
        "exit_code": shown.exit_code,
    }


def _command(arguments: list[str]) -> str | None:
    return next((word for word in arguments if not word.startswith("-")), None)


def _options(arguments: list[str]) -> list[str]:
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _print(shown: TokentapeError) -> None:
    from tokentape.views.screen import Screen
    from tokentape.words.refusals import refusal

    screen = Screen.of(sys.stderr)
    parts = [("error", shown.what, "red"), ("why", shown.why, "dim"), ("fix", shown.fix, "cyan")]
    for label, text, style in parts:
        if text:
            mark = screen.paint(screen.say(f"failure.{label}"), style)
            told = screen.safe(_seen(refusal(text, screen.lang)))
            click.echo(f"{mark} {told}", err=True, color=True if screen.color else None)


def _seen(text: str) -> str:
    """Messages may quote file names and token text: nothing in them may act on the terminal."""
    from tokentape.views.drawing import drawn_text

    return drawn_text(text, keep="\n\t")


def _as_own(error: BaseException, arguments: list[str]) -> TokentapeError:
    """Every error in the form of our own."""
    if isinstance(error, TokentapeError):
        return error
    if isinstance(error, click.ClickException):
        return _from_click(error, arguments)
    if isinstance(error, MemoryError):
        return TokentapeError(
            "out of memory",
            why="Python could not allocate what it needed",
            fix="a smaller model, --dtype bfloat16, or fewer --max-new-tokens",
        )
    again = " ".join(["TOKENTAPE_DEBUG=1", "tokentape", *arguments[:1], "..."])
    text = " ".join(str(error).split())
    return TokentapeError(
        f"{type(error).__name__}: {text}" if text else type(error).__name__,
        why="this was not expected",
        fix=f"{again} shows the traceback; please report it",
    )


def _from_click(error: click.ClickException, arguments: list[str]) -> UsageError:
    where = " ".join(["tokentape", *(word for word in arguments[:1] if not word.startswith("-"))])
    what = error.format_message()
    what = what[:1].lower() + what[1:].rstrip(".")
    why = f"{where} does not take that"
    fix = f"{where} --help"
    if isinstance(error, click.NoSuchOption):
        what = f"no such option: {error.option_name}"
        if error.possibilities:
            fix = f"did you mean {' or '.join(sorted(error.possibilities))}? See {fix}"
    return UsageError(what, why=why, fix=fix)
