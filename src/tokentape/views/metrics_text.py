"""Metrics as text: our own with what was promised, those of one tool, and one tape through all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tokentape.study.dialects import DIALECTS
from tokentape.study.metrics import Metrics, Spread, metrics
from tokentape.study.percentiles import samples_needed
from tokentape.study.readings import Figure, Reading
from tokentape.study.slo import Fluidity, Goodput, Slo
from tokentape.views.screen import Screen, columns
from tokentape.views.units import ABSENT, count, duration, rate

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["OWN", "comparison", "comparison_text", "metrics_text", "reading_text"]

OWN = "tokentape"
"""The name of our own definitions beside those of other tools."""

_SPREADS = {
    "TTFT": "ttft",
    "token gap": "token_gap",
    "chunk gap": "chunk_gap",
    "step time": "step_time",
    "mean gap": "mean_gap",
    "E2E": "e2e",
    "E2E / tokens": "normalised_latency",
}

_KINDS = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "E2E", "normalised": "E2E / tokens"}
_OWN_KINDS = {"ttft": "ttft", "tpot": "mean_gap", "itl": "token_gap", "e2e": "e2e", "normalised": "normalised_latency"}
_RATES = {"tokens/s": "tokens_per_s", "requests/s": "requests_per_s"}


def metrics_text(found: Metrics, screen: Screen) -> str:
    """Our own metrics; times in milliseconds. What lacks samples is n/a, and the last line says how many it takes."""
    told = found.ttft.percentiles
    header = ["ms", "n", "worth", "mean", *[f"p{p.q:g}" for p in told], "max"]
    rows = [_spread_row(label, getattr(found, name)) for label, name in _SPREADS.items()]
    lines = columns(screen, header, rows, "<" + ">" * (len(header) - 1))
    ended = found.n_requests - found.n_failed - found.n_cut_short
    lines += [
        "",
        f"requests    {found.n_requests:,}: {ended:,} ended, {found.n_failed:,} failed, {found.n_cut_short:,} cut short",
        f"throughput  {rate(found.tokens_per_s)}, {rate(found.requests_per_s, 'requests/s')} over {duration(found.window_ns)}",
        f"perplexity  {_plain(found.perplexity)}, {_plain(found.bits_per_byte)} bits a byte",
    ]
    if found.slo is not None and found.goodput is not None:
        lines += _promise(found.slo, found.goodput, found.fluidity)
    if any(p.n_missing for name in _SPREADS.values() for p in getattr(found, name).percentiles):
        needs = ", ".join(f"p{p.q:g} {p.n_needed:,}" for p in told)
        lines += ["", f"independent samples that a percentile takes at 99 % confidence: {needs}"]
    return "\n".join(screen.safe(line) for line in lines)


def reading_text(found: Reading, screen: Screen) -> str:
    """The figures of one tool, times in milliseconds, with their formulas."""
    grid = [q for q in (50, 90, 99) if any(q in dict(f.percentiles) for f in found.figures)]
    header = [found.dialect, "n", "mean", "std", *[f"p{q}" for q in grid], "formula"]
    rows = [_figure_row(figure, grid) for figure in found.figures]
    lines = [
        f"{found.n_counted:,} of {count(found.n_requests, 'request')} counted: {found.counted}",
        "",
        *columns(screen, header, rows, "<" + ">" * (len(header) - 2) + "<"),
        "",
        "times in ms; symbols: t0 request, m messages, c those with a token, k tokens in them, N their sum, te last message",
        f"percentiles: {_METHODS[found.method]}",
    ]
    if any(cell.endswith("?") for row in rows for cell in row):
        lines.append("? fewer samples than the percentile takes at 99 % confidence, if each were independent")
    if found.goodput is not None:
        lines.append(f"goodput: {_goodput(found.goodput)}")
    lines.append(f"source: {found.project}: {'; '.join(found.sources)}")
    return "\n".join(screen.safe(line) for line in lines)


_METHODS = {
    "linear": "linear interpolation (numpy's default)",
    "lower": "the measured value at or below (numpy's lower)",
    "cumulative": "the least value with that share of the weight at or below it",
}


def comparison(tape: Tape, slo: Slo | None = None) -> tuple[list[str], list[list[str]]]:
    """One tape through our own definitions and all dialects: a header, and rows of cells. Times in milliseconds."""
    own = metrics(tape, slo=slo)
    readings = [metrics(tape, dialect=name, slo=slo) for name in DIALECTS]
    counted = [str(own.n_requests - own.n_failed - own.n_cut_short), *(f"{r.n_counted:,}" for r in readings)]
    rows = [["requests counted", *counted]]
    for kind, label in _KINDS.items():
        figures = [reading.figure(kind) for reading in readings]
        spread: Spread = getattr(own, _OWN_KINDS[kind])
        counts = [None if figure is None else figure.n for figure in figures]
        rows.append([f"{label}, n", str(spread.n), *(_cell(n, "{:,}") for n in counts)])
        rows.append([f"{label}, mean", _ms(spread.mean), *map(_ms, map(_mean, figures))])
        middles = [None if figure is None else dict(figure.percentiles).get(50) for figure in figures]
        rows.append([f"{label}, p50", _ms(spread.percentiles[0].value), *map(_ms, middles)])
    for kind, name in _RATES.items():
        totals = [_mean(reading.figure(kind)) for reading in readings]
        rows.append([kind, _plain(getattr(own, name)), *map(_plain, totals)])
    if slo is not None and own.goodput is not None:
        goods = [None if r.goodput is None else r.goodput["n_good"] for r in readings]
        rows.append(["good requests", str(own.goodput.n_good), *(_cell(n, "{}") for n in goods)])
    return ["ms", OWN, *DIALECTS], rows


def comparison_text(tape: Tape, screen: Screen, slo: Slo | None = None) -> str:
    """The same as a table for a terminal."""
    header, rows = comparison(tape, slo)
    lines = columns(screen, header, rows, "<" + ">" * (len(header) - 1))
    lines += [
        "",
        f"{ABSENT}: the tool has no such figure, or it cannot be told (our own percentiles take enough samples)",
    ]
    lines.append("what each name means: --dialect NAME")
    return "\n".join(lines)


def _spread_row(label: str, spread: Spread) -> list[str]:
    numbers = [_ms(spread.mean), *(_ms(p.value) for p in spread.percentiles), _ms(spread.max)]
    return [label, f"{spread.n:,}", f"{spread.n_effective:,}", *numbers]


def _promise(slo: Slo, good: Goodput, fluid: Fluidity | None) -> list[str]:
    limits = {"TTFT": slo.ttft_ns, "mean gap": slo.gap_ns, "E2E": slo.e2e_ns}
    asked = ", ".join(f"{name} <= {duration(ns)}" for name, ns in limits.items() if ns is not None)
    causes = {"late": good.n_late, "failed": good.n_failed, "cut short": good.n_cut_short, "unknown": good.n_unknown}
    missed = ", ".join(f"{n:,} {cause}" for cause, n in causes.items() if n)
    share = ABSENT if good.share is None else f"{good.share:.1%}"
    lines = [
        "",
        f"objectives  {asked}",
        f"goodput     {rate(good.requests_per_s, 'requests/s')}: {good.n_good:,} of {good.n_requests:,} ({share})"
        + (f"; missed by {missed}" if missed else ""),
    ]
    if good.n_without_gap:
        lines.append(
            f"            {good.n_without_gap:,} of the good ones had one token, and so no gap to be asked for"
        )
    if fluid is not None:
        index = ABSENT if fluid.index is None else f"{fluid.index:.4f}"
        lines.append(f"fluidity    {index}: {fluid.n_missed:,} of {count(fluid.n_deadlines, 'deadline')} missed")
    return lines


def _figure_row(figure: Figure, grid: list[int]) -> list[str]:
    if figure.n is None:
        return [figure.name, "", _plain(figure.mean), "", *[""] * len(grid), figure.formula]
    told = dict(figure.percentiles)
    cells = [_ms(told.get(q)) + ("?" if q in told and figure.n < samples_needed(q) else "") for q in grid]
    return [figure.name, f"{figure.n:,}", _ms(figure.mean), _ms(figure.std), *cells, figure.formula]


def _goodput(found: Mapping[str, float | int | None]) -> str:
    per_s = found["requests_per_s"]
    return f"{found['n_good']} requests, {rate(per_s, 'requests/s')}"


def _mean(figure: Figure | None) -> float | None:
    return None if figure is None else figure.mean


def _ms(ns: float | None) -> str:
    return ABSENT if ns is None else f"{ns / 1e6:,.3f}"


def _plain(value: float | None) -> str:
    return ABSENT if value is None else f"{value:,.3f}"


def _cell(value: float | int | None, form: str) -> str:
    return ABSENT if value is None else form.format(value)
