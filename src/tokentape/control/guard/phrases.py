"""Phrases in a text that grows: an automaton over letters, and how far back an occurrence may still begin.

The automaton is that of Aho & Corasick (Communications of the ACM 18, 1975). What it reads are letters
(:mod:`~tokentape.control.guard.letters`); the last letter of a growing text may still get marks, which makes it another one, so it
is read when the next letter begins.
"""

from __future__ import annotations

import copy
import unicodedata
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tokentape.control.guard.letters import folded, in_letters, is_word, joins
from tokentape.control.guard.watch import Finding, Heard

__all__ = ["Automaton", "PhraseWatch", "phrase_letters"]


def phrase_letters(phrase: str) -> list[str]:
    """The letters of a phrase, runs of white space as one space; none where the phrase shows nothing."""
    letters = in_letters("".join(char for char in phrase if folded(char)))
    return [one for i, one in enumerate(letters) if one != " " or i == 0 or letters[i - 1] != " "]


class Automaton:
    """All phrases at once. A state is the number of a node, 0 the root; it stands for the letters that lead to it.

    ``ends[state]`` are the phrases that end there, ``depth[state]`` how many letters it stands for, ``fallback[state]`` the state
    of the longest proper ending of these that begins some phrase.
    """

    def __init__(self, phrases: Sequence[Sequence[str]]) -> None:
        self.phrases = tuple(tuple(phrase) for phrase in phrases)
        self.edges: list[dict[str, int]] = [{}]
        self.depth, self.fallback = [0], [0]
        self.ends: list[tuple[int, ...]] = [()]
        for number, phrase in enumerate(self.phrases):
            state = 0
            for letter in phrase:
                state = self.edges[state].get(letter) or self._grow(state, letter)
            self.ends[state] += (number,)
        self._fall_back()
        self.longest = max(map(len, self.phrases), default=0)

    def _grow(self, state: int, letter: str) -> int:
        child = self.edges[state][letter] = len(self.edges)
        self.edges.append({})
        self.depth.append(self.depth[state] + 1)
        self.fallback.append(0)
        self.ends.append(())
        return child

    def _fall_back(self) -> None:
        """Fallbacks, and the phrases that end with them, breadth first."""
        queue = deque([0])
        while queue:
            state = queue.popleft()
            for letter, child in self.edges[state].items():
                self.fallback[child] = self.after(self.fallback[state], letter) if state else 0
                self.ends[child] += self.ends[self.fallback[child]]
                queue.append(child)

    def is_end(self, state: int) -> bool:
        """Whether the letters of a state are a whole phrase, and not only end with one."""
        return any(len(self.phrases[number]) == self.depth[state] for number in self.ends[state])

    def after(self, state: int, letter: str) -> int:
        """The state after one more letter."""
        while state and letter not in self.edges[state]:
            state = self.fallback[state]
        return self.edges[state].get(letter, 0)

    def endings(self, state: int) -> Iterator[int]:
        """The states of all endings that begin a phrase, the longest first, without the root."""
        while state:
            yield state
            state = self.fallback[state]


class _Letter(NamedTuple):
    text: str
    start: int
    stop: int


