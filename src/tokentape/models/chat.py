"""Chat templates: messages as the prompt that a chat model was trained to answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokentape.errors import MissingExtra, ModelError, UsageError
from tokentape.models.causal import CausalModel

__all__ = ["chat_prompt"]


def chat_prompt(
    causal: CausalModel,
    messages: str | Sequence[Mapping[str, str]],
    system: str | None = None,
    *,
    template: str | None = None,
) -> list[int]:
    """Token ids of a conversation that the model is to go on with, up to where its answer begins.

    ``messages`` is what the user says, or the turns so far, each with a ``role`` and its ``content``; ``system`` goes before
    them. ``template`` is a Jinja template in place of the tokenizer's own. The ids are those of the tokenizer's
    ``apply_chat_template(..., add_generation_prompt=True)``: special tokens are the template's, and nothing is put in front of
    them a second time.

    Raises ModelError without a tokenizer, UsageError where there is no template, or one that refuses these messages;
    MissingExtra without the package that reads templates; PromptError where nothing comes of it.
    """
    turns = _turns(messages, system)
    tokenizer = causal.tokenizer
    if tokenizer is None:
        raise ModelError(
            f"{causal.name} has no tokenizer",
            why="a chat is written by the template of a tokenizer",
            fix="give token ids instead, or put the model's tokenizer.json into its folder",
        )
    if template is None and not tokenizer.chat_template:
        raise UsageError(
            f"{causal.name} has no chat template",
            why="its tokenizer comes without one, as that of a model which was not trained to chat",
            fix="leave --chat out; or take the model that was trained to chat (its name often ends in -it, -chat or -Instruct)",
        )
    options: dict[str, Any] = {} if template is None else {"chat_template": template}
    try:
        ids = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=True, return_dict=False, **options
        )
    except ImportError as error:
        raise MissingExtra("chat templates cannot be read", why=str(error), fix="pip install 'jinja2>=3.1'") from error
    except Exception as error:  # a template is a program: it may fail in any way, and often means to
        raise UsageError(
            f"the chat template of {causal.name} refuses these messages",
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            fix="leave --system out, if it is that; else see the model's card for the roles it knows",
        ) from error
    return causal.encode(ids)


def _turns(messages: str | Sequence[Mapping[str, str]], system: str | None) -> list[dict[str, str]]:
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else [dict(one) for one in messages]
    for turn in turns:
        if not isinstance(turn.get("role"), str) or not isinstance(turn.get("content"), str):
            raise UsageError(
                f"a message with the keys {', '.join(map(str, turn)) or 'none'}",
                why="each has a role and a content, both text",
                fix='{"role": "user", "content": "Hello"}',
            )
    if not turns:
        raise UsageError("a chat without a message", why="the model answers what was said", fix='"Hello"')
    if system is None:
        return turns
    if turns[0]["role"] == "system":
        raise UsageError(
            "two system messages", why="the messages begin with one, and another is asked for", fix="leave one out"
        )
    return [{"role": "system", "content": system}, *turns]
