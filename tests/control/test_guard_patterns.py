"""Regular expressions in a text that grows, against fullmatch of every stretch under every way to go on."""

from __future__ import annotations

import functools
import itertools
from types import SimpleNamespace

import pytest
import regex
from guard_twin import replaced, settled_and_held
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from tokentape.control.guard.guard import Guard
from tokentape.errors import MissingExtra, RuleError, UsageError


def said(guard: Guard, pieces) -> list[str]:
    stream = guard.stream()
    return [*map(stream.feed, pieces), stream.close()]


def redacts(*patterns: str) -> Guard:
    return Guard(patterns=patterns, action="redact")


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (r"\d{3}-\d{4}", "call 555-1234 or 555-12.", "call [...] or 555-12."),
        (r"\bcat\b", "category cat, tomcat cat", "category [...], tomcat [...]"),
        (r"cat\B", "cat cats", "cat [...]s"),
        (r"cat|category", "cat category cats", "[...] [...] [...]s"),  # of all ways to match, the longest
        (r"a+?", "baaab", "b[...]b"),
        (r"a{1,2}?b??c}?", "baac", "b[...]"),
        ("aba", "ababa", "[...]ba"),
        (r"cat(?! dog)", "cat dog, cat doe", "cat dog, [...] doe"),
        (r"(?<=x)ab", "ab xab", "ab x[...]"),
        (r"(?i)straße", "STRASSE Straße", "STRASSE [...]"),
        (r"^ab", "ab ab", "[...] ab"),
        (r"[$\]b]x", "$x ]x bx ax", "[...] [...] [...] ax"),
        (r"\$\d", "$1 \\$", "[...] \\$"),
        (r'"[^"]*"', 'say "this" and "that', 'say [...] and "that'),
        (r"(\w)\1", "hello", "he[...]o"),
        (r"\w+@\w+\.\w+", "to me@home.org now", "to [...] now"),
    ],
)
def test_a_pattern_is_found_in_whatever_pieces(pattern, text, expected):
    assert "".join(said(redacts(pattern), [text])) == expected
    assert "".join(said(redacts(pattern), list(text))) == expected


def test_only_what_may_still_match_is_held_back():
    assert said(redacts(r"\d{3}-\d"), list("a12b123-4.")) == ["a", "", "", "12b", "", "", "", "", "[...]", ".", ""]
    assert said(redacts(r"\bcat\b"), ["a c", "at", "s cat", "."]) == ["a ", "", "cats ", "[...].", ""]
    assert said(redacts(r"x\d+"), ["x", "1", "2", ","]) == ["", "", "", "[...],", ""]
    assert said(redacts("(?s)secret.*"), ["a sec", "ret", " is", " this"]) == ["a ", "", "", "", "[...]"]


def test_a_stop_does_not_wait_for_a_match_to_grow():
    stream = Guard(patterns=["(?s)secret.*"]).stream()
    assert [stream.feed(p) for p in ("a sec", "ret")] == ["a ", ""]
    assert stream.stopped
    waits = Guard(patterns=["cat(?! dog)"]).stream()
    assert [waits.feed(p) for p in ("cat", " d", "og", " cat", "!")] == ["", "", "cat dog", " ", ""]
    assert waits.stopped


LOOKS = ["(?=b)", "(?!a)", r"\b", r"\B", "(?<=a)", "^"]
ATOMS = ["a", "b", "[ab]", "[b ]", ".", *LOOKS]
sources = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=2).map(lambda two: f"(?:{two[0]}|{two[1]})"),
        inner.map(lambda one: f"(?:{one}){{1,2}}"),
        inner.map(lambda one: f"(?:{one})?"),
        inner.map(lambda one: f"(?:{one}){{1,2}}?"),
        inner.map(lambda one: f"(?>{one})"),
    ),
    max_leaves=4,
)


@functools.lru_cache(maxsize=100_000)
def matches(source: str, text: str) -> set[tuple[int, int]]:
    """The leftmost longest matches of a whole text, of all stretches that the pattern can match."""
    found, begin = set(), 0
    for i in range(len(text)):
        # a stretch is matched where the pattern, made to end there, matches from its start; a lookahead sees beyond
        ends = [j for j in range(i + 1, len(text) + 1) if _ending_before(source, len(text) - j).match(text, i)]
        if i >= begin and ends:
            found.add((i, ends[-1]))
            begin = ends[-1]
    return found


@functools.lru_cache(maxsize=10_000)
def _ending_before(source: str, n: int):
    return regex.compile(f"(?:{source})(?=(?s:.{{{n}}})(?!(?s:.)))")


WAYS = ["".join(way) for n in range(4) for way in itertools.product("ab ", repeat=n)]


@settings(max_examples=60, deadline=None)
@given(sources, st.text("ab ", max_size=5))
def test_held_back_is_what_may_still_match_and_no_more(source, text):
    assume(not ("(?>" in source and "}?" in source))  # in an atomic group laziness is lost
    try:
        guard = redacts(source)
    except UsageError:
        reject()
    stream, given_out = guard.stream(), ""
    for i, char in enumerate(text, 1):
        given_out += stream.feed(char)
        found, hold = settled_and_held(text[:i], [matches(source, text[:i] + way) for way in WAYS])
        if any(look in source for look in LOOKS):
            # that what it asks for at one place excludes itself, as in "aa^", nobody tells
            assert replaced(text[:i], found, hold).startswith(given_out), text[:i]
        else:
            assert given_out == replaced(text[:i], found, hold), text[:i]
    assert given_out + stream.close() == replaced(text, matches(source, text))


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        ("(", "pattern 1 is no regular expression"),
        ("a*", "pattern 1 matches where there is nothing"),
        (r"\b", "pattern 1 matches where there is nothing"),
        ("", "pattern 1 matches where there is nothing"),
        ("(?=a)", "pattern 1 matches where there is nothing"),
        ("cat$", "pattern 1 asks where the text ends"),
        (r"cat\Z", "pattern 1 asks where the text ends"),
        ("(?r)cat", "pattern 1 asks to be read backwards"),
        ("(?x)c a t", "pattern 1 asks to be read backwards"),
        ("a(?R)?b", "pattern 1 asks for itself"),
    ],
)
def test_patterns_that_cannot_be_looked_for_are_refused(pattern, what):
    with pytest.raises(UsageError, match="^" + regex.escape(what)):
        Guard(patterns=[pattern])


@pytest.mark.parametrize("asked", ["started", "whole"])
def test_a_pattern_that_loses_itself_is_an_error(monkeypatch, asked):
    """``regex`` raises TimeoutError where the time that it is given is over."""

    def lost(text, begin, *, timeout, **options):
        raise TimeoutError("regex timed out")

    guard = redacts(r"(?:\w+ )*x")
    monkeypatch.setattr(guard._patterns[0], asked, SimpleNamespace(search=lost, finditer=lost))
    with pytest.raises(RuleError, match="pattern 1 takes more than 10 s on 3 characters"):
        said(guard, ["a b"])


def test_without_regex_the_error_says_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "regex", None)
    with pytest.raises(MissingExtra, match="regex"):
        Guard(patterns=["a"])
