"""``show --step``: one step in full, as text and as plain values."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from rich.cells import cell_len

from tokentape.views.card import cause_message
from tokentape.views.explanation_text import source_name
from tokentape.views.screen import Screen, columns, fit, pad
from tokentape.views.step_shape import GivenToken, StepRow, rest_of_mass
from tokentape.views.units import ABSENT, bytes_text, duration
from tokentape.words.catalogue import said

__all__ = ["step_document", "step_text"]

BAR = 24
"""Cells of a bar of probability 1."""

SOURCES = 5
"""Sources named of each explanation."""

BYTES = 48
"""Bytes of a token that are written out; of a longer one their number is told."""


def step_text(found: StepRow, screen: Screen) -> str:
    """What a step took and left behind, then each token that it gave with its candidates and sources."""
    lines = [screen.paint(_head(found, screen), "bold"), *_labelled(_figures(found, screen), screen)]
    for given in found.tokens:
        lines += ["", *_token(given, found, screen)]
    return "\n".join(screen.safe(line) for line in lines)


def step_document(found: StepRow) -> dict[str, Any]:
    """The same as plain values: null where unavailable."""
    values = {name: getattr(found, name) for name in found.__slots__ if name != "tokens"}
    tokens = [
        {
            "trace": given.trace,
            **asdict(given.row),
            "bytes_hex": None if given.data is None else given.data.hex(),
            "cause": None if given.cause is None else asdict(given.cause),
            "explanations": [one.number for one in given.explanations],
        }
        for given in found.tokens
    ]
    return {"step": values, "tokens": tokens}


def _head(found: StepRow, screen: Screen) -> str:
    common = {
        "step": found.index,
        "n": found.n_steps,
        "kind": screen.say(f"step.{found.kind}"),
        "n_out": found.n_out,
    }
    if found.n_in is None or found.context is None:
        return screen.say("step.head_unknown", **common)
    return screen.say("step.head", **common, n_in=found.n_in, context=found.context)


def _figures(found: StepRow, screen: Screen) -> list[tuple[str, str]]:
    took = duration(found.step_ns)
    if found.kind != "prefill" and found.median_ns:
        ratio = f"{found.step_ns / found.median_ns:.2f}"
        took = screen.say("step.times_median", time=took, ratio=ratio, n=found.n_decode)
    lines = [("took", took)]
    for name in ("forward", "rules", "gc", "other"):
        if (ns := getattr(found, f"{name}_ns")) is not None:
            lines.append((name, f"{duration(ns):>10}  {ns / found.step_ns:4.0%}" if found.step_ns else duration(ns)))
    if found.device_ns is not None:
        lines.append(("device", duration(found.device_ns)))
    lines.append(("pause", duration(found.pause_ns)))
    if found.cpu_ns is not None:
        n = 0 if found.switches is None else found.switches
        known = screen.say("step.switches", time=duration(found.cpu_ns), n=n)
        lines.append(("cpu", known if found.switches is not None else duration(found.cpu_ns)))
    cause = next((given.cause for given in found.tokens if given.cause is not None), None)
    if cause is not None:
        lines.append(("cause", said(cause_message(cause), screen.lang)))
    lines.append(("cache", bytes_text(found.cache_bytes)))
    memory = [("process", found.rss_bytes), ("on_device", found.device_bytes)]
    told = [screen.say(f"step.{name}", size=bytes_text(size)) for name, size in memory if size is not None]
    lines.append(("memory", ", ".join(told) or ABSENT))
    return [(screen.say(f"step.{name}"), text) for name, text in lines]


def _labelled(lines: list[tuple[str, str]], screen: Screen) -> list[str]:
    width = max(cell_len(label) for label, _ in lines)
    return [f"  {pad(label, width)}  {text}" for label, text in lines]


def _token(given: GivenToken, found: StepRow, screen: Screen) -> list[str]:
    row = given.row
    several = len({one.trace for one in found.tokens}) > 1
    label = screen.say("step.token_of", trace=given.trace) if several else screen.say("step.token")
    lines = [(label, screen.say("step.identity", name=row.name, id=_id(row.id), position=row.position))]
    lines.append((screen.say("step.bytes"), _hex(given.data)))
    lines.append((screen.say("step.belief"), _belief(given, screen)))
    notes = []
    if row.forced:
        notes.append(screen.say("step.forced"))
    if row.wanted is not None:
        notes.append(screen.say("step.wanted", name=row.wanted))
    if row.allowed is not None and row.removed is not None:
        notes.append(screen.say("step.allowed", n=row.allowed, removed=f"{row.removed:.3f}"))
    lines += [("", note) for note in notes]
    text = _labelled(lines, screen)
    return [*text, *_likely(given, screen), *_sources(given, screen)]


def _id(token_id: int | None) -> str:
    return ABSENT if token_id is None else str(token_id)


def _hex(data: bytes | None) -> str:
    if data is None:
        return ABSENT
    return data.hex(" ").upper() if len(data) <= BYTES else f"{data[:BYTES].hex(' ').upper()} ... ({len(data):,})"


def _belief(given: GivenToken, screen: Screen) -> str:
    row = given.row
    if row.logprob is None:
        return ABSENT
    return screen.say(
        "step.believed",
        probability=_share(math.exp(row.logprob)),
        surprise=f"{0.0 - row.logprob:.3f}",
        rank=ABSENT if row.rank is None else row.rank,
        entropy=ABSENT if row.entropy is None else f"{row.entropy:.3f}",
    )


def _share(probability: float) -> str:
    return f"{probability:.1%}" if probability >= 0.001 else f"{probability:.1e}"


def _likely(given: GivenToken, screen: Screen) -> list[str]:
    row = given.row
    rest = rest_of_mass(row)
    if rest is None:
        return []
    bar = screen.choose("█", "#")
    entries = [(candidate.name, str(candidate.id), math.exp(candidate.logprob)) for candidate in row.candidates]
    entries.append((screen.say("step.rest"), "", rest))
    body = [
        [fit(screen.safe(name), 32, screen.choose("…", "...")), token_id, _share(share), bar * round(BAR * share)]
        for name, token_id, share in entries
    ]
    return ["", *("  " + line for line in columns(screen, [screen.say("step.likely"), "id", "p", ""], body, "<>><"))]


def _sources(given: GivenToken, screen: Screen) -> list[str]:
    lines: list[str] = []
    for one in given.explanations:
        row = 0 if one.together else one.targets.tolist().index(given.row.position)
        body = [[source_name(source), f"{value:+.3f}"] for source, value in one.top(row, SOURCES)]
        header = [f"{screen.say('step.sources')} ({screen.say('step.by', method=one.method)})", ""]
        lines += ["", *("  " + line for line in columns(screen, header, body, "<>", stretch=0))]
    return lines
