"""A floor under the log-probability of what is said: where the model is too unsure."""

from __future__ import annotations

import math
from typing import NamedTuple

from tokentape.control.guard.watch import Finding, Heard

__all__ = ["FloorWatch"]


class _Token(NamedTuple):
    logprob: float
    start: int
    stop: int


class FloorWatch:
    """Finds stretches of ``window`` tokens whose mean log-probability (nats) lies below ``floor``; none of them overlap.

    Tokens that nothing chose have none and are passed over. All tokens but the first of the window are held back, since what comes
    may be as improbable as you like.
    """

    def __init__(self, floor: float, window: int) -> None:
        self._floor = floor
        self._window = window
        self._tokens: tuple[_Token, ...] = ()
        self._length = 0

    def feed(self, text: str, heard: Heard) -> list[Finding]:
        start, self._length = self._length, self._length + len(text)
        if heard.logprob is None:
            return []
        # a character whose bytes several tokens share belongs to all of them
        token = _Token(heard.logprob, start, self._length + heard.begun)
        self._tokens = (*self._tokens, token)[-self._window :]
        if len(self._tokens) < self._window:
            return []
        if math.fsum(one.logprob for one in self._tokens) / self._window >= self._floor:
            return []
        found = Finding(self._tokens[0].start, token.stop, "log-probability")
        self._tokens = ()
        return [found]

    def ending(self) -> list[Finding]:
        return []

    def close(self) -> list[Finding]:
        return []

    def held(self) -> int:
        waiting = self._tokens[max(0, len(self._tokens) - self._window + 1) :]
        return waiting[0].start if waiting else self._length
