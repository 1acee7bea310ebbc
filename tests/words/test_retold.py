"""Reasons and notes held against the phrases of groups."""

import pytest

from tokentape.words import retold as module
from tokentape.words.retold import retold

EN = {
    "a.why.n": "{n} {n|step|steps} of {kind}",
    "a.why.all": "all of {kind}",
    "a.kind.x": "reading",
    "a.other.n": "{n} of anything",
    "b.why.n": "a part",
}
ZH = {
    "a.why.n": "{kind}的 {n} 步",
    "a.why.all": "全部{kind}",
    "a.kind.x": "读取",
    "a.other.n": "!",
    "b.why.n": "!",
}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    both = {key: {"en": text, "zh": ZH[key]} for key, text in EN.items()}
    monkeypatch.setattr("tokentape.words.catalogue.area", {"a": both}.__getitem__)
    monkeypatch.setattr("tokentape.words.retold.phrases", lambda lang: EN)
    monkeypatch.setattr(module, "refusal", lambda text, lang: "没有" if text == "none" else text)
    module._templates.cache_clear()
    yield
    module._templates.cache_clear()


def test_places_are_filled_in_the_order_of_the_language_and_told_themselves():
    assert retold("1,234 steps of reading", "zh", "a.why", "a.kind") == "读取的 1,234 步"
    assert retold("1 step of reading", "zh", "a.why") == "reading的 1 步"


def test_english_stays_as_it_is():
    assert retold("1 step of reading", "en", "a.why", "a.kind") == "1 step of reading"


def test_only_the_groups_that_are_named_are_asked():
    assert retold("a part", "zh", "a.why") == "a part"
    assert retold("12 of anything", "zh", "a.why") == "12 of anything"
    assert retold("all of it", "zh") == "all of it"


def test_an_error_that_says_the_same_will_do():
    assert retold("none", "zh", "a.why") == "没有"


def test_of_what_fits_nothing_as_a_whole_each_side_is_told():
    assert retold("B: none: all of x.tape", "zh", "a.why") == "B：没有：全部x.tape"
    assert retold("none; all of it", "zh", "a.why") == "没有；全部it"
    assert retold("C: d; e", "zh", "a.why") == "C: d; e"
    assert retold("", "zh", "a.why") == ""
