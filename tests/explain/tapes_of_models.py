"""Recorded runs to replay: tapes in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tokentape
from tokentape.data.tape import Tape
from tokentape.models.causal import CausalModel
from tokentape.sources.local import LocalSource

PROMPT = [5, 17, 200, 31, 8, 99, 42]


def recorded(causal: CausalModel, prompts: Any = PROMPT, n_new: int = 16, **options: Any) -> Tape:
    """A tape in memory of a model of the tests."""
    ids: Sequence[Any] = [prompts] if isinstance(prompts[0], int) else prompts
    return tokentape.record(LocalSource(causal), list(ids), max_new_tokens=n_new, path=None, **options)
