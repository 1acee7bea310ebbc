"""Which combinations of words are held out, decided by a hash that never changes."""

from __future__ import annotations

import hashlib
from functools import lru_cache

SALT = "little world"
HELD_OUT_SHARE = 0.1


@lru_cache(maxsize=1 << 18)
def is_held_out(kind: str, combination: str) -> bool:
    """Whether no training text of `kind` may contain `combination`; true for one combination in ten."""
    digest = hashlib.blake2b(f"{SALT}|{kind}|{combination}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < HELD_OUT_SHARE * 2.0**64
