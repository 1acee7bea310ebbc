"""A stream of requests as it is asked for on a command line: what it is, how fast, for how long."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokentape.data.tape import open_tape
from tokentape.errors import UsageError
from tokentape.study.simulate.arrivals import Arrivals, of_schedule, of_tape
from tokentape.study.simulate.traffic import READERS
from tokentape.study.traffic.schedule import DRAWN, Schedule

__all__ = ["Stream"]

N_REQUESTS = 1000


@dataclass(frozen=True, slots=True)
class Stream:
    """``kind`` is ``poisson``, ``gamma`` or ``constant``, or ``azure:FILE``, ``mooncake:FILE``, ``tape:FILE``.

    Generated ones need a ``rate``; of recorded ones it stretches or shrinks the times. ``duration_ns`` or ``n`` ends them: the
    requests are those that a load of the same plan and ``seed`` sends. What was recorded is repeated where it ends before.
    Lengths are for generated ones.
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
        if self.kind in DRAWN:
            return self._generated(rate)
        kind, _, file = self.kind.partition(":")
        if not file or kind not in (*READERS, "tape"):
            raise UsageError(
                f"no arrivals {self.kind!r}",
                why=f"there are {', '.join(DRAWN)}, azure:FILE, mooncake:FILE and tape:FILE",
                fix="--arrivals poisson --rate 2",
            )
        found = self._of_tape(file) if kind == "tape" else READERS[kind](Path(file))
        whole = len(found)
        if rate is not None:
            found = found.at_rate(rate, duration_ns=self.duration_ns, n=self.n)
        if self.duration_ns is not None and len(found) == whole:
            found = found.repeated(self.duration_ns, self.seed)
        return found if self.n is None else found.first(self.n)

    def _generated(self, rate: float | None) -> Arrivals:
        n = N_REQUESTS if self.n is None and self.duration_ns is None else self.n
        schedule = Schedule(self.kind, rate, self.burstiness, seed=self.seed, duration_ns=self.duration_ns, requests=n)
        return of_schedule(schedule, self.n_prompt, self.n_output)

    @staticmethod
    def _of_tape(file: str) -> Arrivals:
        with open_tape(file) as tape:
            return of_tape(tape)
