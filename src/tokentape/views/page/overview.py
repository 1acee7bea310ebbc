"""The overview: one sentence about the tape, its main figures, what is worth a look, and the command that made it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.study.metrics import Cause, Summary
from tokentape.study.percentiles import Percentile
from tokentape.study.surprise import surprises_nats
from tokentape.study.times import decode_times_ns, run_steps
from tokentape.views.card import model_name
from tokentape.views.drawing import drawn_text, quoted
from tokentape.views.page.again import record_command
from tokentape.views.page.parts import Part, PartName, figure, link
from tokentape.views.page.rounding import out_of, rounded
from tokentape.views.page.symbols import names
from tokentape.views.page.withheld import LetThrough
from tokentape.views.units import bytes_text, duration, rate
from tokentape.words.catalogue import Message

if TYPE_CHECKING:
    from tokentape.data.explanation import Explanation
    from tokentape.data.tape import Tape

__all__ = ["SURE", "overview_part", "verdict"]

SURE = 0.5
"""The model was sure of a token to which it gave more than this probability."""

_ENOUGH = 8
"""Steps from which the slowest is held against the median."""

_MANY = 20
"""Tokens from which a share of them is told in percent."""

_NAME = 40
"""Characters of a token's name in a sentence."""

_MARKS = "page_overview"


def overview_part(tape: Tape, figures: Summary, traces: Mapping[int, Part]) -> Part:
    """``Overview`` of the page's document: ``figures`` are the tape's summary, ``traces`` the traces of the page by number."""
    return {
        "verdict": verdict(tape, figures).as_dict(),
        "figures": _figures(figures, given=_given(tape)),
        "findings": _findings(tape, figures, traces),
        "command": _command(tape),
    }


def _given(tape: Tape) -> bool:
    """Whether the tape holds given text alone, which was read at once: nobody waited for a token of it."""
    return bool(tape.traces) and all(trace.finish_reason == "given" for trace in tape.traces)


def _command(tape: Tape) -> str | None:
    """The command that made the tape; None where another than ``record`` did, or a program."""
    by_record = str(tape.setting.facts.get("command")).startswith("tokentape") and "job" not in tape.notes
    return record_command(tape) if by_record else None


def verdict(tape: Tape, figures: Summary) -> Message:
    """One sentence made of the numbers: what was written and how fast, the slowest step, how sure the model was."""
    clauses = [_written(tape, figures), *_slow(tape), *_sure(tape)]
    return _say(f"verdict.{len(clauses)}", **dict(zip("abc", clauses, strict=False)))


def _say(key: str, **args: Any) -> Message:
    return Message(f"{_MARKS}.{key}", args)


def _written(tape: Tape, figures: Summary) -> Message:
    model = drawn_text(model_name(tape) or "") or _say("a_model")
    if figures.n_tokens and _given(tape):
        return _say("read", model=model, n=figures.n_tokens, texts=len(tape.traces))
    if not figures.n_tokens or figures.decode_tokens_per_s is None:
        return _say("wrote", model=model, n=figures.n_tokens)
    key = "writing" if figures.state == "recording" else "wrote_at"
    return _say(key, model=model, n=figures.n_tokens, speed=rate(figures.decode_tokens_per_s))


def _slow(tape: Tape) -> list[Message]:
    times = [ns for steps in run_steps(tape) for ns in decode_times_ns(steps)]
    if len(times) < _ENOUGH or not (median := statistics.median(times)):
        return []
    return [_say("slow", times=f"{max(times) / median:.1f}")]


def _sure(tape: Tape) -> list[Message]:
    known = [nats for trace in tape.traces for nats in surprises_nats(trace) if nats is not None]
    if not known:
        return []
    sure = sum(nats < -math.log(SURE) for nats in known)
    if len(known) < _MANY:
        return [_say("sure_few", sure=sure, n=len(known))]
    return [_say("sure", share=out_of(sure, len(known)))]


def _figures(figures: Summary, *, given: bool) -> list[Part]:
    times = _of_given(figures) if given else [_first(figures), _gap(figures), _speed(figures)]
    return [*times, _surprise(figures), _memory(figures)]


