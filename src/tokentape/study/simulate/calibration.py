"""A server's step times from what its clients saw: the tape of an endpoint, recorded under load.

What a client sees of a step is the gap between two tokens of a sequence that was decoding, and of a prefill the time from when
the server turned to a request to its first token. The means of both are regressed, never below zero, on what the server had to
do: the length of the prompt and its square; how many sequences were decoding, and the positions that they held.

When the server turned to a request is known of two kinds of them: of one that was *alone*, it is when it was sent; where sequences
never decode at the same time though others wait, the server serves one at a time, and it is the end of the one before. The second
kind leaves out what passes before a request is in the queue (parsing, the network), so the two together tell that *delay*.

Noise is kept as it was: the ratio of each measured time to what the coefficients give, in the order of time. A simulation draws
from these in blocks, so that a slow moment stays one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tokentape.errors import TooFewPoints
from tokentape.study.answers import answers
from tokentape.study.simulate.step_times import LinearTimes

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["Calibration", "Noise", "Seen", "calibrate", "seen_of"]

Array = npt.NDArray[np.float64]

LEAST = 12
"""Of fewer gaps, or fewer first tokens of requests whose beginning is known, nothing is told."""

ROUNDS = 8
FLOOR = 0.05
"""No residual counts for more than that of a step this much shorter than the mean."""

NEARLY = 0.8
"""From so many chunks for each token on, a chunk is taken for a token."""

TOGETHER = 0.03
"""Sequences that overlap for a smaller share of the decoding time than this did not decode together."""

SPREAD = 1.5
"""A quantity has to vary by this factor to be told from the constant."""

BLOCK = 512
"""Residuals that are drawn one after another, as they were measured: a queue feels a slow spell of the machine over several
requests, so a block has to outlast them."""


@dataclass(frozen=True)
class Seen:
    """One request as its client saw it: sent, then ``tokens_ns`` ``[n]``, when each token came."""

    start_ns: int
    n_prompt: int
    tokens_ns: tuple[int, ...]


@dataclass(frozen=True)
class Noise:
    """Ratios of measured times to fitted ones, in the order of time: of steps that read prompts, and of decode steps."""

    reading: Array
    decoding: Array

    def source(self, seed: int) -> Callable[[bool], float]:
        """Factors drawn from them: by whether the step reads a prompt."""
        rng = np.random.default_rng(seed)
        drawn: list[float] = []

        def draw(reads: bool) -> float:
            if reads:
                return float(self.reading[rng.integers(len(self.reading))])
            if not drawn:
                start = int(rng.integers(max(1, len(self.decoding) - BLOCK + 1)))
                drawn.extend(self.decoding[start : start + BLOCK][::-1].tolist())
            return drawn.pop()

        return draw


@dataclass(frozen=True)
class Calibration:
    """What a tape tells of its server. ``delay_ns`` passes before a request is in the queue.

    ``n_first`` first tokens and ``n_gaps`` gaps were used; ``first_error`` and ``gap_error`` are the median relative errors of
    the fit. ``at_once`` is the most sequences that decoded together, ``in_flight`` the most requests. ``unknown`` says
    what these measurements cannot tell.
    """

    times: LinearTimes
    delay_ns: float
    at_once: int
    in_flight: int
    n_first: int
    n_gaps: int
    first_error: float
    gap_error: float
    unknown: tuple[str, ...]
    noise: Noise = field(repr=False, compare=False)

    @property
    def one_at_a_time(self) -> bool:
        """Whether others waited while never two decoded."""
        return self.at_once == 1 < self.in_flight

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("noise", "times")}
        return {**found, "times": self.times.as_dict(), "one_at_a_time": self.one_at_a_time}


def seen_of(tape: Tape) -> list[Seen]:
    """The requests of a tape that ended and whose tokens have their times.

    Of an answer whose chunks are not counted each chunk stands for a token, where there are nearly as many as the server counted
    tokens: the end of a text is one that has no chunk. Others are left out.
    """
    found = []
    for trace, one in zip(tape.traces, answers(tape), strict=True):
        passed, sizes, chunks = trace.exchange, one.sizes, one.chunks
        n_prompt = trace.n_prompt or (None if passed is None else passed.n_prompt)
        if sizes is None and one.whole and one.n_told and len(chunks) >= NEARLY * one.n_told:
            sizes = [1] * len(chunks)
        if one.start_ns is None or not n_prompt or not sizes or one.outcome != "ended":
            continue
        moments = tuple(chunk.at_ns for chunk, n in zip(chunks, sizes, strict=True) for _ in range(n))
        found.append(Seen(one.start_ns, n_prompt, moments))
    return found


def calibrate(requests: Sequence[Seen]) -> Calibration:
    """The step times of the server that answered these requests.

    Raises TooFewPoints where there are fewer than a dozen gaps, or than a dozen requests whose beginning is known.
    """
    ordered = sorted(requests, key=lambda one: one.start_ns)
    spans = _Spans(ordered)
    alone, turns = _turned_to(ordered, spans)
    gaps = _gaps(ordered, spans)
    if len(alone) + len(turns) < LEAST or len(gaps) < LEAST:
        raise TooFewPoints(
            "these requests do not tell the server's step times",
            why=f"{len(alone) + len(turns)} first tokens whose beginning is known and {len(gaps)} gaps; {LEAST} of each are needed",
            fix="record a few dozen requests one after another, of several prompt lengths, then under load",
        )
    unknown: list[str] = []
    delay = _delay(alone, turns)
    known = [(length, took - delay) for length, took in alone] + turns
    first, read = _fit_first(known, unknown)
    steps, decoded = _fit_gaps(gaps, unknown)
    if spans.at_once == 1:
        unknown.append("what a second sequence in the batch would cost: never did two decode at once")
    return Calibration(
        times=LinearTimes(steps[0], steps[1], steps[2], prefill_ns=first[0], token_ns=first[1], pair_ns=first[2]),
        delay_ns=delay,
        at_once=spans.at_once,
        in_flight=spans.in_flight,
        n_first=len(known),
        n_gaps=len(gaps),
        first_error=float(np.median(np.abs(read - 1))),
        gap_error=float(np.median(np.abs(decoded - 1))),
        unknown=tuple(unknown),
        noise=Noise(read, decoded),
    )


def _delay(alone: Sequence[tuple[int, float]], turns: Sequence[tuple[int, float]]) -> float:
    """What those who were alone waited longer than those who followed another, their prompts being as they were."""
    if len(turns) < LEAST or len(alone) < LEAST:
        return 0.0
    found, _ = _fit_first(turns, [])
    return max(0.0, float(np.median([took - _first_ns(found, length) for length, took in alone])))


class _Spans:
    """Who was in flight, and who was decoding, at each moment."""

    def __init__(self, ordered: Sequence[Seen]) -> None:
        self.starts = sorted(one.start_ns for one in ordered)
        self.ends = sorted(one.tokens_ns[-1] for one in ordered)
        self.firsts = sorted(one.tokens_ns[0] for one in ordered)
        self.moments, self.held = _positions(ordered)
        self.at_once = self._at_once()
        self.in_flight = max(
            (bisect_right(self.starts, at) - bisect_right(self.ends, at) for at in self.starts), default=1
        )

    def _at_once(self) -> int:
        """The most that decoded together, but for a small share of the time: a last message may come late, or a clock be off."""
        changes = sorted([(at, 1) for at in self.firsts] + [(at, -1) for at in self.ends])
        spent: dict[int, int] = {}
        n = 0
        for (at, change), (after, _) in pairwise(changes):
            n += change
            spent[n] = spent.get(n, 0) + after - at
        total = sum(ns for n, ns in spent.items() if n > 0)
        most = 1
        for level in sorted(spent):
            if sum(ns for n, ns in spent.items() if n >= level) > TOGETHER * total:
                most = max(most, level)
        return most

    def decoding(self, at_ns: int) -> int:
        """Sequences that have their first token and not their last."""
        return bisect_right(self.firsts, at_ns) - bisect_right(self.ends, at_ns)

    def begun(self, before_ns: int, after_ns: int) -> bool:
        """Whether a sequence had its first token after one moment and not after the other."""
        return bisect_right(self.firsts, after_ns) > bisect_right(self.firsts, before_ns)

    def positions(self, at_ns: int) -> int:
        """What all decoding sequences attend in the step that begins at a moment."""
        place = bisect_right(self.moments, at_ns)
        return self.held[place - 1] if place else 0

    def others(self, one: Seen) -> int:
        """Requests in flight when this one was sent, but for itself."""
        at = one.start_ns
        return bisect_right(self.starts, at) - bisect_right(self.ends, at) - 1

    def last_end(self, at_ns: int) -> int | None:
        """The last end of a request before a moment."""
        place = bisect_right(self.ends, at_ns)
        return self.ends[place - 1] if place else None


def _positions(ordered: Sequence[Seen]) -> tuple[list[int], list[int]]:
    """Moments at which a token came, and what all decoding sequences attend from then on: each its prompt and its tokens."""
    changes = []
    for one in ordered:
        changes += [(at, 1) for at in one.tokens_ns]
        changes += [(one.tokens_ns[0], one.n_prompt), (one.tokens_ns[-1], -one.n_prompt - len(one.tokens_ns))]
    changes.sort()
    return [at for at, _ in changes], list(accumulate(change for _, change in changes))


def _turned_to(ordered: Sequence[Seen], spans: _Spans) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(prompt, time to the first token) of requests that were alone, and of those that the server turned to after another."""
    alone, turns = [], []
    for one in ordered:
        first = one.tokens_ns[0]
        joined = bisect_right(spans.starts, first) - bisect_right(spans.starts, one.start_ns)
        if spans.others(one) == 0:
            # where several are served at once, one that came meanwhile may have had part in it
            if spans.at_once == 1 or joined == 0:
                alone.append((one.n_prompt, first - one.start_ns))
        elif spans.at_once == 1 and (before := spans.last_end(first - 1)) is not None and before > one.start_ns:
            turns.append((one.n_prompt, first - before))
    return alone, turns


