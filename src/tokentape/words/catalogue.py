"""The catalogue: files of phrases, each with its English and its Chinese form side by side.

A key has the form ``area.what``; the file ``<area>.toml`` beside this module has the keys of one area::

    ["time.caption"]
    en = "{n} {n|step|steps}, {slowest} at most."
    zh = "{n} 步，最慢 {slowest}。"

``{name}`` is filled with an argument, ``{name|one|other}`` with the word that fits its number (``one`` for 1). Strings go in as
they are, whole numbers with separators between thousands, None as a dash, a :class:`Message` as what it says.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal, Self, TypeAlias

__all__ = ["LANGS", "PLACE", "Lang", "Message", "area", "areas", "phrase", "phrases", "places", "said"]

Lang: TypeAlias = Literal["en", "zh"]

LANGS: tuple[Lang, ...] = ("en", "zh")

PLACE = re.compile(r"\{(\w+)(?:\|([^|{}]*)\|([^|{}]*))?\}")
"""A place of a phrase: its name, and the two words of which its number chooses one."""

ABSENT = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Message:
    """A sentence to be said in the reader's language: a key of the catalogue and what fills its places."""

    key: str
    args: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for the page."""
        filled = {name: value.as_dict() if isinstance(value, Message) else value for name, value in self.args.items()}
        return {"key": self.key, "args": filled} if filled else {"key": self.key}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """The message of which :meth:`as_dict` gave the plain values."""
        args = plain.get("args", {})
        return cls(plain["key"], {name: cls.of(v) if isinstance(v, Mapping) else v for name, v in args.items()})


@cache
def area(name: str) -> Mapping[str, Mapping[Lang, str]]:
    """The phrases of one area by their keys, each in both languages. Raises KeyError where there is no such area."""
    file = resources.files(__package__) / f"{name}.toml"
    if not file.is_file():
        raise KeyError(f"the catalogue has no area {name!r}")
    found: Mapping[str, Mapping[Lang, str]] = tomllib.loads(file.read_text("utf-8"))
    return found


@cache
def areas() -> tuple[str, ...]:
    """The names of the areas."""
    files = (entry.name for entry in resources.files(__package__).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in files if name.endswith(".toml")))


def phrases(lang: Lang, prefix: str = "") -> dict[str, str]:
    """Every phrase of a language by its key, of the areas whose names begin with ``prefix``."""
    chosen = (name for name in areas() if name.startswith(prefix))
    return {key: forms[lang] for name in chosen for key, forms in area(name).items()}


def phrase(key: str, lang: Lang = "en", **args: Any) -> str:
    """What is said for a key. Raises KeyError for one that the catalogue lacks, and for a place without an argument."""

    def fill(match: re.Match[str]) -> str:
        name, one, other = match.groups()
        value = args[name]
        if one is not None:
            return one if value == 1 else other
        if value is None:
            return ABSENT
        if isinstance(value, Message):
            return said(value, lang)
        return f"{value:,}" if isinstance(value, int) else str(value)

    return PLACE.sub(fill, area(key.partition(".")[0])[key][lang])


def said(message: Message, lang: Lang = "en") -> str:
    """A message as text."""
    return phrase(message.key, lang, **message.args)


def places(template: str) -> set[str]:
    """The names of the places in a phrase."""
    return {match[1] for match in PLACE.finditer(template)}
