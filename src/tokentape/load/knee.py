"""Sweeps over rates: the knee of a server, and the largest rate at which it keeps what was promised.

**Knee.** The rate at which the *power* of the server is largest: the throughput that it achieves, over the mean latency of a
request (E2E). Below it throughput is to be had for little latency, above it latency grows faster than throughput. Of a queue of one
server with exponential times it lies at half the capacity. It is told between its neighbours among the rates measured, which is as
exact as the rates are close; where the power is largest at the first or last rate there is no knee between them.

**The largest rate that meets objectives.** A rate meets them where at least ``share`` of its requests met all (90 % by default),
failures being misses. Between the largest rate below all that failed and the smallest that failed, rates are tried at equal ratios;
the answer is the pair at the end. Each share has its 95 % interval (Wilson): where it holds ``share`` itself, too few requests were
sent to tell, and the answer says so. Requests of one load wait for each other, so the interval is at best that wide.

Sources: L. Kleinrock, "Power and deterministic rules of thumb for probabilistic problems in computer communications", ICC 1979;
R. Jain, "The Art of Computer Systems Performance Analysis", 1991, section 3.3 (knee, usable capacity); E. B. Wilson, JASA 22, 1927;
the share of 90 % as in Y. Zhong et al., "DistServe", OSDI 2024.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tokentape.errors import UsageError

__all__ = [
    "SHARE",
    "Step",
    "Swept",
    "knee_of",
    "largest_of",
    "read_numbers",
    "read_rates",
    "step_of",
    "sweep_rates",
    "wilson",
]

SHARE = 0.9
FEW = 3
"""Rates without which no knee can lie between two others."""
OFF_SHARE = 0.1
MOST_RATES = 100
_Z = 1.959963984540054
_NUMBER = r"\d*\.?\d+(?:e-?\d+)?"


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one rate. ``ttft_ns``, ``gap_ns`` and ``e2e_ns`` are means: of a few seconds there are seldom enough requests
    for a percentile. ``ttft_p99_ns`` is None where there were too few, and ``ttft_max_ns`` is what there is then. ``n_good`` of
    ``n_requests``, those that were due and never sent among them, met the objectives, None without any. Where requests were due,
    objectives and times to first token count from there. ``path`` is its tape. In a sweep over concurrency ``rate`` is the number
    under way.
    """

    rate: float
    n_requests: int
    n_ended: int
    requests_per_s: float | None
    tokens_per_s: float | None
    ttft_ns: float | None
    gap_ns: float | None
    e2e_ns: float | None
    n_good: int | None = None
    client_late: bool = False
    server_behind: bool = False
    due_per_s: float | None = None
    ttft_p99_ns: float | None = None
    ttft_max_ns: float | None = None
    path: str | None = None

    @property
    def share(self) -> float | None:
        """The share of the requests that met the objectives."""
        return None if self.n_good is None or not self.n_requests else self.n_good / self.n_requests

    @property
    def power(self) -> float | None:
        """Throughput over latency, in requests per second squared."""
        if not self.requests_per_s or not self.e2e_ns:
            return None
        return self.requests_per_s / (self.e2e_ns / 1e9)


@dataclass(frozen=True, slots=True)
class Swept:
    """The steps in the order of their rates, the knee, and the largest rate that meets ``slo``, None without objectives.
    ``by`` is ``"rate"``, or ``"concurrency"`` where each step is a number of requests under way.
    """

    steps: tuple[Step, ...]
    slo: str | None = None
    target: float = SHARE
    interrupted: bool = False
    by: str = "rate"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "steps": [{**asdict(one), "share": one.share, "power": one.power} for one in self.steps],
            "knee": knee_of(self.steps),
            "largest": None if self.slo is None or not self.steps else largest_of(self.steps, self.target),
            "slo": self.slo,
            "target": self.target,
            "interrupted": self.interrupted,
            "by": self.by,
        }


def read_rates(text: str) -> list[float]:
    """``"8"``, ``"1,2,4,8"``, ``"1..64"`` (doubling) or ``"1..64/9"`` (nine at equal ratios) as rates. Raises UsageError."""
    fix = "--rate 8; --rate 1,2,4,8; --rate 1..64 doubles; --rate 1..64/9 has nine at equal ratios"
    found = re.fullmatch(rf"({_NUMBER})\.\.({_NUMBER})(?:/(\d+))?", text.strip())
    if found is not None:
        low, high, n = float(found[1]), float(found[2]), int(found[3] or 0)
        if not 0 < low < high or n == 1 or n > MOST_RATES or math.log2(high / low) > MOST_RATES:
            raise UsageError(
                f"the rates {text}", why="they go from a rate above 0 to a larger one, in some steps", fix=fix
            )
        if n:
            return [low * (high / low) ** (i / (n - 1)) for i in range(n)]
        rates = [low * 2.0**i for i in range(math.floor(math.log2(high / low) + 1e-9) + 1)]
        return rates if math.isclose(rates[-1], high) else [*rates, high]
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"the rate {text}", why="it is a number of requests a second, or several", fix=fix) from error
    for rate in rates:
        if rate == math.inf:
            raise UsageError(
                "a rate without end",
                why="a server that is asked as fast as it answers is asked by a closed loop",
                fix="leave --rate out, and --concurrency 8: eight requests are under way all the time",
            )
        if not math.isfinite(rate) or rate <= 0:
            raise UsageError(
                f"a rate of {rate:g}",
                why="it is a number of requests a second, above 0: at none nothing would ever be sent",
                fix=fix,
            )
    if len(set(rates)) < len(rates):
        raise UsageError(f"the rates {text}", why="one of them is there twice", fix=fix)
    return sorted(rates)


