"""A law of latency as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokentape.study.law.residuals import rates_of, residuals_by_cause, residuals_of
from tokentape.views.page.law_words import term_message
from tokentape.views.screen import Screen, columns
from tokentape.views.sparkline import sparkline
from tokentape.views.units import duration
from tokentape.words.catalogue import said
from tokentape.words.retold import retold

if TYPE_CHECKING:
    from tokentape.study.law.laws import Coefficient, Law, Part, Prediction
    from tokentape.study.law.residuals import Rate

__all__ = ["law_text", "meaning_text", "missing_text", "predictions_text", "term_text"]

_PREFIX = ((1e-3, 1e3, "p"), (1.0, 1.0, "n"), (1e3, 1e-3, "u"), (1e6, 1e-6, "m"), (float("inf"), 1e-9, ""))


def law_text(law: Law, screen: Screen) -> str:
    """Each part with its form, coefficients, check and residuals; then what is missing, and why."""
    names = ", ".join(subject.name for subject in law.subjects)
    lines = [screen.paint(screen.say("law.of", names=names), "bold")]
    for part in (law.decode, law.prefill):
        if part is not None:
            lines += ["", *_part(law, part, screen)]
    for kind, why in law.missing.items():
        lines += ["", screen.say("law.missing", kind=screen.say(f"law.kind.{kind}"), why=missing_text(why, screen))]
    return "\n".join(screen.safe(line) for line in lines)


def _part(law: Law, part: Part, screen: Screen) -> list[str]:
    head = screen.say(
        "law.part",
        kind=screen.say(f"law.kind.{part.kind}"),
        n=part.n_cells,
        points=part.n_points,
        range=_range(part, screen),
        clock=retold(part.clock, screen.lang, "law.clock"),
    )
    lines = [screen.paint(head, "bold"), f"  {screen.say('page_law.form', form=_form(part.form, screen))}"]
    keys = ("page_law.term", "page_law.value", "law.interval", "page_law.share", "page_law.what")
    term, *header = (screen.say(key) for key in keys)
    lines += columns(
        screen, [f"  {term}", *header], [_coefficient(c, screen) for c in part.coefficients], "<>><<", stretch=4
    )
    if (sentence := law.sentence()) is not None and part.kind == "decode":
        lines.append(f"  {retold(sentence, screen.lang, 'law.note')}")
    workload = law.subjects[0].workload
    if workload is not None and len(law.subjects) == 1 and not law.subjects[0].pooled:
        lines += [f"  {_rate(rate, screen)}" for rate in rates_of(part, workload)]
    lines.append(f"  {_check(part, screen)}")
    if part.also:
        forms = screen.say("law.list").join(_form(form, screen) for form in part.also)
        lines.append(f"  {screen.say('law.also', forms=forms)}")
    return [*lines, *_residuals(law, part, screen)]


def _form(form: str, screen: Screen) -> str:
    return " + ".join(term_text(name, screen) for name in form.split(" + "))


def term_text(name: str, screen: Screen) -> str:
    """A term of a law by its name."""
    return name if screen.lang == "en" else said(term_message(name), screen.lang)


def meaning_text(meaning: str, screen: Screen) -> str:
    """What a term stands for in the machine."""
    return retold(meaning, screen.lang, "page_law.meaning", "law.bent")


def missing_text(why: str, screen: Screen) -> str:
    """Why there is no law, or no part of it."""
    return retold(why, screen.lang, "law.why", "law.kind")


def _rate(rate: Rate, screen: Screen) -> str:
    name, why = (retold(text, screen.lang, "law.note") for text in (rate.name, rate.why))
    return screen.say("law.rate", name=name, value=f"{rate.value:.3g} {rate.unit}", why=why)


def _range(part: Part, screen: Screen) -> str:
    low, high = part.batch
    context = {"low": f"{part.context[0]:,.0f}", "high": f"{part.context[1]:,.0f}"}
    if low == high:
        return screen.say("law.range", **context, batch=str(low))
    return screen.say("law.range_batch", **context, least=str(low), most=str(high))


def _coefficient(c: Coefficient, screen: Screen) -> list[str]:
    value = _small(c.value)
    if c.per:
        value = screen.say("law.each", value=value, per=retold(c.per, screen.lang, "page_law.per"))
    interval = screen.say("law.between", low=_small(c.low), high=_small(c.high))
    return [f"  {term_text(c.name, screen)}", value, interval, f"{c.share:.0%}", meaning_text(c.meaning, screen)]


def _small(ns: float) -> str:
    """A time that may be far below a nanosecond."""
    if ns <= 0:
        return "0"
    below, factor, prefix = next(row for row in _PREFIX if ns < 1000 * row[0])
    value = ns * factor
    return f"{value:.3g} {prefix}s" if below != 1e-3 or value >= 0.001 else f"{value:.2g} {prefix}s"


def _check(part: Part, screen: Screen) -> str:
    if part.check is None:
        return screen.say("law.too_few")
    c = part.check
    return screen.say(
        "law.check",
        median=f"{c.median_error:.1%}",
        p90=f"{c.p90_error:.1%}",
        coverage=f"{c.coverage:.0%}",
        n=str(c.n),
    )


def _residuals(law: Law, part: Part, screen: Screen) -> list[str]:
    residuals = residuals_of(law, part)
    lines = []
    for group in residuals_by_cause(residuals):
        if group.cause is not None:
            told = {"median": f"{group.median_ratio:.2f}", "most": f"{group.largest_ratio:.2f}"}
            cause = screen.say(f"law.cause.{group.cause}")
            lines.append(f"  {screen.say('law.left_out', n=group.n, cause=cause, **told)}")
    width = max(20, min(60, screen.width - 30))
    apart = [abs(residual.ratio - 1) for residual in residuals if residual.cause is None]
    told = {"course": sparkline(apart, screen, width), "most": f"{max(apart):.0%}"}
    lines.append(f"  {screen.say('law.off', **told)}")
    return lines


def predictions_text(predictions: Sequence[Prediction], screen: Screen) -> str:
    """A table of predictions; what lies beyond the measurements says so."""
    header = [screen.say(f"law.{name}") for name in ("kind", "context", "batch", "time", "of_interval", "beyond")]
    rows = [
        [
            screen.say(f"law.kind.{p.kind}"),
            f"{p.context:,.0f}",
            f"{p.batch:,.0f}",
            duration(p.ns),
            screen.say("law.held", low=duration(p.low_ns), high=duration(p.high_ns), confidence=f"{p.confidence:.0%}"),
            _beyond(p, screen),
        ]
        for p in predictions
    ]
    return "\n".join(screen.safe(line) for line in columns(screen, header, rows, "<>>>><"))


def _beyond(p: Prediction, screen: Screen) -> str:
    told = [
        screen.say(
            "law.largest" if factor > 1 else "law.smallest", name=screen.say(f"law.{name}"), factor=f"{factor:.3g}"
        )
        for name, factor in p.beyond.items()
    ]
    return screen.say("law.and").join(told) or screen.say("law.within")
