"""Other answers of ``tokentape explain``: where the model looked, what its layers said and added, which method to believe."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tokentape.cli.output import document, print_document, print_lines
from tokentape.cli.replaying import checked_replay, progress_line

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace
    from tokentape.explain.explaining import Asked
    from tokentape.explain.question import Question
    from tokentape.explain.replay import Replay
    from tokentape.models.causal import CausalModel

__all__ = ["attention", "direct", "evaluate", "lens"]

MOST_TARGETS = 40
"""Tokens of a trace that methods are held against, evenly spread, unless some are named."""


def attention(
    tape: Tape, trace: Trace, causal: CausalModel, asked: Asked, given: dict[str, Any], *, as_json: bool
) -> None:
    """Print where the model looked before each of the targets."""
    from tokentape.explain.attention.summary import attend
    from tokentape.views.attention_text import attention_text
    from tokentape.views.screen import Screen

    replay = checked_replay(tape, trace, causal, unchecked=given["unchecked"], quiet=as_json)
    with progress_line("looking", "layers", quiet=as_json) as progress:
        found = attend(replay, steps=asked.targets, top_k=given["top"], progress=progress).rows(asked.targets)
    if as_json:
        print_document(document("explain", tape=str(tape.path), attention=found.to_dict()))
    else:
        print_lines(attention_text(found, Screen.of(sys.stdout), top=given["top"]))


def lens(tape: Tape, trace: Trace, causal: CausalModel, asked: Asked, given: dict[str, Any], *, as_json: bool) -> None:
    """Print what each layer would have said at each of the targets."""
    from tokentape.explain.layers.lens import lens as read_lens
    from tokentape.views.lens_text import lens_text
    from tokentape.views.screen import Screen

    replay = checked_replay(tape, trace, causal, unchecked=given["unchecked"], quiet=as_json)
    found = read_lens(replay, asked.targets)
    if as_json:
        print_document(document("explain", tape=str(tape.path), lens=found.to_dict()))
    else:
        print_lines(lens_text(found, Screen.of(sys.stdout)))


def direct(
    tape: Tape, trace: Trace, causal: CausalModel, asked: Asked, given: dict[str, Any], *, as_json: bool
) -> None:
    """Print what each part of each block added to the value of each target."""
    from tokentape.explain.explaining import question_of
    from tokentape.explain.layers.direct import direct as added
    from tokentape.views.lens_text import direct_text
    from tokentape.views.screen import Screen

    replay = checked_replay(tape, trace, causal, unchecked=given["unchecked"], quiet=as_json)
    found = added(replay, question_of(replay, asked)[0])
    if as_json:
        print_document(document("explain", tape=str(tape.path), direct=found.to_dict()))
        return
    screen = Screen.of(sys.stdout)
    rows = 1 if asked.together else len(asked.targets)
    print_lines("\n\n".join(direct_text(found, screen, row) for row in range(rows)))


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
