"""What a simulated server did, as arrays: each request's moments, the gaps between tokens, who waited and who ran when."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tokentape.study.answers import Answer, Chunk
from tokentape.study.autocorrelation import effective_n
from tokentape.study.metrics import PERCENTILES, Spread
from tokentape.study.percentiles import Percentile, ranks, samples_needed
from tokentape.study.simulate.arrivals import Arrivals
from tokentape.study.simulate.log import Log
from tokentape.study.simulate.step_times import FS
from tokentape.study.slo import Goodput, Slo

__all__ = ["Gaps", "Level", "Outcome", "goodput_of", "outcome_of", "spread_of"]

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]

SLICE = 1 << 22
"""Steps whose gaps are put in order at once."""


@dataclass(frozen=True)
class Gaps:
    """All gaps between tokens, ``[m]`` series of them: ``count`` gaps from ``first_ns`` on, each ``growth_ns`` more than the one
    before, each had by ``weight`` sequences.
    """

    first_ns: Array
    growth_ns: Array
    count: Ints
    weight: Ints

    def __len__(self) -> int:
        return int(np.sum(self.count * self.weight))

    @property
    def n_steps(self) -> int:
        """Measurements of time: a step that several sequences waited for is one."""
        return int(np.sum(self.count))

    @property
    def total_ns(self) -> float:
        k = self.count.astype(float)
        return float(np.sum(self.weight * (k * self.first_ns + self.growth_ns * k * (k - 1) / 2)))

    @cached_property
    def _ordered(self) -> tuple[Ints, Ints]:
        """The gaps in the order of length, rounded up to nanoseconds, and how many are that long or shorter."""
        values, weights = [], []
        ends = np.cumsum(self.count)
        for start in range(0, int(ends[-1]) if len(ends) else 0, SLICE):
            a, b = np.searchsorted(ends, start, "right"), np.searchsorted(ends, start + SLICE, "right")
            rows = slice(int(a), int(b) + 1)
            counts = np.minimum(ends[rows], start + SLICE) - np.maximum(ends[rows] - self.count[rows], start)
            skipped = np.maximum(start - (ends[rows] - self.count[rows]), 0)
            place = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts - skipped, counts)
            taken = np.repeat(self.first_ns[rows], counts) + np.repeat(self.growth_ns[rows], counts) * place
            found, where = np.unique(np.ceil(taken).astype(np.int64), return_inverse=True)
            values.append(found)
            weights.append(np.bincount(where, np.repeat(self.weight[rows], counts)).astype(np.int64))
        if not values:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        found, where = np.unique(np.concatenate(values), return_inverse=True)
        return found, np.cumsum(np.bincount(where, np.concatenate(weights)).astype(np.int64))

    def at(self, place: int) -> int:
        """The gap at a place among all of them in the order of length, counted from 0, rounded up to a nanosecond."""
        values, upto = self._ordered
        return int(values[np.searchsorted(upto, place, side="right")])

    def spread(self) -> Spread:
        """The gaps as a sample that is worth no more than the steps they came in."""
        n = len(self)
        return _spread(n, min(n, self.n_steps), self.total_ns, self.at)


def spread_of(values: npt.NDArray[Any]) -> Spread:
    """Values in the order of time as one sample."""
    ordered = np.sort(values)
    return _spread(
        len(values), effective_n([values.tolist()]), float(values.sum()), lambda place: ordered[place].item()
    )


def _spread(n: int, worth: int, total: float, at: Callable[[int], float]) -> Spread:
    told = []
    for q in PERCENTILES:
        needed = samples_needed(q)
        if worth < needed:
            missing = math.ceil(needed * n / worth) - n if worth else needed
            told.append(Percentile(q, None, None, n, needed, missing, worth))
        else:
            place, bound = ranks(n, q, worth)
            told.append(Percentile(q, at(place), at(bound), n, needed, 0, worth))
    if not n:
        return Spread(0, 0, None, None, None, tuple(told))
    return Spread(n, worth, total / n, at(0), at(n - 1), tuple(told))


@dataclass(frozen=True)
class Level:
    """A number that changes in steps: ``value[i]`` from ``at_ns[i]`` on."""

    at_ns: Ints
    value: Array

    @classmethod
    def counted(cls, up: Ints, down: Ints) -> Level:
        """One more at each moment of ``up``, one less at each of ``down``."""
        at = np.concatenate([up, down])
        change = np.concatenate([np.ones(len(up)), -np.ones(len(down))])
        order = np.argsort(at, kind="stable")
        moments, value = at[order], np.cumsum(change[order])
        # what changes twice at one moment was never there between
        last = np.append(np.diff(moments) > 0, True) if len(moments) else np.zeros(0, bool)
        return cls(moments[last], value[last])

    def integral(self, at_ns: npt.ArrayLike) -> Array:
        """The area under it from its beginning to each moment, in units of its value times nanoseconds."""
        moments = np.asarray(at_ns, float)
        if not len(self.at_ns):
            return np.zeros(moments.shape)
        begin = float(self.at_ns[0])
        times = self.at_ns - begin
        area = np.concatenate([[0.0], np.cumsum(self.value[:-1] * np.diff(times))])
        place = np.clip(np.searchsorted(times, moments - begin, side="right") - 1, 0, None)
        return np.where(moments <= begin, 0.0, area[place] + self.value[place] * (moments - begin - times[place]))

    def mean(self, start_ns: float, end_ns: float) -> float | None:
        """Its average over a span; None over none."""
        if end_ns <= start_ns:
            return None
        low, high = self.integral([start_ns, end_ns])
        return float(high - low) / (end_ns - start_ns)

    def now(self, at_ns: float) -> float:
        """Its value at a moment."""
        place = int(np.searchsorted(self.at_ns, at_ns, side="right")) - 1
        return float(self.value[place]) if place >= 0 else 0.0

    def means(self, edges_ns: Array) -> Array:
        """Its average between each two edges."""
        return np.diff(self.integral(edges_ns)) / np.diff(edges_ns)


@dataclass(frozen=True)
class Outcome:
    """One simulated run, in nanoseconds since the stream's beginning; ``[n]`` a request.

    ``admitted_ns``, ``first_ns`` and ``end_ns`` are masked where there is none: of a request that was refused. ``kv_tokens`` is
    (time, blocks used, positions held) at events.
    """

    arrivals: Arrivals
    admitted_ns: np.ma.MaskedArray[Any, Any]
    first_ns: np.ma.MaskedArray[Any, Any]
    end_ns: np.ma.MaskedArray[Any, Any]
    n_preempted: Ints
    gaps: Gaps
    waiting: Level
    running: Level
    blocks: Level
    positions: Level
    n_steps: int
    busy_ns: float

    @property
    def served(self) -> npt.NDArray[np.bool_]:
        """Which requests were not refused."""
        return ~np.ma.getmaskarray(self.end_ns)

    @cached_property
    def last_ns(self) -> int:
        """When the last token came; the last arrival where none did."""
        return int(self.end_ns.max()) if self.served.any() else int(self.arrivals.at_ns[-1])

    def answers(self) -> list[Answer]:
        """Each request as its client saw it, its first token apart and the others as one message with the last."""
        found = []
        columns = (
            self.arrivals.at_ns.tolist(),
            self.first_ns.tolist(),
            self.end_ns.tolist(),
            self.arrivals.n_output.tolist(),
        )
        for i, (at, first, end, n) in enumerate(zip(*columns, strict=True)):
            if end is None:
                found.append(Answer(i, i, at, (), "failed"))
            else:
                rest = (Chunk(end, n - 1),) if n > 1 else ()
                found.append(Answer(i, i, at, (Chunk(first, 1), *rest), "ended"))
        return found


def goodput_of(outcome: Outcome, slo: Slo, window_ns: int) -> Goodput:
    """What :func:`tokentape.study.slo.goodput` gives of the answers, without making half a million of them."""
    served, n = outcome.served, len(outcome.arrivals)
    at, n_out = outcome.arrivals.at_ns[served], outcome.arrivals.n_output[served]
    first, end = (np.asarray(values[served]) for values in (outcome.first_ns, outcome.end_ns))
    late = np.zeros(len(at), bool)
    for took, limit in ((first - at, slo.ttft_ns), (end - at, slo.e2e_ns)):
        if limit is not None:
            late |= took > limit
    if slo.gap_ns is not None:
        late |= end - first > slo.gap_ns * (n_out - 1)
    good = int((~late).sum())
    return Goodput(
        n_requests=n,
        n_good=good,
        n_late=int(late.sum()),
        n_failed=int((~served).sum()),
        n_cut_short=0,
        n_unknown=0,
        n_without_gap=int((~late & (n_out == 1)).sum()) if slo.gap_ns is not None else 0,
        share=good / n,
        requests_per_s=good * 1e9 / window_ns if window_ns else None,
    )


def outcome_of(arrivals: Arrivals, log: Log) -> Outcome:
    """The arrays of a log."""
    n = len(arrivals)
    admitted, end = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    for at, one in log.ended:
        end[one] = at // FS
    for at, one in reversed(log.admitted):
        admitted[one] = at // FS
    first = np.array([-1 if at is None else at // FS for at in log.first], np.int64)
    refused = np.zeros(n, bool)
    refused[log.refused] = True
    preempted_at = np.array([at // FS for at, _ in log.preempted], np.int64)
    every_admission = np.array([at // FS for at, _ in log.admitted], np.int64)
    ended_at = np.array([at // FS for at, _ in log.ended], np.int64)
    came = np.concatenate([arrivals.at_ns[~refused], preempted_at])
    memory_at = np.array([at // FS for at, _, _ in log.memory], np.int64)
    return Outcome(
        arrivals=arrivals,
        admitted_ns=np.ma.masked_array(admitted, admitted < 0),
        first_ns=np.ma.masked_array(first, first < 0),
        end_ns=np.ma.masked_array(end, end < 0),
        n_preempted=np.bincount([one for _, one in log.preempted], minlength=n).astype(np.int64),
        gaps=_gaps_of(log),
        waiting=Level.counted(came, every_admission),
        running=Level.counted(every_admission, np.concatenate([ended_at, preempted_at])),
        blocks=Level(memory_at, np.array([float(blocks) for _, blocks, _ in log.memory])),
        positions=Level(memory_at, np.array([float(held) for _, _, held in log.memory])),
        n_steps=log.n_steps,
        busy_ns=log.busy_fs / FS,
    )


def _gaps_of(log: Log) -> Gaps:
    # each as a float of nanoseconds: a gap that a preemption made may be longer than 64 bits of femtoseconds
    rows = log.gaps
    return Gaps(
        first_ns=np.array([row[0] / FS for row in rows]),
        growth_ns=np.array([row[1] / FS for row in rows]),
        count=np.array([row[2] for row in rows], np.int64),
        weight=np.array([row[3] for row in rows], np.int64),
    )
