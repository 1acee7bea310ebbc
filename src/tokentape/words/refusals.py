"""Errors in the reader's language.

An error is raised in English, by code that knows nothing of languages: its words are what a program, a log and a test see. For
a Chinese reader the text is held against the *templates* of the catalogue when it is shown. A template is the English text as it
stands in the code, with ``{0}``, ``{1}``, ... for what the code fills in; the files ``errors/<room>.toml`` give each its Chinese
form::

    "no step {0}" = "没有第 {0} 步"

What fills a place is put into the language in its turn, by a template that fits the whole of it. Three rules keep a short
template from taking a sentence that it does not mean:

- a template with fewer than ``LETTERS`` letters of its own is none;
- English words that have no form of their own fill no place, but one after a colon: what stands there is what another program
  said, and is quoted as it is. They are words if two in lower case follow each other, not between quotes and not as a list (``a,
  b or c``), or if one of them is such as ``the`` or ``not``: a name, a number or an option fills every place;
- a text is Chinese as a whole or not at all. What no template fits is tried in parts, at each ``; `` and ``: `` and before
  brackets at its end, as code joins sentences like that. What fits nothing then stays English.

``tools/error_phrases.py`` finds the templates in the code, and tells which have no Chinese form.
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
_COLON = re.compile(r": (?:\{\d+\} )*$")
_JOINT = re.compile(r"; |: | \((?=[^()]*\)$)")
_SENTENCE = re.compile(r"(?<![\w./-])(?:(?:an?|at|is|no|not|of|the|what) |[a-z]+ [a-z]+(?![\w./-]))")
_LIST = re.compile(r",? (?:or|and) |, ")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|\btokentape [a-z]+")


@dataclass(frozen=True, slots=True)
class Template:
    """``pattern`` finds what fills the places of the English form; ``begin`` and ``end`` are the words before the first place and
    after the last. ``places`` has for each, in the order they stand there, its number, and whether it stands after a colon, with
    no more than other places between.
    """

    begin: str
    end: str
    pattern: re.Pattern[str]
    places: tuple[tuple[int, bool], ...]
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
    ordered = sorted(templates().items(), key=lambda item: (-letters(item[0]), -len(_PLACE.sub("", item[0])), item[0]))
    return tuple(_template(english, chinese) for english, chinese in ordered if letters(english) >= LETTERS)


def _template(english: str, chinese: str) -> Template:
    parts = _PLACE.split(english)
    pattern = "".join(re.escape(part) if i % 2 == 0 else "(.*?)" for i, part in enumerate(parts))
    places = tuple(
        (int(number), before.endswith(": ")) for before, number in zip(parts[::2], parts[1::2], strict=False)
    )
    return Template(parts[0], parts[-1], re.compile(pattern, re.DOTALL), places, chinese)


def refusal(text: str, lang: Lang) -> str:
    """A part of an error (what, why or fix) in a language; as it was where the catalogue has no form that fits."""
    return text if lang == "en" else _whole(text) or _in_parts(text) or text


def _whole(text: str) -> str | None:
    """The Chinese form of the first template that fits a text."""
    for template in _compiled():
        likely = text.startswith(template.begin) and text.endswith(template.end)
        if likely and (match := template.pattern.fullmatch(text)) is not None:
            values = [_filling(value, *place) for value, place in zip(match.groups(), template.places, strict=True)]
            if all(value is not None for _, value in values):
                return _filled(template.chinese, dict(values))
    return None


def _filling(value: str, number: int, quoted: bool) -> tuple[int, str | None]:
    found = _whole(value) or _in_parts(value)
    return number, found or (_list(value) if quoted or not _is_sentence(value) else None)


def _list(value: str) -> str:
    """Names joined by ``or`` or ``and`` (``--a, --b or --c``) with the Chinese word between them; all else as it is."""
    names = _LIST.split(value)
    if len(names) == 1 or any(" " in name or not name for name in names):
        return value
    return value.replace(", or ", " 或 ").replace(" or ", " 或 ").replace(", and ", " 和 ").replace(" and ", " 和 ")


def _in_parts(text: str) -> str | None:
    """A text that is several: ``one; another``, ``of what: one``, ``one (how many)``."""
    for joint in _JOINT.finditer(text):
        before, after = text[: joint.start()], text[joint.end() :]
        left = _whole(before)
        if joint[0] == "; ":
            right = _whole(after) or _in_parts(after)
            if left and right:
                return f"{left}；{right}"
        elif joint[0] == ": ":
            right = _whole(after) or _in_parts(after)
            if right and (left or not _is_sentence(before)):
                return f"{left or before}：{right}"
        elif left and (right := _filling(after[:-1], 0, quoted=False)[1]):
            return f"{left}（{right}）"
    return None


def _is_sentence(text: str) -> bool:
    return any(_SENTENCE.search(part) for part in _LIST.split(_QUOTED.sub("''", text)))


def _filled(template: str, values: Mapping[int, str | None]) -> str:
    return _PLACE.sub(lambda place: values.get(int(place[1])) or "", template)
