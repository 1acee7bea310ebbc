"""llama.cpp's server, serving the model that ships as `tools/gguf_of_demo.py` converts it: ids and log-probabilities."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

import tokentape as tt
from real.servers import DEMO, Server

pytestmark = [pytest.mark.real, pytest.mark.slow]

PROMPTS = [
    "The cat sat on the",
    "Once upon a time there was a cat",
    "Anna",
    "English: The cat sat on the mat.\nChinese:",
    "Chinese: 猫坐在垫子上。\nEnglish:",
    "Story: Tom went to the park. Anna has a kite.\nQuestion: Where is Tom?\nAnswer:",
]

TEXTS = [
    *PROMPTS,
    "",
    " ",
    "   two  spaces and\ttabs \n\n lines\r\n",
    "(brackets) [square] {curly} | bar",
    "It's 12:30, isn't it? Yes! … No。 是的，对、",
    "ñandú naïve Ελληνικά русский عربي हिन्दी",
    "🙂👩‍👩‍👧 zero\u200bwidth",
    "The end.</s>The next <s> <unk><pad>",
]


@pytest.fixture(scope="module")
def local() -> dict[str, tt.Trace]:
    """The greedy run in this process, by prompt."""
    source = tt.local("demo")
    return {prompt: tt.record(source, prompt, max_new_tokens=120).traces[0] for prompt in PROMPTS}


def completed(server: Server, prompt: str | Sequence[int], **options: object) -> list[dict[str, Any]]:
    """What its stream tells of each token."""
    body = {"prompt": prompt, "max_tokens": 120, "temperature": 0, "logprobs": 3, "cache_prompt": False, **options}
    events = server.events("/v1/completions", body)
    probs = [choice["logprobs"] for event in events for choice in event["choices"] if choice["logprobs"]]
    return [token for one in probs for token in one["content"]]


@pytest.mark.parametrize("text", TEXTS)
def test_it_splits_text_as_the_tokenizer_does(llama_cpp: Server, text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    status, answer = llama_cpp.ask("/tokenize", {"content": text, "parse_special": True})
    assert status == 200
    assert json.loads(answer)["tokens"] == tokenizer(text).input_ids


@pytest.mark.parametrize("prompt", PROMPTS)
def test_ids_and_log_probabilities_are_those_of_the_local_run(
    llama_cpp: Server, local: dict[str, tt.Trace], prompt: str
) -> None:
    tokens = completed(llama_cpp, prompt)
    assert [token["id"] for token in tokens] == local[prompt].token_ids.tolist()
    np.testing.assert_allclose(
        [token["logprob"] for token in tokens], local[prompt].tokens["logprob"], rtol=0, atol=1e-3
    )


def test_a_prompt_of_ids_is_the_same_prompt(llama_cpp: Server, local: dict[str, tt.Trace]) -> None:
    ids = AutoTokenizer.from_pretrained(DEMO)(PROMPTS[0]).input_ids
    assert [token["id"] for token in completed(llama_cpp, ids)] == local[PROMPTS[0]].token_ids.tolist()


def test_other_weights_give_other_log_probabilities(llama_of_others: Server, local: dict[str, tt.Trace]) -> None:
    """What the tests that catch such a server rest on: it differs by far more than rounding does."""
    token = completed(llama_of_others, PROMPTS[0], max_tokens=1)[0]
    assert abs(token["logprob"] - local[PROMPTS[0]].tokens["logprob"][0]) > 1e-2
