"""Sizes and times as people write them: ``3%``, ``90s``."""

from __future__ import annotations

import math
import re

from tokentape.errors import UsageError

__all__ = ["seconds", "share"]

SECONDS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
"""Of a unit of time."""


def share(given: str | float, name: str) -> float:
    """``"3%"``, ``"0.03"`` or 0.03 as a number above 0 and at most 1. Raises UsageError, with ``name``, for anything else."""
    found = re.fullmatch(r"(\d*\.?\d+)\s*(%?)", str(given).strip())
    value = None if found is None else float(found[1]) / (100 if found[2] else 1)
    if value is None or not 0 < value <= 1:
        raise UsageError(
            f"{name} {given}", why="it is a share above 0 and at most 100 %", fix=f"{name} 3%, or {name} 0.03"
        )
    return value


def seconds(given: str | float, name: str, *, above_zero: bool = True) -> float:
    """``"250ms"``, ``"90s"``, ``"2m"``, ``"1h"``, ``"1d"`` or 90 in seconds; 0 only where it may be.

    Raises UsageError, with ``name``, for the rest.
    """
    found = re.fullmatch(r"(\d*\.?\d+)\s*(ms|s|m|min|h|d|)", str(given).strip().lower())
    value = None if found is None else float(found[1]) * SECONDS[found[2]]
    if value is None or not math.isfinite(value) or (above_zero and value == 0):
        least = ", above 0" if above_zero else ""
        raise UsageError(
            f"{name} {given} is no time", why=f"it is a number of ms, s, m, h or d{least}", fix=f"{name} 2m"
        )
    return value
