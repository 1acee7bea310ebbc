"""What of a text may be shown after a guard's decisions: from the bytes as they were chosen, with nothing else at hand."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

from tokentape.data.control import Decision

__all__ = ["characters", "joined", "shown"]

Span = tuple[int, int, str]
"""A stretch of a text from ``start`` to before ``stop``, and what stands in its place."""


def characters(data: bytes, *, final: bool = True) -> tuple[list[tuple[str, int]], bytes]:
    """The characters of bytes with how many bytes each takes, and the bytes of one that has begun and is not whole.

    What is no UTF-8 becomes U+FFFD as ``decode("utf-8", "replace")`` makes it; with ``final`` so does the last one.
    """
    found: list[tuple[str, int]] = []
    while data:
        try:
            text, bad, rest = data.decode(), 0, b""
        except UnicodeDecodeError as error:
            text, rest = data[: error.start].decode(), data[error.start :]
            bad = error.end - error.start
            if not final and bad == len(rest) and error.reason == "unexpected end of data":
                bad = 0
        found += [(c, 1 if c < "\x80" else len(c.encode())) for c in text]
        if not bad:
            return found, rest
        found.append(("\ufffd", bad))
        data = rest[bad:]
    return found, b""


def joined(spans: Iterable[Span]) -> list[Span]:
    """Spans in order, those that overlap made one; in its place stands what stood in that of the first."""
    whole: list[Span] = []
    for start, stop, placeholder in sorted(spans, key=lambda span: span[0]):
        if whole and start < whole[-1][1]:
            first, end, kept = whole[-1]
            whole[-1] = (first, max(end, stop), kept)
        elif start < stop:
            whole.append((start, stop, placeholder))
    return whole


def shown(text: str | bytes, decisions: Iterable[Decision]) -> str:
    """The text as a guard let it be seen: cut where it stopped, with its placeholders where it redacted.

    ``text`` is that of the sequence, best as its bytes, which the decisions count. A character of which a decision covers a part
    is covered. Decisions that overlap leave one placeholder, that of the one which begins first.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    found, _ = characters(raw)
    ends = [0, *accumulate(size for _, size in found)]
    spans: list[Span] = []
    cut = len(found)
    for one in decisions:
        start, stop = _outward(ends, one)
        if one.action == "stop":
            cut = min(cut, start)
        elif one.action == "redact":
            spans.append((start, stop, one.shown))
    return _spelt("".join(c for c, _ in found), joined(spans), cut)


def _outward(ends: Sequence[int], decision: Decision) -> tuple[int, int]:
    """The characters that a decision's bytes touch; ``ends[i]`` is where the character ``i`` begins."""
    start = bisect_right(ends, decision.start) - 1
    return start, max(start, bisect_left(ends, decision.stop))


def _spelt(text: str, spans: Iterable[Span], cut: int) -> str:
    pieces: list[str] = []
    at = 0
    for start, stop, placeholder in spans:
        if start >= cut:
            break
        pieces += [text[at:start], placeholder]
        at = stop
    return "".join(pieces) + text[at:cut]
