"""The Setting: everything that must be equal for two runs to be comparable, with a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["NOTED", "Setting", "fingerprint"]

NOTED = frozenset({"hostname", "pid", "command", "load_average", "python_executable", "model_path", "config"})
"""Facts written down with a Setting that do not decide whether two runs are comparable."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Named facts about model, engine and machine.

    ``facts`` are JSON-able; a fact that could not be had is None. Those named in :data:`NOTED` are kept but not compared.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def compared(self) -> dict[str, Any]:
        """The facts that must be equal for two runs to be comparable."""
        return {name: self.facts[name] for name in sorted(self.facts) if name not in NOTED}

    @property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the compared facts in canonical JSON."""
        return fingerprint(self.compared)

    def differences(self, other: Setting) -> dict[str, tuple[Any, Any]]:
        """Compared facts that differ, as ``{name: (mine, theirs)}``; an absent fact counts as None."""
        names = sorted(self.compared.keys() | other.compared.keys())
        pairs = {name: (self.facts.get(name), other.facts.get(name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def fingerprint(compared: Mapping[str, Any]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of compared facts in canonical JSON."""
    text = json.dumps(compared, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
