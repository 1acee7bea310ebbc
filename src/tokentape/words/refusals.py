"""Errors in the reader's language.

An error is raised in English, by code that knows nothing of languages: its words are what a program, a log and a test see. For
a Chinese reader the text is held against the *templates* of the catalogue when it is shown. A template is the English text as it
stands in the code, with ``{0}``, ``{1}``, ... for what the code fills in; the files ``errors/<room>.toml`` give each its Chinese
form::

    "no step {0}" = "没有第 {0} 步"

What no template fits stays English. ``tools/error_phrases.py`` finds the templates in the code, and tells which have no Chinese
form.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from tokentape.words.catalogue import Lang

__all__ = ["LETTERS", "letters", "refusal", "templates"]

LETTERS = 4
"""A template with fewer letters outside of its places would fit nearly everything, and is none."""

_PLACE = re.compile(r"\{(\d+)\}")


@dataclass(frozen=True, slots=True)
class Template:
    """``pattern`` finds what fills the places of the English form, ``order`` their numbers in the order they stand there."""

    pattern: re.Pattern[str]
    order: tuple[int, ...]
    chinese: str


def letters(template: str) -> int:
    """Letters of a template outside of its places."""
    return sum(character.isalpha() for character in _PLACE.sub("", template))


@cache
def templates() -> Mapping[str, str]:
    """The Chinese form of each English template."""
    found: dict[str, str] = {}
    for entry in sorted((resources.files(__package__) / "errors").iterdir(), key=lambda file: file.name):
        if entry.name.endswith(".toml"):
            found |= tomllib.loads(entry.read_text("utf-8"))
    return found


@cache
def _compiled() -> tuple[Template, ...]:
    """The templates that say most come first: of two that fit, the one with more words of its own is meant."""
    ordered = sorted(templates().items(), key=lambda item: (-letters(item[0]), item[0]))
    return tuple(_template(english, chinese) for english, chinese in ordered if letters(english) >= LETTERS)


def _template(english: str, chinese: str) -> Template:
    parts = _PLACE.split(english)
    pattern = "".join(re.escape(part) if i % 2 == 0 else "(.*?)" for i, part in enumerate(parts))
    return Template(re.compile(pattern, re.DOTALL), tuple(int(number) for number in parts[1::2]), chinese)


def refusal(text: str, lang: Lang) -> str:
    """A part of an error (what, why or fix) in a language; as it was where the catalogue has no form that fits.

    What fills a place is itself put into the language where a template fits the whole of it.
    """
    if lang == "en" or not text:
        return text
    for template in _compiled():
        if (match := template.pattern.fullmatch(text)) is not None:
            values = [refusal(value, lang) for value in match.groups()]
            return _filled(template.chinese, dict(zip(template.order, values, strict=True)))
    return text


def _filled(template: str, values: Mapping[int, str]) -> str:
    return _PLACE.sub(lambda place: values.get(int(place[1]), ""), template)
