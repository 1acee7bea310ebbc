"""What the rows of a run must say of one another, whatever was recorded: pure functions of record arrays."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tokentape.data.attention import AttentionSummary
from tokentape.data.control import ACTIONS, OUTCOMES, Decision, Outcome
from tokentape.data.exchange import FAULTS, Exchange
from tokentape.data.explanation import Explanation
from tokentape.data.layers import DirectAttribution, Lens
from tokentape.data.packing import NO_TEXT
from tokentape.data.reading import Reading
from tokentape.data.schema import CHANNELS, KINDS, SERIES
from tokentape.data.trace import Columns, Masked

__all__ = [
    "Problem",
    "decision_problems",
    "effect_problems",
    "exchange_problems",
    "explanation_problems",
    "joint_problems",
    "outcome_problems",
    "reading_problems",
    "recorded_ids",
    "sequence_ids",
    "step_problems",
    "token_problems",
]

TOLERANCE = 1e-6
"""A log-probability may exceed 0, and an entropy fall below it, by so much: the rounding of float32."""

SLACK = 1e-2
"""Weights of attention, computed in half a precision, add up to 1 within so much."""

BITS = {series: {column.name: i for i, column in enumerate(columns)} for series, columns in SERIES.items()}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a tape: ``where`` names the table, run or trace, ``what`` says what was found."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def _first(wrong: npt.NDArray[np.bool_]) -> int | None:
    places = np.flatnonzero(wrong)
    return int(places[0]) if len(places) else None


def _there(records: npt.NDArray[np.void], series: str, name: str) -> npt.NDArray[np.bool_]:
    """Where a nullable column has a value."""
    there: npt.NDArray[np.bool_] = records["null"] >> BITS[series][name] & 1 == 0
    return there


def step_problems(where: str, steps: npt.NDArray[np.void]) -> Iterator[Problem]:
    """Indexes count from 0; no step ends before it starts, or starts before the one before it did."""
    index, start, end = steps["index"], steps["start_ns"], steps["end_ns"]
    checks = (
        (index != np.arange(len(steps)), "has another index"),
        (end < start, "ends before it starts"),
        (np.diff(start, prepend=start[:1]) < 0, "starts before the step before it"),
        (steps["kind"] >= len(KINDS), "is of no known kind"),
        ((steps["n_out"] < 0) | (steps["batch"] < 0) | (steps["dropped"] < 0), "counts fewer than none"),
        (steps["rules_ns"] < 0, "has rules that took less than no time"),
    )
    for wrong, what in checks:
        place = _first(wrong)
        if place is not None:
            yield Problem(where, f"step {place} {what}")


def token_problems(where: str, tokens: npt.NDArray[np.void], n_prompt: int | None, n_steps: int) -> Iterator[Problem]:
    """Positions follow the prompt without a gap, steps exist and never go back, and probabilities are possible."""
    position, step = tokens["position"], tokens["step"]
    first = n_prompt if n_prompt is not None else int(position[0]) if len(tokens) else 0
    # Comparisons with NaN are False, so each is written to be True for what is allowed.
    checks = (
        (position != first + np.arange(len(tokens)), f"does not follow the prompt of {first} tokens without a gap"),
        ((step < 0) | (step >= n_steps), f"points at a step that is not among the run's {n_steps}"),
        (np.diff(step, prepend=step[:1]) < 0, "points at an earlier step than the token before it"),
        (
            np.diff(tokens["overshoot"].astype(np.int8), prepend=0) < 0,
            "belongs to the sequence, though its end came before",
        ),
        (~(tokens["logprob"] <= TOLERANCE), "has a log-probability above 0"),
        (~(tokens["rules_logprob"] <= TOLERANCE), "has a log-probability after the rules above 0"),
        (~(tokens["entropy"] >= -TOLERANCE), "has an entropy below 0"),
        (_there(tokens, "token", "rank") & (tokens["rank"] < 1), "has a rank below 1"),
        (_there(tokens, "token", "id") & (tokens["id"] < 0), "has an id below 0"),
        (_there(tokens, "token", "wanted") & (tokens["wanted"] < 0), "was wanted with an id below 0"),
        (_there(tokens, "token", "allowed") & (tokens["allowed"] < 0), "had fewer than no tokens allowed"),
        (~(tokens["removed"] >= -TOLERANCE), "has more than all of the probability left"),
        (tokens["channel"] >= len(CHANNELS), "is part of nothing known"),
    )
    for wrong, what in checks:
        place = _first(wrong)
        if place is not None:
            yield Problem(where, f"the token at position {position[place]} {what}")


def joint_problems(where: str, steps: npt.NDArray[np.void], pointed_at: npt.NDArray[np.int64]) -> Iterator[Problem]:
    """Each step gave as many tokens as it says; ``pointed_at`` counts the tokens of the run's traces by step."""
    place = _first(pointed_at != steps["n_out"])
    if place is not None:
        yield Problem(
            where, f"step {place} says n_out {steps['n_out'][place]}, but {pointed_at[place]} tokens point at it"
        )


