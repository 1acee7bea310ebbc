"""Prompts made to measure: their length, their shared beginnings, and that nothing else is shared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape.load.prompts import NUMBERS, WORDS, Calibration, PromptMaker

MAKER = PromptMaker()
IDS = PromptMaker(Calibration(pool=tuple(range(100, 400)) * 3), as_ids=True)


def common(one, two):
    n = 0
    while n < min(len(one), len(two)) and one[n] == two[n]:
        n += 1
    return n


@given(st.integers(1, 40_000), st.integers(0, NUMBERS - 1))
def test_a_text_has_as_many_words_as_asked(n, number):
    text = MAKER.words(n, number)
    words = text.split(" ")
    assert len(words) == n and set(words) <= set(WORDS)
    assert text == MAKER.words(n, number)


@given(st.integers(1, 3000), st.integers(0, NUMBERS - 1), st.lists(st.integers(0, 10**6), max_size=5))
def test_ids_are_exactly_as_many_as_asked(n, number, blocks):
    ids = IDS.prompt(n, number, tuple(blocks))
    assert len(ids) == n and set(ids) <= set(IDS.calibration.pool)


@pytest.mark.parametrize("maker", [MAKER, IDS])
@given(one=st.integers(0, NUMBERS - 1), two=st.integers(0, NUMBERS - 1))
def test_no_two_prompts_begin_alike(maker, one, two):
    if one == two:
        return
    a, b = maker.prompt(50, one), maker.prompt(50, two)
    a, b = (a.split(), b.split()) if isinstance(a, str) else (a, b)
    assert common(a, b) < 4


@pytest.mark.parametrize("maker", [MAKER, IDS])
def test_the_same_blocks_are_the_same_prefix(maker):
    a = maker.prompt(3 * 512 + 100, 1, (46, 47, 48, 9))
    b = maker.prompt(3 * 512 + 300, 2, (46, 47, 48, 10))
    c = maker.prompt(2 * 512, 3, (46, 50))
    a, b, c = (x.split() if isinstance(x, str) else x for x in (a, b, c))
    assert 3 * 512 <= common(a, b) < 3 * 512 + 4
    assert 512 <= common(a, c) < 512 + 4


def test_blocks_share_what_the_tokens_say_where_a_word_is_more_than_a_token():
    maker = PromptMaker(Calibration(tokens_a_word=1.3, overhead=9.0))
    a, b = (maker.prompt(512 * 4 + 50, i, (1, 2, 3, 4, 90 + i)).split() for i in range(2))
    assert common(a, b) * 1.3 == pytest.approx(4 * 512, abs=4)
    assert len(a) * 1.3 + 9 == pytest.approx(512 * 4 + 50, abs=1)


def test_a_line_through_two_measurements():
    line = Calibration.through((16, 30), (256, 342))
    assert (line.tokens_a_word, line.overhead) == (pytest.approx(1.3), pytest.approx(9.2))
    assert Calibration.through((16, 30), (256, 30)).tokens_a_word > 0  # a server that counts nonsense
