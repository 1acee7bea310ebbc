"""The script of an answer: which tokens come when, and what goes wrong.

A :class:`Script` is a list of :class:`Beat`; a beat is one moment at which the server has some tokens, none, one or
several. Times are microseconds since the beat before; for the first, since the last byte of the request was read.

>>> [beat.after_us for beat in Script.steady(n_tokens=3, ttft_us=5_000, gap_us=1_000).beats]
[5000.0, 1000.0, 1000.0]
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from tokentape.errors import UsageError
from tokentape.mock.faults import Fault

__all__ = ["CHANNELS", "JITTERS", "Beat", "Script"]

CHANNELS = ("text", "reasoning", "tool_call")
JITTERS = ("none", "uniform", "normal", "exponential")

_LONGEST_US = 86_400_000_000.0
_MOST_TOKENS = 1_000_000


@dataclass(frozen=True, slots=True)
class Beat:
    """A moment: ``after_us`` after the one before there are ``n_tokens`` more tokens.

    ``says`` gives them word for word, each a text or bytes; without it they are those that the seed says next.
    """

    after_us: float
    n_tokens: int = 1
    channel: str = "text"
    says: tuple[str | bytes, ...] | None = None

    def __post_init__(self) -> None:
        if self.says is not None:
            object.__setattr__(self, "n_tokens", len(self.says))
        if not (0 <= self.after_us <= _LONGEST_US):
            raise UsageError(
                f"a beat after {self.after_us} us",
                why="the time from one beat to the next is between 0 and a day",
                fix="give after_us in microseconds; for a stream that stops for ever there is the fault stall:forever=1",
            )
        if not 0 <= self.n_tokens <= _MOST_TOKENS:
            raise UsageError(
                f"a beat of {self.n_tokens} tokens",
                why=f"a beat has between 0 and {_MOST_TOKENS} tokens",
                fix="give another number",
            )
        if self.channel not in CHANNELS:
            raise UsageError(
                f"there is no channel {self.channel!r}",
                why=f"there are {', '.join(CHANNELS)}",
                fix="select one of these",
            )


@dataclass(frozen=True, slots=True)
class Script:
    """What the server does for one request.

    ``finish`` is the finish reason where the request's own limit does not come first. ``seed`` decides what is said,
    ``plain`` that it is said in words of one byte a character. ``n_cached`` prompt tokens are told to be from a
    cache, where the dialect has a place for it.
    """

    beats: tuple[Beat, ...]
    finish: str | None = "stop"
    seed: int = 0
    plain: bool = False
    n_cached: int | None = None
    tool: str = "look_up"
    faults: tuple[Fault, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.beats:
            raise UsageError("a script without beats", why="an answer has at least one", fix="give beats, or tokens")
        if self.n_tokens > _MOST_TOKENS:
            raise UsageError(
                f"a script of {self.n_tokens} tokens", why=f"{_MOST_TOKENS} are the most", fix="give fewer tokens"
            )

    @property
    def n_tokens(self) -> int:
        """Tokens of one choice, where the request sets no limit."""
        return sum(beat.n_tokens for beat in self.beats)

    @classmethod
    def steady(
        cls,
        n_tokens: int = 64,
        *,
        ttft_us: float = 50_000.0,
        gap_us: float = 20_000.0,
        chunk: int = 1,
        jitter: str = "none",
        jitter_us: float = 0.0,
        n_reasoning: int = 0,
        n_tool: int = 0,
        seed: int = 0,
        plain: bool = False,
        finish: str | None = None,
        n_cached: int | None = None,
        faults: Sequence[Fault] = (),
    ) -> Script:
        """A script from a few numbers: the first tokens at ``ttft_us``, ``chunk`` more after each gap.

        Of the ``n_tokens`` the first ``n_reasoning`` are reasoning and the last ``n_tool`` a tool call. A gap is
        ``gap_us`` and a random part: uniform within +-jitter_us, normal with that standard deviation, or exponential
        with that mean (added).
        """
        _check_numbers(n_tokens, chunk, n_reasoning + n_tool)
        gaps = _gaps(gap_us, jitter, jitter_us, seed)
        beats: list[Beat] = []
        for channel, n in (
            ("reasoning", n_reasoning),
            ("text", n_tokens - n_reasoning - n_tool),
            ("tool_call", n_tool),
        ):
            for start in range(0, n, chunk):
                k = min(chunk, n - start)
                says = _arguments(n_tool)[start : start + k] if channel == "tool_call" else None
                beats.append(Beat(next(gaps) if beats else float(ttft_us), k, channel, says))
        return cls(
            tuple(beats) or (Beat(float(ttft_us), 0),),
            finish=finish or ("tool_calls" if n_tool else "stop"),
            seed=seed,
            plain=plain,
            n_cached=n_cached,
            faults=tuple(faults),
        )


def _check_numbers(n_tokens: int, chunk: int, n_other: int) -> None:
    if not 0 <= n_tokens <= _MOST_TOKENS or n_other > n_tokens:
        raise UsageError(
            f"a script of {n_tokens} tokens, {n_other} of them reasoning and tool call",
            why=f"there are between 0 and {_MOST_TOKENS}, and those are among them",
            fix="give other numbers",
        )
    if chunk < 1:
        raise UsageError(f"chunks of {chunk} tokens", why="a chunk has at least one", fix="--chunk 1")


def _gaps(gap_us: float, jitter: str, jitter_us: float, seed: int) -> Gaps:
    if jitter not in JITTERS:
        raise UsageError(
            f"there is no jitter {jitter!r}", why=f"there are {', '.join(JITTERS)}", fix="select one of these"
        )
    if not (0 <= gap_us <= _LONGEST_US and 0 <= jitter_us <= _LONGEST_US):
        raise UsageError(
            f"gaps of {gap_us} us with a jitter of {jitter_us} us",
            why="both are between 0 and a day",
            fix="give microseconds",
        )
    return Gaps(gap_us, jitter, jitter_us, seed)


class Gaps:
    """The gaps of a seed, in microseconds, none below 0 and each a whole number of them."""

    def __init__(self, gap_us: float, jitter: str, jitter_us: float, seed: int) -> None:
        self._gap_us, self._jitter, self._jitter_us = gap_us, jitter, jitter_us
        self._random = random.Random(f"gaps/{seed}")

    def __next__(self) -> float:
        if self._jitter == "none" or self._jitter_us == 0:
            return float(self._gap_us)
        draw = self._random
        if self._jitter == "uniform":
            more = draw.uniform(-self._jitter_us, self._jitter_us)
        elif self._jitter == "normal":
            more = draw.gauss(0.0, self._jitter_us)
        else:
            more = draw.expovariate(1 / self._jitter_us)
        return float(math.floor(max(0.0, self._gap_us + more)))


def _arguments(n: int) -> tuple[str, ...]:
    """The arguments of a tool call in ``n`` tokens: JSON when all of them are there."""
    if n <= 1:
        return ("{}",)[:n]
    return ('{"q": "', *(f"w{index} " for index in range(n - 2)), '"}')
