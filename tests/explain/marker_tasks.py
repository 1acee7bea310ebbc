"""Marker tasks: prompts of whole words in which one planted word decides the answer, at a place that varies.

They are what the model in `markers/` was trained on (`tools/train_markers.py`), a second architecture beside the shipped
model's. Every prompt ends in words that ask for the answer:

| task | prompt | answer |
|---|---|---|
| copy | `so cup and jar take drum then egg copy is` | the object after `take` |
| recall | `red cup so blue jar then ask blue is` | the object after the asked colour |
| last | `red so blue cup then last is` | the colour that comes last |
| kind | `so robin then cup kind is` | the class of the only word that has one |

In training a prompt of `kind` may have nothing to name, and `none` is right: so that a class is said because of a word
that names it, and no class is what is said for want of any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from tokentape.world.document import Split
from tokentape.world.evidence import Item, occurrences
from tokentape.world.split import is_held_out

FILLERS = tuple("so and then but now yet also".split())
OBJECTS = tuple("apple bell cup drum egg fan gem hat ink jar kite lamp".split())
COLOURS = tuple("red blue green white black brown pink grey".split())
KINDS = {
    "bird": "robin crow swan hawk".split(),
    "fish": "trout salmon carp eel".split(),
    "tree": "oak elm birch pine".split(),
    "insect": "bee ant moth wasp".split(),
    "flower": "rose tulip lily daisy".split(),
    "metal": "gold iron tin zinc".split(),
    "grain": "rye oat wheat maize".split(),
    "cloth": "silk wool linen denim".split(),
}
NONE = "none"
MARKS = ("take", "copy", "ask", "last", "kind", "is")
SPECIALS = ("<unk>", "<s>", "</s>", "<pad>")
VOCABULARY = (
    *SPECIALS,
    *FILLERS,
    *OBJECTS,
    *COLOURS,
    *KINDS,
    *(word for kind in KINDS.values() for word in kind),
    *MARKS,
    NONE,
)


def marker_items(task: str, n: int, seed: int, split: Split = "held_out") -> list[Item]:
    """``n`` items of a task of `TASKS`, no two with the same prompt; no training prompt is held out, by a hash."""
    rng, found = Random(f"{task} {seed}"), dict[str, Item]()
    while len(found) < n:
        item = TASKS[task](rng)
        if is_held_out("markers", item.prompt) == (split == "held_out"):
            found.setdefault(item.prompt, item)
    return list(found.values())


def answer(prompt: str) -> str:
    """The right answer by the tasks' rules, from the prompt alone."""
    *words, asked, _ = prompt.split()
    if asked == "copy":
        return f" {words[words.index('take') + 1]}"
    if asked == "last":
        return f" {[word for word in words if word in COLOURS][-1]}"
    if asked == "kind":
        return f" {next((name for name, kind in KINDS.items() if set(words) & set(kind)), NONE)}"
    return f" {words[words.index(asked) + 1]}"


def unanswerable(rng: Random) -> tuple[str, str]:
    """A prompt of `kind` that names nothing, and its answer."""
    return " ".join([*_noise(rng, rng.randint(4, 10), OBJECTS), "kind", "is"]), f" {NONE}"


def _item(task: str, words: list[str], place: int, other: str, answers: tuple[str, str], related: str = "") -> Item:
    """An item whose decisive word is ``words[place]``."""
    prompt = " ".join(words)
    start = len(" ".join([*words[:place], ""]))
    spans = occurrences(prompt, related) if related else ()
    pair = (f" {answers[0]}", f" {answers[1]}")
    return Item.planted(task, prompt, (start, start + len(words[place])), other, pair, related=spans)


def _scattered(rng: Random, groups: list[list[str]], noise: list[str]) -> list[str]:
    """The groups in their order, each kept together, among the words of ``noise``."""
    gaps = sorted(rng.randrange(len(noise) + 1) for _ in groups)
    words: list[str] = []
    for index in range(len(noise) + 1):
        words += [word for gap, group in zip(gaps, groups, strict=True) if gap == index for word in group]
        words += noise[index : index + 1]
    return words


def _noise(rng: Random, n: int, more: tuple[str, ...] = ()) -> list[str]:
    return [rng.choice(FILLERS + more) for _ in range(n)]


def _copy(rng: Random) -> Item:
    """Unmarked objects stand among the fillers."""
    marked, other, *unmarked = rng.sample(OBJECTS, rng.randint(4, 6))
    noise = _noise(rng, rng.randint(1, 4)) + unmarked
    rng.shuffle(noise)
    words = [*_scattered(rng, [["take", marked]], noise), "copy", "is"]
    return _item("copy", words, words.index(marked), other, (marked, other), related="take")


def _recall(rng: Random) -> Item:
    """Two or three pairs of a colour and an object; one colour is asked for."""
    n = rng.randint(2, 3)
    *objects, other = rng.sample(OBJECTS, n + 1)
    pairs = [list(pair) for pair in zip(rng.sample(COLOURS, n), objects, strict=True)]
    colour, value = rng.choice(pairs)
    words = [*_scattered(rng, pairs, _noise(rng, rng.randint(1, 4))), "ask", colour, "is"]
    return _item("recall", words, words.index(value), other, (value, other), related=colour)


def _last(rng: Random) -> Item:
    """Two to four colours among fillers and objects."""
    *colours, other = rng.sample(COLOURS, rng.randint(3, 5))
    words = [*_scattered(rng, [[colour] for colour in colours], _noise(rng, rng.randint(2, 6), OBJECTS)), "last", "is"]
    return _item("last", words, words.index(colours[-1]), other, (colours[-1], other))


def _kind(rng: Random) -> Item:
    """One word that has a class among fillers and objects."""
    kind, foil = rng.sample(tuple(KINDS), 2)
    cue, other = rng.choice(KINDS[kind]), rng.choice(KINDS[foil])
    words = [*_scattered(rng, [[cue]], _noise(rng, rng.randint(3, 9), OBJECTS)), "kind", "is"]
    return _item("kind", words, words.index(cue), other, (kind, foil))


TASKS: Mapping[str, Callable[[Random], Item]] = {"copy": _copy, "recall": _recall, "last": _last, "kind": _kind}
