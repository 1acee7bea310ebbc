"""What a guard shows of a text that grows, against a twin that tries everything."""

from __future__ import annotations

import unicodedata

import pytest
from guard_twin import futures, letters, occurrences, replaced, settled_and_held
from hypothesis import given, settings
from hypothesis import strategies as st

from tokentape.control.guard.guard import Guard
from tokentape.control.guard.letters import in_letters
from tokentape.control.guard.phrases import phrase_letters
from tokentape.control.guard.text import GuardStream
from tokentape.data.control import Decision
from tokentape.data.shown import characters, shown


def said(guard: Guard, pieces) -> list[str]:
    stream = guard.stream()
    return [*map(stream.feed, pieces), stream.close()]


def redacts(*phrases: str, **options) -> Guard:
    return Guard(phrases=phrases, action="redact", **options)


# -- one at a time -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phrase", "text", "expected"),
    [
        ("cafe", "a CaFe, no", "a [...], no"),
        ("cafe", "café cafe\u0301", "café cafe\u0301"),  # another letter, composed or not
        ("café", "CAFÉ cafe\u0301 ＣＡＦＥ\u0301 cafe", "[...] [...] [...] cafe"),
        ("straße", "STRASSE, straſſe", "[...], [...]"),
        ("office", "oﬃce", "[...]"),
        ("of", "oﬃce", "[...]ce"),
        ("fi", "ﬃ!", "[...]!"),  # a character of which a phrase takes a part is hidden whole
        ("big dog", "big \n\u00a0\u3000 dog", "[...]"),
        ("dog", "d\u200bo\u00adg\u200d, d\ufe0fog", "[...]\u200d, [...]"),
        ("가", "각 가 ㄱㅏ 가\u11a8 가ㅠ", "각 [...] [...] 가\u11a8 [...]ㅠ"),
        ("ㄱ", "가 ㄱ 각", "가 [...] 각"),
        ("ガ", "ｶﾞ カ\u3099 カ", "[...] [...] カ"),
        ("αι", "ᾳ Α\u0345", "[...] [...]"),
        ("άι", "α\u0345\u0301 α\u0301\u0345", "[...] [...]"),
        ("ΟΔΟΣ", "οδος οδοσ", "[...] [...]"),
        ("İ", "i\u0307 i", "[...] i"),
        ("日本", "日本語", "[...]語"),
        ("❤", "❤\ufe0f", "[...]\ufe0f"),
        ("e\u0323\u0301", "e\u0301\u0323 e\u0301", "[...] e\u0301"),
        ("aa", "aaa aa", "[...] [...]"),
    ],
)
def test_a_phrase_is_found_however_it_is_written(phrase, text, expected):
    assert "".join(said(redacts(phrase), [text])) == expected
    assert "".join(said(redacts(phrase), list(text))) == expected
    assert "".join(said(redacts(phrase), [bytes([b]) for b in text.encode()])) == expected


def test_only_what_may_still_be_a_phrase_is_held_back():
    assert said(redacts("big dog"), ["a b", "ig", " ", " ", "do", "x"]) == ["a ", "", "", "", "", "big  dox", ""]
    assert said(redacts("cafe"), ["cafe", "\u0301", "!"]) == ["", "cafe\u0301", "!", ""]
    assert said(redacts("cafe"), ["cafe", "\u200b", "!"]) == ["", "", "[...]\u200b!", ""]
    assert said(redacts("os", "offal"), ["o", "ﬀ", "a", "x"]) == ["", "", "", "oﬀax", ""]
    assert said(redacts("xofz", "of"), ["xo", "ﬀ", "."]) == ["", "x", "[...].", ""]
    assert said(redacts("xof", "ffxy"), ["xo", "ﬀ", "."]) == ["", "", "[...].", ""]
    assert said(redacts("café"), ["cafe", "s"]) == ["", "cafes", ""]
    assert said(redacts("dog"), ["d", "o", "g"]) == ["", "", "", "[...]"]


def test_a_character_in_which_a_phrase_stands_twice_is_found_once():
    stream = redacts("s").stream()
    assert stream.feed("ß.") == "[...]."
    assert [(f.start, f.stop, f.reason) for f in stream.take()] == [(0, 2, "phrase 1")]
    assert stream.take() == []


def test_the_placeholder_is_shown_once_and_at_once():
    """Everything that overlaps stands behind one placeholder, and what may make it longer does not delay it."""
    assert said(redacts("abc", "cde", "efg"), list("xabcdefgh")) == ["x", "", "", "", "[...]", "", "", "", "h", ""]
    assert said(redacts("cat", "cat dog"), ["a cat", " ", "d", "oe"]) == ["a ", "[...]", "", " doe", ""]
    assert said(redacts("bc", "abcd"), list("abcd!")) == ["", "", "", "", "[...]!", ""]
    assert said(redacts("bc", "abcd"), list("abce")) == ["", "", "", "a[...]e", ""]
    assert said(redacts("ab"), ["abab", "."]) == ["[...]", "[...].", ""]


