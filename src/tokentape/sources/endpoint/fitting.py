"""What a server says, made to fit: text that is Unicode, numbers that are numbers, and no more of either than a tape needs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from tokentape.recorder.fitting import holds, unicode_text

__all__ = ["LONGEST_ERROR", "LONGEST_NAME", "fitted", "name_of", "without_secrets"]

LONGEST_NAME = 200
"""Characters of a name, such as that of a model or a request."""
LONGEST_ERROR = 2000
"""Characters of what a server says of a failure."""
MOST_NODES, MOST_DEPTH, MOST_CHARACTERS = 1000, 16, 1 << 16
"""Values in what a server says of itself, how deep they may lie in one another, and the characters of their texts together."""

SHORTEST_SECRET = 4
"""A shorter one is a part of ordinary words."""

_ESCAPE = re.compile(r"\\u00([2-7][0-9a-fA-F])")


def without_secrets(text: str, secrets: tuple[str, ...]) -> str:
    """A text with ``***`` in the place of each secret, be it written plainly or with the escapes of JSON.

    To be called before the text is cut: of a secret that was cut no part would be found.
    """
    if not secrets:
        return text
    plain = _ESCAPE.sub(lambda found: chr(int(found.group(1), 16)), text) if "\\u00" in text else text
    if plain is not text and any(secret in plain for secret in secrets):
        text = plain
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def name_of(text: str | None, unsecret: Callable[[str], str], most: int = LONGEST_NAME) -> str | None:
    """A name that a server gives, without what is secret, and no longer than ``most``."""
    if text is None:
        return None
    found = unicode_text(unsecret(text))
    return found if len(found) <= most else found[: most - 1] + "…"


def fitted(value: Mapping[str, Any] | None, unsecret: Callable[[str], str]) -> dict[str, Any] | None:
    """An object of a server as a tape can hold it: null stands for what is no number, or lies too deep, or is one too many."""
    if value is None:
        return None
    left, characters = [MOST_NODES], [MOST_CHARACTERS]

    def of(one: Any, depth: int) -> Any:
        left[0] -= 1
        if left[0] < 0 or depth > MOST_DEPTH:
            return None
        if isinstance(one, str):
            characters[0] -= min(len(one), LONGEST_ERROR)
            return name_of(one, unsecret, LONGEST_ERROR) if characters[0] >= 0 else None
        if isinstance(one, Mapping):
            return {name_of(str(key), unsecret): of(part, depth + 1) for key, part in one.items() if left[0] > 0}
        if isinstance(one, list):
            return [of(part, depth + 1) for part in one if left[0] > 0]
        if isinstance(one, float) and not math.isfinite(one):
            return None
        if type(one) is int and not holds(one):
            return None
        return one

    found = of(value, 0)
    assert isinstance(found, dict)
    return found
