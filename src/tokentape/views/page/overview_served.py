"""The overview of an endpoint's tape: how the requests went, in one sentence, a few figures and what is worth a look."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokentape.study.percentiles import Percentile
from tokentape.study.served import Flight
from tokentape.study.served_summary import ServedSummary, is_answered, mostly_failed
from tokentape.views.card import model_name
from tokentape.views.drawing import drawn_text
from tokentape.views.page.parts import Part, figure, link
from tokentape.views.page.rounding import rounded
from tokentape.views.served_text import shared_message
from tokentape.views.units import duration, rate
from tokentape.words.catalogue import Message

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["served_overview"]

_SAID = 200
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
    counts = {"model": model, "answered": _answered(figures), "n": figures.n_requests}
    if mostly_failed(figures):  # of these few times there is little to say, and the client's lateness is no cause
        return _one(_say("verdict_failed", **counts, failed=figures.n_failed))
    per_s = figures.requests_per_s
    told = _say("verdict_unplaced", **counts) if per_s is None else None
    clauses = [told or _say("verdict", **counts, rate=rate(per_s, "requests/s"))]
    known = [one.ttft_ns for one in found if one.ttft_ns is not None]
    if known:
        clauses.append(_say("verdict_ttft", ttft=duration(statistics.median_low(known))))
    if _bottleneck(tape):
        clauses.append(_say("verdict_client"))
    return Message(f"page_overview.verdict.{len(clauses)}", dict(zip("abc", clauses, strict=False)))


def _one(clause: Message) -> Message:
    return Message("page_overview.verdict.1", {"a": clause})


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
    whole = [one.answer_time_ns for one in found if one.answer_time_ns is not None and is_answered(one)]
    return [
        figure(_say("figure_requests"), f"{answered:,}", answered, "count", note=counts),
        _time(Message("page_overview.ttft"), figures.ttft, ttft),
        _gap(figures),
        _time(_say("figure_e2e"), figures.e2e, e2e),
        _time(_say("figure_answer_time"), figures.answer_time, whole),
        figure(_say("figure_rate"), text, rounded(per_s), note=None if text is None else tokens),
    ]


def _gap(figures: ServedSummary) -> Part:
    """Percentiles of the token gaps; where they are too few, their ends."""
    label, first = Message("page_overview.gap"), figures.gaps[0]
    if first.value is not None or not first.n:
        return _time(label, figures.gaps, [])
    low, high = figures.gap_ends_ns
    needs = _say("figure_needs", n=first.n, q=f"p{first.q:g}", missing=first.n_missing)
    return figure(label, duration(low) if low == high else f"{duration(low)} – {duration(high)}", low, "ns", note=needs)


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
    if figures.said is not None and figures.n_failed:
        words = drawn_text(" ".join(figures.said.split()))[:_SAID]
        statuses = ", ".join(f"HTTP {status} {n:,}" for status, n in sorted(figures.statuses.items()))
        told = _say("finding_failed", n=figures.n_failed, statuses=f" ({statuses})" if statuses else "", words=words)
        texts.append((told, link("requests")))
    if _bottleneck(tape) and not mostly_failed(figures):
        given = tape.notes["client"].get("reasons")
        reasons = "; ".join(drawn_text(str(one)) for one in given) if isinstance(given, list) else ""
        texts.append((_say("finding_client", reasons=reasons), link("requests")))
    if figures.faults:
        names = ", ".join(f"{drawn_text(name)} {n:,}" for name, n in sorted(figures.faults.items()))
        first = next(one.traces[0] for one in found if one.fault is not None)
        told = _say("finding_faults", n=sum(figures.faults.values()), names=names)
        texts.append((told, link("requests", trace=first) if first in traces else link("requests")))
    if (shared := shared_message(tape, figures)) is not None:
        texts.append((shared, link("requests")))
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
