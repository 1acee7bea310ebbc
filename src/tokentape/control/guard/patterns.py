"""Regular expressions in a text that grows: what they match, and how far back a match may still begin.

Matches are those of POSIX: the leftmost, and of these the longest, then on from its end; a lazy repetition is one like any other.
What may still match is asked of the ``regex`` package (its partial matches): the pattern, made to fail at its end, is tried in
every way, and each way that reaches the end of the text is one that may go on.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any

from tokentape.control.guard.watch import Finding, Heard
from tokentape.errors import MissingExtra, RuleError, UsageError

__all__ = ["Pattern", "PatternWatch"]

PATIENCE_S = 10
"""A search that takes longer has lost itself in the ways to match: the pattern repeats what it repeats."""

_OTHER_PARTS = re.compile(r"\(\?[R0]\)|\(\?|\{\d*,?\d*\}")

_EDGE = r"(?:(?<=\w)(?!\w)|(?<!\w)(?=\w))"
_SPELT_OUT = {r"\b": _EDGE, r"\B": rf"(?!{_EDGE})"}
"""Word boundaries as lookarounds: partial matching knows of these that they depend on what follows."""

_NOT_HERE = {
    "$": "where the text ends",
    r"\Z": "where the text ends",
    r"\z": "where the text ends",
    r"\G": "where the search began",
    r"\K": "to move where the match began",
    r"\X": "for whole graphemes",
    r"\m": "where a word begins",
    r"\M": "where a word ends",
    r"\R": "for any line break",
    "(?R)": "for itself again",
    "(?0)": "for itself again",
}


class Pattern:
    """One pattern, ready to be looked for. ``number`` counts from 1.

    ``monotone`` says that a match stays one whatever follows: the pattern looks neither ahead nor for the edges of words. Raises
    UsageError for a pattern that is none, that matches nothing at all, or that asks for what a text that grows cannot tell.
    """

    def __init__(self, source: str, number: int) -> None:
        regex = _regex()
        self.source, self.number = source, number
        parts = _parts(source)
        for part in parts:
            if part in _NOT_HERE:
                raise _refused(number, _NOT_HERE[part], f"leave {part} out")
        self.monotone = not any(part in _SPELT_OUT for part in parts) and not any(a in source for a in ("(?=", "(?!"))
        spelt = "".join(_SPELT_OUT.get(part, part) for part in _without_laziness(parts))
        try:
            plain = regex.compile(source)
            self.whole = regex.compile(f"(?:{spelt})", regex.POSIX)
            self.started = regex.compile(f"(?:{spelt})(?!)", regex.POSIX)
        except regex.error as error:
            raise UsageError(
                f"pattern {number} is no regular expression", why=str(error), fix=r"patterns=[r'\d{3}-\d{4}']"
            ) from error
        if plain.flags & (regex.REVERSE | regex.VERBOSE):
            raise _refused(number, "to be read backwards or with comments", "leave the flags (?r) and (?x) out")
        if any(match.end() == match.start() for text in ("", "a", " ") for match in plain.finditer(text)):
            raise UsageError(
                f"pattern {number} matches where there is nothing",
                why="what it finds is then everywhere, and has no text to be held back",
                fix="let it match one character at least: + in place of *",
            )

    @property
    def reason(self) -> str:
        return f"pattern {self.number}"

    def matches(self, text: str, begin: int) -> Iterator[tuple[int, int]]:
        """The matches from ``begin`` on, one after another. Raises RuleError where that takes too long."""
        try:
            for match in self.whole.finditer(text, begin, timeout=PATIENCE_S):
                if match.end() > match.start():
                    yield match.span()
        except TimeoutError as error:
            raise self._lost(text) from error

    def may_begin(self, text: str, begin: int) -> int:
        """The first place, from ``begin`` on, where something begins that may become a match; the text's end where nothing does."""
        try:
            match = self.started.search(text, begin, partial=True, timeout=PATIENCE_S)
        except TimeoutError as error:
            raise self._lost(text) from error
        return len(text) if match is None else int(match.start())

    def _lost(self, text: str) -> RuleError:
        return RuleError(
            f"pattern {self.number} takes more than {PATIENCE_S} s on {len(text)} characters",
            why="it repeats something that repeats, and every way to divide the text among them is tried",
            fix=r"repeat once: \w+ in place of (\w+)*",
        )


class PatternWatch:
    """Finds the matches of one pattern.

    ``eager`` gives a match that can only become longer at once, for those who end the text with it.
    """

    def __init__(self, pattern: Pattern, *, eager: bool = False) -> None:
        self._pattern = pattern
        self._eager = eager and pattern.monotone
        self._text = ""
        self._settled = 0
        """All matches that begin before this are known, whatever follows."""

    def feed(self, text: str, heard: Heard) -> list[Finding]:
        self._text += text
        if self._eager and (found := self.ending()):
            self._settled = len(self._text)
            return found
        found, begin = [], self._settled
        while True:
            self._settled = self._pattern.may_begin(self._text, begin)
            first = next(self._pattern.matches(self._text, begin), None)
            if first is None or first[0] >= self._settled:
                return found
            found.append(self._finding(*first))
            begin = first[1]

    def ending(self) -> list[Finding]:
        return [self._finding(*span) for span in self._pattern.matches(self._text, self._settled)]

    def close(self) -> list[Finding]:
        found, self._settled = self.ending(), len(self._text)
        return found

    def held(self) -> int:
        return self._settled

    def _finding(self, start: int, stop: int) -> Finding:
        return Finding(start, stop, self._pattern.reason)


def _parts(source: str) -> list[str]:
    """Escaped characters, sets, repetitions, calls of the whole pattern, the opening of groups, single characters."""
    parts: list[str] = []
    i = 0
    while i < len(source):
        parts.append(_part(source, i))
        i += len(parts[-1])
    return parts


def _part(source: str, i: int) -> str:
    if source[i] == "\\":
        return source[i : i + 2]
    if found := _OTHER_PARTS.match(source, i):
        return found.group()
    if source[i] != "[":
        return source[i]
    j = i + 1 + source.startswith("^", i + 1)
    j += source.startswith("]", j)
    while j < len(source) and source[j] != "]":
        j += 2 if source[j] == "\\" else 1
    return source[i : j + 1]


def _without_laziness(parts: list[str]) -> Iterator[str]:
    """The longest match is wanted, whichever is tried first; partial matching passes over lazy repetitions."""
    repeats = False
    for part in parts:
        lazy = repeats and part == "?"
        repeats = not lazy and (part in ("*", "+", "?") or (len(part) > 1 and part[0] == "{"))
        if not lazy:
            yield part


def _refused(number: int, what: str, fix: str) -> UsageError:
    return UsageError(
        f"pattern {number} asks {what}", why="while a text grows nobody can tell, so nothing could be shown", fix=fix
    )


def _regex() -> Any:
    try:
        return importlib.import_module("regex")
    except ImportError as error:
        raise MissingExtra(
            "patterns need the package regex",
            why="it alone tells what may still become a match; the extra local brings it",
            fix="pip install 'tokentape[local]'",
        ) from error
