"""Tapes on paper: several runs on one clock, each with its own end, every time known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokentape.clock import FakeClock
from tokentape.data.request import Request
from tokentape.data.tape import Tape
from tokentape.recorder.probes import tier
from tokentape.recorder.recorder import Recorder
from tokentape.recorder.tick import Said
from tokentape.sources.scripted import Line, ScriptedSource

MS = 1_000_000


@dataclass(frozen=True)
class Take:
    """A run: its script, why its traces ended, what passes before it, its prompts (one a sequence)."""

    script: Sequence[Line]
    reasons: str | Sequence[str | None] | None = "stop"
    after_ns: int = 0
    prompts: tuple[str, ...] = ("x",)


def said(text: str = "a", logprob: float | None = None, rank: int | None = None, row: int = 0, **more: Any) -> Said:
    return Said(row, None, text.encode(), logprob, 1.0, rank, **more)


def step(ms: float, n_tokens: int, **more: Any) -> Line:
    """A step of so many milliseconds that gives so many tokens."""
    return Line(round(ms * MS), [said() for _ in range(n_tokens)], **more)


def paper(*takes: Take, **facts: Any) -> Tape:
    """One tape of several runs, one after another on one clock that starts at 0."""
    clock = FakeClock()
    sources = [ScriptedSource(take.script, clock, **({"facts": facts} if facts else {})) for take in takes]
    recorder = Recorder(None, sources[0].setting(), tier("distribution", 5), clock, origin=clock.mark())
    with recorder:
        for take, source in zip(takes, sources, strict=True):
            clock.advance(take.after_ns)
            live = source.start(Request(take.prompts), frozenset())
            recorder.begin(live)
            for tick in live.ticks:
                recorder.add(tick)
            reasons = take.reasons
            recorder.end([reasons] * len(take.prompts) if reasons is None or isinstance(reasons, str) else reasons)
    return recorder.tape


FIVE = (
    # t0 = 0; messages at 10 (empty), 20 (1 token), 26 (3), 30 (empty), 35 (2): N = 6
    Take([step(10, 0), step(10, 1), step(6, 3), step(4, 0), step(5, 2)]),
    # t0 = 40; one token, at 48
    Take([step(8, 1)], "length", after_ns=5 * MS),
    # t0 = 50; tokens at 54 and 60, then an error
    Take([step(4, 1), step(6, 1)], "error", after_ns=2 * MS),
    # t0 = 60; a token at 65, then Ctrl-C
    Take([step(5, 1)], "interrupted"),
    # t0 = 70; a served stream: 2 tokens at 80, 2 at 90, the closing message at 92: N = 4
    Take([step(10, 2, kind="chunk"), step(10, 2, kind="chunk"), step(2, 0, kind="chunk")], after_ns=5 * MS),
)
"""Chunks of several tokens, empty messages, a request of one token, one that failed, one cut short, a closing message."""