def read_numbers(text: str) -> list[int]:
    """Numbers of requests under way, as :func:`read_rates` reads rates. Raises UsageError."""
    fix = "--concurrency 8; --concurrency 1,2,4,8; --concurrency 1..64 doubles"
    try:
        found = [int(text)] if "," not in text and ".." not in text else read_rates(text)
    except ValueError:
        found = [0.5]
    if any(one != round(one) for one in found):
        raise UsageError(f"--concurrency {text}", why="it is a whole number of requests, or several", fix=fix)
    return [round(one) for one in found]


def step_of(rate: float, account: dict[str, Any], path: str | None = None) -> Step:
    """The step that the account of a tape is."""
    good = account["goodput"]
    client = account["client"] or {}
    ttft = account["ttft_from_due" if account["since"] == "due" else "ttft"]
    return Step(
        rate=rate,
        n_requests=account["n_requests"] - account["n_retries"] + account["n_unsent"],
        n_ended=account["n_ended"],
        requests_per_s=account["requests_per_s"],
        tokens_per_s=account["tokens_per_s"],
        ttft_ns=ttft["mean"],
        gap_ns=account["token_gap" if account["token_gap"]["mean"] is not None else "chunk_gap"]["mean"],
        e2e_ns=account["e2e"]["mean"],
        n_good=None if good is None else good["n_good"],
        client_late=_is_late(client),
        server_behind=bool(account["server_behind"]),
        due_per_s=account["offered_per_s"],
        ttft_p99_ns=ttft["p99"],
        ttft_max_ns=ttft["max"],
        path=path,
    )


def _is_late(client: Mapping[str, Any]) -> bool:
    """Whether the client was late by so much that a figure of the step may be off by a tenth of its median, or held it up."""
    off = client.get("off") or ()
    return bool(client.get("bottleneck")) or (
        bool(client.get("late")) and any(one["share"] >= OFF_SHARE for one in off)
    )


def sweep_rates(
    measure: Callable[[float], Step | None],
    rates: Sequence[float],
    *,
    slo: str | None = None,
    target: float = SHARE,
    refine: int = 0,
    observer: Callable[[Step], None] | None = None,
    by: str = "rate",
) -> Swept:
    """Measure each rate, and with objectives ``refine`` more between the last that met them and the first that did not.

    ``measure`` gives None where it was interrupted; then the sweep is over.
    """
    steps: list[Step] = []

    def done(rate: float) -> bool:
        step = measure(rate)
        if step is not None:
            steps.append(step)
            steps.sort(key=lambda one: one.rate)
            if observer is not None:
                observer(step)
        return step is not None

    for rate in rates:
        if not done(rate):
            return Swept(tuple(steps), slo, target, interrupted=True, by=by)
    for _ in range(refine if slo is not None else 0):
        between = largest_of(steps, target)
        if between["good"] is None or between["bad"] is None:
            break
        middle = math.sqrt(between["good"] * between["bad"])
        if by == "concurrency" and (middle := round(middle)) in (between["good"], between["bad"]):
            break
        if not done(middle):
            return Swept(tuple(steps), slo, target, interrupted=True, by=by)
    return Swept(tuple(steps), slo, target, by=by)


def knee_of(steps: Sequence[Step]) -> dict[str, Any]:
    """The knee: ``verdict`` is ``found``, ``below`` (at or below the lowest rate), ``none`` (at or above the highest) or ``few``.

    Where found, ``rate`` is the one of the largest power, and ``between`` its neighbours, of which nothing more is known.
    """
    known = [one for one in steps if one.power is not None]
    if len(known) < FEW:
        return {"verdict": "few", "n": len(known)}
    place = max(range(len(known)), key=lambda i: known[i].power or 0.0)
    if place == 0:
        return {"verdict": "below", "rate": known[0].rate}
    if place == len(known) - 1:
        return {"verdict": "none", "rate": known[-1].rate}
    best = known[place]
    return {
        "verdict": "found",
        "rate": best.rate,
        "between": [known[place - 1].rate, known[place + 1].rate],
        "requests_per_s": best.requests_per_s,
        "tokens_per_s": best.tokens_per_s,
        "e2e_ns": best.e2e_ns,
    }


def largest_of(steps: Sequence[Step], target: float = SHARE) -> dict[str, Any]:
    """The largest rate that met the objectives with all below it (``good``), and the smallest that did not (``bad``).

    ``sure`` is whether the interval of neither share holds ``target``.
    """
    ordered = sorted(steps, key=lambda one: one.rate)
    bad = next((one for one in ordered if (one.share or 0.0) < target), None)
    good = None
    for one in ordered:
        if one is bad:
            break
        good = one
    intervals = {name: _interval(one) for name, one in (("good", good), ("bad", bad))}
    sure = all(found is None or not found[0] < target < found[1] for found in intervals.values())
    return {
        "good": None if good is None else good.rate,
        "bad": None if bad is None else bad.rate,
        "good_share": None if good is None else good.share,
        "bad_share": None if bad is None else bad.share,
        "good_interval": intervals["good"],
        "bad_interval": intervals["bad"],
        "sure": sure,
    }


def _interval(step: Step | None) -> list[float] | None:
    if step is None or step.n_good is None or not step.n_requests:
        return None
    return list(wilson(step.n_good, step.n_requests))


def wilson(n_good: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of which ``n_good`` of ``n`` were seen."""
    share, z2 = n_good / n, _Z * _Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
