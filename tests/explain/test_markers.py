"""The marker model: its folder, its tasks, and that the planted word, and no other, decides what it says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import torch
from marker_tasks import COLOURS, FILLERS, KINDS, OBJECTS, TASKS, VOCABULARY, answer, marker_items, unanswerable

from model_folder import FILES
from tokentape.models.causal import CausalModel, load
from tokentape.world.evidence import Item, covering

FOLDER = Path(__file__).resolve().parent / "markers"
N = 300
SORTS = (FILLERS, OBJECTS, COLOURS, tuple(word for kind in KINDS.values() for word in kind))


@pytest.fixture(scope="module")
def markers() -> CausalModel:
    return load(FOLDER)


def word_spans(prompt: str) -> Iterator[tuple[int, int]]:
    place = 0
    for word in prompt.split():
        yield place, place + len(word)
        place += len(word) + 1


def test_the_folder_is_small_and_holds_no_code() -> None:
    assert {path.name for path in FOLDER.iterdir()} == FILES
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 600_000
    assert "auto_map" not in json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))


def test_it_is_another_architecture_than_the_shipped_one(markers: CausalModel) -> None:
    config = markers.config
    assert config.model_type == "llama"
    assert markers.dtype == torch.float32
    assert config.num_key_value_heads < config.num_attention_heads
    assert not config.tie_word_embeddings


def test_words_are_single_tokens_with_their_space(markers: CausalModel) -> None:
    ids = markers.encode("so cup and jar")
    assert ids[0] == markers.bos_id
    assert [VOCABULARY[index] for index in ids[1:]] == ["so", "cup", "and", "jar"]
    assert markers.pieces.exact
    assert markers.pieces.spell(markers.encode("so cup", bos=False), ids) == [b" so", b" cup"]
    assert markers.tokenizer.decode(ids, skip_special_tokens=True) == "so cup and jar"


@pytest.mark.parametrize("task", TASKS)
def test_items_are_distinct_and_keep_the_split(task: str) -> None:
    held_out, train = marker_items(task, N, 0), marker_items(task, 2000, 0, "train")
    assert held_out == marker_items(task, N, 0)
    assert held_out != marker_items(task, N, 1)
    assert len({item.prompt for item in held_out}) == N
    assert {item.prompt for item in held_out}.isdisjoint(item.prompt for item in train)


@pytest.mark.parametrize("task", TASKS)
def test_the_decisive_word_decides_by_the_rules(task: str) -> None:
    places = set()
    for item in marker_items(task, N, 0):
        assert answer(item.prompt) == item.answer == item.word
        assert answer(item.counterfactual) == item.foil == item.foil_word != item.answer
        before, after = item.prompt.split(), item.counterfactual.split()
        (place,) = [index for index, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        assert list(word_spans(item.prompt))[place] == item.decisive[0]
        places.add(place)
    assert len(places) >= 5


@pytest.mark.parametrize("task", TASKS)
def test_no_word_beside_the_evidence_decides(task: str) -> None:
    n_checked = 0
    for item in marker_items(task, N, 0):
        for start, end in set(word_spans(item.prompt)) - set(item.evidence):
            for sort in (sort for sort in SORTS if item.prompt[start:end] in sort):
                for other in set(sort) - set(item.prompt.split()):
                    n_checked += 1
                    assert answer(item.prompt[:start] + other + item.prompt[end:]) == item.answer
    assert n_checked > 10 * N


def test_related_words_are_those_that_point_at_the_decisive_one() -> None:
    for item in marker_items("recall", N, 0):
        in_pair, asked = item.related
        assert in_pair[1] + 1 == item.decisive[0][0] and item.prompt[asked[1] :] == " is"
    for item in marker_items("copy", N, 0):
        ((start, end),) = item.related
        assert item.prompt[start:end] == "take" and end + 1 == item.decisive[0][0]
    assert not any(item.related for task in ("last", "kind") for item in marker_items(task, N, 0))


@pytest.mark.parametrize("task", TASKS)
def test_the_model_answers_held_out_items_and_follows_the_decisive_word(markers: CausalModel, task: str) -> None:
    found = marker_items(task, N, 0)
    assert share_answered(markers, [(item.prompt, item.answer) for item in found]) >= 0.99
    assert share_answered(markers, [(item.counterfactual, item.foil) for item in found]) >= 0.98


def share_answered(causal: CausalModel, wanted: list[tuple[str, str]]) -> float:
    """Share of the prompts whose greedy continuation is the answer and then the end of the text."""
    inputs: Any = causal.tokenizer([prompt for prompt, _ in wanted], return_tensors="pt", padding=True)
    end = causal.tokenizer.eos_token_id
    with torch.inference_mode():
        output = causal.model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=2,
            do_sample=False,
        )
    said = output[:, inputs["input_ids"].shape[1] :].tolist()
    return sum(
        ids == [*causal.encode(text, bos=False), end] for ids, (_, text) in zip(said, wanted, strict=True)
    ) / len(wanted)


@pytest.mark.parametrize("task", TASKS)
def test_each_word_of_the_evidence_is_one_token(markers: CausalModel, task: str) -> None:
    for item in marker_items(task, 50, 0):
        assert tokens_of(markers, item, item.decisive) == [item.prompt[slice(*item.decisive[0])]]
        assert tokens_of(markers, item, item.related) == [item.prompt[slice(*span)] for span in item.related]


def tokens_of(causal: CausalModel, item: Item, spans: tuple[tuple[int, int], ...]) -> list[str]:
    offsets = causal.tokenizer(item.prompt, return_offsets_mapping=True)["offset_mapping"]
    return [VOCABULARY[causal.encode(item.prompt)[index]] for index in covering(spans, offsets)]


def test_the_tool_makes_the_tokenizer_and_the_shapes_of_the_folder(markers: CausalModel) -> None:
    import train_markers as tool

    made = json.loads(tool.make_tokenizer().backend_tokenizer.to_str())
    assert made == json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    twin = tool.make_model(tool.Recipe())
    shapes = {name: tuple(weights.shape) for name, weights in twin.state_dict().items()}
    assert shapes == {name: tuple(weights.shape) for name, weights in markers.model.state_dict().items()}
    assert twin.config.rope_parameters == markers.config.rope_parameters


def test_a_prompt_that_names_nothing_is_answered_so(markers: CausalModel) -> None:
    rng = Random(0)
    texts = [unanswerable(rng) for _ in range(100)]
    assert all(answer(prompt) == said for prompt, said in texts)
    assert share_answered(markers, texts) >= 0.98


def test_losses_weigh_what_they_should() -> None:
    import train_markers as tool

    ids, weights = tool.echoes(Random(0), tool.Recipe(rows=5))
    n_words = (ids.shape[1] - 1) // 2
    assert torch.equal(ids[:, 1 : n_words + 1], ids[:, n_words + 1 :])
    assert (weights[:, : n_words + 2] == 0).all() and (weights[:, n_words + 2 :] == 1).all()
    item, longer = marker_items("kind", 2, 0)
    texts = [(one.prompt, one.answer) for one in (item, longer)]
    ids, weights = tool.batch(tool.make_tokenizer(), texts, prompt_weight=0.5)
    row = [VOCABULARY[index] for index, weight in zip(ids[0].tolist(), weights[0].tolist(), strict=True) if weight == 1]
    assert row == [item.answer.strip(), "</s>"]
    assert (weights[0, : len(item.prompt.split()) + 1] == 0.5).all()
    assert (weights[ids == tool.PAD] == 0).all() and (ids == tool.PAD).any()
