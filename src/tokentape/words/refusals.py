"""Errors in the reader's language.

An error is raised in English, by code that knows nothing of languages: its words are what a program, a log and a test see. For
a Chinese reader the text is held against the *templates* of the catalogue when it is shown. A template is the English text as it
stands in the code, with ``{0}``, ``{1}``, ... for what the code fills in; the files ``errors/<room>.toml`` give each its Chinese
form::

    "no step {0}" = "没有第 {0} 步"

What fills a place is put into the language in its turn, by a template that fits the whole of it. Of two templates that fit a text,
the one with more letters of its own is meant. A short one would fit sentences that it does not mean, so these rules hold:

- English words that have no form of their own fill no place: a name, a number, an option or what stands between quotes does. They
  are words if two in lower case follow each other, or one is such as ``the`` or ``not``. After a colon they may stand, as what
  another program said, which is quoted as it is.
- Of a template with fewer than ``SHORT`` letters (``{0} is {1}``) the first place holds one name, and the others no word at all;
  with fewer than ``LETTERS`` it is none.
- A list (``--a, --b or a word``) fills a place where each of its parts does.

What no template fits is tried in parts, at each ``; `` and ``: `` and before brackets at its end, as code joins texts like that.
What then fits nothing stays English as a whole: it is never told by halves.

``tools/error_phrases.py`` finds the templates in the code, and tells which have no Chinese form. ``errors/foreign.toml`` has what
other programs say most often (click, Python, SQLite, the system).
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import NamedTuple

from tokentape.words.catalogue import Lang

__all__ = ["LETTERS", "letters", "refusal", "templates"]

LETTERS = 2
"""A template with fewer letters outside of its places would fit nearly everything, and is none."""

SHORT = 4
"""A template with fewer letters than these is short: ``{0} is {1}``."""

LONGEST, MOST_PARTS = 600, 16
"""A text with more characters, or of more parts, quotes something long, and stays as it is: to look at it would take long."""

_PLACE = re.compile(r"\{(\d+)\}")
_COLON = re.compile(r": (?:\{\d+\} )*$")
_JOINT = re.compile(r"; |: | \((?=[^()]*\)$)")
_SENTENCE = re.compile(r"(?<![\w./-])(?:(?:an?|at|is|no|not|of|the|what) |[a-z]+ [a-z]+(?![\w./-]))")
_WORD = re.compile(r"(?<![\w./=-])[a-z]{2,}(?![\w./=-])")
_LIST = re.compile(r"(,? or |,? and |, )")
_PARTS = {"; ": "{0}；{1}", ": ": "{0}：{1}", " (": "{0}（{1}）"}
_MARK = "\0"
_CHINESE = "[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"
_SPACE = re.compile(f"(?<={_CHINESE}) {_MARK}(?={_CHINESE})|(?<={_CHINESE}){_MARK} (?={_CHINESE})")
_JOINED = {"or": " 或 ", "and": " 和 ", "": "、"}
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|\btokentape [a-z]+")


class Place(NamedTuple):
    """A place of a template. ``quoted``: it stands after a colon, with no more than other places between. Of a short template the
    first place holds one name (``single``), and the others no word of English (``plain``). ``last``: the template ends with it.
    """

    number: int
    quoted: bool = False
    single: bool = False
    plain: bool = False
    last: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    """``begin`` and ``end`` are the words of the English form before its first place and after its last."""

    begin: str
    end: str
    english: str
    places: tuple[Place, ...]
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
    short = letters(english) < SHORT
    places = tuple(
        Place(
            int(place[1]),
            _COLON.search(english[: place.start()]) is not None,
            short and i == 0,
            short and i > 0,
            place.end() == len(english),
        )
        for i, place in enumerate(_PLACE.finditer(english))
    )
    return Template(parts[0], parts[-1], english, places, chinese)


@cache
def _pattern(english: str) -> re.Pattern[str]:
    """Finds what fills the places. Made when it is needed: to make all of them takes longer than to show a tape."""
    parts = _PLACE.split(english)
    return re.compile("".join(re.escape(part) if i % 2 == 0 else "(.*?)" for i, part in enumerate(parts)), re.DOTALL)


def refusal(text: str, lang: Lang) -> str:
    """A part of an error (what, why or fix) in a language; as it was where the catalogue has no form that fits."""
    return text if lang == "en" else _told(text, True) or (text.startswith("-") and _list(text)) or text


def _told(text: str, quoting: bool) -> str | None:
    return None if len(text) > LONGEST else _whole(text, quoting) or _in_parts(text, quoting)


@lru_cache(1024)
def _whole(text: str, quoting: bool) -> str | None:
    """The Chinese form of the first template that fits a text; with ``quoting``, English words may stand after its colon."""
    for template in _compiled():
        likely = text.startswith(template.begin) and text.endswith(template.end)
        if likely and (match := _pattern(template.english).fullmatch(text)) is not None:
            pairs = zip(match.groups(), template.places, strict=True)
            values = [_filling(value, place, quoting) for value, place in pairs]
            if None not in values:
                numbers = [place.number for place in template.places]
                return _filled(template.chinese, dict(zip(numbers, values, strict=True)))
    return None


def _filling(value: str, place: Place, quoting: bool = False) -> str | None:
    """What a place shows of its value, its form between marks; None where the value may not stand there."""
    if (found := _told(value, quoting and (place.quoted or place.last)) or _list(value)) is not None:
        return f"{_MARK}{found}{_MARK}"
    bare = _QUOTED.sub("''", value).strip()
    words = (not (quoting and place.quoted) and _SENTENCE.search(bare)) or (place.plain and _WORD.search(bare))
    return None if words or (place.single and " " in bare) else value


def _list(value: str) -> str | None:
    """``--seed 1, 2 or a word``: each is a name, or has a form of its own."""
    parts = _LIST.split(value)
    names = [_whole(name, False) or (name if name.startswith("-") or " " not in name else "") for name in parts[::2]]
    if len(names) == 1 or not all(names) or (names == parts[::2] and not {*map(str.strip, parts[1::2])} - {","}):
        return None
    joints = [_JOINED[joint.strip(", ")] for joint in parts[1::2]]
    return "".join(itertools.chain.from_iterable(zip(names, [*joints, ""], strict=True)))


@lru_cache(1024)
def _in_parts(text: str, quoting: bool) -> str | None:
    """A text that is several: ``one; another``, ``of what: one``, ``one (how many)``."""
    joints = list(_JOINT.finditer(text))
    for joint in joints if len(joints) < MOST_PARTS else ():
        before, after = text[: joint.start()], text[joint.end() :]
        if joint[0] == ": ":
            left, right = _filling(before, Place(0)), _told(after, quoting)
        else:
            left = _whole(before, False)
            right = _told(after, quoting) if joint[0] == "; " else _filling(after[:-1], Place(0))
        if left and right:
            return _filled(_PARTS[joint[0]], {0: left, 1: right})
    return None


def _filled(template: str, values: Mapping[int, str | None]) -> str:
    """The places filled. Between two Chinese characters there is no space: where a form begins or ends, it goes."""
    text = _PLACE.sub(lambda place: values.get(int(place[1])) or "", template)
    return _SPACE.sub("", text).replace(_MARK, "")
