"""What a law leaves unexplained: residuals by cause, and what its coefficients say of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tokentape.study.law.gathering import workloads_of
from tokentape.study.law.points import CAUSES
from tokentape.study.law.terms import Loads

if TYPE_CHECKING:
    from tokentape.study.cost.work import Workload
    from tokentape.study.law.laws import Law, Part

__all__ = ["ByCause", "Rate", "Residual", "rates_of", "residuals_by_cause", "residuals_of"]


@dataclass(frozen=True, slots=True)
class Residual:
    """A measured point against what the law expects there: ``ratio`` is measured / expected, uncorrected by its neighbours."""

    context: float
    batch: int
    ns: float
    law_ns: float
    cause: str | None

    @property
    def ratio(self) -> float:
        return self.ns / self.law_ns


@dataclass(frozen=True, slots=True)
class ByCause:
    """The points of one cause (None: those fitted): their number, and the median and largest ratio to the law."""

    cause: str | None
    n: int
    median_ratio: float
    largest_ratio: float


@dataclass(frozen=True, slots=True)
class Rate:
    """A coefficient as a speed of the machine: ``value`` in ``unit``; ``why`` says what it was reckoned from."""

    name: str
    value: float
    unit: str
    why: str


def residuals_of(law: Law, part: Part) -> list[Residual]:
    """Every point of the part's kind, left out ones too, in the order in which they were measured."""
    points = [point for point in law.points if point.kind == part.kind]
    loads = Loads.of(
        part.kind,
        [point.context for point in points],
        [point.batch for point in points],
        workloads_of([int(point.labels.get("subject", 0)) for point in points], law.subjects),
    )
    expected = part.fitted.plain(loads).tolist()
    return [
        Residual(point.context, point.batch, point.ns, max(ns, 1e-9), point.cause)
        for point, ns in zip(points, expected, strict=True)
    ]


def residuals_by_cause(residuals: list[Residual]) -> list[ByCause]:
    """What was fitted first, then each cause that occurs."""
    found = []
    for cause in (None, *CAUSES):
        ratios = [residual.ratio for residual in residuals if residual.cause == cause]
        if ratios:
            found.append(ByCause(cause, len(ratios), float(np.median(ratios)), max(ratios)))
    return found


def rates_of(part: Part, workload: Workload) -> Iterator[Rate]:
    """What the coefficients of a law of one Setting come to in bytes and operations a second, where they are above zero.

    The weights are read within the shortest step, with everything else that it does, so that the bandwidth this gives is a lower
    bound.
    """
    values = {coefficient.name: coefficient.value for coefficient in part.coefficients}
    if part.kind == "decode":
        position = workload.decode(2048, 1).kv_bytes - workload.decode(1024, 1).kv_bytes
        if values.get("key-value") and position > 0:
            yield Rate(
                "key-value cache",
                position / 1024 / values["key-value"],
                "GB/s",
                f"{position / 1024:,.0f} bytes a position",
            )
        read = workload.decode(1, 1).weight_bytes
        shortest = part.fitted.plain(Loads.of("decode", [part.context[0]], [part.batch[0]]))[0]
        if shortest > 0:
            yield Rate("weights, at least", read / shortest, "GB/s", f"{read / 1e9:.3g} GB in the shortest step")
    elif values.get("tokens"):
        flops = (workload.prefill(2048, 1).flops - workload.prefill(1024, 1).flops) / 1024
        yield Rate("products", flops / values["tokens"], "GFLOP/s", f"{flops / 1e9:.3g} GFLOP a token")
