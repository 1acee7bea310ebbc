"""A law of latency as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokentape.study.law.residuals import rates_of, residuals_by_cause, residuals_of
from tokentape.views.screen import Screen, columns
from tokentape.views.sparkline import sparkline
from tokentape.views.units import ABSENT, count, duration

if TYPE_CHECKING:
    from tokentape.study.law.laws import Coefficient, Law, Part, Prediction

__all__ = ["law_text", "predictions_text"]

_PREFIX = ((1e-3, 1e3, "p"), (1.0, 1.0, "n"), (1e3, 1e-3, "u"), (1e6, 1e-6, "m"), (float("inf"), 1e-9, ""))


def law_text(law: Law, screen: Screen) -> str:
    """Each part with its form, coefficients, check and residuals; then what is missing, and why."""
    names = ", ".join(subject.name for subject in law.subjects)
    lines = [screen.paint(f"the law of {names}", "bold")]
    for part in (law.decode, law.prefill):
        if part is not None:
            lines += ["", *_part(law, part, screen)]
    for kind, why in law.missing.items():
        lines += ["", f"{kind}: no law: {why}"]
    return "\n".join(screen.safe(line) for line in lines)


def _part(law: Law, part: Part, screen: Screen) -> list[str]:
    n = f"{count(part.n_cells, 'setting')}, {count(part.n_points, 'measurement')}"
    head = f"{part.kind}: {n}; {_range(part)}; {part.clock} clock"
    lines = [screen.paint(head, "bold"), f"  time = {part.form}"]
    header = ["  term", "value", "90 % interval", "share", "what it is"]
    rows = [_coefficient(c) for c in part.coefficients]
    lines += columns(screen, header, rows, "<>><<", stretch=4)
    if (sentence := law.sentence()) is not None and part.kind == "decode":
        lines.append(f"  {sentence}")
    workload = law.subjects[0].workload
    if workload is not None and len(law.subjects) == 1 and not law.subjects[0].pooled:
        lines += [f"  {rate.name}: {rate.value:.3g} {rate.unit} ({rate.why})" for rate in rates_of(part, workload)]
    lines.append(f"  {_check(part)}")
    if part.also:
        lines.append(f"  also explained the data, and widen the intervals: {'; '.join(part.also)}")
    return [*lines, *_residuals(law, part, screen)]


def _range(part: Part) -> str:
    low, high = part.batch
    batch = f"batch {low}" if low == high else f"batch {low} to {high}"
    return f"context {part.context[0]:,.0f} to {part.context[1]:,.0f}, {batch}"


def _coefficient(c: Coefficient) -> list[str]:
    per = f" a {c.per}" if c.per else ""
    share = f"{c.share:.0%}"
    return [f"  {c.name}", f"{_small(c.value)}{per}", f"{_small(c.low)} to {_small(c.high)}", share, c.meaning]


def _small(ns: float) -> str:
    """A time that may be far below a nanosecond."""
    if ns <= 0:
        return "0"
    below, factor, prefix = next(row for row in _PREFIX if ns < 1000 * row[0])
    value = ns * factor
    return f"{value:.3g} {prefix}s" if below != 1e-3 or value >= 0.001 else f"{value:.2g} {prefix}s"


def _check(part: Part) -> str:
    if part.check is None:
        return f"too few settings to leave one out: how well it predicts is {ABSENT}"
    c = part.check
    return (
        f"on settings left out of the fit: median error {c.median_error:.1%}, p90 {c.p90_error:.1%}; "
        f"90 % intervals held {c.coverage:.0%} (n = {c.n})"
    )


def _residuals(law: Law, part: Part, screen: Screen) -> list[str]:
    residuals = residuals_of(law, part)
    lines = []
    for group in residuals_by_cause(residuals):
        if group.cause is not None:
            lines.append(
                f"  left out: {count(group.n, 'measurement')} for {group.cause}, "
                f"{group.median_ratio:.2f} times the law in the median, {group.largest_ratio:.2f} at most"
            )
    width = max(20, min(60, screen.width - 30))
    apart = [abs(residual.ratio - 1) for residual in residuals if residual.cause is None]
    lines.append(f"  off the law, as measured: {sparkline(apart, screen, width)} (at most {max(apart):.0%})")
    return lines


def predictions_text(predictions: Sequence[Prediction], screen: Screen) -> str:
    """A table of predictions; what lies beyond the measurements says so."""
    header = ["kind", "context", "batch", "time", "interval", "beyond what was measured"]
    rows = [
        [
            p.kind,
            f"{p.context:,.0f}",
            f"{p.batch:,.0f}",
            duration(p.ns),
            f"{duration(p.low_ns)} to {duration(p.high_ns)} ({p.confidence:.0%})",
            ", ".join(_beyond(name, factor) for name, factor in p.beyond.items()) or "no",
        ]
        for p in predictions
    ]
    return "\n".join(columns(screen, header, rows, "<>>>><"))


def _beyond(name: str, factor: float) -> str:
    return f"{name} {factor:.3g} x the {'largest' if factor > 1 else 'smallest'}"