class PhraseWatch:
    """Finds every occurrence of every phrase; with ``whole_words`` those that do not begin or end inside of a word."""

    def __init__(self, automaton: Automaton, *, whole_words: bool = False) -> None:
        self._automaton = automaton
        self._whole_words = whole_words
        self._length = 0
        self._state = 0
        self._read: tuple[_Letter, ...] = ()
        """The last letters that were read, enough to know where a phrase began and what is before it."""
        self._open = _Letter("", 0, 0)
        """The characters of the letter, or letters, that a mark may still change."""
        self._last = ""

    def feed(self, text: str, heard: Heard) -> list[Finding]:
        found: list[Finding] = []
        for char in text:
            form = folded(char)
            place, self._length = self._length, self._length + 1
            if not form:
                continue
            mark = char if unicodedata.category(char).startswith("M") else form[0]
            if self._open.text and joins(self._last, mark):
                self._open = _Letter(self._open.text + char, self._open.start, place + 1)
            else:
                found += self._read_open(form)
                self._open = _Letter(char, place, place + 1)
            self._last = form[-1]
        return found

    def ending(self) -> list[Finding]:
        return copy.copy(self).close()

    def close(self) -> list[Finding]:
        found = self._read_open(" ")
        self._open = _Letter("", self._length, self._length)
        return found

    def _read_open(self, following: str) -> list[Finding]:
        """Read the open letters, which ``following`` comes after."""
        found: list[Finding] = []
        letters = in_letters(self._open.text)
        for letter, after in zip(letters, [*letters, following][1:], strict=True):
            if letter == " " and self._read and self._read[-1].text == " ":
                continue  # of a run of white space
            self._state = self._automaton.after(self._state, letter)
            self._read = (*self._read[-self._automaton.longest :], self._open._replace(text=letter))
            for number in self._automaton.ends[self._state]:
                length = len(self._automaton.phrases[number])
                if self._begins_well(length) and not self._inside_word(letter, after):
                    found.append(Finding(self._read[-length].start, self._open.stop, f"phrase {number + 1}"))
        return list(dict.fromkeys(found))

    def _inside_word(self, before: str, after: str) -> bool:
        return self._whole_words and is_word(before) and is_word(after)

    def _begins_well(self, length: int) -> bool:
        """Whether an occurrence may begin so many letters ago."""
        before = self._read[-length - 1].text if len(self._read) > length else " "
        return not self._inside_word(before, self._read[-length].text)

    # -- how far back an occurrence may still begin --------------------------------------------------------------------

    def held(self) -> int:
        """Where the longest ending of the text begins that may become an occurrence."""
        letters = in_letters(self._open.text)
        if not letters:
            return self._length
        of_run = int(
            letters[0] == " " and bool(self._read) and self._read[-1].text == " "
        )  # a space that is read already
        for state in self._automaton.endings(self._state):
            depth = self._automaton.depth[state]
            if self._begins_well(depth) and (len(letters) == of_run or self._may_go_on(state, letters, of_run)):
                return self._read[-depth].start
        before = self._read[-1].text if self._read else " "
        for i, letter in enumerate(letters):
            if not self._inside_word(before, letter) and self._may_go_on(0, letters, i):
                return self._open.start
            before = letter
        return self._length

    def _may_go_on(self, state: int, letters: list[str], begin: int) -> bool:
        """Whether a phrase may go on from a state with the open letters from ``begin``, or with what marks make of them."""
        for path in self._paths(state, letters, begin):
            stop = begin + len(path)
            become = in_letters(self._open.text + _missing_marks(letters[begin:stop], path))
            inside = stop < len(letters) and self._inside_word(path[-1], letters[stop])
            if become[begin:stop] == path and not inside:
                return True
        return False

    def _paths(self, state: int, letters: list[str], i: int) -> Iterator[list[str]]:
        """Ways on from a state along letters with the base characters of the open ones: to the last, or to the end of a phrase."""
        for label, node in self._automaton.edges[state].items():
            if label[0] == letters[i][0]:
                if i + 1 == len(letters) or self._automaton.is_end(node):
                    yield [label]
                if i + 1 < len(letters):
                    for path in self._paths(node, letters, i + 1):
                        yield [label, *path]


def _missing_marks(letters: list[str], wanted: list[str]) -> str:
    """The marks of some letters that others, with the same base characters, do not have, in their order."""
    marks = "".join(letter[1:] for letter in wanted)
    missing = Counter(marks) - Counter("".join(letter[1:] for letter in letters))
    found = ""
    for mark in marks:
        if missing[mark]:
            missing[mark] -= 1
            found += mark
    return found
