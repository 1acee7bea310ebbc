"""The end card: what a recording came to, in a dozen lines."""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len

from tokentape.study.metrics import Cause, SlowToken, Summary, SurprisingToken, summary
from tokentape.study.percentiles import Percentile
from tokentape.study.served import flights, is_served
from tokentape.study.served_summary import served_summary
from tokentape.study.surprise import surprises_nats
from tokentape.study.times import run_gaps_ns, runs_of
from tokentape.views.control_text import control_lines
from tokentape.views.drawing import drawn_text
from tokentape.views.ranks_text import rank_lines
from tokentape.views.screen import Screen, fit, pad
from tokentape.views.served_text import served_head, served_lines
from tokentape.views.shape import token_names
from tokentape.views.sparkline import sparkline
from tokentape.views.units import ABSENT, bytes_text, duration, rate
from tokentape.words.catalogue import Message, said

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["card", "cause_message", "facts_line", "finish_message", "finish_text", "line", "model_name", "shown_path"]

_LABEL = 14
_NAME = 32
_ALIKE = 0.8
"""From this share down the card says how many independent samples the gaps are worth."""
_COURSE = 8
"""Fewer values make no course."""
_WIDEST = 48
_FEW = 16
"""Up to so many requests are read in full for the card."""


def card(tape: Tape, screen: Screen, figures: Summary | None = None, *, commands: bool = True) -> str:
    """The figures of a tape, where it lies, and with ``commands`` the next useful command. No line end at the end."""
    head, found = _of_requests(tape, screen) if is_served(tape) else _of_runs(tape, screen, figures or summary(tape))
    if tape.path is not None:
        saved = shown_path(tape.path)
        if tape.state != "complete":
            saved = screen.say("card.state", path=saved, state=screen.say(f"card.{tape.state}"))
        found.append(("card.saved", saved))
    if tape.path is not None and commands:
        command = screen.paint(f"tokentape show {shlex.quote(shown_path(tape.path))}", "cyan")
        found.append(("card.next", command))
    lines = [screen.paint(head, "bold")]
    lines += [line(screen.say(label) if label else "", text) for label, text in found]
    return "\n".join(screen.safe(line) for line in lines)  # never cut: a path or a command must be whole to be copied


def _of_runs(tape: Tape, screen: Screen, figures: Summary) -> tuple[str, Lines]:
    """What a model in this process did."""
    given = all(trace.finish_reason == "given" for trace in tape.traces)  # read, not generated: no token was waited for
    times = [] if given else _times(figures, screen)
    found = [*times, *rank_lines(tape, screen), *_belief(figures, screen), *_sizes(figures, screen)]
    found += control_lines(tape, screen)
    found += [*_courses(tape, screen, given), *_extremes(tape, figures, given, screen)]
    return facts_line(tape, screen), [(f"card.{label}" if label else "", text) for label, text in found]


def _of_requests(tape: Tape, screen: Screen) -> tuple[str, Lines]:
    """How requests to a server went; of few of them also what the model believed."""
    asked = flights(tape)
    figures = served_summary(tape, asked)
    found = served_lines(tape, figures, asked, screen)
    if len(asked) <= _FEW and any(one.label == "exact" for one in asked):
        nats = [nats for trace in tape.traces for nats in surprises_nats(trace) if nats is not None]
        found += [(f"card.{label}", text) for label, text in _belief(summary(tape), screen)] if nats else []
    return served_head(tape, figures, screen), found


def facts_line(tape: Tape, screen: Screen) -> str:
    """Model, dtype, device and the counts, in one line."""
    facts = tape.setting.facts
    where = [str(facts[name]) for name in ("dtype", "device") if facts.get(name) is not None]
    name = model_name(tape)
    n_traces = len(tape.traces)
    return screen.say(
        "card.head" if n_traces <= 1 else "card.head_many",
        model=screen.say("card.a_model") if name is None else drawn_text(name),
        engine=f" ({', '.join(where)})" if where else "",
        n=sum(len(trace.tokens["step"]) for trace in tape.traces),
        traces=n_traces,
        reasons=", ".join(sorted({finish_text(trace.finish_reason, tape.state, screen) for trace in tape.traces})),
    )


def model_name(tape: Tape) -> str | None:
    """The model as it was asked for."""
    name = tape.setting.facts.get("model")
    return None if name is None else str(name)


def shown_path(path: Path) -> str:
    """The path as it can be typed here: relative where the file lies below the current folder.

    A name that would act on a terminal can only be shown, not typed.
    """
    with contextlib.suppress(ValueError, OSError):
        path = path.relative_to(Path.cwd())
    return drawn_text(str(path), keep="\xa0\u3000")


def finish_message(reason: str | None, state: str) -> Message:
    """Why a trace ended; where it did not, whether its recorder lives, by the state of the tape."""
    return Message(f"page_core.finish.{reason or ('running' if state == 'recording' else 'left')}")


def finish_text(reason: str | None, state: str, screen: Screen) -> str:
    """The same in the reader's words."""
    return said(finish_message(reason, state), screen.lang)


def cause_message(cause: Cause) -> Message:
    """What explains a long gap."""
    return Message(f"card.cause_{cause.kind}", {"time": duration(cause.ns), "n": cause.count})


def line(label: str, text: str) -> str:
    """A labelled line of the card."""
    return f"  {pad(label, _LABEL)}{text}"


Lines = list[tuple[str, str]]
"""Names of labels with what stands behind them."""


