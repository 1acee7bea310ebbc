"""How long each forward pass of a simulated server takes, compiled so that a million of them cost little.

Times are whole femtoseconds: a key-value position costs some dozen picoseconds on a large GPU, and with whole numbers the sum of
many steps in one formula equals the sum of one after another, to the last digit.

A decode step of ``n`` sequences is a straight line over the positions that they attend together, or several lines joined: that
is what lets a run of steps be taken at once. A step that reads prompts is evaluated when it comes. In a step that does both, the
weights are read once: the smaller of the two parts that do not grow with anything is counted once.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isqrt
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tokentape.errors import UsageError

__all__ = ["FS", "Line", "LinearTimes", "StepTimes", "TabulatedTimes", "parse_times", "steps_until"]

Array = npt.NDArray[np.float64]

FS = 1_000_000
"""Femtoseconds in a nanosecond."""

UNBOUNDED = 1 << 62

KNOTS = tuple(sorted({round(2 ** (i / 2)) for i in range(46)}))
"""Contexts between which a decode step is taken as straight: half octaves up to six million positions."""

PER_OCTAVE = 8
"""Cells of a table of prefills in an octave; between them it is straight on logarithmic axes."""


class Line(NamedTuple):
    """A decode step over the positions attended: ``first_fs`` at the first of them, ``slope_fs`` for each more, up to ``until``."""

    first_fs: int
    slope_fs: int
    until: int


class StepTimes(Protocol):
    """The times of a server's forward passes, in whole femtoseconds."""

    def decode(self, n: int, positions: int) -> Line:
        """A step that gives each of ``n`` sequences one token; ``positions`` they attend in all, the new ones included."""

    def reading(self, n: int, positions: int, tokens: int, squares: int, prompts: int) -> int:
        """A step that reads ``tokens`` of ``prompts`` prompts, beside a token for each of ``n`` running sequences.

        ``squares`` is the sum over the prompts of the square of their end minus the square of their begin.
        """


@dataclass(frozen=True)
class LinearTimes:
    """Times by coefficients, in nanoseconds: of a decode step for the step, each sequence, each position attended; of a step that
    reads prompts for the step (the same where None), each prompt, each token, each pair of positions (length squared).

    Raises UsageError for one below zero, or where a step would take no time.
    """

    step_ns: float
    sequence_ns: float = 0.0
    position_ns: float = 0.0
    prefill_ns: float | None = None
    prompt_ns: float = 0.0
    token_ns: float = 0.0
    pair_ns: float = 0.0
    fs: tuple[int, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        for name, value in self.as_dict().items():
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{name} is {value}", why="a coefficient is a time, 0 or more", fix=f"{name}=0")
        decoding = self.step_ns + self.sequence_ns + self.position_ns
        reading = self._prefill_fs / FS + self.prompt_ns + self.token_ns + self.pair_ns
        if round(min(decoding, reading) * FS) < 1:
            raise UsageError("a step that takes no time", why="the server would never fall behind", fix="step=10ms")
        # compiled once: these are read a million times
        names = ("step_ns", "sequence_ns", "position_ns", "prompt_ns", "token_ns")
        object.__setattr__(self, "fs", tuple(round(getattr(self, name) * FS) for name in names))

    @property
    def _prefill_fs(self) -> int:
        return round((self.step_ns if self.prefill_ns is None else self.prefill_ns) * FS)

    def decode(self, n: int, positions: int) -> Line:
        step, sequence, position = self.fs[:3]
        return Line(step + n * sequence + positions * position, position, UNBOUNDED)

    def reading(self, n: int, positions: int, tokens: int, squares: int, prompts: int) -> int:
        step, sequence, position, prompt, token = self.fs
        read = self._prefill_fs
        if n:
            read = max(read, step) + n * sequence + positions * position
        return read + prompts * prompt + tokens * token + round(squares * self.pair_ns * FS)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "fs"}


