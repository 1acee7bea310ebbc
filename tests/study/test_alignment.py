"""Where two sequences part, by hand: by ids, by bytes, at the end, and not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokentape
from tokentape import Line
from tokentape.data.tape import Tape
from tokentape.recorder.tick import Said
from tokentape.study.alignment import Deviation, align, same_vocabulary

MS = 1_000_000


def said(token_id: int, text: str, logprob: float | None = -1.0, candidates: Any = None) -> Said:
    return Said(0, token_id, text.encode(), logprob, 1.0, 1, candidates=candidates)


def taped(*tokens: Said | str, facts: dict[str, Any] | None = None) -> Tape:
    source = tokentape.ScriptedSource([Line(MS, [token]) for token in tokens], facts=facts or {"tokenizer": "x"})
    source.piece = lambda i: (f"<{i}>", f"[{i}]".encode(), False)  # type: ignore[method-assign]
    return tokentape.record(source, "The cat")


def aligned(a: Tape, b: Tape, **how: Any) -> Any:
    return align(a.traces[0], b.traces[0], (a, b), **{"by_ids": same_vocabulary(a, b), **how})


def test_first_parting_has_both_tokens_their_probabilities_and_candidates() -> None:
    a = taped(said(1, "x"), said(2, " mat", -0.5, ((2, -0.5), (3, -1.5))), said(4, "!"))
    b = taped(said(1, "x"), said(3, " rug", -0.7, ((3, -0.7), (2, -0.9))), said(4, "!"))
    found = aligned(a, b)
    assert (found.by, found.n_common, found.n_a, found.n_b) == ("ids", 1, 3, 3)
    assert (found.parting.a.index, found.parting.a.position) == (1, 3), "two tokens of prompt come before it"
    assert (found.parting.a.id, found.parting.a.data, found.parting.b.data) == (2, b" mat", b" rug")
    assert (found.parting.a.logprob, found.parting.a.others_logprob) == (-0.5, pytest.approx(-1.5))
    assert (found.parting.b.logprob, found.parting.b.others_logprob) == (-0.7, pytest.approx(-0.9))
    assert [(i, data) for i, data, _ in found.parting.b.candidates] == [(3, b"[3]"), (2, b"[2]")]


def test_token_that_the_other_did_not_keep_as_a_candidate_is_unknown() -> None:
    a = taped(said(2, " mat", -0.5, ((2, -0.5), (9, -3.0))))
    b = taped(said(3, " rug", -0.7))
    found = aligned(a, b).parting
    assert found.a.others_logprob is None and found.b.others_logprob is None
    assert found.b.candidates == ()


def test_largest_difference_of_logprobs_is_that_before_the_parting() -> None:
    a = taped(said(1, "x", -1.0), said(2, "y", -2.0), said(3, "z", -9.0))
    b = taped(said(1, "x", -1.25), said(2, "y", -1.5), said(4, "w", -1.0))
    assert aligned(a, b).deviation == Deviation(0.5, 1, 2)


def test_missing_logprobs_are_unknown_and_not_zero() -> None:
    a, b = taped(said(1, "x", None), said(2, "y", -1.0)), taped(said(1, "x", -1.0), said(2, "y", -1.0))
    assert aligned(a, b).deviation == Deviation(0.0, 1, 1)
    bare = taped("x")
    assert aligned(bare, bare).deviation == Deviation(None, None, 0)


def test_no_common_beginning() -> None:
    found = aligned(taped(said(1, "x")), taped(said(2, "y")))
    assert (found.n_common, found.parting.a.index) == (0, 0)
    assert found.deviation == Deviation(None, None, 0)


def test_one_ends_where_the_other_goes_on() -> None:
    found = aligned(taped(said(1, "x")), taped(said(1, "x"), said(2, "y")))
    assert (found.n_common, found.parting.a.position, found.parting.a.id) == (1, None, None)
    assert (found.parting.a.finish_reason, found.parting.b.data) == ("stop", b"y")


def test_the_same_to_the_end() -> None:
    found = aligned(taped(said(1, "x"), said(2, "y")), taped(said(1, "x"), said(2, "y")))
    assert found.parting is None and found.n_common == 2


def test_other_tokenizers_are_aligned_by_bytes() -> None:
    a = taped(said(1, "ab", -1.0), said(2, "cd", -2.0), said(3, "ef", -1.0))
    b = taped(
        said(7, "a", -0.5), said(8, "b", -0.25), said(9, "c", -1.0), said(5, "xf", -1.0), facts={"tokenizer": "y"}
    )
    found = aligned(a, b)
    assert (found.by, found.parting.byte) == ("bytes", 3)
    assert (found.parting.a.data, found.parting.a.index) == (b"cd", 1)
    assert (found.parting.b.data, found.parting.b.index) == (b"xf", 3)
    assert found.n_common == 1
    # "ab" is one token here and two there: their sum is what compares
    assert found.deviation == Deviation(pytest.approx(0.25), 0, 1)


def test_other_cuts_of_one_text_do_not_part() -> None:
    a = taped(said(1, "ab"), said(2, "cd"))
    b = taped(said(7, "abc"), said(8, "d"), facts={"tokenizer": "y"})
    assert aligned(a, b).parting is None


def test_text_that_is_not_on_the_tape_cannot_be_aligned_by_bytes() -> None:
    a = tokentape.record(tokentape.ScriptedSource([Line(MS, ["x"])]), "The cat", text=False)
    assert aligned(a, a, by_ids=False).by is None


def test_vocabularies_without_a_hash_are_told_by_what_both_spell() -> None:
    one = tokentape.record(tokentape.ScriptedSource([Line(MS, ["x"])]), "The cat")
    other = tokentape.record(tokentape.ScriptedSource([Line(MS, ["x"])]), "A dog")
    assert same_vocabulary(one, one) and not same_vocabulary(one, other), "a script numbers words as they come"


TEXTS = st.lists(st.sampled_from(["a", "b", "ab", "ba", "é"]), min_size=1, max_size=8)


@given(TEXTS, TEXTS)
def test_bytes_part_where_a_brute_comparison_says(a: list[str], b: list[str]) -> None:
    tapes = [taped(*(said(hash(t) % 97, t) for t in side), facts={"tokenizer": n}) for side, n in ((a, "x"), (b, "y"))]
    found = aligned(*tapes)
    texts = ["".join(side).encode() for side in (a, b)]
    if texts[0] == texts[1]:
        assert found.parting is None
        return
    width = max(map(len, texts))
    rows = [np.frombuffer(text.ljust(width, b"\0"), np.uint8) for text in texts]
    assert found.parting.byte == int(np.argmax(rows[0] != rows[1]))
