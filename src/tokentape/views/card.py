"""The end card: what a recording came to, in a dozen lines."""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tokentape.study.metrics import Cause, SlowToken, Summary, SurprisingToken, summary
from tokentape.study.percentiles import Percentile
from tokentape.study.surprise import surprises_nats
from tokentape.study.times import run_gaps_ns, runs_of
from tokentape.views.control_text import control_lines
from tokentape.views.drawing import drawn_text
from tokentape.views.screen import Screen, fit
from tokentape.views.shape import token_names
from tokentape.views.sparkline import sparkline
from tokentape.views.units import ABSENT, bytes_text, count, duration, rate

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["card", "cause_text", "facts_line", "finish_text", "line", "model_name", "shown_path"]

_LABEL = 14
_NAME = 32
_ALIKE = 0.8
"""From this share down the card says how many independent samples the gaps are worth."""
_COURSE = 8
"""Fewer values make no course."""
_WIDEST = 48

_FINISH = {
    "stop": "end of text",
    "stop_string": "stop string",
    "length": "length limit",
    "criteria": "stopping criterion",
    "grammar": "the grammar's end",
    "cornered": "no token left by the rules",
    "guard": "stopped by a guard",
    "given": "the text was given",
    "interrupted": "interrupted",
    "error": "error",
}


def card(tape: Tape, screen: Screen, figures: Summary | None = None, *, commands: bool = True) -> str:
    """The figures of a tape, where it lies, and with ``commands`` the next useful command. No line end at the end."""
    figures = figures or summary(tape)
    given = all(trace.finish_reason == "given" for trace in tape.traces)  # read, not generated: no token was waited for
    times = [] if given else _times(figures)
    lines = [screen.paint(facts_line(tape), "bold"), *times, *_belief(figures), *_sizes(figures)]
    lines += [line(label, text) for label, text in control_lines(tape)]
    lines += [*_courses(tape, screen, given), *_extremes(tape, figures, given)]
    if tape.path is not None:
        saved = shown_path(tape.path) + ("" if tape.state == "complete" else f" ({tape.state})")
        lines.append(line("saved", saved))
    if tape.path is not None and commands:
        lines.append(line("next", screen.paint(f"tokentape show {shlex.quote(shown_path(tape.path))}", "cyan")))
    return "\n".join(screen.safe(line) for line in lines)  # never cut: a path or a command must be whole to be copied


def facts_line(tape: Tape) -> str:
    """Model, dtype, device and the counts, in one line."""
    facts = tape.setting.facts
    where = [str(facts[name]) for name in ("dtype", "device") if facts.get(name) is not None]
    model = drawn_text(model_name(tape) or "a model")
    n_tokens = sum(len(trace.tokens["step"]) for trace in tape.traces)
    tokens = count(n_tokens, "token")
    if len(tape.traces) > 1:
        tokens += f" in {count(len(tape.traces), 'sequence')}"
    reasons = ", ".join(sorted({finish_text(trace.finish_reason, tape.state) for trace in tape.traces}))
    engine = f" ({', '.join(where)})" if where else ""
    return f"{model}{engine}: {tokens}; {reasons}"


def model_name(tape: Tape) -> str | None:
    """The model as it was asked for."""
    name = tape.setting.facts.get("model")
    return None if name is None else str(name)