def test_whole_words_leave_words_alone_that_contain_them():
    guard = redacts("ass", "$$", whole_words=True)
    assert "".join(said(guard, list("class, ass. assume ass_ pass$$ass"))) == "class, [...]. assume ass_ pass[...][...]"
    assert said(guard, ["clas", "s as", "s", "u"])[:2] == ["clas", "s "]
    assert "".join(said(redacts("ass"), ["class"])) == "cl[...]"


def test_a_stop_shows_nothing_after_the_first_finding():
    guard = Guard(phrases=["bad word", "word up"])
    stream = guard.stream()
    assert [stream.feed(p) for p in ("so ", "bad ", "wo", "rd", " u")] == ["so ", "", "", "", ""]
    assert stream.stopped
    assert [(f.start, f.stop, f.reason) for f in stream.take()] == [(3, 11, "phrase 1")]
    assert stream.feed("more") == stream.close() == ""


def test_bytes_that_are_no_text_are_shown_as_such():
    raw = b"a\xe4\xbdz \xff dog\xf0\x9f"
    pieces = [bytes([b]) for b in raw]
    assert "".join(said(redacts("zebra"), pieces)) == raw.decode("utf-8", "replace")
    assert "".join(said(redacts("dog"), pieces)) == raw.decode("utf-8", "replace").replace("dog", "[...]")


@given(st.binary(max_size=12), st.data())
def test_characters_are_those_of_decode(raw, data):
    found, rest = characters(raw)
    assert "".join(c for c, _ in found) == raw.decode("utf-8", "replace")
    assert (sum(n for _, n in found), rest) == (len(raw), b"")
    cut = data.draw(st.integers(0, len(raw)))
    head, rest = characters(raw[:cut], final=False)
    assert head + characters(rest + raw[cut:])[0] == found


# what Python's Unicode data does not know yet may have become a mark in those of regex
@given(st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=12))
def test_letters_are_unicodes_caseless_match(text):
    assert "".join(phrase_letters(text)) == "".join(letters(text))
    composed = unicodedata.normalize("NFC", text)
    assert in_letters(composed) == in_letters(unicodedata.normalize("NFD", text))


# -- against the twin --------------------------------------------------------------------------------------------------

ALPHABET = "abB \u3000éè\u0301\u0323\u200bßẞﬀfＡ"
MARKS = "\u0301\u0323"
phrases = st.lists(st.text("ab éfs\u0323", min_size=1, max_size=4), min_size=1, max_size=3).map(
    lambda found: [p for p in found if letters(p) and " " not in (letters(p)[0], letters(p)[-1])] or ["ab"]
)


@settings(max_examples=150, deadline=None)
@given(phrases, st.text(ALPHABET, max_size=7), st.booleans())
def test_held_back_is_what_may_still_be_a_phrase_and_no_more(wanted, text, whole_words):
    """For every beginning of the text, over every way in which it may go on."""
    stream, given_out = redacts(*wanted, whole_words=whole_words).stream(), ""
    ways = futures(wanted, MARKS)
    for i, char in enumerate(text, 1):
        given_out += stream.feed(char)
        found, hold = settled_and_held(text[:i], [occurrences(text[:i] + way, wanted, whole_words) for way in ways])
        assert given_out == replaced(text[:i], found, hold), text[:i]
    assert given_out + stream.close() == replaced(text, occurrences(text, wanted, whole_words))


@settings(max_examples=200, deadline=None)
@given(phrases, st.text(ALPHABET + "日", max_size=16), st.data())
def test_shown_again_from_the_tape_is_what_was_shown(wanted, text, data):
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    for action in ("redact", "stop"):
        stream = Guard(phrases=wanted, action=action).stream()
        live = "".join([*map(stream.feed, pieces), stream.close()])
        placeholder = "[...]" if action == "redact" else ""
        decided = [Decision(0, 0, action, f.start, f.stop, f.reason, placeholder) for f in stream.take()]
        assert shown(raw[: stream.n_bytes], decided) == live
        assert stream.stopped == (action == "stop" and bool(occurrences(text, wanted)))


def test_shown_without_decisions_is_the_text():
    assert shown("a\u200bé", []) == "a\u200bé"
    assert shown(b"a\xff", []) == "a\ufffd"


def test_shown_takes_part_of_a_character_for_the_whole():
    raw = "aéz".encode()
    assert shown(raw, [Decision(0, 0, "redact", 2, 3, "log-probability", "*")]) == "a*z"
    assert shown(raw, [Decision(0, 0, "redact", 1, 2, "log-probability", "*")]) == "a*z"
    assert shown(raw, [Decision(0, 0, "stop", 2, 3, "log-probability")]) == "a"
    both = [Decision(0, 0, "redact", 0, 2, "x", "*"), Decision(0, 0, "redact", 2, 4, "y", "-")]
    assert shown(raw, both) == "*"
    assert shown(raw, [Decision(0, 0, "resample", 1, 1, "x")]) == "aéz"


def test_foreseeing_takes_nothing_in():
    stream: GuardStream = Guard(phrases=["dog"]).stream()
    stream.feed("d")
    assert [f.reason for f in stream.foresee("og")] == ["phrase 1"]
    assert stream.foresee("ot") == []
    assert stream.feed("ot.") == "dot."
