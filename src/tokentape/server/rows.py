"""What a page has of a tape, and what has come since: the columns of the new steps and tokens."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from tokentape.data.control import Decision, Outcome
from tokentape.data.exchange import Exchange
from tokentape.data.trace import Candidates, Columns, Piece, Symbols, Trace
from tokentape.errors import TapeError
from tokentape.study.times import token_steps
from tokentape.views.page.runs import run_part
from tokentape.views.page.symbols import drawn_alone, n_prompt_places, open_tokens, symbols_part
from tokentape.views.page.tokens import tokens_part
from tokentape.views.page.withheld import LetThrough, let_through

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["Mark", "Moment", "moment_of"]

_CHARACTER = 4
"""Bytes of the longest character."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How much of a tape a page has: ``steps`` rows of its last run, and all that came with them.

    ``tape`` tells the tape from another that took its place, ``settled`` the form of a file that no longer grows (empty while it
    does). As text it is the id of an event.
    """

    tape: str
    run: int
    steps: int
    settled: str = ""

    def __str__(self) -> str:
        return f"{self.tape}.{self.run}.{self.steps}.{self.settled}"

    @classmethod
    def parse(cls, text: str) -> Mark | None:
        """The mark that a page sent; None for what is none."""
        found = re.fullmatch(r"([0-9a-f]{16})\.(-1|\d{1,9})\.(\d{1,12})\.([0-9a-f]{0,16})", text, re.ASCII)
        return None if found is None else cls(found[1], int(found[2]), int(found[3]), found[4])

    def grows_into(self, other: Mark) -> bool:
        """Whether rows are all that it lacks of the other."""
        return (self.tape, self.run) == (other.tape, other.run) and self.steps <= other.steps


@dataclass(frozen=True, slots=True)
class Moment:
    """The run that grows, as it was at one moment; everything has been read."""

    mark: Mark
    state: str
    n_traces: int
    traces: tuple[Trace, ...]
    """Those of the last run, as a guard lets them be seen."""
    pieces: Mapping[int, Piece]

    def rows_since(self, steps: int) -> dict[str, Any]:
        """The steps from number ``steps`` on, and the tokens that they gave, in the columns of the page's document.

        ``from`` says which entry of the page's columns is the first to be replaced: a character that was not whole is drawn
        anew when its last bytes have come.
        """
        traces = [_new_symbols(trace, self, steps) for trace in self.traces]
        ids = [
            number
            for trace in traces
            for row in (*trace["tokens"]["candidate_ids"], trace["tokens"]["wanted"])
            for number in row
            if number is not None
        ]
        return {
            "run": _new_steps(self.traces[0], steps),
            "traces": traces,
            "pieces": drawn_alone(self.pieces, ids),
        }


def moment_of(tape: Tape, settled: str = "", *, withheld: bool = False) -> Moment:
    """What is in the tape now; ``settled`` is kept in the mark, of a tape that does not grow.

    ``withheld`` takes in what a guard withheld.
    """
    seen = tape if withheld else let_through(tape)
    last = len(tape.runs) - 1
    traces = tuple(trace for trace in seen.traces if trace.run.number == last)
    for trace in traces:  # all that is asked for later is read now, while the file is open
        trace.tokens, trace.steps, trace.exchange, n_prompt_places(trace)
    steps = traces[0].steps.n_rows if traces else 0
    mark = Mark(_identity(tape), last, steps, "" if tape.state == "recording" else settled)
    return Moment(mark, tape.state, len(seen.traces), traces, tape.pieces)


def _identity(tape: Tape) -> str:
    """Tells a tape from every other, also from one that is recorded over it."""
    try:
        inode = None if tape.path is None else tape.path.stat().st_ino
    except OSError as error:
        raise TapeError(f"{tape.path} is gone", why=str(error), fix="record it again") from error
    facts = (inode, *(tape.notes.get(name) for name in ("created_utc", "origin_unix_ns")))
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _new_steps(trace: Trace, steps: int) -> dict[str, Any]:
    """The columns of the run from step ``steps`` on; one step more is read, which the first pause is counted from."""
    read_from = max(0, steps - 1) if trace.run.start_ns is not None else 0
    columns = run_part(_tail(trace, tokens_from=0, steps_from=read_from))
    return _cut(columns, steps - read_from) | {"from": steps}


def _new_symbols(trace: Trace, moment: Moment, steps: int) -> dict[str, Any]:
    """The columns of a trace from the first token of step ``steps`` on."""
    first = int(np.searchsorted(token_steps(trace), steps))
    drawn_from = _whole_character(trace, first)
    tape = cast("Tape", moment)  # of the tape they are asked for its pieces alone
    # one token more is read, which the first gap is counted from
    read_from = max(0, first - 1)
    tokens = _cut(tokens_part(_tail(trace, tokens_from=read_from)), first - read_from)
    if drawn_from == 0:  # the last of the prompt may be unfinished too
        place, symbols = 0, symbols_part(trace, tape)
    else:
        place, symbols = n_prompt_places(trace) + drawn_from, symbols_part(_tail(trace, tokens_from=drawn_from), tape)
    return {
        "number": trace.number,
        "tokens": tokens | {"from": first},
        "symbols": symbols | {"from": place},
    }


def _whole_character(trace: Trace, first: int) -> int:
    """The token at or before ``first`` where no character is under way; 0 where one that the prompt began may be."""
    data = trace.token_bytes
    base = _beyond(data, first, -1)
    if base == 0 and all(byte & 0xC0 == 0x80 for one in data[:first] for byte in one or b""):
        return 0
    is_open = open_tokens(data[base : _beyond(data, first, 1)])
    while first > base and is_open[first - base - 1]:
        first -= 1
    return first


def _beyond(data: list[bytes | None], seam: int, way: int) -> int:
    """The token as many bytes before or behind a seam as a character may have; the end, or where bytes are not known."""
    n_bytes, at = 0, seam
    while n_bytes < _CHARACTER and 0 <= (place := at - (way < 0)) < len(data) and (one := data[place]) is not None:
        n_bytes += len(one)
        at += way
    return at


def _cut(columns: dict[str, Any], n: int) -> dict[str, Any]:
    return {name: column[n:] if isinstance(column, list) else column for name, column in columns.items()}


def _tail(trace: Trace, *, tokens_from: int, steps_from: int = 0) -> Trace:
    """The trace without its prompt and its first tokens; what is known of the rest stays as it is."""
    loader = _Tail(trace, tokens_from, steps_from)
    cut = Trace(trace.number, trace.run, trace.row, trace.n_prompt, trace.finish_reason, loader)
    if not isinstance(trace, LetThrough):
        return cut
    return LetThrough(
        cut.number, cut.run, cut.row, cut.n_prompt, cut.finish_reason, loader, trace.withheld[tokens_from:]
    )


class _Tail:
    """What a trace has read, without the prompt and what comes before; the file is not asked again."""

    def __init__(self, trace: Trace, tokens_from: int, steps_from: int) -> None:
        self._trace = trace
        self._tokens_from = tokens_from
        self._steps_from = steps_from

    def prompt(self, trace: int) -> tuple[str | None, npt.NDArray[np.int64] | None]:
        return None, np.empty(0, np.int64)

    def symbols(self, trace: int) -> tuple[Symbols, Symbols]:
        start, found = self._tokens_from, self._trace.candidates
        candidates = Candidates(found.ids[start:], found.logprob[start:])
        past = Symbols(
            _later(self._trace.tokens, self._trace.tokens.n_rows), [], Candidates(found.ids[:0], found.logprob[:0])
        )
        return Symbols(_later(self._trace.tokens, start), self._trace.token_bytes[start:], candidates), past

    def steps(self, run: int) -> Columns:
        return _later(self._trace.steps, self._steps_from)

    def effects(self, trace: int, last: int) -> Columns:
        return self._trace.effects

    def decisions(self, trace: int) -> tuple[Decision, ...]:
        return self._trace.decisions

    def outcomes(self, trace: int) -> tuple[Outcome, ...]:
        return self._trace.outcomes

    def exchange(self, run: int) -> Exchange | None:
        return self._trace.exchange


def _later(columns: Columns, start: int) -> Columns:
    return Columns({name: columns[name][start:] for name in columns}, max(0, columns.n_rows - start))
