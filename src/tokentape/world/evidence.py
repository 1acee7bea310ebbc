"""Planted evidence: items of the little world of which it is known which word decides the word asked about.

An explanation of that word has to find the **decisive** word: with another word of its kind there, another answer is
right, the foil. **Related** words matter too, but only by pointing at the decisive one: the name in the question, which
also stands in the fact that answers it. A hit counts decisive words alone; mass may be told on both. Words that say what
is asked (``Where``, ``Topic:``) are neither: they decide the form of the answer, which the foil shares. A method that
replaces them sees the answer and the foil fall together, and may well find them more telling than the evidence.

The answer's first words may be the same whatever the evidence says (the article of ` the park`), so an item says which
part of the answer is given (``prefix``) and which ``word`` of it is asked about: the first at which answer and foil differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from tokentape.errors import UsageError
from tokentape.world.document import Document, Kind, Split, sample
from tokentape.world.lexicon import NAMES, PLACES, THINGS
from tokentape.world.review import NEGATIVE, POSITIVE, TOPICS
from tokentape.world.translation import CHINESE, ENGLISH, PATTERNS, SLOT, Pattern

__all__ = ["TASKS", "Item", "Spans", "covering", "items", "occurrences"]

Spans = tuple[tuple[int, int], ...]
"""Half-open ranges of characters, ascending."""

MAX_MISSES = 10_000
"""Documents in a row that give no new item, after which the world is taken to have no more."""


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt, its answer, and the characters of the prompt that decide one word of it.

    ``prompt + prefix`` is continued by ``word``, and in the ``counterfactual`` prompt, which differs in the ``decisive``
    word alone, by ``foil_word``; the whole answers are ``answer`` and ``foil``, both with that prefix. Words carry the
    space before them, spans do not. Spans are of ``prompt``.
    """

    task: str
    prompt: str
    answer: str
    foil: str
    prefix: str
    word: str
    foil_word: str
    decisive: Spans
    related: Spans
    counterfactual: str

    @property
    def evidence(self) -> Spans:
        """Decisive and related spans."""
        return tuple(sorted(self.decisive + self.related))

    @classmethod
    def planted(
        cls,
        task: str,
        prompt: str,
        decisive: tuple[int, int],
        other: str,
        words: tuple[str, str],
        *,
        prefix: str = "",
        rest: str = "",
        related: Spans = (),
    ) -> Item:
        """An item whose answers are ``prefix``, one of ``words`` and ``rest``; ``other`` stands in the counterfactual."""
        start, end = decisive
        answer, foil = (prefix + word + rest for word in words)
        counterfactual = prompt[:start] + other + prompt[end:]
        return cls(task, prompt, answer, foil, prefix, *words, (decisive,), related, counterfactual)


def items(task: str, n: int, seed: int, split: Split = "held_out") -> list[Item]:
    """``n`` items of a task of `TASKS`, no two with the same prompt; equal arguments give equal items.

    What is ambiguous is left out: stories of one fact, which leave nothing to choose; prompts where the decisive word,
    or the one that replaces it, also stands elsewhere (the 老 of 老老师); verbs of more than one word (``went to``).
    Whether a model answers an item, and cuts its words into one token each, depends on the model: the caller asks it.
    Raises UsageError for a task that does not exist, and where the world has fewer than ``n`` items.
    """
    if task not in _MAKERS:
        raise UsageError(f"no task {task!r}", why=f"there are {', '.join(TASKS)}", fix=f"items({TASKS[0]!r}, ...)")
    kind, make = _MAKERS[task]
    rng, found, misses = Random(f"{task} {seed}"), dict[str, Item](), 0
    while len(found) < n:
        item = make(sample(kind, rng, split), rng)
        if item is not None and item.prompt not in found:
            found[item.prompt], misses = item, 0
        elif (misses := misses + 1) == MAX_MISSES:
            raise UsageError(
                f"{n} items of the task {task!r} are asked for, and {len(found)} were found",
                why=f"the last {MAX_MISSES} documents gave no new one",
                fix=f"n={len(found)}",
            )
    return list(found.values())


def occurrences(text: str, word: str) -> Spans:
    """Where ``word`` stands in ``text``: whole words, but any place for Chinese, which has no spaces between words."""
    pattern = rf"\b{re.escape(word)}\b" if word.isascii() else re.escape(word)
    return tuple(match.span() for match in re.finditer(pattern, text))


