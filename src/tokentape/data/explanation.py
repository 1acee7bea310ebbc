"""The Explanation: how much each source contributed to each target, by some method, with the check of its replay."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from tokentape.data.columns import frozen
from tokentape.data.json_text import as_json
from tokentape.data.trace import Masked
from tokentape.display import Displayed
from tokentape.errors import UsageError

__all__ = ["EXPLAINED", "SOURCE_KINDS", "Explanation", "Kind", "ReplayCheck", "Source", "Unit", "fixed_json"]

Kind = Literal["logit", "foil", "logprob"]
EXPLAINED: tuple[Kind, ...] = get_args(Kind)
"""What is explained of a target: its logit less the mean over the vocabulary, its logit less a foil's, its log-probability."""

Unit = Literal["token", "word", "sentence", "part"]
SOURCE_KINDS: tuple[Unit, ...] = get_args(Unit)
"""What a source is: one token, a word, a sentence, a part of the prompt or of the answer."""

CANCELLED = 0.1
"""No shares where the tokens' sum is below this part of what was added and subtracted to get it: they would be above 1,000 %."""


@dataclass(frozen=True, slots=True)
class Source:
    """A stretch of the sequence: the positions ``start`` to ``stop``, half-open. ``label`` is its text as shown.

    Raises UsageError where it is empty, or of no known kind.
    """

    start: int
    stop: int
    label: str
    kind: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", int(self.start))  # of numpy's integers JSON knows nothing
        object.__setattr__(self, "stop", int(self.stop))
        if not 0 <= self.start < self.stop:
            raise UsageError(
                f"the source {self.start}:{self.stop} has no position",
                why="a source is a half-open range of positions, counted from 0",
                fix="Source(3, 4, 'cat', 'token')",
            )
        if self.kind not in SOURCE_KINDS:
            raise UsageError(
                f"no source is a {self.kind!r}", why="kinds are few", fix=f"one of {', '.join(SOURCE_KINDS)}"
            )


@dataclass(frozen=True, slots=True)
class ReplayCheck:
    """How far the log-probabilities of the replay are from those on the tape.

    ``largest`` and ``median`` are of ``|delta logprob|`` in nats over the ``n`` tokens that could be compared, null where
    there was none, or where the replay gave infinity or NaN; ``passed`` says whether the replay counts as the same
    computation within ``tolerance`` (nats), ``reason`` why not. ``how`` says what was played: the ids of the tape (``"ids"``);
    those that this tokenizer makes of the ``"prompt"``, or of the ``"text"``; with ``"choices"`` there were no log-probabilities,
    and the figures are of how far each token of the text lies below the model's first choice. Raises UsageError for a check that
    was passed with nothing to compare.
    """

    largest: float | None
    median: float | None
    n: int
    tolerance: float
    passed: bool
    reason: str | None = None
    how: str = "ids"

    def __post_init__(self) -> None:
        for name, kind in (("largest", float), ("median", float), ("n", int), ("tolerance", float), ("passed", bool)):
            value = getattr(self, name)
            object.__setattr__(self, name, kind(value) if value is not None and np.isfinite(value) else None)
        nothing = self.largest is None and self.median is None
        if (
            self.n is None
            or self.tolerance is None
            or (self.n == 0 and not nothing)
            or (self.passed and self.largest is None)
        ):
            raise UsageError(
                f"a replay check over {self.n} tokens, largest {self.largest}, tolerance {self.tolerance}, passed: {self.passed}",
                why="where nothing was compared there are no differences, and nothing was passed",
                fix="ReplayCheck(None, None, 0, tolerance, False, 'the tape has no log-probabilities')",
            )


