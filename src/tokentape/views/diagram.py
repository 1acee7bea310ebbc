"""``show --diagram``: a run, or one step of it, as a Mermaid flowchart: tokens in, state, attention, next token."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from tokentape.study.times import decode_times_ns, plain_values, step_times_ns
from tokentape.views.card import finish_message
from tokentape.views.drawing import drawn_text
from tokentape.views.explanation_text import source_name
from tokentape.views.screen import Screen, fit
from tokentape.views.shape import token_rows
from tokentape.views.step_shape import GivenToken, StepRow, step_row
from tokentape.views.units import bytes_text, duration, percent

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["run_diagram", "step_diagram"]

NAME = 32
"""Cells of a text in a box."""

CANDIDATES = 3
SOURCES = 3

_HARMLESS = set(" .,:'-_()/%+=")


def run_diagram(tape: Tape, trace: Trace, screen: Screen) -> str:
    """The whole run of a trace: prompt, prefill, the loop over its decode steps, and how it ended."""
    say, steps = screen.say, trace.steps
    kinds = plain_values(steps["kind"])
    times, decode = step_times_ns(steps), decode_times_ns(steps)
    n_prompt = trace.n_prompt
    prompt = say("diagram.unknown_prompt") if n_prompt is None else say("diagram.prompt", n=n_prompt)
    first = [ns for ns, kind in zip(times, kinds, strict=True) if kind == 0]
    boxes = [_box("prompt", [prompt, *_quoted(trace.prompt_text)], "([", "])")]
    chain = ["prompt"]
    if first:
        boxes.append(_box("prefill", [say("diagram.prefill", time=duration(sum(first)))]))
        chain.append("prefill")
    state = _state(steps["context"], steps["cache_bytes"], screen)
    boxes.append(_box("state", [*state, say("diagram.grows")], "[(", ")]"))
    links = [*_chain([*chain, "state"])]
    found = token_rows(trace, tape)
    if decode:
        median = duration(statistics.median(decode))
        boxes.append(_box("decode", [say("diagram.decode", n=len(decode), time=median)]))
        boxes.append(_box("choice", [_mean_entropy([row.entropy for row in found], screen), *_rules(trace, screen)]))
        again = _label(say("diagram.again"))
        links += ["state --> decode", "decode --> choice", f'choice -- "{again}" --> state']
    end = say("diagram.end", n=len(found), finish=finish_message(trace.finish_reason, tape.state))
    boxes.append(_box("out", [end, *_quoted(trace.shown)], "([", "])"))
    links.append(f"{'choice' if decode else 'state'} --> out")
    return _drawn(boxes, links)


def step_diagram(tape: Tape, trace: Trace, index: int, screen: Screen) -> str:
    """One step of a trace: what it read, the state it read it with, what it looked at, what it chose from, what it chose.

    Raises UsageError where the run has no such step.
    """
    found = step_row(tape, index, [trace])
    say = screen.say
    boxes = [_box("given", _read(tape, trace, found, screen), "([", "])")]
    boxes.append(_box("pass", [say("diagram.forward", time=duration(found.step_ns))]))
    state = [] if found.context is None else [say("diagram.state", context=found.context)]
    state += [] if found.cache_bytes is None else [say("diagram.cache", size=bytes_text(found.cache_bytes))]
    boxes.append(_box("state", state or [say("step.cache")], "[(", ")]"))
    links = ["given --> pass", "state <--> pass"]
    last = "pass"
    for number, given in enumerate(found.tokens):
        suffix = str(number or "")
        boxes.append(_box(f"looked{suffix}", _looked(given, found, screen)))
        boxes.append(_box(f"choice{suffix}", _choice(given, screen)))
        boxes.append(_box(f"token{suffix}", _chosen(given, screen), "([", "])"))
        links += _chain([last, f"looked{suffix}", f"choice{suffix}", f"token{suffix}"])
    return _drawn(boxes, links)


def _read(tape: Tape, trace: Trace, found: StepRow, screen: Screen) -> list[str]:
    """What the step was given to read: the prompt, or the token that the step before it chose."""
    if found.kind == "prefill":
        n = 0 if found.n_in is None else found.n_in
        told = screen.say("diagram.unknown_prompt") if found.n_in is None else screen.say("diagram.tokens_in", n=n)
        return [told, *_quoted(trace.prompt_text)]
    before = [row for row in token_rows(trace, tape) if row.step < found.index]
    if not before:
        return [screen.say("diagram.unknown_prompt")]
    return [screen.say("diagram.token_in", name=before[-1].name)]


def _looked(given: GivenToken, found: StepRow, screen: Screen) -> list[str]:
    last = given.row.position - 1
    if found.dropped:
        lines = [screen.say("diagram.attention_kept", last=last, dropped=found.dropped)]
    else:
        lines = [screen.say("diagram.attention", last=last)]
    for one in given.explanations[:1]:
        row = 0 if one.together else one.targets.tolist().index(given.row.position)
        names = ", ".join(fit(source_name(source), NAME) for source, _ in one.top(row, SOURCES))
        lines += [screen.say("diagram.rests", names=names), screen.say("step.by", method=one.method)]
    return lines


def _choice(given: GivenToken, screen: Screen) -> list[str]:
    row = given.row
    head = (
        screen.say("diagram.distribution_plain")
        if row.entropy is None
        else screen.say("diagram.distribution", entropy=f"{row.entropy:.2f}")
    )
    likely = [f"{fit(one.name, NAME)} {percent(one.logprob)}" for one in row.candidates[:CANDIDATES]]
    removed = [] if row.removed is None else [screen.say("diagram.removed", removed=f"{row.removed:.3f}")]
    return [head, *([", ".join(likely)] if likely else []), *removed]


def _chosen(given: GivenToken, screen: Screen) -> list[str]:
    row = given.row
    lines = [screen.say("diagram.chosen", name=fit(row.name, NAME))]
    if row.forced:
        lines.append(screen.say("step.forced"))
    elif row.logprob is not None and row.rank is not None:
        probability = f"{math.exp(row.logprob):.1%}"
        lines.append(screen.say("diagram.probability", probability=probability, rank=row.rank))
    return lines


def _rules(trace: Trace, screen: Screen) -> list[str]:
    names = ", ".join(rule.name for rule in trace.run.rules)
    return [screen.say("diagram.rules", names=names)] if names else []


def _mean_entropy(entropies: Sequence[float | None], screen: Screen) -> str:
    known = [value for value in entropies if value is not None]
    if not known:
        return screen.say("diagram.distribution_plain")
    return screen.say("diagram.distribution", entropy=f"{math.fsum(known) / len(known):.2f}")


def _state(contexts: Iterable[int | None], sizes: Iterable[int | None], screen: Screen) -> list[str]:
    context = max((value for value in plain_values(contexts) if value is not None), default=None)
    size = max((value for value in plain_values(sizes) if value is not None), default=None)
    lines = [] if context is None else [screen.say("diagram.state", context=context)]
    return lines + ([] if size is None else [screen.say("diagram.cache", size=bytes_text(size))])


def _quoted(text: str | None) -> list[str]:
    return [] if not text else [f"'{fit(drawn_text(' '.join(text.split())), NAME)}'"]


def _box(name: str, lines: Sequence[str], opened: str = "[", closed: str = "]") -> str:
    return f'{name}{opened}"{"<br/>".join(_label(line) for line in lines)}"{closed}'


def _label(text: str) -> str:
    """Text that Mermaid takes for nothing but text: all that might be markup goes in as a character's number."""
    return "".join(c if c in _HARMLESS or c.isalnum() or ord(c) > 0x7F else f"#{ord(c)};" for c in text)


def _chain(names: Sequence[str]) -> list[str]:
    return [f"{a} --> {b}" for a, b in pairwise(names)]


def _drawn(boxes: Sequence[str], links: Sequence[str]) -> str:
    return "\n".join(["flowchart LR", *(f"  {line}" for line in [*boxes, *links])])
