"""A stream of requests as it is asked for on a command line: what it is, how fast, for how long."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from tokentape.data.tape import open_tape
from tokentape.errors import UsageError
from tokentape.study.simulate.arrivals import Arrivals, constant, gamma, of_tape, poisson
from tokentape.study.simulate.traffic import READERS

__all__ = ["GENERATED", "Stream", "parse_duration"]

GENERATED = ("poisson", "gamma", "constant")
UNITS_NS = {"ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000, "d": 86_400_000_000_000}

N_REQUESTS = 1000


@dataclass(frozen=True, slots=True)
class Stream:
    """``kind`` is one of :data:`GENERATED`, or ``azure:FILE``, ``mooncake:FILE``, ``tape:FILE``.

    Generated ones need a ``rate``; of recorded ones it stretches or shrinks the times. ``duration_ns`` is filled by repeating a
    recorded stream, or by as many requests as the rate gives; ``n`` bounds them. Lengths are for generated ones.
    """

    kind: str = "poisson"
    rate: float | None = None
    n: int | None = None
    duration_ns: int | None = None
    n_prompt: str = "512"
    n_output: str = "128"
    burstiness: float = 1.0
    seed: int = 0

    def arrivals(self, rate: float | None = None) -> Arrivals:
        """The requests, at ``rate`` where it is given instead of the stream's own. Raises UsageError for what cannot be."""
        rate = self.rate if rate is None else rate
        if self.kind in GENERATED:
            return self._generated(rate)
        kind, _, file = self.kind.partition(":")
        if not file or kind not in (*READERS, "tape"):
            raise UsageError(
                f"no arrivals {self.kind!r}",
                why=f"there are {', '.join(GENERATED)}, azure:FILE, mooncake:FILE and tape:FILE",
                fix="--arrivals poisson --rate 2",
            )
        found = self._of_tape(file) if kind == "tape" else READERS[kind](Path(file))
        if rate is not None:
            found = found.at_rate(rate)
        if self.duration_ns is not None:
            found = found.repeated(self.duration_ns, self.seed)
        return found if self.n is None else found.first(self.n)

    def _generated(self, rate: float | None) -> Arrivals:
        if rate is None:
            raise UsageError(f"{self.kind} arrivals without a rate", why="they come at some rate", fix="--rate 2")
        n = self.n
        if self.duration_ns is not None and math.isfinite(rate) and rate > 0:
            fitting = max(1, round(rate * self.duration_ns / 1e9))
            n = fitting if n is None else min(n, fitting)
        n = N_REQUESTS if n is None else n
        lengths = {"n": n, "n_prompt": self.n_prompt, "n_output": self.n_output, "seed": self.seed}
        if self.kind == "gamma":
            return gamma(rate, burstiness=self.burstiness, **lengths)  # type: ignore[arg-type]
        return (poisson if self.kind == "poisson" else constant)(rate, **lengths)  # type: ignore[arg-type]

    @staticmethod
    def _of_tape(file: str) -> Arrivals:
        with open_tape(file) as tape:
            return of_tape(tape)


def parse_duration(text: str, flag: str = "--duration") -> int:
    """``90s``, ``10m``, ``24h``, ``1d`` in nanoseconds. Raises UsageError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", text.strip())
    if found is None or float(found[1]) <= 0:
        raise UsageError(
            f"{flag} {text!r}", why="a time is a number with its unit: ms, s, m, h or d", fix=f"{flag} 10m"
        )
    return round(float(found[1]) * UNITS_NS[found[2]])
