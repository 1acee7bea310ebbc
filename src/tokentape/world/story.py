"""Little stories that call back to what they said before.

A story chooses freely when something is new and repeats it without a choice later, so that much of the text is
certain to a reader who remembers, and only to such a reader.
"""

from __future__ import annotations

from collections.abc import Generator

from tokentape.world.grammar import Choice, Content, Steps, among, silent, weighted
from tokentape.world.lexicon import ANIMALS, BOYS, COLOURS, MOODS, NAMES, PLACES, SIZES, SURFACES, THINGS

Scene = Generator[str | Choice, str, str]
"""A part of a program that returns the combination its text is split on."""

SCENES = {"animals": 0.4, "toys": 0.35, "trip": 0.25}
POSTURES = {" sat": 0.4, " slept": 0.2, " stood": 0.2, " lay": 0.2}
GLANCES = {" looked at": 0.6, " waited for": 0.2, " listened to": 0.2}
FAVOURITE_WEIGHT = 0.5
FAVOURITE_SURFACE = dict(zip(ANIMALS, ("mat", "floor", "roof", "grass") * 4, strict=True))
FAVOURITE_COMPANION = dict(zip(ANIMALS, (*ANIMALS[1:], ANIMALS[0]), strict=True))


def story_program() -> Steps:
    """A story of some five sentences: animals that meet, children with toys, or a trip."""
    scenes = {"animals": _animals, "toys": _toys, "trip": _trip}
    combination = yield from scenes[(yield weighted(SCENES, spoken=False))]()
    return Content((combination,))


def _favouring(options: tuple[str, ...], favourite: str) -> Choice:
    rest = (1.0 - FAVOURITE_WEIGHT) / (len(options) - 1)
    return weighted({option: FAVOURITE_WEIGHT if option == favourite else rest for option in options})


def _animals() -> Scene:
    yield "The "
    first = yield among(ANIMALS)
    yield weighted(POSTURES)
    yield " on the "
    surface = yield _favouring(SURFACES, FAVOURITE_SURFACE[first])
    yield " and"
    yield weighted(GLANCES)
    yield " the "
    second = yield _favouring(tuple(name for name in ANIMALS if name != first), FAVOURITE_COMPANION[first])
    yield f". The {second} was "
    mood = yield among(MOODS)
    yield " and ran to the "
    place = yield among(PLACES)
    if (yield silent("stays", "follows")) == "stays":
        yield f". The {first} stayed on the {surface}."
        yield f" Now the {second} is in the {place} and the {first} is on the {surface}."
    else:
        yield f". The {first} went to the {place} too."
        yield f" Now the {first} and the {second} are both in the {place}."
    if (yield silent("still", "not")) == "still":
        yield f" The {second} is still {mood}."
    else:
        yield f" The {second} is not {mood} any more."
    return f"{first} {surface} {second} {place}"


def _toys() -> Scene:
    owned: dict[str, tuple[str, str]] = {}
    for index in range(int((yield silent("2", "3")))):
        if index:
            yield " "
        name = yield among(NAMES, tuple(owned))
        yield " has a "
        colour = yield among(COLOURS)
        yield " "
        owned[name] = colour, (yield among(THINGS, [thing for _, thing in owned.values()]))
        yield "."
    yield " They went to the "
    place = yield among(PLACES)
    yield "."
    players: list[str] = []
    while len(players) < len(owned):
        yield " "
        name = yield among(tuple(owned), players)
        players.append(name)
        colour, thing = owned[name]
        yield f" plays with the {thing}."
        if (yield weighted({"": 0.7, "colour": 0.3}, spoken=False)):
            yield f" The {thing} is {colour}."
    yield " Then "
    giver = yield among(tuple(owned))
    yield f" gave the {owned[giver][1]} to "
    taker = yield among(tuple(owned), (giver,))
    yield f". Now {taker} has the {owned[taker][1]} and the {owned[giver][1]}."
    yield f" They were happy in the {place}."
    return " ".join(f"{name} {thing}" for name, (_, thing) in list(owned.items())[:2])


def _trip() -> Scene:
    yield "One day "
    first = yield among(NAMES)
    yield " went to the "
    place = yield among(PLACES)
    yield " with "
    second = yield among(NAMES, (first,))
    yield f". {'He' if first in BOYS else 'She'} saw a "
    size = yield among(SIZES)
    yield " "
    animal = yield among(ANIMALS)
    yield f" there. The {animal} was "
    mood = yield among(MOODS)
    yield f". {second} gave the {size} {animal} a "
    thing = yield among(THINGS)
    friend, other = (first, second) if (yield silent("first", "second")) == "first" else (second, first)
    yield f". {friend} wanted to stay in the {place}, but {other} was tired."
    yield f" So {first} and {second} went home."
    if (yield silent("liked", "kept")) == "liked":
        yield f" {friend} liked the {animal} very much."
    else:
        yield f" The {animal} kept the {thing} and was not {mood} any more."
    return f"{first} {second} {place} {animal}"
