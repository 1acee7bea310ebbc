"""A trace as a client of a server would have seen it: a request, and the messages that answered it.

A step is a message: of ``k`` tokens where it gave the trace ``k``, an empty one where it gave no sequence any. A step that gave
tokens to other sequences of the batch alone sends this one nothing. After the last token of a trace only messages of a served
stream (steps of kind ``chunk``) count, and only where the run has no other trace they could belong to: a model in this
process that runs on after the end sends nobody anything.

What passed with a server says more than the rows do, and where it says less nothing is made up:

* of a ``coarse`` answer a row is a piece of text of *some* tokens, and N is what the server counted, if it did and if nobody
  else had part in the count;
* of an answer of which the ``ends`` are known, the first and the last piece, what lies between them is not;
* a message about no sequence (its ``batch`` is 0), such as the count of tokens alone, is none of the answer; nor is what comes
  before the first token of a chat and only says whose turn it is. The answer is over when the exchange is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import dropwhile
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.data.schema import CHANNELS, KINDS
from tokentape.study.times import token_steps

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = [
    "FAILED",
    "Answer",
    "Chunk",
    "answer",
    "answers",
    "duration_ns",
    "imported",
    "is_placed",
    "total_tokens",
    "window_ns",
]

FAILED = ("error",)
CUT_SHORT = ("interrupted", None)
"""Reasons for which a trace ended before its answer did: Ctrl-C, or a recorder that stopped in the middle."""

VAGUE = ("coarse", "ends")
"""Labels of exchanges of which a row is no token."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A message: when it was there, since the tape's origin, and the tokens in it: 0, more, or None for some.

    ``blank`` is True where its tokens have no text, such as the end of text or a part of a character.
    """

    at_ns: int
    n_tokens: int | None
    blank: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client saw of one request.

    ``start_ns`` is when it was sent, since the tape's origin, None where that was not recorded. ``messages`` are all, empty
    ones too; ``chunks`` those with a token, ``shown`` those with text. ``outcome`` is ``"ended"``, ``"failed"`` or
    ``"cut short"``. ``n_told`` is what the
    server counted for it, ``closed_ns`` the end of the exchange, both None without one. ``whole`` is False where only the first
    and the last chunk are known, ``placed`` where its times hold among themselves alone, not beside those of other requests.
    ``output_ns`` is the first chunk with text that was no reasoning, None where there is none; ``n_prompt`` counts the
    prompt's tokens. ``streamed`` is False where the answer came in one piece: when its first token was there is not known.
    """

    trace: int
    run: int
    start_ns: int | None
    messages: tuple[Chunk, ...]
    outcome: str
    n_told: int | None = None
    closed_ns: int | None = None
    whole: bool = True
    placed: bool = True
    output_ns: int | None = None
    n_prompt: int | None = None
    streamed: bool = True

    @property
    def first_ns(self) -> int | None:
        """When the first token came; None where there is none, or all came in one piece."""
        return self.chunks[0].at_ns if self.streamed and self.chunks else None

    @property
    def chunks(self) -> list[Chunk]:
        return [chunk for chunk in self.messages if chunk.n_tokens != 0]

    @property
    def shown(self) -> list[Chunk]:
        """The chunks with text: those that most clients take for any."""
        return [chunk for chunk in self.chunks if not chunk.blank]

    @property
    def sizes(self) -> list[int] | None:
        """The tokens in each chunk; None where a number is not known."""
        known = [chunk.n_tokens for chunk in self.chunks if chunk.n_tokens is not None]
        return known if self.whole and len(known) == len(self.chunks) else None

    @property
    def shown_sizes(self) -> list[int] | None:
        """The tokens that each chunk with text brought, those of blank ones before it included; None likewise."""
        if self.sizes is None:
            return None
        found, waiting = [], 0
        for chunk, size in zip(self.chunks, self.sizes, strict=True):
            waiting += size
            if not chunk.blank:
                found.append(waiting)
                waiting = 0
        return found

    @property
    def n_tokens(self) -> int | None:
        """The tokens of the answer; None where neither rows nor server tell."""
        sizes = self.sizes
        if not self.messages:
            return self.n_told or 0
        return self.n_told if sizes is None else sum(sizes)

    @property
    def ended_ns(self) -> int | None:
        """When the answer was over: the end of the exchange, without one the last message; None where there was neither."""
        if self.closed_ns is not None:
            return self.closed_ns
        return self.messages[-1].at_ns if self.messages else None

    @property
    def ttft_ns(self) -> int | None:
        """Time to first token; None where either end is not known."""
        return None if self.first_ns is None else self.since_start(self.first_ns)

    @property
    def e2e_ns(self) -> int | None:
        """From sending to the last token; None where either end is not known."""
        chunks = self.chunks
        return self.since_start(chunks[-1].at_ns) if chunks else None

    def since_start(self, at_ns: int) -> int | None:
        """The time from the request to a moment; None where its start is unknown."""
        return None if self.start_ns is None else at_ns - self.start_ns


