"""Which language a terminal is spoken to in."""

import pytest

from tokentape.words.language import language_asked, language_of


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LC_ALL": "en_US.UTF-8", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LC_ALL": "", "LC_MESSAGES": "zh_TW", "LANG": "de_DE"}, "zh"),
        ({"TOKENTAPE_LANG": "zh-Hans", "LC_ALL": "en_US.UTF-8"}, "zh"),
        ({"TOKENTAPE_LANG": "en", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"TOKENTAPE_LANG": "fr", "LANG": "zh_CN.UTF-8"}, "zh"),
    ],
)
def test_what_was_asked_for_decides_before_the_locale(environ, expected):
    assert language_of(environ) == expected


def test_nothing_asked_is_none():
    assert language_asked({}) is None
    assert language_asked({"TOKENTAPE_LANG": "tlh"}) is None
