"""At which rate a server stops keeping its promise: one stream at many rates, and the largest that meets the objectives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tokentape.errors import UsageError
from tokentape.study.simulate.arrivals import Arrivals
from tokentape.study.simulate.scheduler import Scheduler
from tokentape.study.simulate.servers import Server
from tokentape.study.simulate.simulation import Simulation, simulate
from tokentape.study.slo import Slo

__all__ = ["ATTAINED", "Limit", "largest_rate", "simulate_rates"]

ATTAINED = 0.9
"""The share of requests that has to meet the objectives, as in DistServe (Y. Zhong et al., OSDI 2024)."""

CLOSE = 0.02
"""A limit is found once two rates, one that keeps the promise and one that does not, lie this close together."""

FARTHEST = 2.0**12
"""A promise that is kept at this many times the rate, or broken at its inverse, does not hang on the rate."""


@dataclass(frozen=True)
class Limit:
    """The largest ``rate`` tried, in requests a second, that kept the promise: ``attained`` of the requests met the objectives, and
    the queue did not grow.

    ``above`` is the smallest tried that did not; each is None where there was none. ``tried`` has every simulation in the order
    of rate.
    """

    rate: float | None
    above: float | None
    attained: float
    tried: tuple[Simulation, ...] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: of each rate what decided."""
        rows = []
        for one in self.tried:
            good = None if one.goodput is None else asdict(one.goodput)
            rows.append(
                {"rate": one.arrival_rate, "kept": kept(one, self.attained), "goodput": good, "load": asdict(one.load)}
            )
        return {"rate": self.rate, "above": self.above, "attained": self.attained, "tried": rows}


def kept(one: Simulation, attained: float) -> bool:
    """Whether a simulation kept the promise."""
    share = None if one.goodput is None else one.goodput.share
    return share is not None and share >= attained and one.load.keeps_up is not False


def simulate_rates(
    server: Server,
    at_rate: Callable[[float], Arrivals],
    rates: Sequence[float],
    scheduler: Scheduler,
    slo: Slo | None,
    seed: int = 0,
) -> list[Simulation]:
    """One simulation a rate; ``at_rate`` gives the stream."""
    return [_at(server, at_rate, rate, scheduler, slo, seed) for rate in rates]


def _at(
    server: Server, at_rate: Callable[[float], Arrivals], rate: float, scheduler: Scheduler, slo: Slo | None, seed: int
) -> Simulation:
    # the rate that was asked for, not the one that chance gave
    return replace(simulate(server, at_rate(rate), scheduler, slo=slo, seed=seed), arrival_rate=rate)


def largest_rate(
    server: Server,
    at_rate: Callable[[float], Arrivals],
    scheduler: Scheduler,
    slo: Slo,
    *,
    start: float = 1.0,
    attained: float = ATTAINED,
    seed: int = 0,
) -> Limit:
    """Search for the largest rate that keeps the promise: doubled or halved from ``start``, then halved in between.

    Raises UsageError for a share that is none.
    """
    if not 0 < attained <= 1:
        raise UsageError(f"a share of {attained:g}", why="it is above 0 and at most 1", fix="--attained 0.9")
    tried: dict[float, Simulation] = {}

    def good(rate: float) -> bool:
        tried[rate] = _at(server, at_rate, rate, scheduler, slo, seed)
        return kept(tried[rate], attained)

    low, high = None, None
    rate = start
    while low is None or high is None:
        if good(rate):
            low, rate = rate, rate * 2
        else:
            high, rate = rate, rate / 2
        if not start / FARTHEST < rate < start * FARTHEST:
            break
    while low is not None and high is not None and high / low > 1 + CLOSE:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if good(middle) else (low, middle)
    return Limit(low, high, attained, tuple(tried[at] for at in sorted(tried)))
