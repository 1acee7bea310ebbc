"""``tokentape.simulate``: what a server would do with a stream of requests, in the figures that a recorded tape gives."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from tokentape.study.metrics import Spread
from tokentape.study.simulate.arrivals import Arrivals
from tokentape.study.simulate.engine import Engine
from tokentape.study.simulate.outcome import Level, Outcome, goodput_of, outcome_of, spread_of
from tokentape.study.simulate.scheduler import Scheduler
from tokentape.study.simulate.servers import Server, server_of
from tokentape.study.slo import Goodput, Slo

__all__ = ["Little", "Load", "Simulation", "simulate"]

SETTLED = (0.1, 0.9)
"""The part of the stream over which the state of the server is told: what comes before it fills, after it empties."""

FALLS_BEHIND = 0.05
"""A server behind which this share of all that comes is left in the queue does not keep up."""

N_BINS = 120


@dataclass(frozen=True, slots=True)
class Little:
    """Little's law over the settled part of the stream: the mean ``number`` in the system, the ``rate`` a second, the ``time_ns``.

    The three are had apart: the number by integrating how many were there over the span, the rate by counting who came within
    it, the time as the mean of those, whenever they left. ``ratio`` is the first over the product of the others: 1 but for what
    was there at one edge and not at the other. Source: J. D. C. Little, "A Proof for the Queuing Formula: L = lambda W",
    Operations Research 9(3), 1961.
    """

    number: float | None
    rate: float | None
    time_ns: float | None
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the server was. ``utilisation`` is the share of the window in which a step ran; the means are over the settled part.

    ``kv_peak`` and ``kv_mean`` are tokens of key-value memory (whole blocks where there is a limit), ``kv_share`` the mean
    share of the limit. ``queue_growth`` is by how many the queue grew in the settled part, for each request that came, from its
    mean over the first and the last quarter; ``keeps_up`` says whether that is below 5 %.
    """

    utilisation: float | None
    mean_running: float | None
    mean_waiting: float | None
    max_running: int
    max_waiting: int
    kv_mean: float | None
    kv_peak: int
    kv_share: float | None
    queue_growth: float | None
    keeps_up: bool | None


