"""`transformers serve`, serving the model that ships: text, counts, and nothing else of a token."""

from __future__ import annotations

import pytest

import tokentape as tt
from real.servers import Server

pytestmark = [pytest.mark.real, pytest.mark.slow]

PROMPTS = [
    "The cat sat on the",
    "Once upon a time there was a cat",
    "English: The cat sat on the mat.\nChinese:",
    "Chinese: 猫坐在垫子上。\nEnglish:",
    "Review: The soup was really excellent.\nTopic:",
]


@pytest.fixture(scope="module")
def local() -> dict[str, tt.Trace]:
    """The greedy run in this process, by prompt."""
    source = tt.local("demo")
    return {prompt: tt.record(source, prompt, max_new_tokens=80).traces[0] for prompt in PROMPTS}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_its_text_is_that_of_the_local_run(transformers_serve: Server, local: dict[str, tt.Trace], prompt: str) -> None:
    body = {"model": transformers_serve.model, "prompt": prompt, "max_tokens": 80, "temperature": 0}
    events = transformers_serve.events("/v1/completions", body)
    text = "".join(event["choices"][0]["text"] for event in events)
    assert text == local[prompt].text
    usage = events[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (
        local[prompt].n_prompt,
        len(local[prompt].token_ids),
    )


def test_a_chat_whose_template_adds_nothing_says_the_same(
    transformers_serve: Server, local: dict[str, tt.Trace]
) -> None:
    asked = {"messages": [{"role": "user", "content": PROMPTS[0]}], "max_tokens": 80, "temperature": 0}
    events = transformers_serve.events("/v1/chat/completions", {"model": transformers_serve.model, **asked})
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == local[PROMPTS[0]].text
