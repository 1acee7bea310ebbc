"""A model on paper: what it says and how long it takes are written down beforehand.

It ships for tests, ours and yours: with a :class:`~tokentape.clock.FakeClock` every time on the tape is exact.

>>> from tokentape.recorder.run import record
>>> source = ScriptedSource([Line(5_000_000, [" mat"]), Line(1_000_000), Line(2_000_000, [" and", " looked"])])
>>> tape = record(source, "The cat sat on the", probe="timing")
>>> tape.traces[0].text
' mat and looked'
>>> tape.traces[0].steps["end_ns"].tolist()
[5000000, 6000000, 8000000]
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tokentape.clock import Clock, FakeClock
from tokentape.data.request import Request, Run, TraceHead
from tokentape.data.setting import Setting
from tokentape.errors import UsageError
from tokentape.recorder.tick import LiveRun, Said, Tick

__all__ = ["Line", "ScriptedSource"]


@dataclass(frozen=True, slots=True)
class Line:
    """One step on paper: it takes ``ns`` nanoseconds, and then its tokens are there, none, one or many.

    ``says`` holds texts, bytes, or :class:`~tokentape.recorder.tick.Said` for more than that; a plain text is one token of
    sequence 0. ``pause_ns`` passes before the step starts. ``kind`` None means prefill for the first line, decode after it.
    ``error`` is raised instead, for tests of what breaks.
    """

    ns: int
    says: str | bytes | Said | Sequence[str | bytes | Said] = ()
    pause_ns: int = 0
    kind: str | None = None
    context: int | None = None
    error: BaseException | None = None


@dataclass
class ScriptedSource:
    """A source that follows a script, one :class:`Line` a step; a request replays it from the start.

    Ids are made from the text, the same for the same token, in the order of first use. With a clock that can be advanced no
    real time passes; with another, the steps really take their time.
    """

    script: Sequence[Line]
    clock: Clock = field(default_factory=FakeClock)
    finish_reason: str | None = "stop"
    facts: dict[str, Any] = field(default_factory=lambda: {"model": "scripted", "engine": "scripted"})

    def __post_init__(self) -> None:
        self._ids: dict[bytes, int] = {}
        self._bytes: dict[int, bytes] = {}

    def setting(self) -> Setting:
        """The ``facts`` given."""
        return Setting(self.facts)

    def start(self, request: Request, needs: frozenset[str]) -> LiveRun:
        """A run of the script; prompts of text are read as words."""
        if not request.prompts:
            raise UsageError(
                "no prompt was given", why="each trace of a run needs one", fix="give a text, or a list of texts"
            )
        heads = tuple(self._head(row, prompt) for row, prompt in enumerate(request.prompts))
        return LiveRun(
            run=Run(traces=heads, options=dict(request.options), seed=request.seed),
            start=self.clock.mark(),
            ticks=self._ticks(len(heads)),
            finish_reasons=lambda: [self.finish_reason] * len(heads),
            spellers=[self] * len(heads),
        )

    def _head(self, row: int, prompt: str | Sequence[int]) -> TraceHead:
        if isinstance(prompt, str):
            words = prompt.replace(" ", "\0 ").split("\0")
            return TraceHead(row, len(words), tuple(self._id(word.encode()) for word in words), prompt)
        return TraceHead(row, len(prompt), tuple(prompt), None)

    def _id(self, data: bytes) -> int:
        token_id = self._ids.setdefault(data, len(self._ids))
        self._bytes[token_id] = data
        return token_id

    def feed(self, token_id: int) -> bytes:
        """Bytes of a token that was given by id alone."""
        return self._bytes.get(token_id, b"")

    def piece(self, token_id: int) -> tuple[str, bytes, bool]:
        """Vocabulary entry of an id."""
        data = self._bytes.get(token_id, b"")
        return data.decode("utf-8", errors="backslashreplace"), data, False

    def _ticks(self, n_rows: int) -> Generator[Tick]:
        for index, line in enumerate(self.script):
            self._pass(line.pause_ns)
            start = self.clock.mark()
            self._pass(line.ns)
            if line.error is not None:
                raise line.error
            kind = line.kind or ("decode" if index else "prefill")
            end = self.clock.mark()
            tick = Tick(kind, n_rows, start, end, context=line.context, forward=(start, end), said=self._said(line))
            tick.last = index == len(self.script) - 1
            yield tick

    def _pass(self, ns: int) -> None:
        if isinstance(self.clock, FakeClock):
            self.clock.advance(ns)
        elif ns:
            time.sleep(ns / 1e9)

    def _said(self, line: Line) -> tuple[Said, ...]:
        says = (line.says,) if isinstance(line.says, str | bytes | Said) else line.says
        return tuple(self._token(token) for token in says)

    def _token(self, token: str | bytes | Said) -> Said:
        if isinstance(token, Said):
            if token.data is not None and token.id is None:
                return replace(token, id=self._id(token.data))
            return token
        data = token.encode() if isinstance(token, str) else token
        return Said(0, self._id(data), data)
