"""Stories with questions: some facts, then a question that exactly one of them answers."""

from __future__ import annotations

from collections.abc import Generator

from tokentape.world.grammar import Choice, Content, Program, Steps, among, silent, weighted
from tokentape.world.lexicon import NAMES, PLACES, THINGS

GOES = (" went to", " is in", " ran to", " walked to", " is at")
HOLDS = (" has", " took", " found", " bought")

Fact = tuple[str, str, str]
"""Relation (`place` or `thing`), name, value."""

FACT_COUNTS = {"1": 0.2, "2": 0.3, "3": 0.35, "4": 0.15}


def question_program(n_facts: int | None = None, n_questions: int = 1, n_reminders: int = 0) -> Program:
    """The grammar of stories with questions.

    `n_facts` fixes the number of facts (one to four, at random, if None). With `n_questions` above one the
    story is followed by several questions about different facts, at most one for each fact; the answer of the
    document is then that of the last one. With `n_reminders` the story tells all its facts again that many
    times, in any order and in the plainest words.
    """
    count = weighted(FACT_COUNTS, spoken=False) if n_facts is None else silent(str(n_facts))

    def steps() -> Steps:
        yield "Story: "
        facts: list[Fact] = []
        for index in range(int((yield count))):
            if index:
                yield " "
            facts.append((yield from _tell(facts)))
        for _ in range(n_reminders):
            told = list(facts)
            while told:
                yield _remind(told.pop(int((yield silent(*map(str, range(len(told))))))))
        left, answer, evidence = list(facts), "", ""
        for _ in range(min(n_questions, len(facts))):
            asked = left.pop(int((yield silent(*map(str, range(len(left)))))))
            evidence, answer = yield from _ask(asked)
            yield answer
        # The asked fact comes last: it is the one that the split of a document depends on.
        combinations = tuple(f"{name} {value}" for _, name, value in (*facts, asked))
        return Content(combinations, (evidence,), answer)

    return steps


def _tell(facts: list[Fact]) -> Generator[str | Choice, str, Fact]:
    name = yield among(NAMES, [name for _, name, _ in facts])
    relation = yield silent("place", "thing")
    yield among(GOES if relation == "place" else HOLDS)
    yield " the " if relation == "place" else " a "
    value = yield among(PLACES if relation == "place" else THINGS, [value for _, _, value in facts])
    yield "."
    return relation, name, value


def _remind(fact: Fact) -> str:
    relation, name, value = fact
    return f" {name} is in the {value}." if relation == "place" else f" {name} has a {value}."


def _ask(fact: Fact) -> Generator[str | Choice, str, tuple[str, str]]:
    """Say the question; give the word that decides the answer, and the answer."""
    relation, name, value = fact
    yield "\nQuestion: "
    wanted = yield silent("value", "name")
    if wanted == "name":
        yield f"Who is in the {value}?" if relation == "place" else f"Who has the {value}?"
    else:
        yield f"Where is {name}?" if relation == "place" else f"What does {name} have?"
    yield "\nAnswer:"
    if wanted == "name":
        return name, f" {name}"
    return value, f" the {value}" if relation == "place" else f" a {value}"
