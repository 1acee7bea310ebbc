"""``tokentape explain --every-trace`` and ``--ray``: every sequence of a tape, each by itself; kept as they come."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tokentape.cli.failure import INTERRUPTED
from tokentape.cli.output import document, print_document, print_lines
from tokentape.cli.ray_options import spread_of
from tokentape.cli.record_options import LOAD_NAMES
from tokentape.cli.replaying import progress_line
from tokentape.errors import UsageError

if TYPE_CHECKING:
    from tokentape.data.explanation import Explanation
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Piece, Trace
    from tokentape.explain.explaining import Asked
    from tokentape.tasks.spread.cluster import Spread

__all__ = ["explain_many", "means_many", "set_threads"]

Found = tuple["Explanation", int | None]
"""An explanation, and its number in the tape."""

MOST_SHOWN = 40
"""Rows of the table; every explanation is in the tape and in --json."""


def means_many(given: Mapping[str, Any]) -> bool:
    """Whether every sequence is meant. Raises UsageError for options that contradict that."""
    spread_of(given, given.get("device") or "auto")  # refuses options of --ray without it
    named = click.get_current_context().get_parameter_source("trace") is ParameterSource.COMMANDLINE
    if given["every_trace"] and named:
        raise UsageError(
            "--every-trace together with --trace", why="all sequences, or one of them", fix="leave one out"
        )
    if not (given["every_trace"] or given["ray"]):
        return False
    other = next((name for name in ("attention", "lens", "direct", "evaluate") if given[name]), None)
    if other is not None:
        flag = "--ray" if given["ray"] else "--every-trace"
        raise UsageError(
            f"{flag} together with --{other}",
            why="that answer is about one sequence",
            fix=f"leave {flag} out; --trace N chooses the sequence",
        )
    return True


def explain_many(file: Path, asked_of: Callable[[Trace], Asked], given: Mapping[str, Any], *, as_json: bool) -> None:
    """Explain the sequences of a tape, put each explanation into it as soon as it is there, and say what was found.

    Ctrl-C keeps what is done.
    """
    from tokentape.cli.sequences import chosen_sequences
    from tokentape.data.tape import open_tape

    named = click.get_current_context().get_parameter_source("trace") is ParameterSource.COMMANDLINE
    spread = spread_of(given, given.get("device") or "auto")
    with open_tape(file) as tape:
        traces = chosen_sequences(tape, file, (given["trace"],) if named else ())
        # what cannot be answered is refused before a model is loaded
        pieces = [(trace.number, asked_of(trace)) for trace in traces]
        found, interrupted = _made(tape, file, pieces, given, spread, quiet=as_json)
        _report(file, found, len(pieces), tape.pieces, as_json=as_json, interrupted=interrupted)
    if interrupted:
        click.get_current_context().exit(INTERRUPTED)


def _made(
    tape: Tape,
    file: Path,
    pieces: Sequence[tuple[int, Asked]],
    given: Mapping[str, Any],
    spread: Spread | None,
    *,
    quiet: bool,
) -> tuple[list[Found], bool]:
    """The explanations, kept in the tape unless that is declined; and whether Ctrl-C ended it."""
    from tokentape.cli.record import second_interrupt_quits
    from tokentape.data.annex import add_explanations
    from tokentape.tasks.spread.explaining import Wanted, explain_each

    options = {name: given[name] for name in LOAD_NAMES if given.get(name) not in (None, False)}
    wanted = Wanted(given.get("model"), options, unchecked=given["unchecked"])
    found: list[Found] = []
    with second_interrupt_quits(), progress_line("explaining", "sequences", quiet=quiet) as progress:
        try:
            for one in explain_each(tape, pieces, wanted, spread):
                found.append((one, None if given["no_save"] else add_explanations(file, [one])[0]))
                progress(len(found), len(pieces))
        except KeyboardInterrupt:
            return found, True
    return found, False


def set_threads(given: Mapping[str, Any]) -> None:
    """Give this process as many threads of torch as are asked for, before that is imported; workers have theirs."""
    if given["threads"] is not None and not given["ray"]:
        os.environ["OMP_NUM_THREADS"] = str(given["threads"])  # read once, when torch is first imported


def _report(
    file: Path, found: Sequence[Found], n_all: int, entries: Mapping[int, Piece], *, as_json: bool, interrupted: bool
) -> None:
    from tokentape.views.explanation_text import explanation_document
    from tokentape.views.screen import Screen
    from tokentape.views.shape import name_alone

    def name_of(token_id: int) -> str:
        return name_alone(token_id, entries)

    if as_json:
        told = [{**explanation_document(one, name_of), "number": number} for one, number in found]
        print_document(document("explain", tape=str(file), explanations=told, interrupted=interrupted))
        return
    print_lines(_table(found, name_of, Screen.of(sys.stdout)))
    screen = Screen.of(sys.stderr)
    if interrupted:
        click.echo(screen.safe(screen.say("spread.broken_off", n=len(found), total=n_all, file=str(file))), err=True)
    elif sys.stdout.isatty():
        click.echo(screen.safe(screen.say("spread.next", file=str(file))), err=True)


def _table(found: Sequence[Found], name_of: Callable[[int], str], screen: Any) -> str:
    """One row a sequence: how many tokens, how well the replay agrees, what the first of them rests on, the number kept."""
    from tokentape.views.explanation_text import source_name
    from tokentape.views.screen import columns

    header = [screen.say(f"spread.{name}") for name in ("sequence", "tokens", "largest", "first", "kept")]
    rows = []
    for one, number in found[:MOST_SHOWN]:
        largest = one.check.largest
        first = one.relevance[0].filled(float("-inf"))
        rests = (
            f"{name_of(int(one.target_ids[0]))} {screen.choose('←', '<-')} {source_name(one.sources[first.argmax()])}"
        )
        rows.append(
            [
                str(one.trace),
                str(len(one.targets)),
                "" if largest is None else f"{largest:.1e}",
                rests if one.sources else "",
                "" if number is None else str(number),
            ]
        )
    lines = columns(screen, header, rows, ">>><>", stretch=3)
    if len(found) > MOST_SHOWN:
        lines.append(screen.say("spread.more", n=len(found) - MOST_SHOWN))
    return "\n".join(lines)