def effect_problems(
    where: str, effects: Columns, rules: Collection[int], tokens: npt.NDArray[np.void]
) -> Iterator[Problem]:
    """Effects are on tokens that the trace has, of rules that the run has, and possible; what is null is not looked at."""
    position, rule = effects["position"].data, effects["rule"].data
    checks = (
        (~np.isin(position, tokens["position"]), "is on a token that the trace does not have"),
        (~np.isin(rule, list(rules)), "is of a rule that the run does not have"),
        ((effects["allowed"] < 0).filled(False), "leaves fewer than no tokens"),
        (~(effects["removed"] >= -TOLERANCE).filled(True), "leaves more than all of the probability"),
        (~(effects["divergence"] >= -TOLERANCE).filled(True), "is a divergence below 0"),
        ((effects["rule_ns"] < 0).filled(False), "took less than no time"),
    )
    for wrong, what in checks:
        place = _first(wrong)
        if place is not None:
            yield Problem(where, f"the effect of rule {rule[place]} at position {position[place]} {what}")


def exchange_problems(one: Exchange, start_ns: int | None) -> Iterator[Problem]:
    """What passed came in order: connected, begun, answered, ended; counts are none below 0, and a retry is of an earlier run.

    An answer may be there before the call returns that handed over the last byte of the request: the kernel stamps it at once.
    """
    where = f"exchange {one.run}"
    begun = (("connect_ns", one.connect_ns), ("connected_ns", one.connected_ns), ("start_ns", start_ns))
    for last in (("sent_ns", one.sent_ns), ("ended_ns", one.ended_ns)):
        known = [(name, at) for name, at in (*begun, last) if at is not None]
        for (before, earlier), (after, later) in pairwise(known):
            if later < earlier:
                yield Problem(where, f"{after} is before {before}")
    if one.first_byte_ns is not None and start_ns is not None and one.first_byte_ns < start_ns:
        yield Problem(where, "it was answered before it was asked")
    for name in ("n_prompt", "n_completion", "n_reasoning", "n_cached"):
        if (getattr(one, name) or 0) < 0:
            yield Problem(where, f"{name} counts fewer than none")
    if one.retry_of is not None and not 0 <= one.retry_of < one.run:
        yield Problem(where, f"it repeats run {one.retry_of}, which is no earlier one")
    if one.fault is not None and one.fault not in FAULTS:
        yield Problem(where, f"it has the unknown fault {one.fault!r:.40}")


def decision_problems(
    where: str,
    decisions: Iterable[Decision],
    rules: Collection[int],
    tokens: npt.NDArray[np.void],
    n_prompt: int | None,
) -> Iterator[Problem]:
    """Decisions are about the trace's text, at one of its tokens or right after the last, and of rules that the run has."""
    first = n_prompt if n_prompt is not None else int(tokens["position"][0]) if len(tokens) else 0
    kept = tokens[tokens["overshoot"] == 0]
    n_bytes = int(kept["n_bytes"].sum(dtype=np.int64))
    has_text = not (kept["null"] & NO_TEXT).any()
    for number, one in enumerate(decisions):
        checks = (
            (not first <= one.position <= first + len(tokens), f"is at position {one.position}, where no token is"),
            (one.rule not in rules, f"is of rule {one.rule}, which the run does not have"),
            (one.action not in ACTIONS, f"is an unknown action {one.action!r}"),
            (has_text and one.stop > n_bytes, f"is about bytes up to {one.stop}, and the text has {n_bytes}"),
        )
        yield from (Problem(where, f"decision {number} {what}") for wrong, what in checks if wrong)


def outcome_problems(where: str, outcomes: Iterable[Outcome], rules: Collection[int]) -> Iterator[Problem]:
    """Outcomes are known ones, of rules that the run has."""
    for one in outcomes:
        if one.rule not in rules:
            yield Problem(where, f"an outcome of rule {one.rule}, which the run does not have")
        if one.name not in OUTCOMES:
            yield Problem(where, f"unknown outcome {one.name!r}")


