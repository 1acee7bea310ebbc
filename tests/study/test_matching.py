"""Two sequences laid side by side to their ends: every token once, in order, and equal where it is said to be."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import example, given, settings
from hypothesis import strategies as st

import tokentape
from tokentape import Line
from tokentape.data.tape import Tape
from tokentape.recorder.tick import Said
from tokentape.study.alignment import align
from tokentape.study.matching import MOST_TOKENS, Stretch, matched

FACTS = {"model": "paper"}


def taped(tokens: Sequence[str], tokenizer: str = "x") -> Tape:
    said = [Said(0, int.from_bytes(token.encode()) % 100_003, token.encode()) for token in tokens]
    source = tokentape.ScriptedSource([Line(1000, one) for one in said], facts={**FACTS, "tokenizer": tokenizer})
    return tokentape.record(source, "a prompt")


def laid(a: Sequence[str], b: Sequence[str], *, by_ids: bool) -> list[Stretch]:
    tapes = taped(a), taped(b, "x" if by_ids else "y")
    traces = tapes[0].traces[0], tapes[1].traces[0]
    return matched(*traces, align(*traces, tapes, by_ids=by_ids))


def check(a: Sequence[str], b: Sequence[str], found: Sequence[Stretch], *, by_ids: bool) -> None:
    """What holds of any alignment."""
    ends = (0, 0)
    for one in found:
        assert (one.a[0], one.b[0]) == ends and one.a[1] >= one.a[0] and one.b[1] >= one.b[0]
        mine, theirs = list(a[slice(*one.a)]), list(b[slice(*one.b)])
        assert mine or theirs
        if one.kind == "same":
            assert mine == theirs
        elif one.kind == "recut":
            assert not by_ids and "".join(mine) == "".join(theirs) and mine != theirs
        else:
            assert "".join(mine) != "".join(theirs) or by_ids
        ends = (one.a[1], one.b[1])
    assert ends == (len(a), len(b))


words = st.lists(st.sampled_from(["a", "b", "c", "ab", "bc", "猫"]), min_size=1, max_size=14)


@settings(max_examples=60, deadline=None)
@given(words, words)
@example(["ab", "c"], ["a", "bc"])
@example(["a", "b", "c", "a"], ["ab", "c", "b"])
def test_bytes_lie_side_by_side_whatever_they_are(a: list[str], b: list[str]) -> None:
    check(a, b, laid(a, b, by_ids=False), by_ids=False)


@settings(max_examples=60, deadline=None)
@given(words, words)
def test_ids_lie_side_by_side_whatever_they_are(a: list[str], b: list[str]) -> None:
    check(a, b, laid(a, b, by_ids=True), by_ids=True)


def test_ids_part_and_come_together_again() -> None:
    found = laid(list("abcdXefg"), list("abcdYZefg"), by_ids=True)
    assert found == [
        Stretch((0, 4), (0, 4), "same"),
        Stretch((4, 5), (4, 6), "other"),
        Stretch((5, 8), (6, 9), "same"),
    ]
    assert laid(list("abc"), list("abc"), by_ids=True) == [Stretch((0, 3), (0, 3), "same")]
    assert laid(list("ab"), list("abc"), by_ids=True)[-1] == Stretch((2, 2), (2, 3), "other")


def test_the_same_text_cut_otherwise_is_told_from_the_same_tokens() -> None:
    found = laid(["x", "ab", "c", "y"], ["x", "a", "bc", "y"], by_ids=False)
    assert [one.kind for one in found] == ["same", "recut", "same"]
    assert found[1] == Stretch((1, 3), (1, 3), "recut")


def test_very_long_ones_stand_in_their_order() -> None:
    n = MOST_TOKENS + 50
    found = laid(["a", *["b"] * n], ["c", *["b"] * (n + 7)], by_ids=False)
    assert [(one.kind, one.a[1] - one.a[0]) for one in found] == [("other", 1), ("same", n), ("other", 0)]


def test_text_that_is_not_kept_is_not_laid_side_by_side() -> None:
    a = tokentape.record(tokentape.ScriptedSource([Line(1, "a")], facts=FACTS), "x", text=False)
    trace = a.traces[0]
    found = align(trace, trace, (a, a), by_ids=False)
    assert found.by is None and matched(trace, trace, found) == []
