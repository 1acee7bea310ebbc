"""Showing a text while it grows, and nothing of what a guard finds in it: held back as far as that may still happen, no further."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

from tokentape.control.guard.watch import Finding, Heard, Watch
from tokentape.data.shown import Span, characters, joined

__all__ = ["GuardStream"]


class GuardStream:
    """A text as it may be shown: fed pieces, gives what is safe to show with each; joined, what it gives is the text as shown.

    With ``stops`` the text ends before the first finding, and :attr:`stopped` says so; otherwise ``placeholder`` stands where
    something was found, once for findings that overlap. Pieces are texts or bytes; a character may be spread over several.
    """

    def __init__(self, watches: Sequence[Watch], *, stops: bool, placeholder: str) -> None:
        self._watches = tuple(watches)
        self._stops = stops
        self._placeholder = placeholder
        self._text = ""
        self._ends = [0]
        """Where each character begins in bytes, and where the last of them ends."""
        self._rest = b""
        """Bytes of a character that has begun."""
        self._at = 0
        """Characters that are shown, or stand behind a placeholder that is."""
        self._spans: list[Span] = []
        self._replaced = False
        """Whether the placeholder of the first span is shown."""
        self._found: list[Finding] = []
        self.stopped = False
        self._closed = False

    @property
    def n_bytes(self) -> int:
        """How long the text is."""
        return self._ends[-1] + len(self._rest)

    def feed(self, piece: str | bytes, logprob: float | None = None) -> str:
        """What may be shown now; ``logprob`` is that of the token, in nats. After :meth:`close` or a stop it is nothing."""
        return "" if self._closed else self._fed(piece, logprob, final=False)

    def close(self) -> str:
        """What may be shown now that the text has ended."""
        return "" if self._closed else self._fed(b"", None, final=True)

    def foresee(self, piece: str | bytes, logprob: float | None = None, *, final: bool = False) -> list[Finding]:
        """What would be found if the text ended with a piece; with ``final`` as its real end. Nothing is taken in."""
        chars, rest = characters(self._rest + _raw(piece), final=final)
        text, heard = "".join(c for c, _ in chars), Heard(logprob, bool(rest))
        found: list[Finding] = []
        for watch in map(copy.copy, self._watches):
            found += watch.feed(text, heard)
            found += watch.close() if final else watch.ending()
        return sorted(found)

    def take(self) -> list[Finding]:
        """What was found since the last time, counted in bytes of the text."""
        found, self._found = self._found, []
        return found

    def _fed(self, piece: str | bytes, logprob: float | None, *, final: bool) -> str:
        chars, self._rest = characters(self._rest + _raw(piece), final=final)
        text = "".join(c for c, _ in chars)
        self._text += text
        for _, size in chars:
            self._ends.append(self._ends[-1] + size)
        heard = Heard(logprob, bool(self._rest))
        found = self._ask(lambda watch: watch.feed(text, heard))
        if final or (found and self._stops):
            found += self._ask(lambda watch: watch.close())
            self._closed = True
        self._found += sorted(Finding(self._byte(one.start), self._byte(one.stop), one.reason) for one in found)
        if found and self._stops:
            self.stopped = True
            return self._cut(min(one.start for one in found))
        self._spans = joined([*self._spans, *((one.start, one.stop, self._placeholder) for one in found)])
        return self._show(len(self._text) if final else min(watch.held() for watch in self._watches))

    def _ask(self, question: Callable[[Watch], Iterable[Finding]]) -> list[Finding]:
        return [one for watch in self._watches for one in question(watch)]

    def _byte(self, place: int) -> int:
        return self._ends[place] if place < len(self._ends) else self.n_bytes

    def _cut(self, end: int) -> str:
        begin, self._at = self._at, max(self._at, end)
        return self._text[begin : self._at]

    def _show(self, hold: int) -> str:
        """The text up to ``hold``, where nothing before it can be part of a later finding."""
        pieces: list[str] = []
        while self._spans and self._spans[0][0] <= hold:
            start, stop, placeholder = self._spans[0]
            if not self._replaced:
                pieces += [self._text[self._at : start], placeholder]
            self._at = min(stop, hold)
            # a span that reaches beyond may still grow; all that it becomes stands behind the one placeholder
            self._replaced = stop > hold
            if self._replaced:
                return "".join(pieces)
            del self._spans[0]
        return "".join(pieces) + self._cut(hold)


def _raw(piece: str | bytes) -> bytes:
    return piece.encode("utf-8", "surrogatepass") if isinstance(piece, str) else piece
