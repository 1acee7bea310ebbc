"""One probabilistic program, three interpreters: sample a text, score a text, predict the next word.

A *program* is a generator function. It yields literal strings, which are said, and `Choice`s, for which it is
sent the option taken; it returns a `Content`, what the text means. Since the same program is run by every
interpreter, the sampler and the scorer cannot disagree about the distribution.
"""

from __future__ import annotations

import math
import re
from bisect import bisect
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random

END = ""
"""The key of `next_words` that stands for the end of the text."""

WORD = re.compile(r" ?[\u4e00-\u9fff]| ?[^\s.,!?。，、！？\u4e00-\u9fff]+|\s|[.,!?。，、！？]")
"""A word, or one Chinese character, with the space before it; or one mark of punctuation, or one white space."""

MARKS = frozenset(".,!?。，、！？\n")


@dataclass(frozen=True, slots=True)
class Choice:
    """A random branch of a program: one of `options`, said aloud if `spoken`.

    `weights` are probabilities in the order of `options`; None means uniform.
    """

    options: tuple[str, ...]
    weights: tuple[float, ...] | None = None
    spoken: bool = True

    def probability(self, index: int) -> float:
        return 1.0 / len(self.options) if self.weights is None else self.weights[index]

    def draw(self, rng: Random) -> int:
        if self.weights is None:
            return int(rng.random() * len(self.options))
        marks = list(accumulate(self.weights))
        return min(bisect(marks, rng.random() * marks[-1]), len(self.options) - 1)


@dataclass(frozen=True, slots=True)
class Content:
    """What a derivation means, apart from its wording.

    `combinations` are the combinations of words that the train/held-out split is decided on, `evidence` the
    words of the prompt that decide the answer, and `answer` the last part of the text (empty for a story).
    """

    combinations: tuple[str, ...]
    evidence: tuple[str, ...] = ()
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Derivation:
    """A finished run of a program: its text, its log-probability in nats and its content."""

    text: str
    logprob: float
    content: Content


Steps = Generator["str | Choice", str, Content]
Program = Callable[[], Steps]


def among(options: Sequence[str], but: Sequence[str] = ()) -> Choice:
    """A uniform spoken choice of one of `options`, leaving out those in `but`."""
    return Choice(tuple(option for option in options if option not in but) if but else tuple(options))


def weighted(table: Mapping[str, float], *, spoken: bool = True) -> Choice:
    """A choice with the probabilities of `table`, normalised to sum to one."""
    total = math.fsum(table.values())
    return Choice(tuple(table), tuple(weight / total for weight in table.values()), spoken)


def silent(*options: str) -> Choice:
    """A uniform choice that says nothing itself: which template comes, how many facts."""
    return Choice(options, None, spoken=False)


def draw(program: Program, rng: Random) -> Derivation:
    """Sample one derivation of `program`."""
    steps, said, logprob = program(), list[str](), 0.0
    try:
        item = next(steps)
        while True:
            if isinstance(item, str):
                said.append(item)
                item = next(steps)
                continue
            index = item.draw(rng)
            logprob += math.log(item.probability(index))
            if item.spoken:
                said.append(item.options[index])
            item = steps.send(item.options[index])
    except StopIteration as stop:
        return Derivation("".join(said), logprob, stop.value)


@dataclass(slots=True)
class _Branch:
    """A run in progress that agrees with the wanted text so far; `path` replays it from the start."""

    path: tuple[str, ...]
    said: str
    logprob: float


def _explore(
    program: Program, agrees: Callable[[str], bool], done: Callable[[str], bool]
) -> Iterator[tuple[str, float, Content | None]]:
    """Every run whose text `agrees`, as (text, log-probability, content); content is None where `done` cut it short."""
    pending = [_Branch((), "", 0.0)]
    while pending:
        branch = pending.pop()
        steps, path, said, logprob = program(), branch.path, "", branch.logprob
        replay = iter(path)
        try:
            item = next(steps)
            while True:
                if isinstance(item, str):
                    said += item
                    item = next(steps)
                    continue
                known = next(replay, None)
                if known is not None:
                    said += known if item.spoken else ""
                    item = steps.send(known)
                    continue
                if not agrees(said):
                    break
                if done(said):
                    yield said, logprob, None
                    break
                for index, option in enumerate(item.options):
                    if agrees(said + option if item.spoken else said):
                        gain = math.log(item.probability(index))
                        pending.append(_Branch((*path, option), said, logprob + gain))
                break
        except StopIteration as stop:
            if agrees(said):
                yield said, logprob, stop.value


def derivations(program: Program, text: str) -> list[Derivation]:
    """All derivations of exactly `text`; an empty list if the program cannot say it."""
    runs = _explore(program, text.startswith, lambda said: False)
    return [Derivation(said, logprob, content) for said, logprob, content in runs if content and said == text]


def log_probability(program: Program, text: str) -> float:
    """Exact natural-log probability of `text`, summed over its derivations; minus infinity if it has none."""
    return _log_sum([derivation.logprob for derivation in derivations(program, text)])


def next_words(program: Program, prefix: str) -> dict[str, float]:
    """The exact distribution of the word after `prefix`; `END` is the end of the text.

    A word carries the space before it; a mark of punctuation, a line break or a Chinese character is a word of
    its own. `prefix` is read as whole words: after "The" comes no "n". Empty if the program cannot say it.
    """
    size = len(prefix)

    def agrees(said: str) -> bool:
        if len(said) <= size:
            return prefix.startswith(said)
        return said.startswith(prefix) and not (_is_letter(said[size]) and _is_letter(said[size - 1 : size]))

    def word_is_whole(said: str) -> bool:
        match = WORD.match(said, size)
        return match is not None and (match.end() < len(said) or match.group() in MARKS)

    masses: dict[str, list[float]] = {}
    for said, logprob, _ in _explore(program, agrees, word_is_whole):
        if len(said) >= size:
            match = WORD.match(said, size)
            masses.setdefault(match.group() if match else END, []).append(logprob)
    total = _log_sum([logprob for group in masses.values() for logprob in group])
    return {word: math.exp(_log_sum(group) - total) for word, group in masses.items()}


def enumerate_texts(program: Program) -> Iterator[Derivation]:
    """Every derivation of a program, for grammars small enough to list."""
    for said, logprob, content in _explore(program, lambda said: True, lambda said: False):
        assert content is not None
        yield Derivation(said, logprob, content)


def _is_letter(character: str) -> bool:
    return character.isascii() and character.isalnum()


def _log_sum(values: list[float]) -> float:
    if not values:
        return -math.inf
    top = max(values)
    return top + math.log(math.fsum(math.exp(value - top) for value in values))
