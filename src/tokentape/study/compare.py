"""``compare``: what changed from one tape to another, in text, in time, and whether it may be said at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

from tokentape.data.tape import Tape, open_tape
from tokentape.display import Displayed
from tokentape.errors import StudyError, UsageError
from tokentape.study.alignment import Alignment, align, same_vocabulary
from tokentape.study.comparability import (
    Difference,
    check_comparable,
    differences,
    load_differences,
    paired_traces,
    told_loads,
)
from tokentape.study.side_by_side import (
    CoefficientPair,
    Ratio,
    StepRatios,
    coefficient_pairs,
    ratio_of_first_tokens,
    step_ratios,
    verdict_on,
)
from tokentape.study.times import plain_values
from tokentape.study.turns import OF, layout_of
from tokentape.study.verdict import FASTER, SLOWER, UNCLEAR, Question, Verdict

__all__ = ["Comparison", "Side", "compare", "fails", "verdict_sentence"]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two tapes. ``path`` is None for a tape in memory."""

    path: str | None
    model: str | None
    state: str
    n_runs: int
    n_traces: int
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Comparison(Displayed):
    """Two tapes side by side.

    ``differences`` of the Settings and of what was asked, each with the question that it is part of. ``same`` is True where
    both are one recording, of which there is nothing to tell apart. ``alignments`` of the traces, those that are alike told
    once. ``first_token`` and ``steps`` are times, None where a side has none; ``laws`` the coefficients of both, or
    ``laws_missing`` says why not. ``verdict`` is on B against A, about ``of`` (``"decode"``, ``"ttft"``, ``"e2e"``); ``caveat``
    is what has to be said with it wherever A and B were not recorded in turns. ``withheld`` is True where a guard withheld
    something of a sequence of either, which the ``alignments`` may name. ``loads`` is what two loads on a server were told to do
    differently: then a difference of times may be theirs, and the ``sentence`` says so.
    """

    a: Side
    b: Side
    same: bool
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    alignments: tuple[Alignment, ...]
    first_token: Ratio | None
    steps: StepRatios | None
    laws: tuple[CoefficientPair, ...]
    laws_missing: str | None
    of: str
    verdict: Verdict | None
    caveat: str | None
    withheld: bool = False
    loads: tuple[Difference, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values for JSON; bytes as text, U+FFFD for what is none."""
        found: dict[str, Any] = _plain(asdict(self))
        return {**found, "sentence": self.sentence}

    @property
    def sentence(self) -> str:
        """The verdict in words, never without its caveat."""
        if self.verdict is None:
            return "Both are one recording: there is nothing to tell apart."
        text = verdict_sentence(self.verdict, self.of)
        if self.loads:
            text += f" The loads differ ({told_loads(self.loads)}), so this need not be a difference of the servers."
        return text if self.caveat is None else f"{text} But {self.caveat}."


def compare(
    a: Tape | str | os.PathLike[str],
    b: Tape | str | os.PathLike[str],
    *,
    across: Iterable[str] = (),
    of: str = "decode",
    threshold: float | None = None,
    confidence: float | None = None,
) -> Comparison:
    """Compare two tapes.

    ``across`` names what may differ because it is the question: facts of the Setting (``"dtype"``), options of the generation,
    ``"prompt"``, ``"seed"``, or several at once (``"machine"``, ``"software"``, ``"threads"``, ``"options"``, ``"any"``).
    The verdict is about ``of``, at a ``threshold`` (3 %) and a ``confidence`` (0.99). Of tapes recorded in turns it is at those
    that were asked for then, and their question is what they were recorded for.

    Raises :class:`~tokentape.errors.NotComparable` where anything else differs, StudyError for a tape without a token,
    UsageError for names that do not exist, and what opening a tape raises.
    """
    if of not in OF:
        raise UsageError(f"of={of!r}", why="a comparison of times is about one of them", fix=f"one of {', '.join(OF)}")
    across = [across] if isinstance(across, str) else list(across)
    question = None
    if threshold is not None or confidence is not None:
        default = Question()
        question = Question(threshold or default.threshold, confidence or default.confidence, default.max_pairs)
    with ExitStack() as opened:
        tapes = [tape if isinstance(tape, Tape) else opened.enter_context(open_tape(tape)) for tape in (a, b)]
        return _compared(tapes[0], tapes[1], across, of, question)


def _compared(a: Tape, b: Tape, across: list[str], of: str, question: Question | None) -> Comparison:
    for name, tape in (("A", a), ("B", b)):
        if not any(len(trace.tokens["id"]) for trace in tape.traces):
            raise StudyError(
                f"{name} has no token: {tape.path or 'the tape in memory'}",
                why=f"it has {len(tape.runs)} runs and {len(tape.traces)} sequences, and none of them said anything",
                fix="record it again; tokentape show tells what it holds",
            )
    if not across and layout_of(a, b) is not None:
        across = ["any"]  # it was the question when they were recorded in turns
    found = differences(a, b, across)
    check_comparable(a, b, found)
    same = _one_recording(a, b)
    laws, laws_missing = ((), "both are one recording") if same else coefficient_pairs(a, b)
    verdict, caveat = (None, None) if same else verdict_on(a, b, of, question)
    return Comparison(
        a=_side(a),
        b=_side(b),
        same=same,
        differences=tuple(found),
        notes=tuple(_notes(a, b, found, across)),
        alignments=_alignments(a, b),
        first_token=ratio_of_first_tokens(a, b),
        steps=step_ratios(a, b),
        laws=laws,
        laws_missing=laws_missing,
        of=of,
        verdict=verdict,
        caveat=caveat,
        withheld=any(trace.has_withheld for tape in (a, b) for trace in tape.traces),
        loads=() if same else tuple(load_differences(a, b)),
    )


def _one_recording(a: Tape, b: Tape) -> bool:
    """Whether both are the same tape, or one is a copy of the other."""
    names = ("origin_unix_ns", "created_utc", "pid")
    one = [tuple(tape.notes.get(name) for name in names) for tape in (a, b)]
    return a is b or (one[0] == one[1] and a.setting == b.setting and a.notes.get("turns") == b.notes.get("turns"))


def _side(tape: Tape) -> Side:
    model = tape.setting.facts.get("model")
    return Side(
        path=None if tape.path is None else str(tape.path),
        model=None if model is None else str(model),
        state=tape.state,
        n_runs=len(tape.runs),
        n_traces=len(tape.traces),
        n_tokens=sum(len(trace.tokens["id"]) for trace in tape.traces),
    )


def _notes(a: Tape, b: Tape, found: list[Difference], across: list[str]) -> list[str]:
    notes = []
    for name, tape in (("A", a), ("B", b)):
        if tape.state != "complete":
            notes.append(f"{name} is {tape.state}: what it lacks is not compared")
    n = len(paired_traces(a, b))
    for name, tape in (("A", a), ("B", b)):
        if left := len(tape.traces) - n:
            notes.append(f"{left} of the {len(tape.traces)} sequences of {name} have no counterpart")
    differ = {d.name for d in found}
    for name in across:
        if name in a.setting.compared and name not in differ:
            notes.append(f"{name} was named as the question, and is the same on both: {a.setting.facts[name]}")
    return notes


def _alignments(a: Tape, b: Tape) -> tuple[Alignment, ...]:
    """The traces beside each other; repeats that said the same are told once."""
    by_ids = same_vocabulary(a, b)
    found: dict[Any, Alignment] = {}
    for mine, theirs in paired_traces(a, b):
        said = tuple((tuple(plain_values(t.tokens["id"])), tuple(t.token_bytes)) for t in (mine, theirs))
        key = (mine.prompt_text, mine.n_prompt, said)
        if key in found:
            found[key] = replace(found[key], n_alike=found[key].n_alike + 1)
        else:
            found[key] = align(mine, theirs, (a, b), by_ids=by_ids)
    return tuple(found.values())


def fails(verdict: Verdict | None, size: float) -> bool:
    """Whether a gate of ``size`` (0.05 is 5 %) fails: the verdict at that size is SLOWER, and the estimate lies above it.

    SLOWER alone says that more than half the size is certain.
    """
    if verdict is None or verdict.change is None or verdict.low is None:
        return False
    return verdict.change > size and (1 + verdict.low) > (1 + size) ** 0.5


WHAT = {"decode": "a step", "ttft": "to the first token", "e2e": "a run", "call": "a call"}


def verdict_sentence(verdict: Verdict, of: str) -> str:
    """``SLOWER at 3 %: B takes 4.1 % longer a step than A (2.9 to 5.3 % at 99 % confidence, n = 6).``"""
    head = f"{verdict.word} at {100 * verdict.threshold:g} %"
    why = f"; {verdict.reason}" if verdict.reason else ""
    if verdict.change is None or verdict.low is None or verdict.high is None:
        return f"{head}{why or '; not measured'}."
    size = f"{abs(100 * verdict.change):.1f} %"
    said = f"B takes {size} {'longer' if verdict.change >= 0 else 'less'} {WHAT[of]} than A"
    if verdict.word not in (SLOWER, FASTER, UNCLEAR) and abs(verdict.change) < 0.0005:
        said = f"B takes as long {WHAT[of]} as A"
    noun = "pairs" if verdict.interleaved else "values a side"
    spread = f"{100 * verdict.low:+.1f} to {100 * verdict.high:+.1f} %"
    return f"{head}: {said} ({spread} at {100 * verdict.confidence:g} % confidence, {verdict.n} {noun}){why}."


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