@dataclass(frozen=True, eq=False)
class Explanation(Displayed):
    """Relevance of sources ``[S]`` for targets ``[n]``, found by replaying one trace.

    ``trace`` is the trace's number, ``method`` the method's name, ``options`` what held for it (JSON-able), ``kind`` one of
    :data:`EXPLAINED`. ``targets`` ``[n]`` are positions, ascending, ``target_ids`` ``[n]`` the tokens there, ``foil_ids``
    ``[n]`` what each is explained against (kind ``"foil"`` alone). ``together`` sums over the targets: one row of relevance
    then, else one for each target. ``relevance`` ``[rows, S]`` is in the unit of ``value`` ``[rows]``, which is what is
    explained as the replay computed it (logits, or nats for ``"logprob"``); masked, with NaN below, where the target cannot
    see the source. ``ledger`` is empty for a method that keeps no books; else it has ``tokens`` and whatever else adds up to
    ``value`` (biases, positions, leaks, residual), each ``[rows]``. ``passes`` counts the sequences that went through the model
    (forward, backward), ``cpu_ns`` is processor time, ``made`` says with what (versions, model, hash of its weights),
    ``notes`` what else the method found (steps, completeness).
    ``number`` is its place in a tape, null before it has one. ``withheld`` says that a guard withheld something of the trace, which
    the labels of the sources quote: that is known from the trace, and not kept.

    Arrays are read-only copies. Raises UsageError where parts do not fit one another.
    """

    trace: int
    method: str
    options: Mapping[str, Any]
    kind: str
    together: bool
    targets: npt.NDArray[np.int64]
    target_ids: npt.NDArray[np.int64]
    foil_ids: npt.NDArray[np.int64] | None
    sources: tuple[Source, ...]
    relevance: Masked
    value: npt.NDArray[np.float64]
    ledger: Mapping[str, npt.NDArray[np.float64]]
    check: ReplayCheck
    passes: Mapping[str, int]
    cpu_ns: int | None
    made: Mapping[str, Any]
    notes: Mapping[str, Any] = field(default_factory=dict)
    number: int | None = None
    withheld: bool = False

    def __post_init__(self) -> None:
        if self.kind not in EXPLAINED:
            raise UsageError(f"no target {self.kind!r}", why=f"there are {', '.join(EXPLAINED)}", fix="kind='logit'")
        if (self.foil_ids is None) is (self.kind == "foil"):
            raise UsageError(
                f"kind {self.kind!r} with {'no ' if self.foil_ids is None else ''}foils",
                why="a foil is the token that might have stood in a target's place",
                fix="foil_ids with kind='foil', and only there",
            )
        fixed: dict[str, Any] = {"targets": _targets(self.targets)}
        n = len(fixed["targets"])
        fixed["target_ids"] = _whole("target_ids", self.target_ids, n)
        if self.foil_ids is not None:
            fixed["foil_ids"] = _whole("foil_ids", self.foil_ids, n)
        fixed["sources"] = _in_order(self.sources)
        last = fixed["targets"][-1:] if self.together else fixed["targets"]
        fixed["relevance"] = _relevance(self.relevance, last, np.array([source.start for source in fixed["sources"]]))
        # SQLite keeps no sign of a zero, and what is asked again must be what was kept.
        fixed["value"] = _finite("value", np.asarray(self.value, np.float64) + 0.0, len(last))
        if self.ledger and "tokens" not in self.ledger:
            raise UsageError(
                f"a ledger of {', '.join(self.ledger)}",
                why="its first entry is what the tokens add up to",
                fix="a ledger with the entry 'tokens', or an empty one",
            )
        entries = {name: _finite(f"ledger {name!r}", entry, len(last)) for name, entry in self.ledger.items()}
        fixed["ledger"] = MappingProxyType(entries)
        for name in ("options", "made", "passes", "notes"):
            fixed[name] = fixed_json(f"{name!r} of an explanation", getattr(self, name))
        for name, value in fixed.items():
            object.__setattr__(self, name, value)

    def shares(self) -> Masked | None:
        """Relevance as parts of what all tokens add up to, ``[rows, S]``: negative where a source spoke against the target.

        None for a method without a ledger, whose relevance adds up to nothing in particular. A row is masked where the
        tokens' sum is all but cancelled (:data:`CANCELLED`); None where every row is.
        """
        if not self.ledger:
            return None
        tokens, mask = self.ledger["tokens"], np.ma.getmaskarray(self.relevance)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            moved = np.where(mask, 0.0, np.abs(self.relevance.data)).sum(1)
            booked = np.abs(list(self.ledger.values())).sum(0)
            telling = np.abs(tokens) > CANCELLED * np.maximum(moved, booked)
            parts = self.relevance.data / tokens[:, None]
        if not telling.any():
            return None
        mask = mask | ~telling[:, None]
        return frozen(np.where(mask, np.nan, parts), mask)

    def top(self, row: int, k: int) -> list[tuple[Source, float]]:
        """The ``k`` sources of a row with the largest relevance, by its absolute value; the earlier first where equal.

        Raises UsageError where there is no such row.
        """
        if not 0 <= row < len(self.value):
            raise UsageError(
                f"no row {row}",
                why=f"the explanation has {len(self.value)}, counted from 0",
                fix=f"0 to {len(self.value) - 1}",
            )
        mask = np.ma.getmaskarray(self.relevance)[row]
        size = np.where(mask, -1.0, np.abs(self.relevance.data[row]))
        places = np.argsort(-size, kind="stable")[: min(max(k, 0), int((~mask).sum()))]
        return [(self.sources[place], float(self.relevance.data[row, place])) for place in places]

    def __repr__(self) -> str:
        of = "" if self.number is None else f"{self.number}: "
        targets = f"{len(self.targets)} targets{' together' if self.together else ''}"
        largest = self.check.largest
        replay = "not compared" if largest is None else f"within {largest:.1e} nats"
        shape = f"{targets}, {len(self.sources)} sources"
        end = "" if self.check.passed else ", check failed"
        return f"Explanation({of}trace {self.trace}, {self.method}, {self.kind} of {shape}, replay {replay}{end})"