class TabulatedTimes:
    """Times by two functions, looked up on a grid that fills as it is asked.

    ``decode(contexts, batch)`` and ``prefill(contexts, batches)`` give nanoseconds ``[m]`` for contexts ``[m]``. Prompts of
    several lengths are asked for as so many of one length that tokens and squares are the same: ``squares / tokens`` long,
    ``tokens ** 2 / squares`` of them.
    """

    def __init__(self, decode: Callable[[Array, int], Array], prefill: Callable[[Array, Array], Array]) -> None:
        self._decode, self._prefill = decode, prefill
        self._lines: dict[int, tuple[list[int], list[Line]]] = {}
        self._cells: dict[tuple[int, int], float] = {}
        ones = np.ones(1)
        self._shared_fs = round(min(float(decode(ones, 1)[0]), float(prefill(ones, ones)[0])) * FS)

    def decode(self, n: int, positions: int) -> Line:
        starts, lines = self._lines.get(n) or self._lines_of(n)
        place = bisect_right(starts, positions) - 1
        line = lines[max(place, 0)]
        return Line(line.first_fs + (positions - starts[max(place, 0)]) * line.slope_fs, line.slope_fs, line.until)

    def _lines_of(self, n: int) -> tuple[list[int], list[Line]]:
        values = np.maximum(np.rint(self._decode(np.array(KNOTS, float), n) * FS), 1).astype(object)
        starts = [n * knot for knot in KNOTS]
        lines = []
        for i, start in enumerate(starts):
            j = min(i, len(starts) - 2)
            slope = (int(values[j + 1]) - int(values[j])) // (starts[j + 1] - starts[j])
            lines.append(Line(int(values[i]), slope, starts[i + 1] - 1 if i + 1 < len(starts) else UNBOUNDED))
            if start == starts[-1] and slope < 0:
                lines[-1] = Line(int(values[i]), 0, UNBOUNDED)
        self._lines[n] = starts, lines
        return self._lines[n]

    def reading(self, n: int, positions: int, tokens: int, squares: int, prompts: int) -> int:
        read = max(1, round(self._interpolated(squares / tokens, tokens * tokens / squares) * FS))
        if not n:
            return read
        beside = self.decode(n, positions).first_fs
        return beside + max(0, read - self._shared_fs)

    def _interpolated(self, context: float, batch: float) -> float:
        x, y = math.log2(context) * PER_OCTAVE, math.log2(batch) * PER_OCTAVE
        i, j = math.floor(x + 1e-9), math.floor(y + 1e-9)
        a, b = max(0.0, x - i), max(0.0, y - j)
        found = self._cell(i, j) * (1 - a) * (1 - b)
        if a > 1e-9:
            found += self._cell(i + 1, j) * a * (1 - b)
        if b > 1e-9:
            found += self._cell(i, j + 1) * (1 - a) * b
        if a > 1e-9 and b > 1e-9:
            found += self._cell(i + 1, j + 1) * a * b
        return math.exp(found)

    def _cell(self, i: int, j: int) -> float:
        key = i, j
        if key not in self._cells:
            ns = self._prefill(np.array([2 ** (i / PER_OCTAVE)]), np.array([2 ** (j / PER_OCTAVE)]))
            self._cells[key] = math.log(max(float(ns[0]), 1e-6))
        return self._cells[key]


UNITS_NS = {"ps": 1e-3, "ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}
COEFFICIENTS = ("step", "sequence", "position", "prefill", "prompt", "token", "pair")


def parse_times(text: str) -> LinearTimes:
    """``"step=8ms,sequence=20us,position=40ps,token=20us"`` as step times. Raises UsageError."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        number = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ps|ns|us|ms|s)", value)
        if name not in COEFFICIENTS or number is None:
            raise UsageError(
                f"no coefficient {part.strip()!r}",
                why=f"a server is told by {', '.join(COEFFICIENTS)}, each a time with its unit: ps, ns, us, ms or s",
                fix="step=8ms,sequence=20us,position=40ps,token=20us",
            )
        found[f"{name}_ns"] = float(number[1]) * UNITS_NS[number[2]]
    if "step_ns" not in found:
        raise UsageError("no coefficient step", why="every step takes a time of its own", fix=f"step=8ms,{text}")
    return LinearTimes(**found)


def steps_until(ahead: int, first: int, growth: int, most: int) -> int:
    """The smallest number of steps, at most ``most``, that together last ``ahead`` or longer.

    The first one lasts ``first`` and each next one ``growth`` more; ``most`` of them have to suffice.
    """
    if growth == 0:
        return max(1, min(most, -(-ahead // first)))
    # ``growth k^2 / 2 + (first - growth / 2) k = ahead``
    b = 2 * first - growth
    inside = b * b + 8 * growth * ahead
    k = max(1, min(most, (isqrt(max(inside, 0)) - b) // (2 * growth)))
    while k > 1 and (k - 1) * first + growth * ((k - 1) * (k - 2) // 2) >= ahead:
        k -= 1
    while k < most and k * first + growth * (k * (k - 1) // 2) < ahead:
        k += 1
    return k
