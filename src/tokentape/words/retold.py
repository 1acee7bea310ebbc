"""Reasons and notes in the reader's language.

Rooms that know nothing of languages (data, study, explain) give reasons and notes as English text, which JSON shows as it is. A
view that shows one to a Chinese reader holds it against the phrases of *groups*, keys that begin with ``area.group.``: the
English form of each is the text as it stands in the code, its places what the code fills in::

    ["cost.why.no_power"]
    en = "the power of the machine is not known"
    zh = "机器功率未知"

Where a text is told with something before it (``run 0: 5 steps, 6 when it was packed``), that falls to a place with which the
English form begins: such a form begins with it in Chinese too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from tokentape.words.catalogue import PLACE, Lang, phrase, phrases
from tokentape.words.refusals import letters, refusal

__all__ = ["retold"]


@dataclass(frozen=True, slots=True)
class _Template:
    """``pattern`` finds what fills the places of a phrase's English form, by their names."""

    key: str
    pattern: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class _Parts:
    """A text told in parts: ``whole`` where each of them found its form, or is a single word, such as a name."""

    told: str
    whole: bool


@cache
def _templates(groups: tuple[str, ...]) -> tuple[_Template, ...]:
    """The phrases of groups; of two that fit a text, the one with more words of its own is meant, and comes first."""
    begin = tuple(f"{group}." for group in groups)
    found = {key: text for key, text in phrases("en").items() if key.startswith(begin)}
    ordered = sorted(found.items(), key=lambda item: (-letters(PLACE.sub("", item[1])), item[0]))
    return tuple(_Template(key, _pattern(text)) for key, text in ordered)


def _pattern(text: str) -> re.Pattern[str]:
    pattern, end = "", 0
    for place in PLACE.finditer(text):
        name, one, other = place.groups()
        pattern += re.escape(text[end : place.start()])
        pattern += f"(?P<{name}>.*?)" if one is None else f"(?:{re.escape(one)}|{re.escape(other)})"
        end = place.end()
    return re.compile(pattern + re.escape(text[end:]), re.DOTALL)


def retold(text: str, lang: Lang, *groups: str) -> str:
    """A reason or a note in a language: by the phrases of groups, or as an error that says the same; else as it is.

    What fills a place is itself put into the language where a phrase fits the whole of it. Of a text such as
    ``what: why`` or ``this; that`` that nothing fits as a whole, each side is.
    """
    if lang == "en" or not text:
        return text
    for template in _templates(groups):
        if (match := template.pattern.fullmatch(text)) is not None:
            return phrase(template.key, lang, **{k: retold(v, lang, *groups) for k, v in match.groupdict().items()})
    parts = _in_parts(text, lang, groups)
    if parts is not None and parts.whole:
        return parts.told
    if (found := refusal(text, lang)) != text:
        return found
    return text if parts is None else parts.told


def _in_parts(text: str, lang: Lang, groups: tuple[str, ...]) -> _Parts | None:
    for mark, chinese in ((": ", "："), ("; ", "；")):
        if mark in text:
            sides = text.split(mark, 1)
            told = [retold(side, lang, *groups) for side in sides]
            if told != sides:
                whole = all(a != b or " " not in a for a, b in zip(sides, told, strict=True))
                return _Parts(chinese.join(told), whole)
    return None
