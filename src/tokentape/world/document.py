"""Documents of the little world: sampling by split, exact probabilities of texts and of next words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

import tokentape.world.grammar as grammar
from tokentape.world.grammar import Content, Derivation, Program
from tokentape.world.question import question_program
from tokentape.world.review import review_program
from tokentape.world.split import is_held_out
from tokentape.world.story import story_program
from tokentape.world.translation import translation_program

Kind = Literal["story", "translation", "review", "question"]
Split = Literal["train", "held_out"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PROGRAMS: Mapping[Kind, Program] = {
    "story": story_program,
    "translation": translation_program,
    "review": review_program,
    "question": question_program(),
}


@dataclass(frozen=True, slots=True)
class Document:
    """One text of the world, with what is known about it.

    `text == prompt + answer`; a story has no answer. `evidence` holds half-open character spans of the prompt:
    the words that decide the answer, so that another word there would make another answer right. `logprob` is
    the natural-log probability of the text under the grammar of its kind, before any split.
    """

    kind: Kind
    text: str
    prompt: str
    answer: str
    evidence: tuple[tuple[int, int], ...]
    logprob: float


def sample(kind: Kind, rng: Random, split: Split = "train", *, program: Program | None = None) -> Document:
    """Draw one document by rejection: from the grammar, given the split.

    A training document contains no held-out combination. In a held-out one the combination that decides the
    document is held out: the asked fact of a question, the only combination of the other kinds. `program`
    replaces the grammar of the kind by a special case of it, such as `question_program(2)`.
    """
    run = _program(kind) if program is None else program
    if split not in get_args(Split):
        raise ValueError(f"no split {split!r}; there are {', '.join(get_args(Split))}")
    while True:
        derivation = grammar.draw(run, rng)
        if belongs(kind, derivation.content, split):
            return _document(kind, derivation)


def belongs(kind: Kind, content: Content, split: Split) -> bool:
    """Whether a document with this content may appear in `split`."""
    if split == "held_out":
        return is_held_out(kind, content.combinations[-1])
    return not any(is_held_out(kind, combination) for combination in content.combinations)


def parse(kind: Kind, text: str) -> Document:
    """Read a text back into the document it is.

    Raises `ValueError` if the grammar of `kind` cannot say `text`.
    """
    found = grammar.derivations(_program(kind), text)
    if not found:
        raise ValueError(f"the grammar of kind {kind!r} cannot say {text!r}")
    return _document(kind, Derivation(text, log_probability(kind, text), found[0].content))


def log_probability(kind: Kind, text: str) -> float:
    """Exact natural-log probability of `text` under the grammar of `kind`; minus infinity if it cannot be said."""
    return grammar.log_probability(_program(kind), text)


def next_words(prefix: str, kind: Kind = "story") -> dict[str, float]:
    """The exact distribution of the word that follows `prefix` in documents of `kind`.

    The empty string stands for the end of the document; see `grammar.next_words`.
    """
    return grammar.next_words(_program(kind), prefix)


def held_out_combinations(kind: Kind, text: str) -> tuple[str, ...]:
    """The held-out combinations that `text` contains, found from the text alone."""
    found = grammar.derivations(_program(kind), text)
    names = {name for derivation in found for name in derivation.content.combinations}
    return tuple(sorted(name for name in names if is_held_out(kind, name)))


def _program(kind: Kind) -> Program:
    if kind not in PROGRAMS:
        raise ValueError(f"no kind {kind!r}; there are {', '.join(KINDS)}")
    return PROGRAMS[kind]


def _document(kind: Kind, derivation: Derivation) -> Document:
    text, content = derivation.text, derivation.content
    prompt = text[: len(text) - len(content.answer)] if content.answer else text
    spans = tuple(_locate(prompt, word) for word in content.evidence)
    return Document(kind, text, prompt, content.answer, spans, derivation.logprob)


def _locate(prompt: str, word: str) -> tuple[int, int]:
    # Chinese has no spaces between words; English words must not be found inside others.
    match = re.search(rf"\b{re.escape(word)}\b" if word.isascii() else re.escape(word), prompt)
    if match is None:
        raise ValueError(f"the evidence {word!r} is not in the prompt {prompt!r}")
    return match.span()
