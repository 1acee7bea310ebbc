"""Which dialect: by its name."""

from __future__ import annotations

from tokentape.errors import UsageError
from tokentape.mock.dialects.dialect import Dialect
from tokentape.mock.dialects.llamacpp import LlamaCpp
from tokentape.mock.dialects.sglang import Sglang
from tokentape.mock.dialects.transformers import Transformers
from tokentape.mock.dialects.vllm import Vllm

__all__ = ["DIALECTS", "dialect_of"]

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (Vllm(), Sglang(), LlamaCpp(), Transformers())}
"""The servers whose form is known."""


def dialect_of(name: str) -> Dialect:
    """A dialect by its name; raises UsageError where there is none."""
    if name not in DIALECTS:
        raise UsageError(
            f"there is no dialect {name!r}", why=f"there are {', '.join(DIALECTS)}", fix="select one of these"
        )
    return DIALECTS[name]
