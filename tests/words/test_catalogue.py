"""The catalogue: complete in both languages, and filled as it says."""

import re
import tomllib
from importlib import resources

import pytest

from tokentape.words.catalogue import LANGS, Message, phrase, phrases, places, said

FILES = [entry for entry in resources.files("tokentape.words").iterdir() if entry.name.endswith(".toml")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_phrase_is_there_in_both_languages_with_the_same_places(file):
    area = file.name.removesuffix(".toml")
    for key, forms in tomllib.loads(file.read_text("utf-8")).items():
        assert re.fullmatch(rf"{area}\.[\w.-]+", key), key
        assert set(forms) == set(LANGS), key
        assert all(text.strip() for text in forms.values()), key
        assert places(forms["en"]) == places(forms["zh"]), key


def test_a_chinese_phrase_is_chinese():
    english, chinese = phrases("en"), phrases("zh")
    same = [key for key, text in english.items() if text == chinese[key] and re.search(r"[a-z]{4}", text)]
    # what is a name in either language: units, terms that Chinese papers leave in English
    assert all(len(english[key].split()) <= 2 for key in same), same


def test_places_are_filled(monkeypatch):
    table = {"a.n": "{n} {n|step|steps}, {who}", "a.in": "so: {what}"}
    both = {key: {"en": text, "zh": text} for key, text in table.items()}
    monkeypatch.setattr("tokentape.words.catalogue.area", {"a": both}.__getitem__)
    assert phrase("a.n", n=1, who=None) == "1 step, –"
    assert phrase("a.n", n=12_345, who="x") == "12,345 steps, x"
    assert said(Message("a.in", {"what": Message("a.n", {"n": 2, "who": "{n}"})})) == "so: 2 steps, {n}"
    with pytest.raises(KeyError):
        phrase("a.n", n=1)


def test_what_the_catalogue_lacks_is_refused():
    with pytest.raises(KeyError, match="no area 'nowhere'"):
        phrase("nowhere.x")
    with pytest.raises(KeyError):
        phrase("card.nothing")