def sequence_ids(
    n_prompt: int | None,
    prompt_ids: Sequence[int] | npt.NDArray[np.int64] | None,
    positions: npt.NDArray[np.int64],
    ids: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """The ids of a whole sequence ``[T]`` from those of its prompt and of its tokens; -1 where one is not known."""
    first = n_prompt if n_prompt is not None else int(positions[0]) if len(positions) else 0
    before = np.full(first, -1, np.int64)
    if prompt_ids is not None and len(prompt_ids) == first:
        before[:] = prompt_ids
    return np.concatenate([before, ids])


def recorded_ids(
    n_prompt: int | None, prompt_ids: Sequence[int] | None, tokens: npt.NDArray[np.void]
) -> npt.NDArray[np.int64]:
    """:func:`sequence_ids` of a trace's records, without those past its end."""
    kept = tokens[tokens["overshoot"] == 0]
    ids = np.where(_there(kept, "token", "id"), kept["id"], -1)
    return sequence_ids(n_prompt, prompt_ids, kept["position"], ids)


def explanation_problems(explanation: Explanation, ids: npt.NDArray[np.int64]) -> Iterator[Problem]:
    """Targets and sources are positions of the trace, whose ids are ``ids`` (-1: not known), and targets the tokens there."""
    where = f"explanation {explanation.number}" if explanation.number is not None else "explanation"
    past = max(int(explanation.targets[-1]) + 1, explanation.sources[-1].stop)
    if past > len(ids):
        yield Problem(where, f"it names position {past - 1} of trace {explanation.trace}, which has {len(ids)} tokens")
        return
    there = ids[explanation.targets]
    place = _first((there >= 0) & (there != explanation.target_ids))
    if place is not None:
        position, own = explanation.targets[place], explanation.target_ids[place]
        yield Problem(
            where,
            f"its target at position {position} is token {own}, and trace {explanation.trace} has token {there[place]} there",
        )


def reading_problems(reading: Reading, ids: npt.NDArray[np.int64]) -> Iterator[Problem]:
    """Positions of a reading are those of its trace, whose ids are ``ids`` (-1: not known), and its figures are possible."""
    where = f"reading {reading.number}" if reading.number is not None else "reading"
    positions = np.array(reading.question["positions"], np.int64)
    if not len(positions) or positions[0] < 1 or (np.diff(positions) <= 0).any():
        yield Problem(where, f"its positions {positions.tolist()[:8]} are not in ascending order, from 1 on")
        return
    match reading.found:
        case AttentionSummary() as found:
            named, own, checks = np.arange(len(found.ids)), found.ids, _attention_checks(found)
        case Lens() as found:
            named, own, checks = positions, found.ids, _lens_checks(found)
        case found:
            named, own, checks = positions, found.target_ids, _direct_checks(found)
    last = max(int(positions[-1]), *named[-1:].tolist())
    if last >= len(ids):
        yield Problem(where, f"it names position {last} of trace {reading.trace}, which has {len(ids)} tokens")
        return
    place = _first((ids[named] >= 0) & (ids[named] != own))
    if place is not None:
        there = ids[named[place]]
        said = f"token {own[place]} at position {named[place]}, and trace {reading.trace} has token {there} there"
        yield Problem(where, f"it has {said}")
    yield from (Problem(where, what) for wrong, what in checks if np.ma.filled(wrong, False).any())


Check = tuple[npt.NDArray[np.bool_] | Masked, str]


def _attention_checks(found: AttentionSummary) -> Iterator[Check]:
    yield ~np.isin(found.head_positions, found.positions), "it has heads of a position that it does not have"
    yield found.positions >= len(found.ids), "it has rows past its tokens"
    for tops, rows in (
        (found.layers, found.positions),
        (found.overall, found.positions),
        (found.heads, found.head_positions),
    ):
        yield (tops.sources < 0) | (tops.sources >= rows[:, None]), "it has sources that its rows cannot see"
        yield (tops.weights < 0) | (tops.weights > 1 + SLACK), "it has weights beside 0 .. 1"
        yield (tops.kept < 0) | (tops.kept > 1 + SLACK), "it has kept more than all of a row, or less than nothing"
    yield (found.entropy < -SLACK) | (found.distance < -SLACK), "it has an entropy or a distance below 0"
    for share in (found.sink_share, found.nowhere):
        yield (share < 0) | (share > 1 + SLACK), "it has shares beside 0 .. 1"


def _lens_checks(found: Lens) -> Iterator[Check]:
    yield (found.rank < 1) | (found.final_rank < 1), "it has a rank below 1"
    yield found.top_ids < 0, "it has an id below 0"
    yield found.logprob > TOLERANCE, "it has a log-probability above 0"
    yield found.top_logprob > TOLERANCE, "it has a log-probability above 0"
    yield (found.entropy < -TOLERANCE) | (found.kl < -TOLERANCE), "it has an entropy or a divergence below 0"


def _direct_checks(found: DirectAttribution) -> Iterator[Check]:
    beside = found.entry + found.bias + found.curvature + found.residual
    moved = np.abs(beside) + np.abs(found.blocks).sum(1) + np.abs(found.value)
    yield np.abs(found.value - beside - found.blocks.sum(1)) > TOLERANCE * moved, "its parts do not add up to its value"
    parts = [np.ma.filled(part, 0.0) for part in (found.attention, found.mlp, found.other)]
    apart = np.abs(found.blocks - np.sum(parts, 0))
    yield apart > TOLERANCE * np.sum(np.abs(parts), 0), "the parts of a block do not add up to it"
