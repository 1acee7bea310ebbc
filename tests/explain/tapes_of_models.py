"""Recorded runs to replay: tapes in memory, and the 21 families that explanations are tried on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tokentape
from tokentape.data.tape import Tape
from tokentape.models.causal import CausalModel
from tokentape.sources.local import LocalSource

FAMILIES = (
    "bloom falcon mpt gemma gemma2 gemma3_text mixtral olmo olmo2 phi phi3 gpt2 gpt_neox gptj llama mistral qwen2 qwen3 opt "
    "stablelm cohere"
).split()
"""LayerNorm and RMSNorm, before, after and on both sides; ALiBi, learned and rotary positions; parallel blocks, mixtures of
experts, soft caps, sliding windows, grouped queries."""

PROMPT = [5, 17, 200, 31, 8, 99, 42]


def recorded(causal: CausalModel, prompts: Any = PROMPT, n_new: int = 16, **options: Any) -> Tape:
    """A tape in memory of a model of the tests."""
    ids: Sequence[Any] = [prompts] if isinstance(prompts[0], int) else prompts
    return tokentape.record(LocalSource(causal), list(ids), max_new_tokens=n_new, path=None, **options)
