"""Other answers of ``tokentape explain``: where the model looked, what its layers said and added, which method to believe."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokentape.cli.output import document, print_document, print_lines
from tokentape.cli.replaying import checked_replay, progress_line

if TYPE_CHECKING:
    from tokentape.data.reading import Found, Reading, ReadingKind
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace
    from tokentape.explain.explaining import Asked
    from tokentape.explain.question import Question
    from tokentape.explain.replay import Replay
    from tokentape.models.causal import CausalModel

__all__ = ["evaluate", "reading", "report_reading"]

DOING = {"attention": ("looking", "layers"), "lens": ("reading layers", "tokens"), "direct": ("taking apart", "layers")}
"""What is said while a reading is made, and of what it is so many."""

MOST_TARGETS = 40
"""Tokens of a trace that methods are held against, evenly spread, unless some are named."""


def reading(
    kind: ReadingKind,
    tape: Tape,
    trace: Trace,
    causal: CausalModel,
    asked: Asked,
    given: dict[str, Any],
    *,
    quiet: bool,
) -> Reading:
    """Where the model looked before each of the targets, what its layers said there, or what they added to its value."""
    from tokentape.explain.reading import read

    replay = checked_replay(tape, trace, causal, unchecked=given["unchecked"], quiet=quiet)
    with progress_line(*DOING[kind], quiet=quiet) as progress:
        return read(kind, trace, replay, asked, top_k=given["top"], progress=progress)


def report_reading(file: Path, reading: Reading, kept: int | None, given: dict[str, Any], *, as_json: bool) -> None:
    """Print it, with its number in the tape as JSON; what is not in it is told on stderr."""
    from tokentape.views.screen import Screen

    told = Screen.of(sys.stderr)
    if reading.kind == "attention" and not reading.question["heads"]:
        n = len(reading.question["positions"])
        click.echo(told.safe(told.say("live.no_heads", n=n)), err=True)
    if as_json:
        found = {**reading.found.to_dict(), "number": kept}
        print_document(document("explain", tape=str(file), **{reading.kind: found}))
        return
    print_lines(_text(reading.found, given))
    if kept is not None and sys.stdout.isatty():
        click.echo(told.safe(told.say("live.kept", file=str(file))), err=True)


def _text(found: Found, given: dict[str, Any]) -> str:
    from tokentape.data.attention import AttentionSummary
    from tokentape.data.layers import Lens
    from tokentape.views.attention_text import attention_text
    from tokentape.views.lens_text import direct_text, lens_text
    from tokentape.views.screen import Screen

    screen = Screen.of(sys.stdout)
    if isinstance(found, AttentionSummary):
        return attention_text(found, screen, top=given["top"])
    if isinstance(found, Lens):
        return lens_text(found, screen)
    return "\n\n".join(direct_text(found, screen, row) for row in range(len(found.value)))


def evaluate(
    tape: Tape, trace: Trace, causal: CausalModel, asked: Asked, given: dict[str, Any], *, as_json: bool
) -> None:
    """Hold the methods (all, or the one that is named) against tokens of the trace, and print the table."""
    from tokentape.explain.judging.faithfulness import evaluate as judged
    from tokentape.explain.judging.faithfulness import random_order
    from tokentape.explain.methods import METHODS
    from tokentape.views.evaluation_text import evaluation_text
    from tokentape.views.screen import Screen

    replay = checked_replay(tape, trace, causal, unchecked=given["unchecked"], quiet=as_json)
    names = [asked.method] if given["method"] else list(METHODS)
    methods = {**{name: METHODS[name] for name in names}, "random": random_order}
    pairs = [(replay, question) for question in _questions(replay, asked)]
    with progress_line(f"evaluating {len(names)} methods", "tokens", quiet=as_json) as progress:
        found = judged(pairs, methods, progress=progress)
    if as_json:
        print_document(document("explain", tape=str(tape.path), evaluation=found.as_dict()))
    else:
        print_lines(evaluation_text(found.rows(), found.refused, len(found.items), Screen.of(sys.stdout)))


def _questions(replay: Replay, asked: Asked) -> list[Question]:
    """One question for each target: some methods answer many at once, and their cost would not be told apart."""
    from tokentape.explain.explaining import question_of

    chosen = asked.targets
    if len(chosen) > MOST_TARGETS:
        spread = {round(i * (len(chosen) - 1) / (MOST_TARGETS - 1)) for i in range(MOST_TARGETS)}
        chosen = tuple(chosen[i] for i in sorted(spread))
    return [question_of(replay, replace(asked, targets=(position,)))[0] for position in chosen]