def _whole(what: str, values: Any, n: int | None = None) -> npt.NDArray[np.int64]:
    """A read-only copy as int64 ``[n]``."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iu" or (n is not None and len(array) != n):
        wanted = "one or more" if n is None else f"{n}, as many as there are targets"
        raise UsageError(
            f"{what} is {array.dtype} of shape {list(array.shape)}",
            why=f"it is a list of whole numbers, {wanted}",
            fix=f"np.array([5, 6, 7]) for {what}",
        )
    copy = array.astype(np.int64)
    copy.flags.writeable = False
    return copy


def _targets(values: Any) -> npt.NDArray[np.int64]:
    targets = _whole("targets", values)
    if len(targets) == 0 or targets[0] < 1 or (np.diff(targets) <= 0).any():
        raise UsageError(
            f"targets {targets.tolist()[:8]}",
            why="they are positions in ascending order, at least one, and nothing stands before position 0",
            fix="[5, 6, 7]",
        )
    return targets


def _in_order(sources: Sequence[Source]) -> tuple[Source, ...]:
    edges = [edge for source in sources for edge in (source.start, source.stop)]
    if not edges or edges != sorted(edges):
        raise UsageError(
            "sources overlap or are not in order" if edges else "there are no sources",
            why="each is a range of positions, and none shares a position with another",
            fix="sources (0, 3), (3, 7)",
        )
    return tuple(sources)


def _relevance(values: Any, last: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> Masked:
    """A read-only copy ``[rows, S]``; ``last`` ``[rows]`` are the rows' last targets, ``starts`` ``[S]`` where sources begin."""
    data, mask = np.array(np.ma.getdata(values), np.float64), np.ma.getmaskarray(values).copy()
    if data.shape != (len(last), len(starts)):
        raise UsageError(
            f"relevance has the shape {list(data.shape)}, not {[len(last), len(starts)]}",
            why="it has a row for each target (one for all of them together) and a column for each source",
            fix="give it as [rows, sources]",
        )
    if not np.isfinite(data[~mask]).all():
        raise UsageError(
            "relevance that is not finite",
            why="a number that is not there is masked, never NaN",
            fix="np.ma.MaskedArray(relevance, np.isnan(relevance)), if NaN says that the target cannot see the source",
        )
    unseen = starts[None, :] >= last[:, None]
    if (unseen & ~mask).any():
        row, column = np.argwhere(unseen & ~mask)[0]
        raise UsageError(
            f"relevance of the source at position {starts[column]} for the target at {last[row]}",
            why="a token is predicted from those before it alone",
            fix="mask the sources that begin at or after the target",
        )
    data[mask] = np.nan
    return frozen(data, mask)


def _finite(what: str, values: Any, n: int) -> npt.NDArray[np.float64]:
    """A read-only copy as float64 ``[n]``."""
    array = np.array(values, np.float64)
    if array.shape != (n,) or not np.isfinite(array).all():
        raise UsageError(
            f"{what} is {'not finite' if array.shape == (n,) else f'of shape {list(array.shape)}'}",
            why=f"it is one finite number for each row of relevance, {n} in all",
            fix=f"an array of shape [{n}]",
        )
    array.flags.writeable = False
    return array


def fixed_json(what: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A copy as a tape gives it back: through JSON, names in order, so that equal ones are written alike.

    Raises UsageError, naming ``what``, where JSON cannot hold it.
    """
    return MappingProxyType(json.loads(as_json(_sorted(dict(values)), what)))


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _sorted(value[name]) for name in sorted(value, key=str)}
    return [_sorted(one) for one in value] if isinstance(value, list | tuple) else value
