"""Times of requests as text: percentiles with an honest n, or the ends where there are too few for one."""

from __future__ import annotations

from collections.abc import Sequence

from tokentape.study.percentiles import Percentile
from tokentape.study.served_reads import leaves_out_many
from tokentape.study.served_summary import ServedSummary
from tokentape.views.screen import Screen
from tokentape.views.units import duration

__all__ = ["chunk_gaps_text", "gaps_text", "spread_text"]

_ALIKE = 0.8


def gaps_text(figures: ServedSummary, screen: Screen) -> str:
    """Percentiles of the token gaps, where they are too few for the first their ends, and how many more are not measured."""
    first = figures.gaps[0]
    text = _percentiles(figures.gaps, screen)
    if first.n and first.value is None:
        low, high = map(duration, figures.gap_ends_ns)
        text = low if first.n == 1 else screen.say("served.spread", low=low, high=high, n=first.n)
    if not figures.n_gaps_untold:
        return text
    n = figures.n_gaps_untold
    return screen.say("served.gaps_untold", text=text, n=n) if text else screen.say("served.gaps_all_untold", n=n)


def chunk_gaps_text(figures: ServedSummary, screen: Screen) -> str:
    """Percentiles of the gaps between arrivals, where the token gaps leave out many; else nothing."""
    many = leaves_out_many(figures.gaps[0].n, figures.n_gaps_untold)
    return _percentiles(figures.chunk_gaps, screen) if many else ""


def spread_text(known: Sequence[Percentile], values: Sequence[int | None], screen: Screen) -> str:
    """Percentiles where the requests suffice for the first, else the ends; empty where there are none."""
    there = [value for value in values if value is not None]
    if not there:
        return ""
    if len(there) == 1:
        return duration(there[0])
    if known[0].value is not None:
        return _percentiles(known, screen)
    return screen.say("served.spread", low=duration(min(there)), high=duration(max(there)), n=len(there))


def _percentiles(known: Sequence[Percentile], screen: Screen) -> str:
    first = known[0]
    if not first.n:
        return ""
    told = [p for p in known if p.value is not None] or [first]
    needs = [p for p in known if p.value is None][:1] if told[0].value is not None else []
    texts = [
        f"p{p.q:g} {duration(p.value)}"
        if p.value is not None
        else screen.say("card.needs_more", name=f"p{p.q:g}", n=p.n_missing)
        for p in [*told, *needs]
    ]
    alike = screen.say("card.alike", n=first.n_effective) if first.n_effective < _ALIKE * first.n else ""
    return screen.say("served.times", percentiles=screen.say("served.list").join(texts), n=first.n, alike=alike)
