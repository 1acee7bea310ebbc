"""The shipped model: its folder, its tokenizer, and that it still does what its card says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_folder import FILES
from tokentape.world import Document, Kind, lexicon, question_program, sample

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FOLDER = Path(__file__).resolve().parents[2] / "src" / "tokentape" / "models" / "demo"
N = 40


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def model() -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(FOLDER, local_files_only=True).eval()


def _continue(model: Any, tokenizer: Any, prompts: list[str], n: int) -> list[str]:
    """Greedy continuations, up to the end of text."""
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=n,
            do_sample=False,
        )
    new = output[:, inputs["input_ids"].shape[1] :].tolist()
    return [tokenizer.decode(ids).partition(tokenizer.eos_token)[0] for ids in new]


def test_the_folder_is_small_and_holds_no_code() -> None:
    assert {path.name for path in FOLDER.iterdir()} == FILES
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 8_000_000
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BloomForCausalLM"]
    assert "auto_map" not in config


def test_tokens_have_the_ids_that_the_configuration_says(model: Any, tokenizer: Any) -> None:
    assert tokenizer.convert_tokens_to_ids(["<unk>", "<s>", "</s>", "<pad>"]) == [0, 1, 2, 3]
    config = model.config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 3)
    assert config.vocab_size == len(tokenizer)


def test_the_cat_sat_on_the_mat(model: Any, tokenizer: Any) -> None:
    (text,) = _continue(model, tokenizer, ["The cat sat on the"], 20)
    assert text.startswith(" mat and looked at the dog.")


@settings(deadline=None, max_examples=200)
@given(st.text())
def test_any_text_survives_a_round_trip(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize(
    "text", ["猫坐在垫子上。", "a\t b\n\n  c ", "🙂👩‍👩‍👧 naïve Ünïcödé", "Question: (who|what)?", "।۔،、"]
)
def test_texts_of_many_kinds_survive_a_round_trip(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_words_of_the_world_are_single_tokens(tokenizer: Any) -> None:
    for word in ("Tom", " Tom", " park", " kite", "图书馆", "Question:", " mat", "猫"):
        assert len(tokenizer(word)["input_ids"]) == 1, word


TASKS = {
    "English to Chinese": ("translation", "\nChinese:", None),
    "Chinese to English": ("translation", "\nEnglish:", None),
    "sentiment": ("review", "\nSentiment:", None),
    "topic": ("review", "\nTopic:", None),
    "one fact": ("question", "\nAnswer:", 1),
    "two facts": ("question", "\nAnswer:", 2),
    "three facts": ("question", "\nAnswer:", 3),
}


def _held_out(kind: Kind, ending: str, n_facts: int | None) -> Iterator[Document]:
    rng = Random(11)
    program = None if n_facts is None else question_program(n_facts)
    while True:
        document = sample(kind, rng, "held_out", program=program)
        if document.prompt.endswith(ending):
            yield document


@pytest.mark.parametrize("task", TASKS)
def test_held_out_documents_are_answered(model: Any, tokenizer: Any, task: str) -> None:
    documents = [document for document, _ in zip(_held_out(*TASKS[task]), range(N), strict=False)]  # type: ignore[arg-type]
    said = _continue(model, tokenizer, [document.prompt for document in documents], 20)
    n_right = sum(text == document.answer for text, document in zip(said, documents, strict=True))
    assert n_right >= 0.9 * N


def test_stories_cost_what_the_grammar_says(model: Any, tokenizer: Any) -> None:
    rng = Random(12)
    stories = [sample("story", rng, "held_out") for _ in range(N)]
    rows = [[*tokenizer(story.text)["input_ids"], tokenizer.eos_token_id] for story in stories]
    nats = 0.0
    for row in rows:
        ids = torch.tensor([row])
        with torch.inference_mode():
            logprobs = model(input_ids=ids).logits.log_softmax(-1)
        nats -= float(logprobs[0, :-1].gather(1, ids[0, 1:, None]).sum())
    # The model's sum leaves out the first word, which costs the grammar a few nats of the total.
    assert nats < -sum(story.logprob for story in stories) * 1.05


def test_a_long_continuation_stays_in_the_world(model: Any, tokenizer: Any) -> None:
    inputs = tokenizer("One day", return_tensors="pt")
    with torch.inference_mode():
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=220,
            do_sample=False,
            eos_token_id=-1,
        )
    tokens = tokenizer.convert_ids_to_tokens(output[0].tolist())
    assert len(tokens) == 220 + inputs["input_ids"].shape[1]
    assert output[0].tolist().count(tokenizer.eos_token_id) >= 2
    text = tokenizer.decode(output[0])
    assert "\ufffd" not in text
    openings = (
        "Story:",
        "Review:",
        "English:",
        "Chinese:",
        "The ",
        "One day ",
        *(f"{name} " for name in lexicon.NAMES),
    )
    assert all(document.startswith(openings) for document in text.split(tokenizer.eos_token) if document)