def _first_ns(coefficients: Array, length: int) -> float:
    return float(coefficients[0] + coefficients[1] * length + coefficients[2] * length**2)


def _fit_first(known: Sequence[tuple[int, float]], unknown: list[str]) -> tuple[Array, Array]:
    """Constant, token and pair; the ratios of what was measured to what they give."""
    lengths = np.array([length for length, _ in known], float)
    took = np.array([max(ns, 1.0) for _, ns in known], float)
    columns = np.stack([np.ones(len(lengths)), lengths, lengths**2], axis=1)
    used = [0, 1, 2] if len(np.unique(lengths)) >= 4 else [0, 1]
    if lengths.max() < SPREAD * lengths.min():
        used = [0]
        unknown.append("what a longer prompt costs: all are of about one length")
    found = np.zeros(3)
    found[used] = _fit_mean(columns[:, used], took)
    return found, took / np.maximum(columns @ found, 1.0)


def _gaps(ordered: Sequence[Seen], spans: _Spans) -> list[tuple[float, float, float]]:
    """(sequences decoding, positions they attend, time of a step), in the order of time.

    Of a server that serves one at a time these are the gaps as they came, 0 between tokens of one chunk. Where several decode
    together what was held back of one was not of the others: there a chunk of several tokens stands for as many steps that took
    equally long, and a gap in which another sequence had its first token, and may have waited for its prompt, is left out.
    """
    rows: list[tuple[float, float, float, float]] = []
    for one in ordered:
        moments, counts = np.unique(one.tokens_ns, return_counts=True)
        if spans.at_once == 1:
            gaps = np.diff(one.tokens_ns).tolist()
            rows += [(one.tokens_ns[i], 1.0, float(one.n_prompt + i + 1), gap) for i, gap in enumerate(gaps)]
            continue
        written = np.cumsum(counts)
        for i in range(len(moments) - 1):
            before, after, k = int(moments[i]), int(moments[i + 1]), int(counts[i + 1])
            if not spans.begun(before, after):
                n = max(1, spans.decoding(before))
                held = max(spans.positions(before), one.n_prompt + int(written[i]))
                rows += [(before + j, float(n), float(held + j * n), (after - before) / k) for j in range(k)]
    return [row[1:] for row in sorted(rows)]


