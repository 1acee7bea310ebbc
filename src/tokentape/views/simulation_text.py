"""A simulated server as text: its figures, its queue and batch over time, and how they change with the rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokentape.study.simulate.rates import Limit, kept
from tokentape.views.screen import Screen, columns, pad
from tokentape.views.sparkline import sparkline
from tokentape.views.units import ABSENT, duration, rate
from tokentape.words.retold import retold

if TYPE_CHECKING:
    from tokentape.study.metrics import Spread
    from tokentape.study.simulate.simulation import Simulation

__all__ = ["limit_text", "rates_text", "simulation_text"]

_SPREADS = ("queued", "ttft", "token_gap", "mean_gap", "e2e", "normalised_latency")
_LABEL = 12
_COURSE = 60


def simulation_text(found: Simulation, screen: Screen) -> str:
    """Its figures, times in milliseconds, with the same names as those of a recorded tape."""
    lines = [screen.paint(_head(found, screen), "bold"), _labelled("simulation.steps", _steps(found, screen), screen)]
    lines += [_labelled("simulation.requests", _requests(found, screen), screen), ""]
    worth, mean, most = (screen.say(f"metrics.{name}") for name in ("worth", "mean", "max"))
    quantiles = [f"p{p.q:g}" for p in found.ttft.percentiles]
    header = ["ms", "n", worth, mean, *quantiles, most]
    rows = [_row(_name(name, screen), getattr(found, name)) for name in _SPREADS]
    lines += [*columns(screen, header, rows, "<" + ">" * (len(header) - 1)), ""]
    lines += [*_state(found, screen), *_course(found, screen), *_promise(found, screen)]
    if any(p.n_missing for name in _SPREADS for p in getattr(found, name).percentiles):
        needs = screen.say("card.list").join(f"p{p.q:g} {p.n_needed:,}" for p in found.ttft.percentiles)
        lines += ["", screen.say("metrics.needs", needs=needs)]
    if found.notes:
        lines += ["", *(retold(note, screen.lang, "simulation.note") for note in found.notes)]
    return "\n".join(screen.safe(line) for line in lines)


def _head(found: Simulation, screen: Screen) -> str:
    s = found.scheduler
    memory = screen.say("simulation.unlimited")
    if s.kv_tokens is not None:
        memory = screen.say("simulation.limited", n=s.kv_tokens)
    policy = screen.say(f"simulation.policy.{s.policy}")
    return screen.say("simulation.head", policy=policy, seqs=s.max_seqs, tokens=s.max_batched_tokens, memory=memory)


def _steps(found: Simulation, screen: Screen) -> str:
    server, told = found.server, found.server.calibration
    if told is None:
        return screen.say(f"simulation.by.{server.origin}", name=server.name)
    errors = {"first_error": f"{told.first_error:.1%}", "gap_error": f"{told.gap_error:.1%}"}
    return screen.say("simulation.by.calibration", first=told.n_first, gaps=told.n_gaps, **errors)


def _requests(found: Simulation, screen: Screen) -> str:
    return screen.say(
        "simulation.requests_line",
        n=found.n_requests,
        rate=rate(found.arrival_rate, "requests/s"),
        tokens=found.n_tokens,
        prompts=found.n_prompt_tokens,
        refused=found.n_refused,
        preempted=found.n_preemptions,
    )


def _name(spread: str, screen: Screen) -> str:
    return screen.say("simulation.queued" if spread == "queued" else f"metrics.{spread}")


def _row(label: str, spread: Spread) -> list[str]:
    values = [spread.mean, *(p.value for p in spread.percentiles), spread.max]
    return [label, f"{spread.n:,}", f"{spread.n_effective:,}", *(_ms(value) for value in values)]


def _state(found: Simulation, screen: Screen) -> list[str]:
    load, little = found.load, found.little
    speed = {
        "tokens": rate(found.tokens_per_s),
        "requests": rate(found.requests_per_s, "requests/s"),
        "window": duration(found.window_ns),
    }
    lines = [_labelled("metrics.throughput", screen.say("metrics.throughput_line", **speed), screen)]
    told = {"busy": _share(load.utilisation), "running": _few(load.mean_running), "waiting": _few(load.mean_waiting)}
    line = screen.say("simulation.load_line", **told, most=load.max_running, longest=load.max_waiting)
    lines.append(_labelled("simulation.load", line, screen))
    held = {"mean": ABSENT if load.kv_mean is None else f"{load.kv_mean:,.0f}", "peak": load.kv_peak}
    line = screen.say("simulation.memory_line", **held)
    if load.kv_share is not None:
        line = screen.say("simulation.memory_share", **held, share=_share(load.kv_share))
    lines.append(_labelled("simulation.memory", line, screen))
    if little.ratio is not None:
        parts = {
            "number": _few(little.number),
            "rate": rate(little.rate, "requests/s"),
            "time": duration(little.time_ns),
        }
        line = screen.say("simulation.little_line", **parts, off=f"{abs(little.ratio - 1):.2%}")
        lines.append(_labelled("simulation.little", line, screen))
    if load.keeps_up is False:
        lines.append(screen.paint(screen.say("simulation.behind", share=_share(load.queue_growth)), "yellow"))
    return lines


def _course(found: Simulation, screen: Screen) -> list[str]:
    series, width = found.series(_COURSE), max(20, min(_COURSE, screen.width - 40))
    lines = []
    for name in ("waiting", "running"):
        if name in series:
            most = _few(max(series[name]))
            told = screen.say("simulation.course", course=sparkline(series[name], screen, width), most=most)
            lines.append(_labelled(f"simulation.{name}", told, screen))
    return lines


def _promise(found: Simulation, screen: Screen) -> list[str]:
    slo, good = found.slo, found.goodput
    if slo is None or good is None:
        return []
    comma = screen.say("card.list")
    limits = {"ttft": slo.ttft_ns, "mean_gap": slo.gap_ns, "e2e": slo.e2e_ns}
    asked = [f"{screen.say(f'metrics.{name}')} <= {duration(ns)}" for name, ns in limits.items() if ns is not None]
    told = {
        "rate": rate(good.requests_per_s, "requests/s"),
        "n": good.n_good,
        "all": good.n_requests,
        "share": ABSENT if good.share is None else f"{good.share:.1%}",
    }
    causes = {"late": good.n_late, "failed": good.n_failed}
    missed = [screen.say(f"metrics.missed.{cause}", n=n) for cause, n in causes.items() if n]
    line = screen.say("metrics.goodput_line", **told)
    if missed:
        line = screen.say("metrics.goodput_missed", **told, missed=comma.join(missed))
    lines = [_labelled("metrics.objectives", comma.join(asked), screen), _labelled("metrics.goodput", line, screen)]
    if good.n_without_gap:
        lines.append(" " * _LABEL + screen.say("metrics.without_gap", n=good.n_without_gap))
    return lines


def rates_text(found: Sequence[Simulation], screen: Screen, attained: float | None = None) -> str:
    """A table, one rate a row: what was good, TTFT and gap, who ran and who waited."""
    names = ("simulation.rate", "simulation.good", "simulation.kept")
    rate_name, good, kept_name = (screen.say(name) for name in names)
    ttft, gap = screen.say("metrics.ttft"), screen.say("metrics.mean_gap")
    state = [screen.say(f"simulation.{name}") for name in ("busy", "running", "waiting")]
    header = [rate_name, good, kept_name, *(f"{what} p{q}" for what in (ttft, gap) for q in (50, 99)), *state]
    rows = []
    for one in found:
        told = [_quantile(spread, q) for spread in (one.ttft, one.mean_gap) for q in (50, 99)]
        load = [_share(one.load.utilisation), _few(one.load.mean_running), _few(one.load.mean_waiting)]
        share = ABSENT if one.goodput is None or one.goodput.share is None else f"{one.goodput.share:.1%}"
        rows.append([rate(one.arrival_rate, "/s"), share, _kept(one, attained, screen), *told, *load])
    return "\n".join(screen.safe(line) for line in columns(screen, header, rows, ">" * len(header)))


def _kept(one: Simulation, attained: float | None, screen: Screen) -> str:
    if one.load.keeps_up is False:
        return screen.say("simulation.falls_behind")
    if attained is None or one.goodput is None:
        return ABSENT
    return screen.say("simulation.yes" if kept(one, attained) else "simulation.no")


def limit_text(found: Limit, screen: Screen) -> str:
    """The rates that were tried, and the largest that kept the promise."""
    told = {"share": f"{found.attained:.0%}"}
    if found.rate is None:
        line = screen.say("simulation.none", **told)
    elif found.above is None:
        line = screen.say("simulation.no_limit", **told)
    else:
        rates = {"rate": rate(found.rate, "requests/s"), "above": rate(found.above, "requests/s")}
        line = screen.say("simulation.largest", **told, **rates)
    return rates_text(found.tried, screen, found.attained) + "\n\n" + screen.safe(screen.paint(line, "bold"))


def _quantile(spread: Spread, q: int) -> str:
    return duration(next(p.value for p in spread.percentiles if p.q == q))


def _labelled(key: str, text: str, screen: Screen) -> str:
    return pad(screen.say(key), _LABEL) + text


def _ms(ns: float | None) -> str:
    """Three decimals; of less than a millisecond three significant digits."""
    if ns is None:
        return ABSENT
    ms = ns / 1e6
    return f"{ms:,.3f}" if not 0 < abs(ms) < 1 else f"{ms:.{2 - math.floor(math.log10(abs(ms)))}f}"


def _few(value: float | None) -> str:
    return ABSENT if value is None else f"{value:,.3g}" if value < 100 else f"{value:,.0f}"


def _share(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.1%}"
