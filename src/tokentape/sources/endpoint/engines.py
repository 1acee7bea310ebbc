"""Which engine answers, as far as what it sends gives it away."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["ENGINES", "UNKNOWN", "engine_of", "says_done"]

UNKNOWN = "openai-compatible"
ENGINES = ("vllm", "sglang", "llama.cpp", "transformers", UNKNOWN)

_BUILD = re.compile(r"b\d+-[0-9a-f]+\Z")


def engine_of(message: Mapping[str, Any], server: str = "", owner: str = "") -> str:
    """The engine by a message of its stream, the header ``server`` and the ``owned_by`` of its list of models."""
    choices = message.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    fingerprint = message.get("system_fingerprint")
    if (
        owner == "llamacpp"
        or server.startswith("llama.cpp")
        or "timings" in message
        or (isinstance(fingerprint, str) and _BUILD.match(fingerprint))
    ):
        return "llama.cpp"
    if owner == "sglang" or "matched_stop" in choice:
        return "sglang"
    if owner == "vllm" or "prompt_token_ids" in message or choice.keys() & {"token_ids", "stop_reason"}:
        return "vllm"
    # it leaves out what is null
    if (
        choice
        and server in ("", "uvicorn")
        and not choice.keys() & {"finish_reason", "logprobs"}
        and "usage" not in message
    ):
        return "transformers"
    return UNKNOWN


def says_done(engine: str) -> bool:
    """Whether the last message of its streams is ``[DONE]``."""
    return engine != "transformers"
