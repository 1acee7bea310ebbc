"""What a guard withheld is in no part of the page, however it decided."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tokentape.data.control import Decision
from tokentape.data.shown import shown
from tokentape.views.page.withheld import let_through, withheld_tokens
from views.page.pages import spoken


def guarded(tokens: list[bytes | None], decisions: list[Decision], reason: str | None = "stop") -> Any:
    return SimpleNamespace(guarded=True, token_bytes=tokens, decisions=decisions, finish_reason=reason)


def redact(start: int, stop: int, instead: str = "[...]") -> Decision:
    return Decision(9, 0, "redact", start, stop, "why", instead)


tokens_of = st.lists(st.text(alphabet="abc", max_size=3).map(lambda text: text.encode()), min_size=1, max_size=8)


@given(tokens_of, st.data())
def test_a_token_is_withheld_if_one_of_its_bytes_is(tokens: list[bytes], data: st.DataObject) -> None:
    n = len(b"".join(tokens))
    spans = data.draw(st.lists(st.lists(st.integers(0, n), min_size=2, max_size=2).map(sorted), max_size=3))
    stop = data.draw(st.none() | st.integers(0, n))
    decisions = [redact(a, b) for a, b in spans] + ([] if stop is None else [Decision(9, 0, "stop", stop, n, "why")])
    hidden = {i for a, b in spans for i in range(a, b)} | set(range(n if stop is None else stop, n))
    found = withheld_tokens(guarded(list(tokens), decisions))
    edges = [0, *itertools.accumulate(map(len, tokens))]
    for (a, b), instead in zip(itertools.pairwise(edges), found, strict=True):
        if a < b:
            assert (instead is not None) == any(i in hidden for i in range(a, b))


@given(tokens_of, st.data())
def test_at_the_seams_of_tokens_the_page_reads_as_the_guard_let_it(tokens: list[bytes], data: st.DataObject) -> None:
    edges = [0, *itertools.accumulate(map(len, tokens))]
    places = st.sampled_from(edges)
    spans = data.draw(st.lists(st.lists(places, min_size=2, max_size=2).map(sorted), max_size=3))
    decisions = [redact(a, b, f"<{i}>") for i, (a, b) in enumerate(spans)]
    if data.draw(st.booleans()):
        decisions.append(Decision(9, 0, "stop", data.draw(places), edges[-1], "why"))
    found = withheld_tokens(guarded(list(tokens), decisions))
    read = "".join(own.decode() if instead is None else instead for own, instead in zip(tokens, found, strict=True))
    assert read == shown(b"".join(tokens), decisions)


def test_half_a_character_withholds_both_tokens_that_hold_it() -> None:
    raw = "你".encode()
    assert withheld_tokens(guarded([b"a", raw[:1], raw[1:], b"z"], [redact(2, 3, "*")])) == [None, "*", "", None]


def test_before_the_last_judgement_everything_is_withheld() -> None:
    assert withheld_tokens(guarded([b"a", b"b"], [], None)) == ["", ""]
    assert withheld_tokens(guarded([b"a", None], [redact(0, 1)])) == ["", ""]
    assert withheld_tokens(guarded([b"a", b"b"], [])) == [None, None]


def test_a_tape_without_a_guard_is_itself() -> None:
    tape = spoken([b"a"])
    assert let_through(tape) is tape