def covering(spans: Spans, tokens: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Indices of the tokens, given by their ranges of characters, that share a character with one of the spans."""
    overlap = [any(max(start, a) < min(end, b) for a, b in spans) for start, end in tokens]
    return tuple(index for index, shared in enumerate(overlap) if shared)


Maker = Callable[[Document, Random], Item | None]
"""Turns a document into an item; None for one that is ambiguous, or of another task."""

ASKED = re.compile(r"\nQuestion: (?:Where is|What does|Who is in the|Who has the) (\w+)")


def _question(document: Document, rng: Random) -> Item | None:
    """The fact's place, thing or name is decisive; what the question names is related, there and in the fact."""
    prompt = document.prompt
    asked = ASKED.search(prompt)
    if asked is None or prompt.count(".") < 2:
        return None
    prefix, _, value = document.answer.rpartition(" ")
    table = next(table for table in (NAMES, PLACES, THINGS) if value in table)
    other = _other(table, prompt, rng)
    words = (f" {value}", f" {other}")
    return _unambiguous("question", prompt, value, other, words, prefix=prefix, key=asked[1])


def _sentiment(document: Document, rng: Random) -> Item | None:
    """The adjective is decisive."""
    if not document.prompt.endswith("\nSentiment:"):
        return None
    positive = document.answer == " positive"
    ((start, end),) = document.evidence
    other = _other(NEGATIVE if positive else POSITIVE, document.prompt, rng)
    words = (document.answer, " negative" if positive else " positive")
    return _unambiguous("sentiment", document.prompt, document.prompt[start:end], other, words)


def _topic(document: Document, rng: Random) -> Item | None:
    """The noun is decisive."""
    if not document.prompt.endswith("\nTopic:"):
        return None
    ((start, end),) = document.evidence
    foil = rng.choice([topic for topic in TOPICS if document.answer != f" {topic}"])
    other = _other(TOPICS[foil], document.prompt, rng)
    return _unambiguous("topic", document.prompt, document.prompt[start:end], other, (document.answer, f" {foil}"))


def _translation(document: Document, rng: Random) -> Item | None:
    """One word of the answer is asked about; the word of the source that it translates is decisive."""
    heading, _, sentence = document.prompt.partition("\n")[0].partition(": ")
    pattern, said = _recognised(sentence, heading)
    tables = {slot: dict(table) for slot, table in pattern.slots.items()}
    template, space = pattern.chinese, ""
    if heading == CHINESE:
        tables = {slot: {chinese: english for english, chinese in table.items()} for slot, table in tables.items()}
        template, space = pattern.english, " "
    single = [slot for slot, table in pattern.slots.items() if not any(" " in english for english in table)]
    slot = rng.choice(single)
    table, word = tables[slot], said[slot]
    other = _other(table, document.prompt, rng)
    filled = {name: tables[name][spoken] for name, spoken in said.items()}
    before, after = (part.format_map(filled) for part in f" {template}".split(f"{{{slot}}}"))
    words = (space + table[word], space + table[other])
    prefix = before.removesuffix(space)
    return _unambiguous("translation", document.prompt, word, other, words, prefix=prefix, rest=after)


def _recognised(sentence: str, language: str) -> tuple[Pattern, dict[str, str]]:
    """The pattern that a sentence follows, and the word in each of its slots."""
    matches = ((pattern, _reader(name, language).fullmatch(sentence)) for name, pattern in PATTERNS.items())
    return next((pattern, match.groupdict()) for pattern, match in matches if match)


@cache
def _reader(name: str, language: str) -> re.Pattern[str]:
    pattern = PATTERNS[name]
    pieces = SLOT.split(pattern.english if language == ENGLISH else pattern.chinese)
    for index, slot in enumerate(pieces):
        if index % 2:
            table = pattern.slots[slot]
            options = "|".join(map(re.escape, table if language == ENGLISH else table.values()))
            pieces[index] = f"(?P<{slot}>{options})"
        else:
            pieces[index] = re.escape(slot)
    return re.compile("".join(pieces))


def _other(options: Iterable[str], prompt: str, rng: Random) -> str:
    """One of the options that the prompt does not say."""
    return rng.choice([option for option in options if not occurrences(prompt, option)])


def _unambiguous(
    task: str,
    prompt: str,
    word: str,
    other: str,
    words: tuple[str, str],
    *,
    prefix: str = "",
    rest: str = "",
    key: str = "",
) -> Item | None:
    found = occurrences(prompt, word)
    if len(found) != 1:
        return None
    related = occurrences(prompt, key) if key else ()
    return Item.planted(task, prompt, found[0], other, words, prefix=prefix, rest=rest, related=related)


_MAKERS: Mapping[str, tuple[Kind, Maker]] = {
    "question": ("question", _question),
    "sentiment": ("review", _sentiment),
    "topic": ("review", _topic),
    "translation": ("translation", _translation),
}
TASKS = tuple(_MAKERS)
