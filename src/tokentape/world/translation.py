"""English and Chinese sentence pairs, each the only translation of the other in this world."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tokentape.world.grammar import Content, Steps, among, silent
from tokentape.world.lexicon import (
    ACTIVITIES_ZH,
    ANIMALS_ZH,
    COLOURS_ZH,
    DEEDS_ZH,
    MOODS_ZH,
    PEOPLE_ZH,
    PLACES_ZH,
    POSTURES_ZH,
    SIZES_ZH,
    SURFACES_ZH,
    THINGS_ZH,
    TRIPS_ZH,
)

ENGLISH, CHINESE = "English", "Chinese"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A sentence in both languages; the slots in braces are filled from tables of English to Chinese words."""

    english: str
    chinese: str
    slots: Mapping[str, Mapping[str, str]]


BEINGS_ZH = ANIMALS_ZH | PEOPLE_ZH
PATTERNS = {
    "posture": Pattern(
        "The {being} {posture} on the {surface}.",
        "{being}{posture}在{surface}上。",
        {"being": BEINGS_ZH, "posture": POSTURES_ZH, "surface": SURFACES_ZH},
    ),
    "activity": Pattern(
        "The {being} {activity} in the {place}.",
        "{being}在{place}里{activity}。",
        {"being": BEINGS_ZH, "activity": ACTIVITIES_ZH, "place": PLACES_ZH},
    ),
    "deed": Pattern(
        "The {being} {deed} the {colour} {thing}.",
        "{being}{deed}{colour}的{thing}。",
        {"being": BEINGS_ZH, "deed": DEEDS_ZH, "colour": COLOURS_ZH, "thing": THINGS_ZH},
    ),
    "trip": Pattern(
        "The {being} {trip} the {place}.",
        "{being}{trip}{place}。",
        {"being": BEINGS_ZH, "trip": TRIPS_ZH, "place": PLACES_ZH},
    ),
    "mood": Pattern(
        "The {size} {being} was {mood}.",
        "{size}{being}很{mood}。",
        {"size": SIZES_ZH, "being": BEINGS_ZH, "mood": MOODS_ZH},
    ),
}
SLOT = re.compile(r"\{(\w+)\}")


def translation_program() -> Steps:
    """English to Chinese or Chinese to English, at even odds."""
    source = yield silent(ENGLISH, CHINESE)
    target = CHINESE if source == ENGLISH else ENGLISH
    pattern = PATTERNS[(yield silent(*PATTERNS))]
    yield f"{source}: "
    filled: dict[str, str] = {}
    evidence: list[str] = []
    pieces = SLOT.split(pattern.english if source == ENGLISH else pattern.chinese)
    for index, piece in enumerate(pieces):
        if index % 2 == 0:
            yield piece
            continue
        table = pattern.slots[piece]
        spoken = yield among(tuple(table) if source == ENGLISH else tuple(table.values()))
        evidence.append(spoken)
        filled[piece] = spoken if source == ENGLISH else _english(table, spoken)
    yield f"\n{target}:"
    answer = " " + _render(pattern, filled, target)
    yield answer
    return Content((" ".join(filled[slot] for slot in pattern.slots),), tuple(evidence), answer)


def _english(table: Mapping[str, str], chinese: str) -> str:
    return next(english for english, word in table.items() if word == chinese)


def _render(pattern: Pattern, filled: Mapping[str, str], language: str) -> str:
    if language == ENGLISH:
        return pattern.english.format_map(filled)
    return pattern.chinese.format_map({slot: pattern.slots[slot][word] for slot, word in filled.items()})
