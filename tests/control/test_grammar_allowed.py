"""Which tokens may follow, beside a search through the whole vocabulary with another program's idea of the language."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import regex
import torch

from tokentape.control.grammar.grammar import Grammar
from tokentape.models.causal import CausalModel, load

CHOICES = [
    ["yes", "no", "yellow"],
    ["a", "ab", "abc", "b"],
    ["", "the cat", "the dog", " the"],
    ["日本", "日出", "é", "😀!"],
    ["x" * 30, "xy"],
]
REGEXES = [
    "[a-d]{2,5}",
    "(?:ab|the )+c?",
    "[0-9]+(?:\\.[0-9]{1,2})?",
    "(?:é)+x|e",
    "[^a-z]{1,2}[a-z]?",
    "",
    "the (?:cat|dog)s?\\.",
]


@pytest.fixture(scope="module")
def demo() -> CausalModel:
    return load("demo")


@pytest.fixture(scope="module")
def stories(material: Path) -> CausalModel:
    return load(material / "models" / "stories260K")


def lives(grammar: Grammar) -> tuple[Callable[[bytes], bool], Callable[[bytes], bool]]:
    """Whether bytes open a text of the language, and whether they are one."""
    if grammar.kind == "choices":
        texts = [text.encode() for text in json.loads(grammar.source)]
        return (lambda said: any(text.startswith(said) for text in texts)), (lambda said: said in texts)
    # "[^a-z]" is about characters: over bytes it would take any byte of one
    over_bytes = grammar.source.replace("[^a-z]", r"(?:[\x00-\x60\x7b-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]"
                                        r"|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}"
                                        r"|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2})")  # fmt: skip
    compiled = regex.compile(over_bytes.encode())
    return (lambda said: compiled.fullmatch(said, partial=True) is not None), (
        lambda said: compiled.fullmatch(said) is not None
    )


def walk(grammar: Grammar, causal: CausalModel, draw: random.Random, n_steps: int = 14) -> tuple[int, int]:
    """One text drawn token by token; returns at how many steps the sets were compared, and at how many one was forced."""
    opens, is_whole = lives(grammar)
    rule, pieces, eos = grammar.bound(causal), causal.pieces, causal.model.generation_config.eos_token_id
    spelt = {i: pieces.piece(i).bytes for i in range(causal.vocab_size) if pieces.piece(i).bytes}
    shown, said, n_compared, n_forced = [1], b"", 0, 0
    for _ in range(n_steps):
        scores = rule(torch.tensor([shown]), torch.zeros(1, causal.vocab_size + 3))
        allowed = set(torch.nonzero(scores[0] > -torch.inf).flatten().tolist())
        twin = {i for i, more in spelt.items() if opens(said + more)} | ({eos} if is_whole(said) else set())
        forced = list(rule.forced(torch.tensor([shown])))
        if forced and forced != [eos]:
            # one way is left, and the tokenizer's own cut of it is the one that is allowed
            assert allowed == {forced[0]} <= twin
            run = b"".join(spelt[i] for i in forced if i != eos)
            assert forced[-1] != eos or is_whole(said + run)
            assert all(spelt[i].startswith(run) or run.startswith(spelt[i]) for i in twin)
            n_forced += 1
        else:
            assert allowed == twin, (said, {i: spelt.get(i) for i in allowed ^ twin})
            assert (forced == [eos]) == (twin == {eos})
            n_compared += 1
        chosen = draw.choice(sorted(allowed))
        shown.append(chosen)
        if chosen == eos:
            break
        said += spelt[chosen]
    (outcome,) = rule.outcomes(torch.tensor([shown]))
    assert outcome.name == ("complete" if is_whole(said) else "unfinished")
    assert outcome.valid is (True if is_whole(said) else None), outcome
    return n_compared, n_forced


@pytest.mark.parametrize("texts", CHOICES, ids=str)
def test_choices_on_the_demo_model(demo: CausalModel, texts: list[str]) -> None:
    draw = random.Random(0)
    for _ in range(6):
        walk(Grammar.choices(texts), demo, draw)


@pytest.mark.parametrize("pattern", REGEXES)
def test_patterns_on_the_demo_model(demo: CausalModel, pattern: str) -> None:
    draw = random.Random(1)
    for _ in range(6):
        walk(Grammar.regex(pattern), demo, draw)


@pytest.mark.material
@pytest.mark.parametrize("texts", CHOICES, ids=str)
def test_choices_with_a_vocabulary_of_512(stories: CausalModel, texts: list[str]) -> None:
    draw = random.Random(2)
    for _ in range(6):
        walk(Grammar.choices(texts), stories, draw)


@pytest.mark.material
@pytest.mark.parametrize("pattern", REGEXES)
def test_patterns_with_a_vocabulary_of_512(stories: CausalModel, pattern: str) -> None:
    draw = random.Random(3)
    for _ in range(6):
        walk(Grammar.regex(pattern), stories, draw)


def test_both_kinds_of_step_occur(demo: CausalModel) -> None:
    counts = [walk(Grammar.choices(["the cat", "the dog"]), demo, random.Random(seed)) for seed in range(8)]
    assert sum(compared for compared, _ in counts) > 8
    assert sum(forced for _, forced in counts) > 8
