"""Metrics as text: our own with what was promised, those of one tool, and one tape through all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokentape.study.dialects import OF_SERVERS
from tokentape.study.metrics import Metrics, Spread, metrics
from tokentape.study.percentiles import samples_needed
from tokentape.study.readings import Figure, Reading
from tokentape.study.slo import Fluidity, Goodput, Slo
from tokentape.views.screen import Screen, columns, pad
from tokentape.views.units import ABSENT, duration, rate

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["OWN", "comparison", "comparison_text", "metrics_text", "reading_text"]

OWN = "tokentape"
"""The name of our own definitions beside those of other tools."""

_SPREADS = ("ttft", "token_gap", "chunk_gap", "step_time", "mean_gap", "e2e", "normalised_latency")
_KINDS = {"ttft": "ttft", "tpot": "mean_gap", "itl": "token_gap", "e2e": "e2e", "normalised": "normalised_latency"}
_RATES = {"tokens/s": "tokens_per_s", "requests/s": "requests_per_s"}
_LABEL = 12
"""Cells of a label before what stands behind it."""

_ENGLISH = Screen()


def metrics_text(found: Metrics, screen: Screen) -> str:
    """Our own metrics; times in milliseconds. What lacks samples is n/a, and the last line says how many it takes."""
    told = found.ttft.percentiles
    worth, mean, most = (screen.say(f"metrics.{name}") for name in ("worth", "mean", "max"))
    header = ["ms", "n", worth, mean, *[f"p{p.q:g}" for p in told], most]
    rows = [_spread_row(screen.say(f"metrics.{name}"), getattr(found, name)) for name in _SPREADS]
    lines = columns(screen, header, rows, "<" + ">" * (len(header) - 1))
    if found.token_gap.n_untold:
        lines += ["", screen.say("metrics.untold", n=found.token_gap.n_untold)]
    lines += ["", *_totals(found, screen)]
    if found.since == "due":
        lines += ["", _from_due(found, screen)]
    if found.slo is not None and found.goodput is not None:
        lines += ["", *_promise(found.slo, found.goodput, found.fluidity, screen)]
    if any(p.n_missing for name in _SPREADS for p in getattr(found, name).percentiles):
        needs = screen.say("card.list").join(f"p{p.q:g} {p.n_needed:,}" for p in told)
        lines += ["", screen.say("metrics.needs", needs=needs)]
    if found.since == "start" and found.goodput is not None and found.n_scheduled:
        lines += ["", screen.paint(screen.say("metrics.ask_due", n=found.n_scheduled), "dim")]
    return "\n".join(screen.safe(line) for line in lines)


def reading_text(found: Reading, screen: Screen) -> str:
    """The figures of one tool, times in milliseconds, with their formulas."""
    grid = [q for q in (50, 90, 99) if any(q in dict(f.percentiles) for f in found.figures)]
    mean, std, formula = (screen.say(f"metrics.{name}") for name in ("mean", "std", "formula"))
    header = [found.dialect, "n", mean, std, *[f"p{q}" for q in grid], formula]
    rows = [_figure_row(figure, grid) for figure in found.figures]
    lines = [
        screen.say(
            "metrics.counted",
            n=found.n_counted,
            all=found.n_requests,
            which=screen.say(f"metrics.counted.{found.dialect}"),
        ),
        "",
        *columns(screen, header, rows, "<" + ">" * (len(header) - 2) + "<"),
        "",
        screen.say("metrics.symbols"),
        screen.say("metrics.percentiles", method=screen.say(f"metrics.method.{found.method}")),
    ]
    if any(cell.endswith("?") for row in rows for cell in row):
        lines.append(screen.say("metrics.unsure"))
    if found.goodput is not None:
        per_s = rate(found.goodput["requests_per_s"], "requests/s")
        lines.append(screen.say("metrics.goodput_of", n=str(found.goodput["n_good"]), rate=per_s))
    lines.append(screen.say("metrics.source", project=found.project, files="; ".join(found.sources)))
    return "\n".join(screen.safe(line) for line in lines)


def comparison(tape: Tape, slo: Slo | None = None, screen: Screen = _ENGLISH) -> tuple[list[str], list[list[str]]]:
    """One tape through our own definitions and all dialects: a header, and rows of cells. Times in milliseconds."""
    own = metrics(tape, slo=slo, since="start")  # as the other tools count
    readings = [metrics(tape, dialect=name, slo=slo) for name in OF_SERVERS]
    counted = [str(own.n_requests - own.n_failed - own.n_cut_short), *(f"{r.n_counted:,}" for r in readings)]
    rows = [[screen.say("metrics.requests_counted"), *counted]]
    for kind, name in _KINDS.items():
        named = screen.say(f"metrics.{kind}")
        head = {what: screen.say(f"metrics.row_{what}", name=named) for what in ("n", "mean", "p50")}
        figures = [reading.figure(kind) for reading in readings]
        spread: Spread = getattr(own, name)
        counts = [None if figure is None else figure.n for figure in figures]
        rows.append([head["n"], str(spread.n), *(_cell(n, "{:,}") for n in counts)])
        rows.append([head["mean"], _ms(spread.mean), *map(_ms, map(_mean, figures))])
        middles = [None if figure is None else dict(figure.percentiles).get(50) for figure in figures]
        rows.append([head["p50"], _ms(spread.percentiles[0].value), *map(_ms, middles)])
    for kind, name in _RATES.items():
        totals = [_mean(reading.figure(kind)) for reading in readings]
        rows.append([kind, _plain(getattr(own, name)), *map(_plain, totals)])
    if slo is not None and own.goodput is not None:
        goods = [None if r.goodput is None else r.goodput["n_good"] for r in readings]
        rows.append([screen.say("metrics.good_requests"), str(own.goodput.n_good), *(_cell(n, "{}") for n in goods)])
    return ["ms", OWN, *OF_SERVERS], rows


def comparison_text(tape: Tape, screen: Screen, slo: Slo | None = None) -> str:
    """The same as a table for a terminal."""
    header, rows = comparison(tape, slo, screen)
    lines = columns(screen, header, rows, "<" + ">" * (len(header) - 1))
    lines += ["", screen.say("metrics.absent", absent=ABSENT), screen.say("metrics.names")]
    return "\n".join(screen.safe(line) for line in lines)


def _spread_row(label: str, spread: Spread) -> list[str]:
    numbers = [_ms(spread.mean), *(_ms(p.value) for p in spread.percentiles), _ms(spread.max)]
    return [label, f"{spread.n:,}", f"{spread.n_effective:,}", *numbers]


def _totals(found: Metrics, screen: Screen) -> list[str]:
    ended = found.n_requests - found.n_failed - found.n_cut_short
    requests = {"n": found.n_requests, "ended": ended, "failed": found.n_failed, "cut": found.n_cut_short}
    speed = {
        "tokens": rate(found.tokens_per_s),
        "requests": rate(found.requests_per_s, "requests/s"),
        "window": duration(found.window_ns),
        "schedule": duration(found.schedule_ns),
    }
    through = "throughput_line" if found.schedule_ns is None else "throughput_due"
    belief = {"value": _plain(found.perplexity), "bits": _plain(found.bits_per_byte)}
    return [
        _labelled("requests", screen.say("metrics.requests_line", **requests), screen),
        _labelled("throughput", screen.say(f"metrics.{through}", **speed), screen),
        _labelled("perplexity", screen.say("metrics.perplexity_line", **belief), screen),
    ]


def _from_due(found: Metrics, screen: Screen) -> str:
    """From which moment requests are judged, and of how many there is no such moment."""
    rest = found.n_requests - found.n_scheduled
    told = screen.say("metrics.from_due_some" if rest else "metrics.from_due", n=found.n_scheduled, rest=rest)
    return _labelled("counted_from", told, screen)


def _promise(slo: Slo, good: Goodput, fluid: Fluidity | None, screen: Screen) -> list[str]:
    comma = screen.say("card.list")
    limits = {"ttft": slo.ttft_ns, "mean_gap": slo.gap_ns, "e2e": slo.e2e_ns}
    asked = [f"{screen.say(f'metrics.{name}')} <= {duration(ns)}" for name, ns in limits.items() if ns is not None]
    causes = {name: getattr(good, f"n_{name}") for name in ("late", "failed", "cut_short", "unknown", "unsent")}
    missed = [screen.say(f"metrics.missed.{cause}", n=n) for cause, n in causes.items() if n]
    kept = {
        "rate": rate(good.requests_per_s, "requests/s"),
        "n": good.n_good,
        "all": good.n_requests,
        "share": ABSENT if good.share is None else f"{good.share:.1%}",
    }
    told = screen.say("metrics.goodput_line", **kept)
    if missed:
        told = screen.say("metrics.goodput_missed", **kept, missed=comma.join(missed))
    lines = [_labelled("objectives", comma.join(asked), screen), _labelled("goodput", told, screen)]
    if good.n_without_gap:
        lines.append(" " * _LABEL + screen.say("metrics.without_gap", n=good.n_without_gap))
    if fluid is not None:
        index = ABSENT if fluid.index is None else f"{fluid.index:.4f}"
        told = screen.say("metrics.fluidity_line", index=index, n=fluid.n_missed, all=fluid.n_deadlines)
        lines.append(_labelled("fluidity", told, screen))
    return lines


def _labelled(name: str, text: str, screen: Screen) -> str:
    return pad(screen.say(f"metrics.{name}"), _LABEL) + text


def _figure_row(figure: Figure, grid: list[int]) -> list[str]:
    if figure.n is None:
        return [figure.name, "", _plain(figure.mean), "", *[""] * len(grid), figure.formula]
    told = dict(figure.percentiles)
    cells = [_ms(told.get(q)) + ("?" if q in told and figure.n < samples_needed(q) else "") for q in grid]
    return [figure.name, f"{figure.n:,}", _ms(figure.mean), _ms(figure.std), *cells, figure.formula]


def _mean(figure: Figure | None) -> float | None:
    return None if figure is None else figure.mean


def _ms(ns: float | None) -> str:
    return ABSENT if ns is None else f"{ns / 1e6:,.3f}"


def _plain(value: float | None) -> str:
    return ABSENT if value is None else f"{value:,.3f}"


def _cell(value: float | int | None, form: str) -> str:
    return ABSENT if value is None else form.format(value)
