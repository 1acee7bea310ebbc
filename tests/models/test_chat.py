"""Chats as prompts: the ids of ``apply_chat_template``, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from tokentape.errors import ModelError, PromptError, UsageError
from tokentape.models.causal import CausalModel, load
from tokentape.models.chat import chat_prompt

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'robot' %}{{ raise_exception('roles are user, assistant and system') }}{% endif %}"
    "Story: {{ message.role }}. {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}Answer:{% endif %}"
)


@pytest.fixture(scope="module")
def plain() -> CausalModel:
    return load("demo", device="cpu")


@pytest.fixture(scope="module")
def chatty(plain: CausalModel) -> CausalModel:
    tokenizer = copy.deepcopy(plain.tokenizer)
    tokenizer.chat_template = TEMPLATE
    return dataclasses.replace(plain, tokenizer=tokenizer)


TURNS = [
    {"role": "user", "content": "Tom went to the park."},
    {"role": "assistant", "content": "the park"},
    {"role": "user", "content": "Where is Tom?"},
]


@pytest.mark.parametrize("messages", ["Where is Tom?", TURNS])
@pytest.mark.parametrize("system", [None, "Anna has a kite."])
def test_ids_are_those_of_the_template(chatty: CausalModel, messages: Any, system: str | None) -> None:
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    turns = [*([] if system is None else [{"role": "system", "content": system}]), *turns]
    found = chat_prompt(chatty, messages, system)
    expected = chatty.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert found == expected and all(isinstance(token, int) for token in found)
    text = chatty.tokenizer.decode(found)
    assert text.endswith("\nAnswer:") and text.count("Story:") == len(turns)
    assert ("Anna has a kite." in text) == (system is not None)
    assert messages is not TURNS or len(TURNS) == 3, "what was given is left as it was"


def test_bos_stands_once(chatty: CausalModel) -> None:
    """The template writes it; a tokenizer that adds one itself is not asked to, and --bos adds none where it stands."""
    tokenizer = copy.deepcopy(chatty.tokenizer)
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    adding = dataclasses.replace(chatty, tokenizer=tokenizer)
    assert adding.encode("Tom")[0] == tokenizer.bos_token_id
    found = chat_prompt(adding, "Where is Tom?")
    assert found.count(tokenizer.bos_token_id) == 1 and found[0] == tokenizer.bos_token_id
    assert adding.encode(found, bos=True) == found
    assert found == chat_prompt(chatty, "Where is Tom?")


def test_a_template_that_is_given_goes_before_the_own(chatty: CausalModel, plain: CausalModel) -> None:
    template = "{% for message in messages %}Question: {{ message.content }}\n{% endfor %}Answer:"
    expected = plain.encode("Question: Where is Tom?\nAnswer:")
    assert chat_prompt(chatty, "Where is Tom?", template=template) == expected
    assert chat_prompt(plain, "Where is Tom?", template=template) == expected


def test_a_model_that_was_not_made_to_chat_says_so(plain: CausalModel) -> None:
    with pytest.raises(UsageError, match="demo has no chat template") as caught:
        chat_prompt(plain, "Hello")
    assert caught.value.fix.startswith("leave --chat out")
    with pytest.raises(ModelError, match="no tokenizer"):
        chat_prompt(dataclasses.replace(plain, tokenizer=None), "Hello")


def test_what_the_template_refuses_is_refused_in_its_words(chatty: CausalModel) -> None:
    with pytest.raises(UsageError, match="refuses these messages") as caught:
        chat_prompt(chatty, [{"role": "robot", "content": "Hello"}])
    assert "roles are user, assistant and system" in caught.value.why
    with pytest.raises(UsageError, match="refuses these messages"):
        chat_prompt(chatty, "Hello", template="{% for %}")
    with pytest.raises(PromptError, match="empty"):
        chat_prompt(chatty, "Hello", template="{{ '' }}")


@pytest.mark.parametrize(
    "messages", [[], [{"role": "user"}], [{"content": "Hello"}], [{"role": "user", "content": None}], [{}]]
)
def test_messages_have_a_role_and_a_content(chatty: CausalModel, messages: Any) -> None:
    with pytest.raises(UsageError):
        chat_prompt(chatty, messages)


def test_one_system_message(chatty: CausalModel) -> None:
    with pytest.raises(UsageError, match="two system messages"):
        chat_prompt(chatty, [{"role": "system", "content": "one"}, *TURNS], "another")
