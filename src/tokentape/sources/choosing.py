"""From logits to ids: the rules in their order, the draw, the vetoes, and what each of them did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from tokentape.clock import Clock
from tokentape.control.rule import Steers, Vetoes
from tokentape.control.rules import (
    gives_tokens,
    heads_of,
    in_order,
    is_foreign,
    is_own,
    left_one,
    masks_only,
    may_be_asked_twice,
    refuse_all_masked,
    refuse_no_numbers,
)
from tokentape.data.control import Decision, RuleHead
from tokentape.models.distribution import first_argmax
from tokentape.recorder.tick import Stage

__all__ = ["Choice", "Chooser"]


@dataclass(slots=True)
class Choice:
    """What was chosen for a batch, and how it came about.

    ``logits`` ``[B, V]`` are the model's own, before any rule, one that changes the forward pass included. ``ids`` ``[B]`` were
    chosen from ``scores`` ``[B, V]``, and ``given`` is what the processors were handed. ``forced`` ``[B]`` is 1 where a rule left
    exactly one token; ``wanted`` ``[B]`` what the same draw would have chosen without our rules; ``ended`` ``[B]`` where a guard
    ends the sequence with this token; ``cornered`` ``[B]`` where no token was left, so that there is none.
    What did not come up is None.
    """

    logits: torch.Tensor
    ids: torch.Tensor
    scores: torch.Tensor
    given: torch.Tensor
    marks: tuple[int, int] | None = None
    forced: torch.Tensor | None = None
    wanted: torch.Tensor | None = None
    stages: tuple[Stage, ...] | None = None
    ended: torch.Tensor | None = None
    cornered: torch.Tensor | None = None
    decisions: list[tuple[int, Decision]] = field(default_factory=list)


class Chooser:
    """The processors of a run in the order in which they are applied, and the choice that follows them.

    ``measured`` asks for the effects of every rule, where one of ours is among them.
    """

    def __init__(self, processors: Sequence[Any], *, do_sample: bool, clock: Clock, measured: bool) -> None:
        self.rules = in_order(processors)
        self._do_sample = do_sample
        self._clock = clock
        self.has_own = any(map(is_own, self.rules))
        self.measured = measured and self.has_own
        # asked once: a protocol is slow to ask for, and these would be at every step
        self._foreign = [is_foreign(rule) for rule in self.rules]
        self._masks = [masks_only(rule) for rule in self.rules]
        self._gives = [gives_tokens(rule) for rule in self.rules]
        self._guards = {number: rule for number, rule in enumerate(self.rules) if isinstance(rule, Vetoes)}
        self._guard_marks: dict[int, tuple[int, int]] = {}
        self._others = [rule for rule in self.rules if not is_own(rule)]
        steering = [(number, rule) for number, rule in enumerate(self.rules) if isinstance(rule, Steers)]
        self._steering = steering[0] if steering and self.measured else None
        self._wants = self.measured and may_be_asked_twice(self.rules)
        self._masked: torch.Tensor | None = None

    def heads(self) -> tuple[RuleHead, ...]:
        """The rules as the tape keeps them; none where they are not measured."""
        return heads_of(self.rules) if self.has_own else ()

    def __call__(self, ids: torch.Tensor, logits: torch.Tensor, live: torch.Tensor) -> Choice:
        """``[B, T]`` ids so far, ``[B, V]`` fp32 logits, ``[B]`` which rows are unfinished."""
        if not self.rules:
            return Choice(logits, self._chosen(logits, None), logits, logits)
        # a processor that writes into its argument would destroy the distribution before the rules
        given = logits.clone() if any(self._foreign) else logits
        began = self._clock.mark()
        choice = self._ruled(ids, logits, given)
        noise = self._noise(logits) if self._do_sample and self.has_own else None
        best = choice.scores.amax(1)
        cornered = (best == -torch.inf) & live.bool()
        if not self.has_own:
            self._watch(cornered)
        else:
            refuse_no_numbers(best, live, self.rules, sampled=self._do_sample)
            if cornered.any():
                choice.cornered = cornered
        choice.ids = self._chosen(choice.scores, noise)
        if self._guards:
            self._heed_vetoes(choice, live, noise)
        choice.marks = (began, self._clock.mark())
        if self._wants:
            choice.wanted = self._unruled(ids, choice.logits, noise)
        return choice

    def _ruled(self, ids: torch.Tensor, logits: torch.Tensor, given: torch.Tensor) -> Choice:
        """The rules, one after another; the ids are chosen later."""
        scores, stages = given, []
        choice = Choice(logits, ids[:, -1], given, given)
        if self._steering is not None:
            choice.logits = self._steering[1].baseline(ids)
        mark = self._clock.mark() if self.measured else 0
        for number, rule in enumerate(self.rules):
            # a foreign rule may write into what it is given, which is what the one before it made
            before = scores
            scores = rule(ids, before.clone() if self.measured and self._foreign[number] else before)
            if self._gives[number]:
                single = left_one(before, scores)
                choice.forced = single if choice.forced is None else choice.forced | single
            if self.measured:
                now = self._clock.mark()
                if number in self._guards:  # what a guard does is known after its vetoes
                    self._guard_marks[number] = (mark, now)
                    mark = now
                    continue
                stages.append(Stage(number, scores, self._masks[number], (mark, now)))
                mark = now
        choice.scores = scores
        choice.stages = tuple(stages) if self.measured else None
        return choice

    def _noise(self, logits: torch.Tensor) -> torch.Tensor | None:
        """The random numbers of a draw, from the generator as ``torch.multinomial`` would take them; None where it must do so.

        On the CPU its draw of one is ``argmax(p / q)`` with ``q`` exponential. With ``q`` at hand, what would have been drawn
        without the rules is known too, and a draw under a veto needs no new numbers.
        """
        return torch.empty_like(logits).exponential_(1) if logits.device.type == "cpu" else None

    def _chosen(self, scores: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        if not self._do_sample:
            return first_argmax(scores)
        p = torch.softmax(scores, dim=-1)
        if noise is None:
            return torch.multinomial(p, num_samples=1).squeeze(1)
        return first_argmax(p.div_(noise))

    def _unruled(self, ids: torch.Tensor, logits: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor | None:
        """``[B]``: what the same draw chooses when only transformers' processors are asked."""
        if self._do_sample and noise is None:
            return None
        scores = logits.clone() if self._others else logits
        for rule in self._others:
            scores = rule(ids, scores)
        return self._chosen(scores, noise)

    def _heed_vetoes(self, choice: Choice, live: torch.Tensor, noise: torch.Tensor | None) -> None:
        """Choose again until no guard objects, and tell them all what stays."""
        choice.ended = torch.zeros_like(live, dtype=torch.bool)
        rows = live.bool() if choice.cornered is None else live.bool() & ~choice.cornered
        before = choice.scores
        for row in rows.nonzero().flatten().tolist():
            settled = True
            while settled and any(guard.veto(row, int(choice.ids[row])) for guard in self._guards.values()):
                settled = self._again(row, choice, before, noise)
            if not settled:
                choice.cornered = torch.zeros_like(rows) if choice.cornered is None else choice.cornered
                choice.cornered[row] = True
            for number, guard in self._guards.items():
                if settled:
                    choice.ended[row] |= guard.accept(row, int(choice.ids[row]))
                choice.decisions += [(row, replace(one, rule=number)) for one in guard.decisions(row)]
        if choice.stages is not None:
            # which of several guards took a token is in their decisions; the first is given what all of them took
            choice.stages += tuple(
                Stage(number, choice.scores, True, self._guard_marks.get(number)) for number in self._guards
            )

    def _again(self, row: int, choice: Choice, before: torch.Tensor, noise: torch.Tensor | None) -> bool:
        """Choose another token for a row; whether one was left. ``before`` is not written into."""
        if choice.scores is before:
            choice.scores = before.clone()
        choice.scores[row, choice.ids[row]] = -torch.inf
        if choice.scores[row].amax() == -torch.inf:
            return False
        mine = slice(row, row + 1)
        choice.ids[mine] = self._chosen(choice.scores[mine], None if noise is None else noise[mine])
        return True

    def closed(self, rows: Sequence[int]) -> list[tuple[int, Decision]]:
        """What guards decide about rows whose text has ended: what they held back is judged as it stands."""
        decided: list[tuple[int, Decision]] = []
        for number, guard in self._guards.items():
            for row in rows:
                guard.close(row)
                decided += [(row, replace(one, rule=number)) for one in guard.decisions(row)]
        return decided

    def _watch(self, masked: torch.Tensor) -> None:
        """Refuse a step at which processors left nothing: at once on the CPU, after the run where asking would mean waiting."""
        if masked.device.type != "cpu":
            self._masked = masked if self._masked is None else self._masked | masked
        elif masked.any():
            refuse_all_masked(self.rules)

    def refuse_what_was_masked(self) -> None:
        """After the run: raise for a step at which nothing was left, where that could not be asked before."""
        if self._masked is not None and self._masked.any():
            refuse_all_masked(self.rules)