def _of_given(figures: Summary) -> list[Part]:
    """The same figures of text that was read at once, as far as it has them."""
    speed, note = figures.overall_tokens_per_s, _say("not_waited")
    text = None if speed is None else rate(speed)
    return [
        figure(_say("ttft"), None, unit="ns", note=note),
        figure(_say("gap"), None, unit="ns", note=note),
        figure(_say("speed_read"), text, rounded(speed)),
    ]


def _first(figures: Summary) -> Part:
    known = [ns for ns in figures.ttft_ns if ns is not None]
    if not known:
        return figure(_say("ttft"), None, unit="ns")
    if len(known) == 1:
        return figure(_say("ttft"), duration(known[0]), known[0], "ns", note=_prompts(figures))
    note = _say("over_runs", n=len(known), low=duration(min(known)), high=duration(max(known)))
    middle = statistics.median_low(known)
    return figure(_say("ttft_median"), duration(middle), middle, "ns", note=note)


def _prompts(figures: Summary) -> Message | None:
    """What was read before the first token: the lengths of the prompts, where they are known."""
    lengths = sorted({one.n_prompt for one in figures.traces if one.n_prompt is not None})
    if not lengths:
        return None
    if len(figures.traces) == 1:
        return _say("prompt", n=lengths[0])
    return (
        _say("prompts", n=len(figures.traces), low=lengths[0], high=lengths[-1])
        if lengths[1:]
        else _say("prompts_alike", n=len(figures.traces), tokens=lengths[0])
    )


def _gap(figures: Summary) -> Part:
    p50, p95, *_ = figures.gaps
    told = [f"p{p.q:g} {duration(p.value)}" for p in (p50, p95) if p.value is not None]
    return figure(_say("gap"), ", ".join(told) or None, p50.value, "ns", note=_samples(p50, p95))


def _samples(p50: Percentile, p95: Percentile) -> Message:
    """How many gaps there are, and how many more a percentile needs that is not told."""
    if p50.value is None:
        return _say("needs", n=p50.n, q=f"p{p50.q:g}", missing=p50.n_missing)
    if p95.value is None:
        return _say("needs", n=p95.n, q=f"p{p95.q:g}", missing=p95.n_missing)
    return _say("samples", n=p50.n, worth=p50.n_effective)


def _speed(figures: Summary) -> Part:
    speed = figures.decode_tokens_per_s
    overall = (
        None if figures.overall_tokens_per_s is None else _say("overall", speed=rate(figures.overall_tokens_per_s))
    )
    text = None if speed is None else rate(speed)
    return figure(_say("speed"), text, rounded(speed), note=overall)


def _surprise(figures: Summary) -> Part:
    mean = figures.mean_surprise_nats
    if mean is None:
        return figure(_say("surprise"), None, unit="nats")
    many = _say("n_tokens", n=figures.n_surprise)
    note = many if figures.perplexity is None else _say("perplexity", value=f"{figures.perplexity:,.2f}", many=many)
    return figure(_say("surprise"), f"{mean:.3f} nats", rounded(mean), "nats", note=note)


def _memory(figures: Summary) -> Part:
    """The cache, and beside it the memory; of a tape that does not know its cache the memory alone."""
    sizes = [("process", figures.peak_rss_bytes), ("device", figures.peak_device_bytes)]
    known = [(key, size) for key, size in sizes if size is not None]
    parts = [_say(key, size=bytes_text(size)) for key, size in known]
    note = _say("both", a=parts[0], b=parts[1]) if len(parts) == 2 else parts[0] if parts else None
    cache = figures.peak_cache_bytes
    if cache is None and known:
        key, size = known[-1]
        return figure(_say(f"memory_{key}"), bytes_text(size), size, "bytes", note=note if len(known) == 2 else None)
    return figure(_say("cache"), None if cache is None else bytes_text(cache), cache, "bytes", note=note)


def _findings(tape: Tape, figures: Summary, traces: Mapping[int, Part]) -> list[Part]:
    found = [
        None if _given(tape) else _slowest(figures, traces),
        _surprising(figures, traces),
        _dependence(tape, traces),
        _removal(traces),
        _guarded(tape, traces),
    ]
    return [one for one in found if one is not None]


def _finding(text: Message, part: PartName, traces: Mapping[int, Part], number: int, place: int | None) -> Part:
    """A finding; what it points to is left out where the page does not hold that trace."""
    there = number in traces
    return {"text": text.as_dict(), "link": link(part, trace=number, place=place) if there else link(part)}


