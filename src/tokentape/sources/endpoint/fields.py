"""What is asked of a server: the options of ``generate()`` in its words, and the fields that make it tell more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokentape.errors import UsageError
from tokentape.sources.endpoint.engines import UNKNOWN
from tokentape.sources.option_checks import check_options, refuse_unsupported

__all__ = ["APIS", "RICH", "Rich", "body_of"]

APIS = ("completions", "chat")

_EVERYWHERE = {
    "max_new_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "stop_strings": "stop",
    "seed": "seed",
    "num_return_sequences": "n",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "logit_bias": "logit_bias",
}
"""Options by the fields that OpenAI's API has for them."""

_BEYOND: Mapping[str, Mapping[str, str]] = {
    "vllm": {
        "top_k": "top_k",
        "min_p": "min_p",
        "repetition_penalty": "repetition_penalty",
        "min_new_tokens": "min_tokens",
        "ignore_eos": "ignore_eos",
    },
    "sglang": {
        "top_k": "top_k",
        "min_p": "min_p",
        "repetition_penalty": "repetition_penalty",
        "min_new_tokens": "min_tokens",
        "ignore_eos": "ignore_eos",
    },
    "llama.cpp": {
        "top_k": "top_k",
        "min_p": "min_p",
        "typical_p": "typical_p",
        "repetition_penalty": "repeat_penalty",
        "ignore_eos": "ignore_eos",
    },
    "transformers": {},
    UNKNOWN: {},
}
"""Fields that an engine has beside those, as its own source has them."""

_GENERATION_CONFIG = frozenset(
    {"top_k", "min_p", "typical_p", "repetition_penalty", "min_new_tokens", "no_repeat_ngram_size"}
)
"""What ``transformers serve`` takes in a generation configuration of its own, a JSON text in the field ``generation_config``."""

_IGNORED: Mapping[str, frozenset[str]] = {
    "transformers": frozenset({"num_return_sequences", "presence_penalty", "logit_bias"}),
}
"""Options that an engine takes, and does nothing with."""


@dataclass(frozen=True, slots=True)
class Rich:
    """A field that makes a server tell more of its tokens; ``apis`` that have it. Those of least worth come first."""

    name: str
    value: Any
    apis: tuple[str, ...] = APIS


RICH = (
    Rich("timings_per_token", True),
    Rich("return_tokens_as_token_ids", True),
    Rich("continuous_usage_stats", True),
    Rich("return_token_ids", True),
    Rich("logprobs", True),
    Rich("include_usage", True),
)
"""The richest request has all of them; where a server refuses it, they are dropped one by one in this order."""

_STREAM_OPTIONS = ("include_usage", "continuous_usage_stats")


def rich_fields(api: str, names: frozenset[str], n_top: int) -> dict[str, Any]:
    """The fields of these names, as the API writes them."""
    found: dict[str, Any] = {}
    stream = {name: True for name in _STREAM_OPTIONS if name in names}
    if stream.get("include_usage"):  # the other one is refused without it
        found["stream_options"] = stream
    for field in RICH:
        if field.name in names and field.name not in _STREAM_OPTIONS and field.name != "logprobs":
            found[field.name] = field.value
    if "logprobs" in names:
        if api == "chat":
            found["logprobs"] = True
            if n_top:
                found["top_logprobs"] = n_top
        else:
            found["logprobs"] = n_top
    return found


def body_of(options: Mapping[str, Any], engine: str, seed: int | None = None) -> dict[str, Any]:
    """Options of ``generate()`` as the fields of a request. Raises UsageError for what the engine cannot be asked for."""
    given = {name: value for name, value in options.items() if value is not None}
    refuse_unsupported(given)
    given.pop("num_beams", None)
    body: dict[str, Any] = {}
    sampled = given.pop("do_sample", None)
    check_options({**given, "do_sample": True if sampled is None else sampled})
    if sampled is False:
        body["temperature"] = 0
    if seed is not None:
        given.setdefault("seed", seed)
    own: dict[str, Any] = {}
    for name, value in given.items():
        if name in _IGNORED.get(engine, ()) and not (name == "num_return_sequences" and value == 1):
            raise _refused(name, engine, "it takes the field, and does nothing with it")
        field = _EVERYWHERE.get(name) or _BEYOND[engine].get(name)
        if field is not None:
            body[field] = value
        elif engine == "transformers" and name in _GENERATION_CONFIG:
            own[name] = value
        else:
            raise _refused(name, engine, "its API has no field for it")
    if own:
        limit = {"max_new_tokens": given["max_new_tokens"]} if "max_new_tokens" in given else {}
        chosen = {} if sampled is None else {"do_sample": sampled}
        body["generation_config"] = json.dumps({**limit, **chosen, **own})
    return body


def _refused(name: str, engine: str, why: str) -> UsageError:
    return UsageError(
        f"{name} cannot be asked of this server ({engine})",
        why=f"{why}, and an option is never dropped in silence",
        fix="leave it out; or --extra-body with the field that this server has for it",
    )
