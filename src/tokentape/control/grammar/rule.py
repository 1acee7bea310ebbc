"""The rule that holds every row of a batch to a grammar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tokentape.control.grammar.grammar import Grammar, check_going
from tokentape.control.grammar.validation import judged
from tokentape.control.grammar.vocabulary import Vocabulary
from tokentape.data.control import Outcome
from tokentape.errors import RuleError

__all__ = ["GrammarRule"]

OPEN, ENDED, CORNERED, STRAYED = "open", "ended", "cornered", "strayed"
"""Where a row stands: within the language; at an end that nothing follows; where no token can follow; after a token that is not
of the language, which something else chose or filled in."""


@dataclass(slots=True)
class _Row:
    matcher: Any
    ids: list[int] = field(default_factory=list)
    state: str = OPEN
    stray: int | None = None


class GrammarRule:
    """Lets only those tokens follow with which a text of the grammar goes on; made by :meth:`Grammar.bound` for one run.

    Rows are told apart by their place in the batch, and are followed by what each call brings beyond the one before. Rows
    whose text has ended are left as they are. Where no token can follow, all are banned.

    Where bytes are forced, the engine allows the one token with which the tokenizer itself would write them: the same text
    in smaller tokens is a way of writing that the model was not trained on.
    """

    name = "grammar"
    believes = False
    masks = True

    def __init__(self, grammar: Grammar, vocabulary: Vocabulary) -> None:
        self.grammar = grammar
        self.eos = vocabulary.eos
        """The ids that end a text; to be set before the run where its options name others."""
        self._vocabulary = vocabulary
        self._start = vocabulary.matcher(grammar)
        self._rows: list[_Row] = []
        self._n_prompt = self._n_seen = 0
        self._packed = np.zeros((0, 0), np.uint32)

    def describe(self) -> dict[str, Any]:
        return self.grammar.describe()

    def begin(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> None:
        """Every row at the start of the grammar, behind its prompt."""
        n_rows, self._n_prompt = input_ids.shape
        self._rows = [self._fresh() for _ in range(n_rows)]
        self._n_seen = self._n_prompt
        self._packed = np.zeros((n_rows, -(-self._vocabulary.engine.vocab_size // 32)), np.uint32)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._read(input_ids)
        mask = torch.from_numpy(self._mask(scores.shape[1])).to(scores.device)
        return torch.where(mask, scores, -torch.inf)

    def forced(self, input_ids: torch.Tensor) -> Sequence[int]:
        """The ids that must follow ``[1, T]``, as the tokenizer itself would cut their text, with the end of text if that has to.

        Of several ends of text none is forced. Where the tokenizer changes what it cuts, nothing is.
        """
        self._read(input_ids)
        (row,) = self._rows
        if row.state != OPEN:
            return []
        ids: list[int] = row.matcher.compute_ff_tokens()
        check_going(row.matcher)
        then = row.matcher.deep_copy()
        if then.consume_tokens(ids) and then.is_stopped() and len(self.eos) == 1:
            ids += self.eos
        return ids

    def ended(self, input_ids: torch.Tensor) -> list[bool]:
        """For each row of ``[B, T]`` whether its text is whole and nothing follows: an end of text was chosen, or there is none."""
        self._read(input_ids)
        return [row.state == ENDED for row in self._rows]

    def outcomes(self, input_ids: torch.Tensor) -> list[Outcome]:
        """How each row of ``[B, T]`` ended. ``rule`` is 0: which number a rule has the run knows."""
        self._read(input_ids)
        return [self._outcome(row) for row in self._rows]

    def _fresh(self) -> _Row:
        row = _Row(self._start.deep_copy())
        self._follow(row, [])
        return row

    def _read(self, input_ids: torch.Tensor) -> None:
        """Take in what ``[B, T]`` holds beyond what was shown before; shown first without :meth:`begin`, it is the prompt.

        Fewer ids than before are read anew. Raises RuleError where the rows are not those shown before.
        """
        n_rows, n_shown = input_ids.shape
        if not self._rows:
            self.begin(input_ids)
        if n_rows != len(self._rows) or n_shown < self._n_prompt:
            raise _other_rows(f"it saw {len(self._rows)} rows of {self._n_seen} tokens, and now {n_rows} of {n_shown}")
        if n_shown < self._n_seen:
            self._rows, self._n_seen = [self._fresh() for _ in range(n_rows)], self._n_prompt
        if n_shown == self._n_seen:
            return
        # one id that is known already is read again, to see that the rows are still in their places
        from_id = max(self._n_seen - 1, self._n_prompt)
        for row, ids in zip(self._rows, input_ids[:, from_id:].tolist(), strict=True):
            known, new = ids[: self._n_seen - from_id], ids[self._n_seen - from_id :]
            if row.state == OPEN and row.ids[len(row.ids) - len(known) :] != known:
                raise _other_rows("a row no longer ends in the token that was chosen for it")
            self._follow(row, new)
        self._n_seen = n_shown

    def _follow(self, row: _Row, ids: list[int]) -> None:
        """Move a row on by what was chosen for it."""
        if row.state != OPEN:
            return
        end = next((i for i, token_id in enumerate(ids) if token_id in self.eos), len(ids))
        n_followed = row.matcher.try_consume_tokens(ids[:end])
        check_going(row.matcher)
        row.ids += ids[:n_followed]
        if n_followed < end:
            row.state, row.stray = STRAYED, ids[n_followed]
        elif end < len(ids) and not row.matcher.is_accepting():
            row.state, row.stray = STRAYED, ids[end]
        elif end < len(ids) or (not self.eos and row.matcher.is_stopped()):
            row.state = ENDED

    def _mask(self, width: int) -> Any:
        """``[B, width]`` booleans: which tokens may follow. Ids beyond the vocabulary never may."""
        self._packed[:] = 0
        for row, packed in zip(self._rows, self._packed, strict=True):
            if row.state == OPEN:
                self._ask(row, packed)
        known = min(width, self._vocabulary.engine.vocab_size)
        mask = np.zeros((len(self._rows), width), np.bool_)
        mask[:, :known] = np.unpackbits(self._packed.view(np.uint8), axis=1, count=known, bitorder="little")
        for row, line in zip(self._rows, mask, strict=True):
            if row.state == OPEN and not line.any():
                row.state = CORNERED
            if row.state in (ENDED, STRAYED):
                line[:] = True
        return mask

    def _ask(self, row: _Row, packed: Any) -> None:
        """Have the engine write which tokens may follow, one bit each, and put the ends of text right."""
        row.matcher.unsafe_compute_mask_ptr(packed.ctypes.data, packed.nbytes)
        check_going(row.matcher)
        # where no token can follow, it writes its end of text for a way out, and does not call the text whole
        whole = row.matcher.is_accepting()
        for token_id in self.eos | {self._vocabulary.end}:
            word, bit = divmod(token_id, 32)
            if word < len(packed):
                packed[word] &= ~np.uint32(1 << bit)
                if whole and token_id in self.eos:
                    packed[word] |= np.uint32(1 << bit)

    def _outcome(self, row: _Row) -> Outcome:
        pieces = self._vocabulary.pieces
        said = b"".join(pieces.piece(token_id).bytes for token_id in row.ids)
        if row.state == CORNERED:
            return Outcome(0, "cornered", None, f"after {len(said)} bytes no token of the vocabulary can follow")
        # what is filled in behind a row that something else has ended is no choice
        if row.stray is not None and not pieces.piece(row.stray).special:
            token = pieces.piece(row.stray).token
            return Outcome(
                0, "unfinished", None, f"after {len(said)} bytes {token!r} was chosen, which is not of the language"
            )
        if row.state != ENDED and not row.matcher.is_accepting():
            return Outcome(0, "unfinished", None, f"cut off after {len(said)} bytes")
        return Outcome(0, "complete", *judged(self.grammar, said))


def _other_rows(why: str) -> RuleError:
    return RuleError(
        "a grammar follows the rows of one run, and these are others",
        why=why,
        fix="bind the grammar anew for each run, and leave out what moves rows, such as num_beams",
    )
