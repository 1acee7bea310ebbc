"""Whatever a model says can be drawn, once, and acts on no terminal."""

from __future__ import annotations

import itertools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape.views.drawing import drawn_text, drawn_tokens


def test_plain_tokens_are_drawn_as_they_are() -> None:
    assert drawn_tokens([b"The", b" cat", "é".encode(), "你好".encode(), "😀".encode()]) == [
        "The",
        " cat",
        "é",
        "你好",
        "😀",
    ]


def test_character_on_two_tokens_is_drawn_on_the_one_that_completes_it() -> None:
    assert drawn_tokens([b" \xe4\xbd", b"\xa0!"]) == [" ⟨E4 BD⟩", "你!"]


def test_character_on_four_tokens() -> None:
    assert drawn_tokens([bytes([b]) for b in "😀".encode()]) == ["⟨F0⟩", "⟨9F⟩", "⟨98⟩", "😀"]


def test_one_token_completes_a_character_and_begins_another() -> None:
    first, second = "你".encode(), "好".encode()
    assert drawn_tokens([first[:2], first[2:] + second[:1], second[1:]]) == ["⟨E4 BD⟩", "你⟨E5⟩", "好"]


def test_character_that_is_never_completed_does_not_swallow_what_follows() -> None:
    assert drawn_tokens([b"\xe4\xbd", b"abc", b"\xa0"]) == ["⟨E4 BD⟩", "abc", "⟨A0⟩"]
    assert drawn_tokens([b"\xe4", "你".encode()]) == ["⟨E4⟩", "你"]


def test_bytes_that_are_no_character() -> None:
    assert drawn_tokens([b"\xff\xfe", b"a\xc0b", b"\xed\xa0\x80"]) == ["⟨FF FE⟩", "a⟨C0⟩b", "⟨ED A0 80⟩"]


def test_unknown_bytes_are_none_and_break_nothing() -> None:
    assert drawn_tokens([None, b"a", None]) == [None, "a", None]


@pytest.mark.parametrize(
    ("hostile", "drawn"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("\x00", "\\x00"),
        ("a\nb\r\t", "a\\nb\\r\\t"),
        ("\x7f\x9b", "\\x7f\\x9b"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("\u200b\ufeff", "\\u200b\\ufeff"),
        ("\u2028", "\\u2028"),
        ("\u00a0", "\\xa0"),
        ("\U000e0041", "\\U000e0041"),
        ("\\n", "\\\\n"),
        ("[bold]x[/bold]", "[bold]x[/bold]"),
        ("\u0301", "◌\u0301"),
    ],
)
def test_hostile_text_is_escaped(hostile: str, drawn: str) -> None:
    assert drawn_tokens([hostile.encode()]) == [drawn]


def test_running_text_keeps_what_it_is_told_to() -> None:
    assert drawn_text("a\nb\x1b[2J") == "a\\nb\\x1b[2J"
    assert drawn_text("a\nb\tc\x07", keep="\n") == "a\nb\\tc\\x07"
    assert drawn_text("👩\u200d👩", keep="\n") == "👩\u200d👩", "joined emoji stay joined"
    assert drawn_text("C:\\new") == "C:\\new"


def harmless(text: str) -> bool:
    return all(c == "\u200d" or c == "\u200c" or unicodedata.category(c)[0] != "C" for c in text)


@given(st.lists(st.binary(max_size=6), max_size=8))
def test_any_bytes_are_drawn_harmlessly(tokens: list[bytes]) -> None:
    drawn = drawn_tokens(tokens)
    assert len(drawn) == len(tokens)
    assert all(text is not None and harmless(text) for text in drawn)


@given(st.text(alphabet=st.characters(codec="utf-8", categories=["L", "N", "So"])), st.data())
def test_text_cut_anywhere_is_drawn_once(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=4)))
    edges = [0, *cuts, len(raw)]
    drawn = drawn_tokens([raw[a:b] for a, b in itertools.pairwise(edges)])
    joined = "".join(part for part in drawn if part is not None)
    while "⟨" in joined:
        joined = joined[: joined.index("⟨")] + joined[joined.index("⟩") + 1 :]
    assert joined == text


@given(st.text())
def test_any_text_is_drawn_harmlessly(text: str) -> None:
    assert harmless(drawn_text(text))