def shown_path(path: Path) -> str:
    """The path as it can be typed here: relative where the file lies below the current folder."""
    with contextlib.suppress(ValueError, OSError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def finish_text(reason: str | None, state: str) -> str:
    """Why a trace ended, in words; where it did not, whether its recorder lives, by the state of the tape."""
    if reason is None:
        return "still running" if state == "recording" else "its recorder stopped before its end"
    return _FINISH.get(reason, reason)


def cause_text(cause: Cause | None) -> str:
    """What explains a long gap, in words; empty where nothing does."""
    if cause is None:
        return ""
    if cause.kind == "gc":
        return f"{duration(cause.ns)} in {count(cause.count, 'garbage collection')}"
    return (
        f"{duration(cause.ns)} off the processor ({cause.count:,} involuntary context switch{'es' * (cause.count > 1)})"
    )


def line(label: str, text: str) -> str:
    """A labelled line of the card."""
    return f"  {label:<{_LABEL}}{text}"


def _times(figures: Summary) -> list[str]:
    known = [ns for ns in figures.ttft_ns if ns is not None]
    first = duration(known[0]) if len(known) == 1 else ABSENT
    if len(known) > 1:
        first = f"{duration(min(known))} to {duration(max(known))}, {count(len(known), 'run')}"
    gaps, n = ", ".join(_percentile(p) for p in figures.gaps[:2]), figures.gaps[0].n
    worth = figures.gaps[0].n_effective
    alike = f", worth {worth:,} independent ones" if worth < _ALIKE * n else ""
    same = f", {figures.n_same_step} of them 0 (one step)" if figures.n_same_step else ""
    speed = rate(figures.decode_tokens_per_s)
    if figures.decode_tokens_per_s is not None:
        speed += f" decode, {rate(figures.overall_tokens_per_s)} overall"
    return [
        line("TTFT", first),
        line("token gap", f"{gaps} (n = {n:,}{alike}{same})" if n else ABSENT),
        line("speed", speed),
    ]


def _percentile(p: Percentile) -> str:
    name = f"p{p.q:g}"
    return f"{name} {duration(p.value)}" if p.value is not None else f"{name} needs {p.n_missing:,} more"


def _belief(figures: Summary) -> list[str]:
    if figures.mean_surprise_nats is None:
        return [line("surprise", ABSENT)]
    text = f"mean {figures.mean_surprise_nats:.3f} nats ({figures.mean_surprise_bits:.3f} bits) a token"
    if figures.perplexity is not None and math.isfinite(figures.perplexity):
        text += f", perplexity {figures.perplexity:,.2f}"
    if figures.n_surprise < figures.n_tokens:
        text += f" (n = {figures.n_surprise:,})"
    return [line("surprise", text)]


def _sizes(figures: Summary) -> list[str]:
    memory = []
    if figures.peak_rss_bytes is not None:
        memory.append(f"process {bytes_text(figures.peak_rss_bytes)}")
    if figures.peak_device_bytes is not None:
        memory.append(f"device {bytes_text(figures.peak_device_bytes)}")
    return [
        line("KV cache", f"{bytes_text(figures.peak_cache_bytes)}" + (" peak" if figures.peak_cache_bytes else "")),
        line("memory", ", ".join(memory) + " peak" if memory else ABSENT),
    ]


def _courses(tape: Tape, screen: Screen, given: bool) -> list[str]:
    """Gaps (not of texts that were ``given``) and surprise from first to last.

    A run's first gap is told apart: caches and clocks are cold in it.
    """
    runs = [found for group in runs_of(tape) if (found := run_gaps_ns(group))]
    gaps = [ns for run in runs for ns in run[1:]]
    surprise = [nats for trace in tape.traces for nats in surprises_nats(trace)]
    lines = []
    if len(gaps) >= _COURSE and not given:
        first, last = min(run[0] for run in runs), max(run[0] for run in runs)
        apart = (
            duration(first) if first == last else f"{duration(first)} to {duration(last)}, {count(len(runs), 'run')}"
        )
        lines.append(_course("gaps", gaps, f"to {duration(max(gaps))}; first {apart}", screen))
    known = [nats for nats in surprise if nats is not None]
    if len(known) >= _COURSE:
        many = f", {len(tape.traces):,} sequences" if len(tape.traces) > 1 else ""
        lines.append(_course("surprises", surprise, f"to {max(known):.2f} nats{many}", screen))
    return lines


def _course(label: str, values: Sequence[float | None], text: str, screen: Screen) -> str:
    width = min(_WIDEST, screen.width - _LABEL - len(text) - 3)
    return line(label, f"{sparkline(values, screen, max(_COURSE, width))} {text}")


def _extremes(tape: Tape, figures: Summary, given: bool) -> list[str]:
    names = {
        # a guard may have withheld what would be named here
        trace.number: [ABSENT] * trace.tokens.n_rows if trace.guarded else token_names(trace, tape)
        for trace in tape.traces
    }
    lines = []
    if (slow := figures.slowest) is not None and not given:
        cause = cause_text(slow.cause)
        text = f"{duration(slow.gap_ns)} {_place(names, slow)}"
        lines.append(line("slowest", text + (f": {cause}" if cause else "")))
    if (odd := figures.most_surprising) is not None:
        rank = f", rank {odd.rank:,}" if odd.rank is not None else ""
        lines.append(line("surprising", f"{odd.surprise_nats:.2f} nats {_place(names, odd)}{rank}"))
    return lines


def _place(names: dict[int, list[str]], token: SlowToken | SurprisingToken) -> str:
    sequence = f" of sequence {token.trace}" if len(names) > 1 else ""
    name = names[token.trace][token.index]
    return f"at {'' if name == ABSENT else fit(name, _NAME) + ', '}position {token.position}{sequence}"
