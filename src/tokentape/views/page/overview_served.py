"""The overview of an endpoint's tape: how the requests went, in one sentence, a few figures and what is worth a look."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokentape.study.percentiles import Percentile
from tokentape.study.served import Flight
from tokentape.study.served_summary import ServedSummary, is_answered
from tokentape.views.card import model_name
from tokentape.views.drawing import drawn_text
from tokentape.views.page.parts import Part, figure, link
from tokentape.views.page.rounding import rounded
from tokentape.views.units import duration, rate
from tokentape.words.catalogue import Message

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["served_overview"]

LATE_SHARE = 0.1
"""From this share of the median TTFT on, how late requests were sent is worth a word."""


def served_overview(tape: Tape, found: Sequence[Flight], figures: ServedSummary, traces: Mapping[int, Part]) -> Part:
    """``Overview`` of the page's document; no command is told, as what was asked is in the requests."""
    return {
        "verdict": _verdict(tape, found, figures).as_dict(),
        "figures": _figures(found, figures),
        "findings": _findings(tape, found, figures, traces),
        "command": None,
    }


def _say(key: str, **args: Any) -> Message:
    return Message(f"page_requests.{key}", args)


def _answered(figures: ServedSummary) -> int:
    return figures.n_requests - figures.n_failed - figures.n_open


def _verdict(tape: Tape, found: Sequence[Flight], figures: ServedSummary) -> Message:
    model = drawn_text(model_name(tape) or "") or Message("page_overview.a_model")
    per_s = rate(figures.requests_per_s, "requests/s")
    clauses = [_say("verdict", model=model, answered=_answered(figures), n=figures.n_requests, rate=per_s)]
    known = [one.ttft_ns for one in found if one.ttft_ns is not None]
    if known:
        clauses.append(_say("verdict_ttft", ttft=duration(statistics.median_low(known))))
    if _bottleneck(tape):
        clauses.append(_say("verdict_client"))
    return Message(f"page_overview.verdict.{len(clauses)}", dict(zip("abc", clauses, strict=False)))


def _bottleneck(tape: Tape) -> bool:
    noted = tape.notes.get("client")
    return isinstance(noted, Mapping) and noted.get("bottleneck") is True


def _figures(found: Sequence[Flight], figures: ServedSummary) -> list[Part]:
    answered, per_s = _answered(figures), figures.requests_per_s
    counts = _say("figure_of", n=figures.n_requests, failed=figures.n_failed, open=figures.n_open)
    tokens = _say("figure_tokens", tokens=rate(figures.tokens_per_s), window=duration(figures.window_ns))
    text = None if per_s is None else rate(per_s, "requests/s")
    ttft = [one.ttft_ns for one in found if one.ttft_ns is not None]
    e2e = [one.e2e_ns for one in found if one.e2e_ns is not None and is_answered(one)]
    return [
        figure(_say("figure_requests"), f"{answered:,}", answered, "count", note=counts),
        _time(Message("page_overview.ttft"), figures.ttft, ttft),
        _time(Message("page_overview.gap"), figures.gaps, []),
        _time(_say("figure_e2e"), figures.e2e, e2e),
        figure(_say("figure_rate"), text, rounded(per_s), note=tokens),
    ]


def _time(label: Message, known: Sequence[Percentile], values: Sequence[int]) -> Part:
    """Percentiles; where the samples are too few, the middle of those there are, said to be that."""
    first = known[0]
    told = [f"p{p.q:g} {duration(p.value)}" for p in known[:2] if p.value is not None]
    if told:
        samples = _say("figure_samples", n=first.n, worth=first.n_effective)
        return figure(label, ", ".join(told), first.value, "ns", note=samples)
    if not values:
        needs = _say("figure_needs", n=first.n, q=f"p{first.q:g}", missing=first.n_missing)
        return figure(label, None, unit="ns", note=needs if first.n else None)
    middle = statistics.median_low(values)
    ends = {"low": duration(min(values)), "high": duration(max(values))}
    note = _say("figure_middle", n=len(values), missing=first.n_missing, **ends) if len(values) > 1 else None
    return figure(label, duration(middle), middle, "ns", note=note)


def _findings(tape: Tape, found: Sequence[Flight], figures: ServedSummary, traces: Mapping[int, Part]) -> list[Part]:
    texts: list[tuple[Message, Part]] = []
    if _bottleneck(tape):
        given = tape.notes["client"].get("reasons")
        reasons = "; ".join(drawn_text(str(one)) for one in given) if isinstance(given, list) else ""
        texts.append((_say("finding_client", reasons=reasons), link("requests")))
    if figures.faults:
        names = ", ".join(f"{drawn_text(name)} {n:,}" for name, n in sorted(figures.faults.items()))
        first = next(one.traces[0] for one in found if one.fault is not None)
        told = _say("finding_faults", n=sum(figures.faults.values()), names=names)
        texts.append((told, link("requests", trace=first) if first in traces else link("requests")))
    known = [one for one in found if one.ttft_ns is not None]
    if len(known) > 1:
        slow = max(known, key=lambda one: one.ttft_ns or 0)
        number = slow.traces[0]
        told = _say("finding_slow", ns=duration(slow.ttft_ns), n=str(number))
        texts.append((told, link("time", trace=number) if number in traces else link("requests")))
    late = max((one.schedule_delay_ns for one in known if one.schedule_delay_ns is not None), default=0)
    if known and late > LATE_SHARE * statistics.median(one.ttft_ns or 0 for one in known):
        texts.append((_say("finding_late", ns=duration(late)), link("requests")))
    return [{"text": text.as_dict(), "link": where} for text, where in texts]
