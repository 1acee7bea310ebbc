"""A trace as a client of a server would have seen it: a request, and the messages that answered it.

A step is a message: of ``k`` tokens where it gave the trace ``k``, an empty one where it gave no sequence any. A step that gave
tokens to other sequences of the batch alone sends this one nothing. After the last token of a trace only messages of a served
stream (steps of kind ``chunk``) count, and only where the run has no other trace they could belong to: a model in this
process that runs on after the end sends nobody anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tokentape.data.schema import KINDS
from tokentape.study.times import token_steps

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["FAILED", "Answer", "Chunk", "answer", "answers", "window_ns"]

FAILED = ("error",)
CUT_SHORT = ("interrupted", None)
"""Reasons for which a trace ended before its answer did: Ctrl-C, or a recorder that stopped in the middle."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A message: when it was there, since the tape's origin, and the tokens in it, 0 or more."""

    at_ns: int
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client saw of one request.

    ``start_ns`` is when it was sent, since the tape's origin, None where that was not recorded. ``messages`` are all, empty
    ones too; ``chunks`` those with a token. ``outcome`` is ``"ended"``, ``"failed"`` or ``"cut short"``.
    """

    trace: int
    run: int
    start_ns: int | None
    messages: tuple[Chunk, ...]
    outcome: str

    @property
    def chunks(self) -> list[Chunk]:
        return [chunk for chunk in self.messages if chunk.n_tokens]

    @property
    def n_tokens(self) -> int:
        return sum(chunk.n_tokens for chunk in self.messages)

    def since_start(self, at_ns: int) -> int | None:
        """The time from the request to a moment; None where its start is unknown."""
        return None if self.start_ns is None else at_ns - self.start_ns


def answer(trace: Trace) -> Answer:
    """One trace as the answer to a request."""
    steps = trace.steps
    counts = Counter(token_steps(trace))
    silent = np.asarray(steps["n_out"]) == 0
    ends = np.asarray(steps["end_ns"]).tolist()
    last = max(counts, default=len(ends) - 1)
    streamed = (np.asarray(steps["kind"]) == KINDS.index("chunk")) & (trace.run.n_traces == 1)
    rows = [i for i in range(len(ends)) if i in counts or (silent[i] and (i <= last or streamed[i]))]
    messages = tuple(Chunk(ends[i], counts.get(i, 0)) for i in rows)
    return Answer(trace.number, trace.run.number, trace.run.start_ns, messages, _outcome(trace.finish_reason))


def answers(tape: Tape) -> list[Answer]:
    """Every trace of a tape as the answer to a request, in order."""
    return [answer(trace) for trace in tape.traces]


def window_ns(found: Sequence[Answer], *, content: bool = False) -> int | None:
    """From the first request to the last message of any, with ``content`` to the last that had a token.

    None where a start is unknown, or there is no such message.
    """
    ends = [m.at_ns for one in found for m in one.messages if m.n_tokens or not content]
    starts = [one.start_ns for one in found]
    known = [start for start in starts if start is not None]
    if not ends or len(known) < len(starts):
        return None
    return max(ends) - min(known)


def _outcome(reason: str | None) -> str:
    return "failed" if reason in FAILED else "cut short" if reason in CUT_SHORT else "ended"
