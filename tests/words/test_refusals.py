"""Errors in Chinese: every sentence of the code has its form, and what the code filled in stands in it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tokentape.words import refusals
from tokentape.words.refusals import LETTERS, letters, refusal, templates

ROOT = Path(__file__).resolve().parents[2]


def test_every_error_of_the_code_has_its_chinese_form():
    command = [sys.executable, str(ROOT / "tools" / "error_phrases.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_form_has_no_place_that_its_english_lacks():
    place = re.compile(r"\{\d+\}")
    for english, chinese in templates().items():
        assert set(place.findall(chinese)) <= set(place.findall(english)), english
        # a place may be left out where it is a plural, and where a language has no need of it; never one that is quoted
        assert len(chinese.strip()) > 0, english


def test_what_the_code_filled_in_is_found_again():
    for english, chinese in templates().items():
        if letters(english) < LETTERS:
            continue
        assert refusal(re.sub(r"\{(\d+)\}", r"‹\1›", english), "zh") == re.sub(r"\{(\d+)\}", r"‹\1›", chinese), english


@pytest.fixture
def two(monkeypatch):
    table = {
        "no {0} in {1}": "{1} 中没有 {0}",
        "no step {0}": "没有第 {0} 步",
        "{0} of {1}": "!",
        "3 steps long": "三步",
    }
    monkeypatch.setattr(refusals, "templates", lambda: table)
    refusals._compiled.cache_clear()
    yield
    refusals._compiled.cache_clear()


def test_the_template_with_more_words_of_its_own_is_meant(two):
    assert refusal("no step 3 steps long in x", "zh") == "没有第 3 steps long in x 步"
    assert refusal("no step 3 steps long", "zh") == "没有第 三步 步"
    assert refusal("no a\nb in x", "zh") == "x 中没有 a\nb"
    assert refusal("a of b", "zh") == "a of b", "two letters are no template"
    assert refusal("no step 3", "en") == "no step 3"
    assert refusal("", "zh") == ""