@dataclass(frozen=True)
class Simulation:
    """What came out. Times are nanoseconds; spreads have the same names and definitions as those of a recorded tape.

    ``queued`` is the time from arrival to first admission. ``token_gap`` holds every gap between two tokens of one request;
    it is worth no more independent samples than there were steps. ``window_ns`` is from the first arrival to the last token.
    A request that was ``refused`` counts as failed.
    """

    scheduler: Scheduler
    server: Server
    n_requests: int
    n_refused: int
    n_preemptions: int
    n_tokens: int
    n_prompt_tokens: int
    n_steps: int
    arrival_rate: float | None
    window_ns: int
    queued: Spread
    ttft: Spread
    token_gap: Spread
    mean_gap: Spread
    e2e: Spread
    normalised_latency: Spread
    tokens_per_s: float | None
    requests_per_s: float | None
    slo: Slo | None
    goodput: Goodput | None
    load: Load
    little: Little
    origin: str
    notes: tuple[str, ...] = ()
    outcome: Outcome = field(repr=False, compare=False, default=None)  # type: ignore[assignment]

    def series(self, n_bins: int = N_BINS) -> dict[str, list[float]]:
        """The course of the run in ``n_bins`` equal spans: means of those waiting, running, and of tokens of memory held."""
        start, end = int(self.outcome.arrivals.at_ns[0]), self.outcome.last_ns
        if end <= start:
            return {}
        edges = np.linspace(start, end, n_bins + 1)
        levels = {"waiting": self.outcome.waiting, "running": self.outcome.running, "kv_tokens": self.outcome.positions}
        return {"at_ns": edges[:-1].tolist(), **{name: level.means(edges).tolist() for name, level in levels.items()}}

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, the course of the run among them."""
        apart = ("outcome", "server", "scheduler")
        found = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in apart}
        plain = {
            name: asdict(value) if hasattr(value, "__dataclass_fields__") else value for name, value in found.items()
        }
        plain |= {"server": self.server.as_dict(), "scheduler": self.scheduler.as_dict(), "series": self.series()}
        return plain


def simulate(
    server: Any,
    arrivals: Arrivals,
    scheduler: Scheduler | None = None,
    *,
    slo: Slo | None = None,
    seed: int = 0,
    **how: Any,
) -> Simulation:
    """Serve ``arrivals`` by a server whose steps take what ``server`` says; nothing is run.

    ``server`` is a law, a tape that one can be fitted to, a ``Server``, step times, or the configuration of a model with
    ``hardware=`` (see :func:`~tokentape.study.simulate.servers.server_of`, which takes ``how``). ``scheduler`` is the policy
    with its limits. Raises UsageError for what contradicts itself, StudyError where the server's steps cannot be told.
    """
    chosen = scheduler or Scheduler()
    found = server_of(server, chosen, **how)
    if found.kv_tokens is not None and chosen.kv_tokens is None:
        chosen = replace(chosen, kv_tokens=found.kv_tokens)
    noise = None if found.noise is None else found.noise.source(seed)
    outcome = outcome_of(arrivals, Engine(found.delayed(arrivals), found.times, chosen, noise).run())
    return simulation_of(outcome, found, chosen, slo)


def simulation_of(outcome: Outcome, server: Server, scheduler: Scheduler, slo: Slo | None = None) -> Simulation:
    """The figures of a run."""
    arrivals, served = outcome.arrivals, outcome.served
    window = outcome.last_ns - int(arrivals.at_ns[0])
    at, n_out = arrivals.at_ns[served], arrivals.n_output[served]
    first, end = (np.asarray(values[served]) for values in (outcome.first_ns, outcome.end_ns))
    several = n_out > 1
    tokens = int(n_out.sum())
    return Simulation(
        scheduler=scheduler,
        server=server,
        n_requests=len(arrivals),
        n_refused=int((~served).sum()),
        n_preemptions=int(outcome.n_preempted.sum()),
        n_tokens=tokens,
        n_prompt_tokens=int(arrivals.n_prompt[served].sum()),
        n_steps=outcome.n_steps,
        arrival_rate=arrivals.rate,
        window_ns=window,
        queued=spread_of(np.asarray(outcome.admitted_ns[served]) - at),
        ttft=spread_of(first - at),
        token_gap=outcome.gaps.spread(),
        mean_gap=spread_of((end - first)[several] / (n_out[several] - 1)),
        e2e=spread_of(end - at),
        normalised_latency=spread_of((end - at) / n_out),
        tokens_per_s=tokens * 1e9 / window if window else None,
        requests_per_s=int(served.sum()) * 1e9 / window if window else None,
        slo=slo,
        goodput=None if slo is None else goodput_of(outcome, slo, window),
        load=_load(outcome, scheduler, window),
        little=little(outcome),
        origin=arrivals.origin,
        notes=server.notes,
        outcome=outcome,
    )


def _settled(outcome: Outcome) -> tuple[float, float]:
    start, span = int(outcome.arrivals.at_ns[0]), outcome.arrivals.span_ns
    return start + SETTLED[0] * span, start + SETTLED[1] * span


def little(outcome: Outcome) -> Little:
    """Little's law, measured."""
    start, end = _settled(outcome)
    served = outcome.served
    at, left = outcome.arrivals.at_ns[served], np.asarray(outcome.end_ns[served])
    within = (at >= start) & (at < end)
    if end <= start or not within.any():
        return Little(None, None, None, None)
    number = Level.counted(at, left).mean(start, end)
    rate = int(within.sum()) * 1e9 / (end - start)
    time = float(np.mean((left - at)[within]))
    return Little(number, rate, time, None if number is None or not time else number / (rate * time / 1e9))


def _load(outcome: Outcome, scheduler: Scheduler, window: int) -> Load:
    start, end = _settled(outcome)
    limit = scheduler.n_blocks
    held = outcome.blocks if limit is not None else outcome.positions
    size = scheduler.block_size if limit is not None else 1
    mean = held.mean(start, end)
    growth = _queue_growth(outcome, start, end)
    return Load(
        utilisation=outcome.busy_ns / window if window else None,
        mean_running=outcome.running.mean(start, end),
        mean_waiting=outcome.waiting.mean(start, end),
        max_running=int(outcome.running.value.max(initial=0)),
        max_waiting=int(outcome.waiting.value.max(initial=0)),
        kv_mean=None if mean is None else mean * size,
        kv_peak=int(held.value.max(initial=0)) * size,
        kv_share=None if mean is None or limit is None else mean / limit,
        queue_growth=growth,
        keeps_up=None if growth is None else growth < FALLS_BEHIND,
    )


def _queue_growth(outcome: Outcome, start: float, end: float) -> float | None:
    at = outcome.arrivals.at_ns
    came, quarter = int(((at >= start) & (at < end)).sum()), (end - start) / 4
    first, last = outcome.waiting.mean(start, start + quarter), outcome.waiting.mean(end - quarter, end)
    if not came or first is None or last is None:
        return None
    # the middles of the quarters lie three quarters of the span apart
    return max(0.0, last - first) / (0.75 * came)