def answer(trace: Trace) -> Answer:
    """One trace as the answer to a request."""
    steps, passed = trace.steps, trace.exchange
    counts = Counter(token_steps(trace))
    ends = np.asarray(steps["end_ns"]).tolist()
    rows = _rows(trace, counts)
    if "messages" in trace.run.options:  # a chat
        rows = list(dropwhile(lambda row: not counts.get(row), rows)) or rows
    vague = passed is not None and passed.label in VAGUE
    told, output = _with_text(trace)
    messages = tuple(
        Chunk(ends[i], None if vague and counts.get(i) else counts.get(i, 0), i in counts and i not in told)
        for i in rows
    )
    return Answer(
        trace.number,
        trace.run.number,
        trace.run.start_ns,
        messages,
        _outcome(trace.finish_reason),
        n_told=passed.n_completion if passed is not None and trace.run.n_traces == 1 else None,
        closed_ns=None if passed is None else passed.ended_ns,
        whole=passed is None or passed.label != "ends",
        output_ns=None if output is None else ends[output],
        n_prompt=trace.n_prompt if passed is None else passed.n_prompt,
        streamed=passed is None or passed.streamed,
    )


def _with_text(trace: Trace) -> tuple[set[int], int | None]:
    """The rows of the steps that gave the trace text, or tokens of which it is not known, and the first that was no reasoning."""
    channels = np.ma.filled(trace.tokens["channel"], CHANNELS.index("text")).tolist()
    told: set[int] = set()
    output: int | None = None
    for row, data, channel in zip(token_steps(trace), trace.token_bytes, channels, strict=True):
        if data is None or data:
            told.add(row)
            if output is None and channel != CHANNELS.index("reasoning"):
                output = row
    return told, output


def _rows(trace: Trace, counts: Mapping[int, int]) -> list[int]:
    """The rows of the steps that were a message to the trace."""
    steps = trace.steps
    silent = (np.asarray(steps["n_out"]) == 0) & (np.asarray(steps["batch"]) > 0)
    last = max(counts, default=len(silent) - 1)
    streamed = (np.asarray(steps["kind"]) == KINDS.index("chunk")) & (trace.run.n_traces == 1)
    return [i for i in range(len(silent)) if i in counts or (silent[i] and (i <= last or streamed[i]))]


def answers(tape: Tape, traces: Iterable[Trace] | None = None) -> list[Answer]:
    """Every trace of a tape as the answer to a request, in order; ``traces`` are these, where they have been read already."""
    found = [answer(trace) for trace in (tape.traces if traces is None else traces)]
    return found if is_placed(tape) else [replace(one, placed=False) for one in found]


def duration_ns(tape: Tape, tool: str) -> int | None:
    """How long the run took as ``tool`` measured it; None unless the tape holds its results, and they say so."""
    noted = imported(tape)
    told = noted.get("duration_ns") if noted.get("tool") == tool else None
    return told if isinstance(told, int) and told > 0 else None


def window_ns(found: Sequence[Answer], *, content: bool = False) -> int | None:
    """From the first request to the end of the last answer, with ``content`` to the last message that had text.

    None where a start is unknown, there is no such moment, or the requests have no common axis.
    """
    ends = [m.at_ns for one in found for m in one.shown] if content else [one.ended_ns for one in found]
    last = [end for end in ends if end is not None]
    known = [one.start_ns for one in found if one.start_ns is not None]
    if not last or len(known) < len(found) or not all(one.placed for one in found):
        return None
    return max(last) - min(known)


def total_tokens(found: Sequence[Answer]) -> int | None:
    """The tokens of all answers; None where those of one are not known."""
    known = [one.n_tokens for one in found if one.n_tokens is not None]
    return sum(known) if len(known) == len(found) else None


def is_placed(tape: Tape) -> bool:
    """Whether it is known when requests were due or sent beside one another: of some results of other tools it is not."""
    return "starts" not in imported(tape).get("lacks", ())


def imported(tape: Tape) -> Mapping[str, Any]:
    """What an importer noted of where the tape comes from; nothing for any other tape."""
    noted = tape.notes.get("imported")
    return noted if isinstance(noted, Mapping) else {}


def _outcome(reason: str | None) -> str:
    return "failed" if reason in FAILED else "cut short" if reason in CUT_SHORT else "ended"
