"""A tape as a guard let it be seen.

``record`` prints of a guarded sequence only what the guard let through; ``show`` and SQL are of the tape and name every token. A
page is made to be handed on, so it does as ``record`` does. Of a sequence about which a guard decided something, the tokens
that it stopped or redacted have neither id nor bytes here, no token has candidates or another that it stands instead of (a guard
may have withheld just these), and there are no explanations and no readings, whose labels and tokens quote the text. Of a sequence
whose guard has not come to its last judgement every token is withheld. Times, probabilities and ranks stay, which say nothing of
the words to whoever has not the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tokentape.data.control import Decision, Outcome
from tokentape.data.exchange import Exchange
from tokentape.data.shown import characters, joined
from tokentape.data.tape import Tape
from tokentape.data.trace import Candidates, Columns, Symbols, Trace

if TYPE_CHECKING:
    from tokentape.data.explanation import Explanation
    from tokentape.data.reading import Reading, ReadingKind
    from tokentape.data.trace import Loader

__all__ = ["LetThrough", "has_withheld", "let_through", "withheld_tokens"]

_NAMING = ("id", "wanted")
"""Columns of a token that name one."""


def has_withheld(trace: Trace) -> bool:
    """Whether a guard decided something about the sequence, or may still."""
    return trace.guarded and (bool(trace.decisions) or trace.finish_reason is None)


def withheld_tokens(trace: Trace) -> list[str | None]:
    """For each token None where it may be shown; else what stands in its place, empty but for the first token of a stretch.

    A token of which a decision touches one byte is withheld whole; so are all of them where the bytes of one are not known.
    """
    data = trace.token_bytes
    if not has_withheld(trace):
        return [None] * len(data)
    if trace.finish_reason is None or any(one is None for one in data):
        return [""] * len(data)
    raw = b"".join(one or b"" for one in data)
    edges = [0, *accumulate(len(one or b"") for one in data)]
    spans = _spans(raw, trace.decisions)
    found: list[str | None] = []
    used: set[int] = set()
    for start, stop in pairwise(edges):
        touching = [i for i, (first, end, _) in enumerate(spans) if first < stop and start < end]
        new = [i for i in touching if i not in used]
        found.append("".join(spans[i][2] for i in new) if touching else None)
        used.update(touching)
    return found


def _spans(raw: bytes, decisions: Sequence[Decision]) -> list[tuple[int, int, str]]:
    """Stretches of bytes that are withheld, whole characters each, with what stands in their place."""
    found, _ = characters(raw)
    ends = np.array([0, *accumulate(size for _, size in found)], np.int64)
    spans, cut = [], len(raw)
    for one in decisions:
        start = int(ends[max(0, int(np.searchsorted(ends, one.start, "right")) - 1)])
        stop = int(ends[min(len(ends) - 1, int(np.searchsorted(ends, one.stop)))])
        if one.action == "stop":
            cut = min(cut, start)
        elif one.action == "redact":
            spans.append((start, max(start, stop), one.shown))
    kept = [(start, min(stop, cut), shown) for start, stop, shown in joined(spans) if start < cut]
    return [*kept, (cut, len(raw), "")]


@dataclass(frozen=True, eq=False)
class LetThrough(Trace):
    """A trace without what a guard withheld; ``withheld`` is that of :func:`withheld_tokens`."""

    withheld: tuple[str | None, ...] = ()


class _Loader:
    """Reads as another does, and leaves out what may not be shown."""

    def __init__(self, loader: Loader, withheld: Sequence[str | None]) -> None:
        self._loader = loader
        self._withheld = withheld

    def prompt(self, trace: int) -> tuple[str | None, npt.NDArray[np.int64] | None]:
        return self._loader.prompt(trace)

    def symbols(self, trace: int) -> tuple[Symbols, Symbols]:
        inside, past = self._loader.symbols(trace)
        return _without(inside, self._withheld), _without(past, [""] * len(past.bytes))

    def steps(self, run: int) -> Columns:
        return self._loader.steps(run)

    def effects(self, trace: int, last: int) -> Columns:
        return self._loader.effects(trace, last)

    def decisions(self, trace: int) -> tuple[Decision, ...]:
        return self._loader.decisions(trace)

    def outcomes(self, trace: int) -> tuple[Outcome, ...]:
        return tuple(replace(one, why=None) for one in self._loader.outcomes(trace))  # a validator may quote

    def exchange(self, run: int) -> Exchange | None:
        return self._loader.exchange(run)


def _without(symbols: Symbols, withheld: Sequence[str | None]) -> Symbols:
    hidden = np.array([one is not None for one in withheld], np.bool_)
    columns = {name: symbols.columns[name] for name in symbols.columns}
    columns["id"] = _masked(columns["id"], hidden)
    columns["wanted"] = _masked(columns["wanted"], np.ones_like(hidden))
    empty = np.empty((len(hidden), 0), np.bool_)
    none = Candidates(np.ma.MaskedArray(empty.astype("i4"), empty), np.ma.MaskedArray(empty.astype("f4"), empty))
    data = [None if out else own for out, own in zip(hidden, symbols.bytes, strict=True)]
    return Symbols(Columns(columns, symbols.columns.n_rows), data, none)


def _masked(column: Any, hidden: npt.NDArray[np.bool_]) -> Any:
    data = np.where(hidden, np.iinfo(np.int64).min, np.ma.getdata(column))
    return np.ma.MaskedArray(data, mask=np.ma.getmaskarray(column) | hidden)


def _seen(trace: Trace) -> Trace:
    if not has_withheld(trace):
        return trace
    withheld = tuple(withheld_tokens(trace))
    loader = _Loader(trace.loader, withheld)
    return LetThrough(trace.number, trace.run, trace.row, trace.n_prompt, trace.finish_reason, loader, withheld)


class _Seen(Tape):
    """A tape that gives of its traces what was let through; it shares the file of the tape that it is made of."""

    def __init__(self, tape: Tape) -> None:
        self.__dict__.update(tape.__dict__)
        self._whole = tape

    @cached_property
    def _let_through(self) -> list[Trace]:
        return [_seen(trace) for trace in self._whole.traces]

    @property
    def traces(self) -> Sequence[Trace]:
        return self._let_through

    def _hidden(self) -> set[int]:
        return {trace.number for trace in self._let_through if isinstance(trace, LetThrough)}

    @property
    def explanations(self) -> Sequence[Explanation]:
        hidden = self._hidden()
        return (
            [one for one in self._whole.explanations if one.trace not in hidden] if hidden else self._whole.explanations
        )

    @property
    def readings(self) -> Sequence[Reading]:
        hidden = self._hidden()
        return [one for one in self._whole.readings if one.trace not in hidden] if hidden else self._whole.readings

    def readings_of(self, trace: int, kind: ReadingKind) -> list[Reading]:
        return [] if trace in self._hidden() else self._whole.readings_of(trace, kind)


def let_through(tape: Tape) -> Tape:
    """The tape without what its guards withheld; itself where there was no guard. It lives no longer than the tape."""
    guarded = not isinstance(tape, _Seen) and any(trace.guarded for trace in tape.traces)
    return _Seen(tape) if guarded else tape
