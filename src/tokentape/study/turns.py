"""Tapes that were recorded in turns: where on them what was measured lies, and the verdict derived from them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.data.schema import KINDS
from tokentape.errors import UsageError
from tokentape.study.times import e2e_ns, plain_values, runs_of, ttft_ns
from tokentape.study.verdict import (
    UNCLEAR,
    Question,
    Verdict,
    contrast_of_runs,
    contrast_of_steps,
    judge,
    pair_contrast,
)

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["NOTE", "OF", "layout_of", "step_ns", "steps_of_run", "times_of_run", "verdict_of_turns"]

NOTE = "turns"
"""The note of a tape that was recorded in turns with another: ``id`` is the same on both, ``side`` is A or B."""

OF = ("decode", "ttft", "e2e")
"""What a comparison may be about: the steps after the prompt, the time to the first token, or all of a run."""

PREFILL, CHUNK = KINDS.index("prefill"), KINDS.index("chunk")


def step_ns(before_end: int, start: int, end: int, *, ran_ahead: bool) -> int:
    """How long a step took: from its start to its end; where the host runs ahead of what it waits for, since the end before."""
    return end - (before_end if ran_ahead else start)


def times_of_run(traces: Sequence[Trace], of: str) -> list[int]:
    """The times of a run that count, in nanoseconds: of each step after the prompt, or one for all."""
    if of == "ttft":
        return [min(found)] if (found := _known([ttft_ns(trace) for trace in traces])) else []
    if of == "e2e":
        return [max(found)] if (found := _known([e2e_ns(trace) for trace in traces])) else []
    return [ns for _, _, ns in steps_of_run(traces)]


def steps_of_run(traces: Sequence[Trace]) -> list[tuple[int, int | None, int]]:
    """Each step after the prompt: batch, context (None where the source does not say), nanoseconds."""
    steps = traces[0].steps
    names = ("start_ns", "end_ns", "kind", "batch", "context")
    rows = list(zip(*(plain_values(steps[name]) for name in names), strict=True))
    on_device = not np.ma.getmaskarray(steps["device_ns"]).all()
    return [
        (batch, context, step_ns(before[1], start, end, ran_ahead=on_device or kind == CHUNK))
        for before, (start, end, kind, batch, context) in pairwise(rows)
        if kind != PREFILL
    ]


def _known(values: Sequence[int | None]) -> list[int]:
    return [value for value in values if value is not None]


def layout_of(a: Tape, b: Tape) -> dict[str, Any] | None:
    """How the two were recorded in turns; None where they were not, or not with each other."""
    mine, theirs = a.notes.get(NOTE), b.notes.get(NOTE)
    if not isinstance(mine, dict) or not isinstance(theirs, dict) or mine["id"] != theirs["id"]:
        return None
    return mine if mine["side"] != theirs["side"] else None


def verdict_of_turns(a: Tape, b: Tape, layout: dict[str, Any], question: Question | None = None) -> Verdict:
    """The verdict on two tapes recorded in turns, by the question that was asked then, or at another threshold.

    Raises UsageError for another confidence or number of pairs: these were shared out over the looks taken then.
    """
    asked = Question(layout["threshold"], layout["confidence"], layout["max_pairs"])
    if question is not None and (question.confidence, question.max_pairs) != (asked.confidence, asked.max_pairs):
        raise UsageError(
            f"a confidence of {question.confidence:g} over {question.max_pairs} pairs",
            why=f"these tapes were recorded to be judged at {asked.confidence:g} over at most {asked.max_pairs}",
            fix="leave --confidence and --pairs out, or record anew with --run",
        )
    verdict = judge(_contrasts(a, b, layout), question or asked)
    if verdict.word == UNCLEAR and layout.get("reason"):
        return replace(verdict, reason=layout["reason"])
    return verdict


def _contrasts(a: Tape, b: Tape, layout: dict[str, Any]) -> list[float]:
    runs = [[times_of_run(group, layout["of"]) for group in runs_of(tape)] for tape in (a, b)]
    units = []
    for run, first, n in layout["units"]:
        if layout["turns"] == "steps":
            found = contrast_of_steps(*(side[run][first : first + n] for side in runs))
        else:
            found = contrast_of_runs(*(side[run : run + 2] for side in runs))
        assert found is not None
        units.append(found)
    pairs, done = [], 0
    for n in layout["pairs"]:
        pairs.append(pair_contrast(units[done : done + n]))
        done += n
    return pairs
