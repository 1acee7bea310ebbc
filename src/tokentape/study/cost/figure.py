"""A number that says where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["KINDS", "Figure", "modelled", "unavailable"]

KINDS = ("measured", "modelled", "unavailable")


@dataclass(frozen=True, slots=True)
class Figure:
    """``value`` in ``unit``, of a ``kind``: measured, modelled, or unavailable, where the value is None.

    ``why`` says how it was had, or why it could not be. ``low`` and ``high`` bound it where an interval is known.
    """

    value: Any
    unit: str
    kind: str
    why: str = ""
    low: float | None = None
    high: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Its fields as plain values."""
        return {name: getattr(self, name) for name in ("value", "unit", "kind", "why", "low", "high")}


def modelled(value: Any, unit: str, why: str = "") -> Figure:
    """A figure that follows from a model of the machine or of the program."""
    return Figure(value, unit, "modelled", why)


def unavailable(unit: str, why: str) -> Figure:
    """A figure that cannot be told, and why."""
    return Figure(None, unit, "unavailable", why)