def _fit_gaps(gaps: Sequence[tuple[float, float, float]], unknown: list[str]) -> tuple[Array, Array]:
    """Step, sequence and position; the ratios of what was measured to what they give."""
    n, positions, took = (np.array(column) for column in zip(*gaps, strict=True))
    columns = np.stack([np.ones(len(n)), n, positions], axis=1)
    used = [0]
    if n.max() >= SPREAD * n.min():
        used.append(1)
    held = positions / n
    if held.max() >= SPREAD * held.min():
        used.append(2)
    else:
        unknown.append("what a longer context costs: all are of about one length")
    found = np.zeros(3)
    found[used] = _fit_mean(columns[:, used], took)
    return found, took / np.maximum(columns @ found, 1.0)


def _fit_mean(columns: Array, took: Array) -> Array:
    """Coefficients, none negative, of the mean: a queue is made of how long steps take on average, not of the middle one.

    Residuals are weighed by what is fitted, not by what was measured, which would favour short times (quasi-likelihood with a
    constant coefficient of variation: R. W. M. Wedderburn, Biometrika 61(3), 1974).
    """
    from scipy.optimize import nnls

    scale = np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
    weight = np.full(len(took), float(took.mean()))
    found = np.zeros(columns.shape[1])
    for _ in range(ROUNDS):
        found = nnls(columns / scale / weight[:, None], took / weight)[0]
        weight = np.maximum(columns / scale @ found, FLOOR * float(took.mean()))
    return np.asarray(found / scale, float)
