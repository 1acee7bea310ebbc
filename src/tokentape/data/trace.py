"""What a tape gives back: columns, runs, traces. Values that read themselves on first use and never change."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tokentape.data.control import Decision, Outcome, RuleHead
from tokentape.data.exchange import Exchange
from tokentape.data.shown import shown
from tokentape.display import Displayed

__all__ = ["Candidates", "Columns", "Piece", "RecordedRun", "Symbols", "Trace"]

Masked = np.ma.MaskedArray[Any, Any]


class Columns(Mapping[str, Masked]):
    """Columns of a series by name, all of one length: read-only masked arrays, masked where the value is unavailable.

    Under a mask lies NaN in floats and the least value of the type in integers, so that a leak is seen. ``n_rows`` is their
    length; ``len()`` is the number of columns, as in any mapping. An unknown name raises KeyError with the names there are.
    A column may be given as what makes it: of thousands of short traces few are looked at, and numpy takes longer for a masked
    array than for its values.
    """

    def __init__(self, columns: Mapping[str, Masked | Callable[[], Masked]], n_rows: int) -> None:
        self._columns = dict(columns)
        self.n_rows = n_rows

    def __getitem__(self, name: str) -> Masked:
        try:
            found = self._columns[name]
        except KeyError:
            raise KeyError(f"no column {name!r}; there are {', '.join(self._columns)}") from None
        if isinstance(found, np.ma.MaskedArray):
            return found
        made = self._columns[name] = found()
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"Columns({self.n_rows} rows: {', '.join(self._columns)})"


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """One call of a source, as it was recorded.

    ``options`` are the generation options that held; ``start_ns`` is when the request was handed over, on the host clock
    since the tape's origin; ``finished`` is False where recording stopped in the middle; ``rules`` are what was measured
    between the model's logits and the choice, in order.
    """

    number: int
    start_ns: int | None
    options: Mapping[str, Any]
    seed: int | None
    n_traces: int
    finished: bool
    rules: tuple[RuleHead, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of the vocabulary: ``token`` is the vocabulary's own string, ``bytes`` what it stands for in text."""

    id: int
    token: str | None
    bytes: bytes
    special: bool


@dataclass(frozen=True, slots=True)
class Candidates:
    """The best tokens of each position, best first: ``ids`` and ``logprob`` (nats), both ``[T, k]`` and masked at the end of
    rows that have fewer.
    """

    ids: Masked
    logprob: Masked


@dataclass(frozen=True, slots=True)
class Symbols:
    """The tokens of one trace as read: their columns, their bytes (None where a token has no text) and their candidates."""

    columns: Columns
    bytes: list[builtins.bytes | None]
    candidates: Candidates


class Loader(Protocol):
    """What a trace needs of the tape it came from."""

    def prompt(self, trace: int) -> tuple[str | None, npt.NDArray[np.int64] | None]: ...

    def symbols(self, trace: int) -> tuple[Symbols, Symbols]: ...

    def steps(self, run: int) -> Columns: ...

    def effects(self, trace: int, last: int) -> Columns: ...

    def decisions(self, trace: int) -> tuple[Decision, ...]: ...

    def outcomes(self, trace: int) -> tuple[Outcome, ...]: ...

    def exchange(self, run: int) -> Exchange | None: ...


@dataclass(frozen=True, eq=False)
class Trace(Displayed):
    """One sequence: its prompt, its tokens, and the steps of the run it was part of.

    ``n_prompt`` counts the prompt's tokens, padding excluded: the position of the first token after it. Columns are read
    from the tape on first use. Tokens computed after the sequence had ended are apart, in ``overshoot``.
    """

    number: int
    run: RecordedRun
    row: int
    n_prompt: int | None
    finish_reason: str | None
    loader: Loader = field(repr=False)

    @cached_property
    def _prompt(self) -> tuple[str | None, npt.NDArray[np.int64] | None]:
        return self.loader.prompt(self.number)

    @property
    def prompt_text(self) -> str | None:
        """The prompt; None where only ids were given, or text was not to be kept."""
        return self._prompt[0]

    @property
    def prompt_ids(self) -> npt.NDArray[np.int64] | None:
        """Ids of the prompt ``[P]``, without padding; None where the source does not say."""
        return self._prompt[1]

    @cached_property
    def _symbols(self) -> tuple[Symbols, Symbols]:
        return self.loader.symbols(self.number)

    @property
    def tokens(self) -> Columns:
        """Columns of the tokens of the sequence."""
        return self._symbols[0].columns

    @property
    def overshoot(self) -> Columns:
        """Columns of the tokens past its end, if any were computed."""
        return self._symbols[1].columns

    @cached_property
    def steps(self) -> Columns:
        """Columns of all steps of the run; ``tokens["step"]`` points into them."""
        return self.loader.steps(self.run.number)

    @property
    def _last(self) -> int:
        """The position of the last token that was read, overshoot included."""
        return max((int(part.columns["position"][-1]) for part in self._symbols if part.columns.n_rows), default=-1)

    @cached_property
    def effects(self) -> Columns:
        """What each rule did to the choice of each token: a row for each, in the order of positions and rules."""
        return self.loader.effects(self.number, self._last)

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """What a guard decided, in order."""
        return self.loader.decisions(self.number)

    @cached_property
    def outcomes(self) -> tuple[Outcome, ...]:
        """How the constraints of the run ended for this sequence."""
        return self.loader.outcomes(self.number)

    @property
    def exchange(self) -> Exchange | None:
        """What passed between client and server for the run; None where no server was asked, or before it ended."""
        return self.loader.exchange(self.run.number)

    @property
    def token_ids(self) -> npt.NDArray[np.int64]:
        """Vocabulary ids ``[T]``; the least int64 where a source gave text alone."""
        ids: npt.NDArray[np.int64] = self.tokens["id"].data
        return ids

    @property
    def candidates(self) -> Candidates:
        """The best tokens at each position, ``[T, k]``; k is 0 where none were kept."""
        return self._symbols[0].candidates

    @property
    def token_bytes(self) -> list[builtins.bytes | None]:
        """The bytes of each token; None where text was not to be kept."""
        return list(self._symbols[0].bytes)

    @property
    def bytes(self) -> builtins.bytes | None:
        """The bytes of the sequence; None where those of a token are not known."""
        parts = self._symbols[0].bytes
        if any(part is None for part in parts):
            return None
        return b"".join([part for part in parts if part is not None])

    @property
    def text(self) -> str | None:
        """The bytes as UTF-8, with U+FFFD for what is none; a character whose bytes several tokens hold is whole."""
        raw = self.bytes
        return None if raw is None else raw.decode("utf-8", "replace")

    @property
    def shown(self) -> str | None:
        """The text as a guard let it be seen; without one, the text. None where the guard did not come to its last judgement."""
        raw = self.bytes
        unjudged = self.guarded and self.finish_reason is None
        return None if raw is None or unjudged else shown(raw, self.decisions)

    @property
    def guarded(self) -> bool:
        """Whether a guard decided what may be shown."""
        return any(rule.name == "guard" for rule in self.run.rules)

    @property
    def has_withheld(self) -> bool:
        """Whether a guard decided something about the sequence, or may still."""
        return self.guarded and (bool(self.decisions) or self.finish_reason is None)

    def __repr__(self) -> str:
        return f"Trace({self.number}, run {self.run.number} row {self.row}, {self.finish_reason or 'not finished'})"
