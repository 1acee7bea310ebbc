"""A guard at work on the rows of one run."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from tokentape.control.guard.text import GuardStream
from tokentape.control.guard.watch import Finding
from tokentape.data.control import Decision
from tokentape.errors import RuleError, UsageError
from tokentape.models.pieces import Spelling

if TYPE_CHECKING:
    from tokentape.control.guard.guard import Guard
    from tokentape.models.causal import CausalModel

__all__ = ["GuardRule"]


@dataclass(slots=True)
class _Row:
    """One sequence. ``position`` is that of its next token, ``tries`` how many were refused there."""

    stream: GuardStream
    spelling: Spelling
    prompt: list[int]
    position: int
    ids: list[int] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    tries: int = 0
    heard: bool = False
    ended: bool = False


class GuardRule:
    """Looks at each chosen token before it is said. Logits pass through it unchanged.

    A loop asks :meth:`veto` and :meth:`accept` for every token and calls :meth:`close` for a row whose text has ended. Handed to
    plain ``generate()`` it is asked nothing: it reads what was chosen, and after a finding leaves the end-of-text token alone.
    Redacting works there as well, choosing again does not.
    """

    name = "guard"
    believes = False
    masks = True

    def __init__(self, guard: Guard, causal: CausalModel) -> None:
        if causal.tokenizer is None:
            raise UsageError(
                f"a guard cannot read what {causal.name} says",
                why="the model has no tokenizer, so its tokens have no text",
                fix="give a folder that holds a tokenizer",
            )
        self._guard = guard
        self._causal = causal
        self._end_ids = _end_ids(causal)
        self._rows: list[_Row] = []
        self._width = 0
        self._logprobs: torch.Tensor | None = None
        self._asked = False

    def describe(self) -> dict[str, Any]:
        return self._guard.describe()

    def begin(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> None:
        """A run begins: what was read in an earlier one is forgotten."""
        self._rows, self._width, self._logprobs, self._asked = [], 0, None, False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The logits as they are; in plain ``generate()``, for rows that are to end, the end-of-text token alone."""
        if not self._rows:
            self._rows = [self._new_row(ids) for ids in input_ids.tolist()]
        elif not self._asked:
            self._catch_up(input_ids)
        self._width = input_ids.shape[1]
        if self._guard.min_logprob is not None:
            self._logprobs = scores.log_softmax(-1)
            for row in self._rows:
                row.heard = False
        ended = [number for number, row in enumerate(self._rows) if row.ended]
        if self._asked or not ended or not self._end_ids:
            return scores
        left = scores.clone()
        left[ended] = -torch.inf
        last = sorted(self._end_ids)
        left[torch.tensor(ended)[:, None], torch.tensor(last)] = scores[ended][:, last]
        return left

    def veto(self, row: int, token_id: int) -> bool:
        """Whether the text, if it ended with this token, would contain something to be found. False after so many tries."""
        one = self._rows[row]
        if self._guard.action != "resample" or one.ended or one.tries >= self._guard.tries:
            return False
        found = self._foreseen(one, self._piece(one, token_id), token_id, self._logprob(row, token_id))
        if not found:
            return False
        one.tries += 1
        place = one.stream.n_bytes
        reasons = dict.fromkeys(finding.reason for finding in found)
        one.decisions += [Decision(one.position, 0, "resample", place, place, reason) for reason in reasons]
        return True

    def accept(self, row: int, token_id: int) -> bool:
        self._asked = True
        return self._take(row, token_id)

    def decisions(self, row: int) -> Sequence[Decision]:
        if not self._rows:  # the run was cut off before its first choice
            return []
        one = self._rows[row]
        decided, one.decisions = one.decisions, []
        return decided

    def close(self, row: int) -> None:
        """The row's text has ended: what is held back is judged as it stands. Decisions may follow.

        An end-of-text token alone does not say so: where it is ignored the text goes on.
        """
        if not self._rows:
            return
        one = self._rows[row]
        if not one.ended:
            self._end(one)
            self._decide(one, one.position - 1)

    def shown(self, row: int) -> str:
        """What may be shown of a row so far."""
        return "".join(self._rows[row].shown)

    # -- one token -----------------------------------------------------------------------------------------------------

    def _new_row(self, prompt: list[int]) -> _Row:
        spelling = self._causal.pieces.spelling(prompt, owner=self._causal.tokenizer)
        return _Row(self._guard.stream(), spelling, prompt, len(prompt))

    def _catch_up(self, input_ids: torch.Tensor) -> None:
        """Read what ``generate()`` chose without asking."""
        if self._guard.action == "resample":
            raise RuleError(
                "the guard cannot choose again",
                why="generate() asks its processors before a choice and not after it",
                fix="tokentape.record(source, prompt, rules=[Guard(..., action='resample')]); or action='stop'",
            )
        for row, ids in enumerate(input_ids[:, self._width :].tolist()):
            for token_id in ids:
                self._take(row, token_id)

    def _take(self, row: int, token_id: int) -> bool:
        """The token is said; whether the text ends with it."""
        one = self._rows[row]
        if one.ended:
            return True
        logprob, piece = self._logprob(row, token_id), one.spelling.feed(token_id)
        foreseen = self._guard.action == "resample" and self._foreseen(one, piece, token_id, logprob)
        one.shown.append(one.stream.feed(piece, logprob))
        one.ids.append(token_id)
        one.heard = True
        if foreseen or one.stream.stopped:
            self._end(one)
        self._decide(one, one.position)
        one.position += 1
        one.tries = 0
        return one.ended

    def _end(self, one: _Row) -> None:
        one.shown += [one.stream.feed(one.spelling.finish()), one.stream.close()]
        one.ended = True

    def _foreseen(self, one: _Row, piece: bytes, token_id: int, logprob: float | None) -> list[Finding]:
        return one.stream.foresee(piece, logprob, final=token_id in self._end_ids)

    def _decide(self, one: _Row, position: int) -> None:
        action = "redact" if self._guard.action == "redact" else "stop"
        placeholder = self._guard.placeholder if action == "redact" else ""
        after = f", also after {one.tries} other tokens" if one.tries else ""
        one.decisions += [
            Decision(position, 0, action, found.start, found.stop, found.reason + after, placeholder)
            for found in one.stream.take()
        ]

    def _piece(self, one: _Row, token_id: int) -> bytes:
        """The bytes that a token would add, without adding it."""
        if self._causal.pieces.exact:
            return copy.copy(one.spelling).feed(token_id)
        spelling = self._causal.pieces.spelling(one.prompt)
        spelling.feed_all(one.ids)
        return spelling.feed(token_id)

    def _logprob(self, row: int, token_id: int) -> float | None:
        """The log-probability of a choice; None for what follows it before the model is asked again."""
        if self._logprobs is None or self._rows[row].heard or token_id in self._end_ids:
            return None  # how sure the model is that it has finished says nothing of the text
        return float(self._logprobs[row, token_id])


def _end_ids(causal: CausalModel) -> frozenset[int]:
    configured = causal.model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(int(i) for i in (*listed, causal.tokenizer.eos_token_id) if i is not None)  # type: ignore[union-attr]
