"""The Evaluation: figures of methods on items, and what they say of all items of their kind. A table by item, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tokentape.errors import UsageError
from tokentape.explain.judging.estimates import Estimate, Paired, bootstrapped, paired, wilson

__all__ = ["GRID", "Evaluation", "Row"]

Floats = npt.NDArray[np.float64]

GRID = np.linspace(0, 1, 21)
"""Shares of replaced sources at which curves of items of different lengths are averaged, by linear interpolation."""


class Row(NamedTuple):
    """One figure of one method: its mean over ``n`` items with a 95 % interval; None where there is none."""

    method: str
    figure: str
    mean: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What an evaluation found: figures of each item, and from them means with intervals.

    ``figures`` has for each method and figure the values ``[n]`` of the items, NaN where an item has none; ``curves`` for
    each method ``most_OP`` and ``least_OP`` ``[n, 21]``, values at shares of replaced sources from 0 to 1. ``items`` ``[n]`` are
    (number of the pair, row of its question). ``refused`` says why a method could not be evaluated. ``settings`` are what
    was asked, ``passes`` and ``cpu_seconds`` what the evaluation itself took.
    """

    figures: Mapping[str, Mapping[str, Floats]]
    curves: Mapping[str, Mapping[str, Floats]]
    items: tuple[tuple[int, int], ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    passes: int = 0
    cpu_seconds: float = 0.0

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(self.figures)

    def values(self, method: str, figure: str) -> Floats:
        """The values ``[n]`` of the items. Raises UsageError for what was not evaluated."""
        found = self.figures.get(method, {}).get(figure)
        if found is None:
            there = self.figures.get(method, self.figures)
            raise UsageError(
                f"no figure {figure!r} of {method!r}",
                why=f"there are {', '.join(there)}",
                fix=f"name one of them{'' if method in self.figures else '; ' + self.refused.get(method, '')}",
            )
        return found

    def estimate(self, method: str, figure: str) -> Estimate:
        """The mean of a figure with its interval: bootstrap over items (BCa), Wilson's for ``hit``."""
        values = self.values(method, figure)
        return wilson(values) if figure == "hit" else bootstrapped(values, **self._resampling)

    def paired(self, a: str, b: str, figure: str) -> Paired:
        """The mean difference ``a - b`` of a figure, by the paired bootstrap over the same items."""
        return paired(self.values(a, figure), self.values(b, figure), **self._resampling)

    def joined(self, other: Evaluation) -> Evaluation:
        """The items of both as one sample, of the methods that both have."""
        pairs = 1 + max((number for number, _ in self.items), default=-1)
        refused = {**other.refused, **self.refused}
        absent = set(self.methods) ^ set(other.methods)
        kept = [name for name in self.methods if name not in absent]
        return Evaluation(
            figures={name: _appended(self.figures[name], other.figures[name]) for name in kept},
            curves={name: _appended(self.curves[name], other.curves[name]) for name in kept},
            items=self.items + tuple((pairs + number, row) for number, row in other.items),
            refused={**refused, **{name: refused.get(name, "not evaluated on all items") for name in sorted(absent)}},
            settings=self.settings,
            passes=self.passes + other.passes,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
        )

    @property
    def _resampling(self) -> dict[str, int]:
        return {name: self.settings[name] for name in ("seed", "resamples") if name in self.settings}

    def rows(self) -> list[Row]:
        """Every figure of every method, as a table to draw."""
        return [
            Row(method, figure, *self.estimate(method, figure))
            for method, figures in self.figures.items()
            for figure in figures
        ]

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON: estimates, mean curves, values of the items; null where there is none."""
        methods: dict[str, Any] = {
            method: {
                "figures": {name: self.estimate(method, name)._asdict() for name in figures},
                "curves": {name: _nulls(values.mean(0)) for name, values in self.curves[method].items()},
                "items": {name: _nulls(values) for name, values in figures.items()},
            }
            for method, figures in self.figures.items()
        }
        return {
            "settings": dict(self.settings),
            "n": len(self.items),
            "items": [list(item) for item in self.items],
            "methods": methods,
            "refused": dict(self.refused),
            "shares": GRID.tolist(),
            "passes": self.passes,
            "cpu_seconds": self.cpu_seconds,
        }


def _appended(a: Mapping[str, Floats], b: Mapping[str, Floats]) -> dict[str, Floats]:
    return {name: np.concatenate([values, b[name]]) for name, values in a.items() if name in b}


def _nulls(values: Floats) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
