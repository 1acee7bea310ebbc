"""Planted evidence: the grammar itself says that the decisive word decides, and the shipped model follows it."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from tokentape.errors import UsageError
from tokentape.world import Document, Kind, Split, evidence, held_out_combinations, lexicon, next_words, parse, review
from tokentape.world.evidence import TASKS, Item, covering, items, occurrences
from tokentape.world.question import GOES, HOLDS

KIND_OF: dict[str, Kind] = {
    "question": "question",
    "sentiment": "review",
    "topic": "review",
    "translation": "translation",
}
N = 40
TABLES = [value for name, value in vars(lexicon).items() if name.endswith("_ZH")]
POOLS = [
    lexicon.NAMES, lexicon.PLACES, lexicon.THINGS, GOES, HOLDS, review.POSITIVE, review.NEGATIVE, review.FILLERS,
    tuple(review.DEGREES), tuple(review.VERBS), *review.TOPICS.values(), *(tuple(table) for table in TABLES),
    *(tuple(table.values()) for table in TABLES),
]  # fmt: skip
"""Words of one kind: each may stand where another of its pool stands."""


def certain_answer(kind: Kind, prompt: str) -> str | None:
    """What the grammar says after a prompt, word by word; None where it cannot be said or leaves a choice."""
    said = ""
    while True:
        following = next_words(prompt + said, kind)
        if list(following) == [""]:
            return said
        if len(following) != 1:
            return None
        said += next(iter(following))


def replaced(text: str, span: tuple[int, int], word: str) -> str:
    return text[: span[0]] + word + text[span[1] :]


def other_words(item: Item) -> Iterator[tuple[tuple[int, int], str]]:
    """Every other word of its kind that may stand at a place which is no evidence."""
    for pool in POOLS:
        for word in pool:
            for start, end in occurrences(item.prompt, word):
                if not any(max(start, a) < min(end, b) for a, b in item.evidence):
                    yield from (((start, end), other) for other in pool if other != word and other not in item.prompt)


@pytest.mark.parametrize("task", TASKS)
def test_another_word_at_the_decisive_place_makes_the_foil_right(task: str) -> None:
    for item in items(task, N, 0):
        assert certain_answer(KIND_OF[task], item.prompt) == item.answer
        assert certain_answer(KIND_OF[task], item.counterfactual) == item.foil
        (span,) = item.decisive
        assert item.counterfactual.startswith(item.prompt[: span[0]])
        assert item.counterfactual.endswith(item.prompt[span[1] :])


@pytest.mark.parametrize("task", TASKS)
def test_words_that_are_no_evidence_leave_the_word_as_it_is(task: str) -> None:
    rng, n_checked = Random(0), 0
    for item in items(task, N, 0):
        options = list(other_words(item))
        for span, other in rng.sample(options, min(12, len(options))):
            answer = certain_answer(KIND_OF[task], replaced(item.prompt, span, other))
            # Another text before the word asked about is another question.
            if answer is not None and answer.startswith(item.prefix):
                n_checked += 1
                assert answer.startswith(item.prefix + item.word)
    assert n_checked > 3 * N


def test_without_a_related_word_the_question_has_another_answer_or_none() -> None:
    rng = Random(0)
    for item in items("question", N, 0):
        in_fact, in_question = item.related
        assert in_fact[1] < item.prompt.index("\nQuestion:") < in_question[0]
        word = item.prompt[slice(*in_fact)]
        assert word == item.prompt[slice(*in_question)]
        pool = next(pool for pool in (lexicon.NAMES, lexicon.PLACES, lexicon.THINGS) if word in pool)
        for other in rng.sample([other for other in pool if other != word], 3):
            for span in item.related:
                assert certain_answer("question", replaced(item.prompt, span, other)) != item.answer


@pytest.mark.parametrize("task", TASKS)
def test_prefix_and_word_are_where_answer_and_foil_part(task: str) -> None:
    for item in items(task, N, 0):
        assert item.answer.startswith(item.prefix + item.word)
        assert item.foil.startswith(item.prefix + item.foil_word)
        assert item.answer.removeprefix(item.prefix + item.word) == item.foil.removeprefix(item.prefix + item.foil_word)
        assert item.word != item.foil_word
        assert not item.word.startswith(item.foil_word) and not item.foil_word.startswith(item.word)
        document = parse(KIND_OF[task], item.prompt + item.answer)
        assert set(item.decisive) <= set(document.evidence)
        assert occurrences(item.prompt, item.prompt[slice(*item.decisive[0])]) == item.decisive


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_items_are_distinct_and_keep_the_split(task: str, split: Split) -> None:
    found = items(task, N, 1, split)
    assert len({item.prompt for item in found}) == N
    assert found[:7] == items(task, 7, 1, split)
    assert found != items(task, N, 2, split)
    for item in found:
        assert bool(held_out_combinations(KIND_OF[task], item.prompt + item.answer)) == (split == "held_out")


def test_every_kind_of_item_occurs() -> None:
    translations = items("translation", 300, 0)
    assert {item.prompt.partition(":")[0] for item in translations} == {"English", "Chinese"}
    decided = {item.prompt[slice(*item.decisive[0])] for item in translations}
    for name in (
        "BEINGS",
        "PLACES",
        "POSTURES",
        "SURFACES",
        "ACTIVITIES",
        "DEEDS",
        "COLOURS",
        "THINGS",
        "SIZES",
        "MOODS",
    ):
        table = lexicon.ANIMALS_ZH if name == "BEINGS" else vars(lexicon)[f"{name}_ZH"]
        assert decided & set(table) and decided & set(table.values()), name
    questions = items("question", 300, 0)
    assert {item.prompt.partition("Question: ")[2].split()[0] for item in questions} == {"Where", "What", "Who"}
    assert {item.answer for item in items("topic", 300, 0)} == {f" {topic}" for topic in review.TOPICS}


def test_what_is_ambiguous_is_left_out() -> None:
    old_teacher = parse("translation", "Chinese: 老老师很累。\nEnglish: The old teacher was tired.")
    decided = {decisive_word("translation", old_teacher, seed) for seed in range(40)}
    assert decided == {None, "老师", "累"}
    trip = parse("translation", "English: The cat went to the park.\nChinese: 猫去了公园。")
    assert {decisive_word("translation", trip, seed) for seed in range(40)} == {"cat", "park"}
    lone = parse("question", "Story: Tom is in the park.\nQuestion: Where is Tom?\nAnswer: the park")
    assert {decisive_word("question", lone, seed) for seed in range(5)} == {None}


def decisive_word(task: str, document: Document, seed: int) -> str | None:
    _, make = evidence._MAKERS[task]
    item = make(document, Random(seed))
    return None if item is None else item.prompt[slice(*item.decisive[0])]


def test_the_item_that_figures_are_measured_on_stays_the_same() -> None:
    (item,) = items("question", 1, 0)
    story = "Story: Zoe is in the {}. Eva found a boat. Hugo is in the school.\nQuestion: Where is Zoe?\nAnswer:"
    assert item == Item(
        task="question",
        prompt=story.format("church"),
        answer=" the church",
        foil=" the bank",
        prefix=" the",
        word=" church",
        foil_word=" bank",
        decisive=((21, 27),),
        related=((7, 10), (89, 92)),
        counterfactual=story.format("bank"),
    )
    assert item.evidence == ((7, 10), (21, 27), (89, 92))


def test_tokens_are_covered_that_share_a_character() -> None:
    tokens = [(0, 0), (0, 3), (3, 7), (7, 8), (8, 12)]
    assert covering(((4, 7),), tokens) == (2,)
    assert covering(((2, 4), (11, 12)), tokens) == (1, 2, 4)
    assert covering((), tokens) == ()


def test_what_cannot_be_made_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no task 'sarcasm'"):
        items("sarcasm", 1, 0)
    monkeypatch.setattr(evidence, "MAX_MISSES", 1)
    with pytest.raises(UsageError, match=r"^100 items of the task 'topic' are asked for, and \d+ were found"):
        items("topic", 100, 0)


N_ANSWERED = 100


@pytest.fixture(scope="module")
def demo() -> Any:
    pytest.importorskip("torch")
    causal = pytest.importorskip("tokentape.models.causal")
    return causal.load("demo")


@pytest.mark.parametrize("task", TASKS)
def test_the_shipped_model_reads_the_evidence(demo: Any, task: str) -> None:
    found = items(task, N_ANSWERED, 0)
    assert share_said(demo, [(item.prompt + item.prefix, item.word) for item in found]) >= 0.98
    assert share_said(demo, [(item.counterfactual + item.prefix, item.foil_word) for item in found]) >= 0.98


@pytest.mark.parametrize("task", TASKS)
def test_words_of_the_items_are_tokens_of_the_shipped_model(demo: Any, task: str) -> None:
    found = items(task, 300, 0)
    # Byte pairs may join across Chinese words: 母鸡睡 is cut into five tokens.
    assert sum(is_one_token_a_word(demo, item) for item in found) >= 0.98 * len(found)


def is_one_token_a_word(causal: Any, item: Item) -> bool:
    """Whether the decisive and related words, and what answer and foil say at the place asked about, are one token each."""
    before = causal.encode(item.prompt + item.prefix)
    for text, word in ((item.answer, item.word), (item.foil, item.foil_word)):
        ids = causal.encode(item.prompt + text)
        if ids[: len(before)] != before or causal.pieces.spell([ids[len(before)]], before) != [word.encode()]:
            return False
    spans = causal.tokenizer(item.prompt, return_offsets_mapping=True)["offset_mapping"]
    covered = [item.prompt[slice(*spans[index])].strip() for index in covering(item.evidence, spans)]
    return covered == [item.prompt[slice(*span)] for span in item.evidence]


def share_said(causal: Any, wanted: list[tuple[str, str]]) -> float:
    """Share of the texts after which the likeliest next token is the word."""
    torch = pytest.importorskip("torch")
    inputs = causal.tokenizer([text for text, _ in wanted], return_tensors="pt", padding=True)
    with torch.inference_mode():
        logits = causal.model(**{name: inputs[name] for name in ("input_ids", "attention_mask")}).logits[:, -1]
    said = [causal.pieces.piece(index).bytes.decode(errors="replace") for index in logits.argmax(-1).tolist()]
    return sum(a == b for a, (_, b) in zip(said, wanted, strict=True)) / len(wanted)
