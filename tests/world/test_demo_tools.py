"""The tools that make the demo model: the fast forward is BLOOM's, the corpus keeps the split, scores are scored."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from transformers import AutoTokenizer  # noqa: E402

from demo_card import chart  # noqa: E402
from demo_corpus import Corpus  # noqa: E402
from demo_folder import FOLDER, as_transformers  # noqa: E402
from demo_recipe import WORLD_SHARES, Recipe  # noqa: E402
from demo_scores import Accuracy, held_out_stories, held_out_tasks  # noqa: E402
from demo_training import LatestNoun  # noqa: E402
from fast_bloom import FastBloom  # noqa: E402
from tokentape.world import held_out_combinations  # noqa: E402
from tokentape.world.split import is_held_out  # noqa: E402

RECIPE = dataclasses.replace(Recipe(), width=32, n_layers=2, steps_per_chapter=3)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)


def test_the_fast_forward_is_the_one_of_transformers(tokenizer: Any) -> None:
    torch.manual_seed(0)
    model = FastBloom(len(tokenizer), 32, 2, 4)
    for parameter in model.parameters():
        # Biases and norms start at zero and one, where a mistake in them would not show.
        torch.nn.init.normal_(parameter, std=0.3)
    twin = as_transformers(model, tokenizer, RECIPE)
    assert twin.config.architectures is None or twin.config.architectures == ["BloomForCausalLM"]


def test_a_wrong_forward_is_refused(tokenizer: Any) -> None:
    torch.manual_seed(0)
    model = FastBloom(len(tokenizer), 32, 2, 4)
    model.slopes *= 2.0
    with pytest.raises(ValueError, match="logits differ"):
        as_transformers(model, tokenizer, RECIPE)


def test_the_corpus_repeats_itself_and_weighs_answers(tokenizer: Any) -> None:
    first, second = (Corpus(tokenizer.backend_tokenizer, RECIPE, 5) for _ in range(2))
    for a, b in zip(first.chapter(WORLD_SHARES, packed=True), second.chapter(WORLD_SHARES, packed=True), strict=True):
        assert torch.equal(a.ids, b.ids)
        assert torch.equal(a.weights, b.weights)
        assert not a.weights[a.ids == tokenizer.pad_token_id].any()
        assert a.ids.numel() <= RECIPE.tokens_per_step


def test_the_corpus_tells_no_held_out_fact(tokenizer: Any) -> None:
    corpus = Corpus(tokenizer.backend_tokenizer, RECIPE, 6)
    batches = corpus.chapter({"question": 0.3, "interview": 0.35, "reminded": 0.35}, packed=False)
    text = "\n".join(tokenizer.decode(row) for batch in batches for row in batch.ids)
    facts = re.findall(r"([A-Z][a-z]+) (?:[a-z]+ )+?(?:the|a) ([a-z]+)\.", text)
    assert len(facts) > 300
    assert not [fact for fact in facts if is_held_out("question", " ".join(fact))]


def test_the_latest_noun_is_that_of_the_story_or_of_the_question(tokenizer: Any) -> None:
    vocabulary = Corpus(tokenizer.backend_tokenizer, RECIPE, 0).vocabulary
    ids = tokenizer("Tom is in the park.\nQuestion: Who has the kite?\nAnswer:", return_tensors="pt")["input_ids"]
    task = LatestNoun(8, vocabulary)
    names = [tokenizer.decode([index]) if index >= 0 else "" for index in task._latest(ids, vocabulary.name_of[ids])[0]]
    nouns = [tokenizer.decode([index]) if index >= 0 else "" for index in task._latest(ids, vocabulary.noun_of[ids])[0]]
    assert names == [" Tom"] * 6 + [""] * 7
    assert nouns == [""] * 4 + [" park"] * 2 + [""] * 4 + [" kite"] * 3


def test_held_out_documents_are_different_and_held_out() -> None:
    for task, documents in held_out_tasks(8, 1).items():
        assert len({document.text for document in documents}) == 8, task
        assert all(held_out_combinations(document.kind, document.text) for document in documents)
    assert held_out_stories(3, 1) == held_out_stories(3, 1)


def test_the_interval_is_wilsons() -> None:
    low, high = Accuracy("any", 10, 9).interval
    assert (low, high) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert Accuracy("any", 50, 50).interval[1] == pytest.approx(1.0)


def test_the_chart_is_as_high_as_the_losses() -> None:
    assert chart([2.0, 1.0]).splitlines()[0] == "  2.00 |#"
    assert chart([2.0, 1.0]).splitlines()[5] == "  1.00 |##"
