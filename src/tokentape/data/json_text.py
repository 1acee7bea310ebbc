"""JSON as the tape keeps it: text without spaces, of what JSON can hold and nothing else."""

from __future__ import annotations

import json

from tokentape.errors import UsageError

__all__ = ["as_json"]


def as_json(value: object, what: str) -> str:
    """``value`` as JSON text; raises UsageError, naming ``what``, where JSON cannot hold it."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{what} cannot be written down", why=str(error), fix="give what JSON can hold; null for NaN"
        ) from error
    return text