def _called(traces: Mapping[int, Part], number: int, place: int) -> str | Message:
    """How the token of a place is named in a sentence."""
    if number not in traces:
        return _say("token_of", n=number)
    name = names(traces[number]["symbols"], place)
    short = quoted(name if len(name) <= _NAME else name[: _NAME - 1] + "…")
    token = short if name else _say("token_at", place=str(place))
    return token if len(traces) == 1 else _say("token_in", token=token, n=number)


def _place(traces: Mapping[int, Part], number: int, index: int) -> int:
    return index + (int(traces[number]["n_prompt"]) if number in traces else 0)


def _slowest(figures: Summary, traces: Mapping[int, Part]) -> Part | None:
    slow = figures.slowest
    if slow is None or not slow.gap_ns:
        return None
    place = _place(traces, slow.trace, slow.index)
    args = {"ns": duration(slow.gap_ns), "token": _called(traces, slow.trace, place)}
    text = _say("slowest", **args) if slow.cause is None else _say("slowest_by", **args, cause=_cause(slow.cause))
    return _finding(text, "time", traces, slow.trace, place)


def _cause(cause: Cause) -> Message:
    return _say(cause.kind, ns=duration(cause.ns), n=cause.count)


def _surprising(figures: Summary, traces: Mapping[int, Part]) -> Part | None:
    odd = figures.most_surprising
    if odd is None or odd.surprise_nats < -math.log(SURE):  # a token that was expected is no surprise
        return None
    place = _place(traces, odd.trace, odd.index)
    args = {"nats": f"{odd.surprise_nats:.2f} nats", "token": _called(traces, odd.trace, place)}
    text = _say("surprising", **args) if odd.rank is None else _say("surprising_rank", **args, rank=odd.rank)
    return _finding(text, "distribution", traces, odd.trace, place)


def _dependence(tape: Tape, traces: Mapping[int, Part]) -> Part | None:
    """The target that rests most on one source, over the newest explanation of each trace."""
    newest = {one.trace: one for one in tape.explanations if one.trace in traces and not one.together}
    best: tuple[float, Explanation, int, int] | None = None
    for one in newest.values():
        size = np.where(np.ma.getmaskarray(one.relevance), -1.0, np.abs(one.relevance.data))
        row, column = divmod(int(size.argmax()), size.shape[1])
        if size[row, column] > 0 and (best is None or size[row, column] > best[0]):
            best = (float(size[row, column]), one, row, column)
    if best is None:
        return None
    _, one, row, column = best
    source, target = one.sources[column], int(one.targets[row])
    symbols = traces[one.trace]["symbols"]
    place = int(np.searchsorted(symbols["position"], target))
    value = float(one.relevance.data[row, column])
    unit = "nats" if one.kind == "logprob" else "logit"
    words = {
        "token": _called(traces, one.trace, place),
        "source": quoted(drawn_text(source.label)[:_NAME]),
        "value": f"{value:+.2f} {unit}",
        "method": one.method,
    }
    return _finding(_say("dependence", **words), "attention", traces, one.trace, place)


def _removal(traces: Mapping[int, Part]) -> Part | None:
    """The token at which the rules took most probability away."""
    known = [
        (nats, -number, -index)
        for number, trace in traces.items()
        for index, nats in enumerate(trace["tokens"]["removed"])
        if nats
    ]
    if not known:
        return None
    nats, number, index = max(known)
    place = _place(traces, -number, -index)
    text = _say("removal", token=_called(traces, -number, place), share=_left_out(nats), nats=f"{nats:.2f} nats")
    return _finding(text, "tokens", traces, -number, place)


def _left_out(nats: float) -> str:
    """The probability that was taken away, in percent, never 100 % where something was left."""
    share = 100 * -math.expm1(-nats)
    return f"{share:.0f}%" if share < 99.5 else f"{min(share, 99.99):.2f}%"


def _guarded(tape: Tape, traces: Mapping[int, Part]) -> Part | None:
    decided = [trace for trace in tape.traces if trace.guarded and trace.decisions]
    if not decided:
        return None
    hidden = any(isinstance(trace, LetThrough) for trace in decided)
    text = _say("guarded" if hidden else "guarded_open", n=sum(len(trace.decisions) for trace in decided))
    return _finding(text, "tokens", traces, decided[0].number, None)
