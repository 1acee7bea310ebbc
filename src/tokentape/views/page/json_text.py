"""A document as JSON that can stand inside of HTML, whatever its texts hold."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["page_json"]

_ACTING = re.compile("[<>&\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
"""What could end the element it stands in, what HTML has no place for, and what UTF-8 cannot write."""


def page_json(value: Any) -> str:
    r"""JSON in one line that HTML leaves as it is: nothing in it begins a tag or a reference, and it is ASCII or plain text.

    ``<``, ``>``, ``&``, line separators, control characters, surrogates and what is no character are written as ``\uXXXX``. Raises
    ValueError for NaN and infinity.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _ACTING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