def _times(figures: Summary, screen: Screen) -> Lines:
    known = [ns for ns in figures.ttft_ns if ns is not None]
    first = ABSENT if not known else _between(known, len(known), screen)
    gaps, n = screen.say("card.list").join(_percentile(p, screen) for p in figures.gaps[:2]), figures.gaps[0].n
    worth = figures.gaps[0].n_effective
    alike = screen.say("card.alike", n=worth) if worth < _ALIKE * n else ""
    same = screen.say("card.same_step", n=figures.n_same_step) if figures.n_same_step else ""
    speed = rate(figures.decode_tokens_per_s)
    if figures.decode_tokens_per_s is not None:
        speed = screen.say("card.speed_line", decode=speed, overall=rate(figures.overall_tokens_per_s))
    return [
        ("ttft", first),
        ("gap", screen.say("card.gap_line", percentiles=gaps, n=n, alike=alike, same=same) if n else ABSENT),
        ("speed", speed),
    ]


def _between(values: Sequence[int], n_runs: int, screen: Screen) -> str:
    """One time, or the ends of several."""
    low, high = min(values), max(values)
    if n_runs == 1:
        return duration(low)
    return screen.say("card.between", low=duration(low), high=duration(high), n=n_runs)


def _percentile(p: Percentile, screen: Screen) -> str:
    name = f"p{p.q:g}"
    if p.value is not None:
        return f"{name} {duration(p.value)}"
    return screen.say("card.needs_more", name=name, n=p.n_missing)


def _belief(figures: Summary, screen: Screen) -> Lines:
    if figures.mean_surprise_nats is None or figures.mean_surprise_bits is None:
        return [("surprise", ABSENT)]
    nats, bits = f"{figures.mean_surprise_nats:.3f}", f"{figures.mean_surprise_bits:.3f}"
    text = screen.say("card.mean_surprise", nats=nats, bits=bits)
    if figures.perplexity is not None and math.isfinite(figures.perplexity):
        text += screen.say("card.perplexity", value=f"{figures.perplexity:,.2f}")
    if figures.n_tokens is not None and figures.n_surprise < figures.n_tokens:
        text += screen.say("card.of_n", n=figures.n_surprise)
    return [("surprise", text)]


def _sizes(figures: Summary, screen: Screen) -> Lines:
    cache = bytes_text(figures.peak_cache_bytes)
    sizes = [("process", figures.peak_rss_bytes), ("device", figures.peak_device_bytes)]
    memory = [screen.say(f"card.{name}", size=bytes_text(size)) for name, size in sizes if size is not None]
    return [
        ("cache", screen.say("card.peak", size=cache) if figures.peak_cache_bytes else cache),
        ("memory", screen.say("card.peak", size=screen.say("card.list").join(memory)) if memory else ABSENT),
    ]


def _courses(tape: Tape, screen: Screen, given: bool) -> Lines:
    """Gaps (not of texts that were ``given``) and surprise from first to last.

    A run's first gap is told apart: caches and clocks are cold in it.
    """
    runs = [found for group in runs_of(tape) if (found := run_gaps_ns(group))]
    gaps = [ns for run in runs for ns in run[1:]]
    surprise = [nats for trace in tape.traces for nats in surprises_nats(trace)]
    lines = []
    if len(gaps) >= _COURSE and not given:
        firsts = [run[0] for run in runs]
        apart = duration(firsts[0]) if min(firsts) == max(firsts) else _between(firsts, len(runs), screen)
        lines.append(_course("gaps", gaps, screen.say("card.gaps_to", high=duration(max(gaps)), first=apart), screen))
    known = [nats for nats in surprise if nats is not None]
    if len(known) >= _COURSE:
        many = "_many" if len(tape.traces) > 1 else ""
        told = screen.say(f"card.surprises_to{many}", high=f"{max(known):.2f}", n=len(tape.traces))
        lines.append(_course("surprises", surprise, told, screen))
    return lines


def _course(label: str, values: Sequence[float | None], text: str, screen: Screen) -> tuple[str, str]:
    width = min(_WIDEST, screen.width - _LABEL - cell_len(text) - 3)
    return label, f"{sparkline(values, screen, max(_COURSE, width))} {text}"


def _extremes(tape: Tape, figures: Summary, given: bool, screen: Screen) -> Lines:
    names = {
        # a guard may have withheld what would be named here
        trace.number: [ABSENT] * trace.tokens.n_rows if trace.guarded else token_names(trace, tape)
        for trace in tape.traces
    }
    lines = []
    if (slow := figures.slowest) is not None and slow.gap_ns and not given:
        facts = {"gap": duration(slow.gap_ns), "place": _place(names, slow, screen)}
        if slow.cause is None:
            lines.append(("slowest", screen.say("card.slowest_line", **facts)))
        else:
            lines.append(("slowest", screen.say("card.slowest_cause", **facts, cause=cause_message(slow.cause))))
    if (odd := figures.most_surprising) is not None:
        key = "card.surprising_line" if odd.rank is None else "card.surprising_rank"
        place = _place(names, odd, screen)
        lines.append(("surprising", screen.say(key, nats=f"{odd.surprise_nats:.2f}", place=place, rank=odd.rank)))
    return lines


def _place(names: dict[int, list[str]], token: SlowToken | SurprisingToken, screen: Screen) -> str:
    name = names[token.trace][token.index]
    key = f"card.at{'' if name == ABSENT else '_name'}{'_of' if len(names) > 1 else ''}"
    return screen.say(key, name=fit(name, _NAME), position=token.position, trace=token.trace)
