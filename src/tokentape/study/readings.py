"""What a benchmark tool would print of a tape: its formulas over the answers, and its own statistics of them.

All in exact arithmetic (integers of nanoseconds, fractions), made a float once, at the end: a tool's own rounding errors are
not imitated, and where a tool prints 0 for want of any value, here is None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from tokentape.study.answers import Answer
from tokentape.study.slo import Slo

__all__ = ["Dialect", "Figure", "Formula", "Objectives", "Reading", "Total", "quantile", "read"]

Exact = int | Fraction
Values = list[list[Exact]]


@dataclass(frozen=True, slots=True)
class Course:
    """What a run was as a whole: all answers, and how long it took by the tool whose results they are, None otherwise."""

    found: Sequence[Answer]
    duration_ns: int | None = None


Window = Callable[[Sequence[Answer], Course], int | None]


@dataclass(frozen=True, slots=True)
class Formula:
    """One figure of a tool, in nanoseconds: ``name`` is the tool's own, ``kind`` what others call it.

    ``of`` gives a request's values, none, one or many; the values of all requests make one sample. It gives None where the tape
    does not tell what the tool would have seen, and then the figure has no value. ``weight`` is that of each value of a request,
    1 without it. ``formula`` says the same in symbols: t0 request, m1..mM messages, c1..cm those with text, k1..km tokens in
    them, N their sum, te the end of the answer.
    """

    name: str
    kind: str
    formula: str
    of: Callable[[Answer], Sequence[Exact] | None]
    weight: Callable[[Answer], int] | None = None


@dataclass(frozen=True, slots=True)
class Total:
    """One figure of a whole run: ``of`` takes the requests that the tool counts, and the run."""

    name: str
    kind: str
    unit: str
    formula: str
    of: Callable[[Sequence[Answer], Course], Fraction | None]


@dataclass(frozen=True, slots=True)
class Objectives:
    """How a tool finds goodput: which of its figures an objective is asked of, and what becomes of a request without it.

    ``missing`` is ``"met"``, ``"missed"``, or ``"zipped"``: the figures are paired in order, whichever requests they are of.
    ``over`` gives the window in nanoseconds from the requests that the tool counts, and the run.
    """

    names: Mapping[str, str]
    missing: str
    over: Window


@dataclass(frozen=True, slots=True)
class Dialect:
    """A tool as data. ``counts`` says which requests its figures are of; ``counted`` says it in words, with the rest's fate.

    ``method`` is its percentile (a key of ``METHODS``), ``percentiles`` those it prints, ``ddof`` what its standard deviation
    subtracts from n. ``sources`` are its files that say so.
    """

    name: str
    project: str
    sources: tuple[str, ...]
    counts: Callable[[Answer], bool]
    counted: str
    formulas: tuple[Formula, ...]
    totals: tuple[Total, ...]
    method: str
    percentiles: tuple[float, ...]
    ddof: int = 0
    objectives: Objectives | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure read from a tape, in nanoseconds or, for one of the run (``n`` None), in ``unit``. None is what cannot be told.

    ``percentiles`` are pairs ``(q, value)`` by the tool's own method, whatever ``n`` is.
    """

    name: str
    kind: str
    unit: str
    formula: str
    n: int | None
    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    percentiles: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """A tape in the dialect of one tool.

    ``goodput`` is None without objectives, for a tool that has none, and where a figure that is asked for is not known.
    """

    dialect: str
    project: str
    sources: tuple[str, ...]
    method: str
    counted: str
    n_requests: int
    n_counted: int
    figures: tuple[Figure, ...]
    goodput: Mapping[str, float | int | None] | None

    def figure(self, kind: str) -> Figure | None:
        """The first figure of a kind (``"ttft"``, ``"tpot"``, ``"itl"``, ``"e2e"``, ``"tokens/s"``, ...); None if there is none."""
        return next((figure for figure in self.figures if figure.kind == kind), None)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return asdict(self)


def read(
    found: Sequence[Answer], dialect: Dialect, slo: Slo | None = None, *, duration_ns: int | None = None
) -> Reading:
    """The answers in a dialect; ``duration_ns`` is how long the run took by the tool itself, where its results say so."""
    course = Course(found, duration_ns)
    counted = [one for one in found if dialect.counts(one)]
    values = {formula.name: _values(formula, counted) for formula in dialect.formulas}
    figures = [_figure(formula, dialect, counted, values[formula.name]) for formula in dialect.formulas]
    return Reading(
        dialect=dialect.name,
        project=dialect.project,
        sources=dialect.sources,
        method=dialect.method,
        counted=dialect.counted,
        n_requests=len(found),
        n_counted=len(counted),
        figures=(*figures, *(_total(total, counted, course) for total in dialect.totals)),
        goodput=None if slo is None else _goodput(dialect.objectives, slo, values, counted, course),
    )


def _values(formula: Formula, counted: Sequence[Answer]) -> Values | None:
    """The values of each request; None where those of one cannot be told."""
    found = [formula.of(one) for one in counted]
    known = [list(own) for own in found if own is not None]
    return known if len(known) == len(found) else None


def _total(total: Total, counted: Sequence[Answer], course: Course) -> Figure:
    value = total.of(counted, course)
    mean = None if value is None else float(value)
    return Figure(total.name, total.kind, total.unit, total.formula, None, mean, None, None, None, ())


def _figure(formula: Formula, dialect: Dialect, counted: Sequence[Answer], values: Values | None) -> Figure:
    weigh = formula.weight or (lambda _: 1)
    told = zip(counted, values, strict=True) if values is not None else ()
    pairs = [(value, weigh(one)) for one, own in told for value in own]
    pairs = sorted((value, weight) for value, weight in pairs if weight)
    head = (formula.name, formula.kind, "ns", formula.formula)
    if not pairs:
        return Figure(*head, 0, None, None, None, None, ())
    n = sum(weight for _, weight in pairs)
    mean = Fraction(sum(value * weight for value, weight in pairs)) / n
    variance = Fraction(sum(value * value * weight for value, weight in pairs)) - mean * mean * n
    std = math.sqrt(variance / (n - dialect.ddof)) if n > dialect.ddof else 0.0
    grid = tuple((q, float(METHODS[dialect.method](pairs, n, q))) for q in dialect.percentiles)
    return Figure(*head, n, float(mean), std, float(pairs[0][0]), float(pairs[-1][0]), grid)


def _goodput(
    objectives: Objectives | None,
    slo: Slo,
    known: Mapping[str, Values | None],
    counted: Sequence[Answer],
    course: Course,
) -> dict[str, float | int | None] | None:
    if objectives is None:
        return None
    limits = {name: limit for field, name in objectives.names.items() if (limit := getattr(slo, field)) is not None}
    values = {name: own for name in limits if (own := known[name]) is not None}
    if len(values) < len(limits):
        return None
    if objectives.missing == "zipped":
        columns = [[value for own in values[name] for value in own] for name in limits]
        rows: list[Sequence[Exact | None]] = list(zip(*columns, strict=False))
    else:
        rows = [[own[0] if own else None for own in one] for one in zip(*(values[n] for n in limits), strict=True)]
    absent = objectives.missing == "met"
    n_good = sum(
        all(absent if value is None else value <= limit for value, limit in zip(row, limits.values(), strict=True))
        for row in rows
    )
    window = objectives.over(counted, course)
    return {"n_good": n_good, "requests_per_s": float(Fraction(n_good * 10**9, window)) if window else None}


# percentiles: the q-th of weighted values in ascending order, n being the sum of their weights


def _linear(pairs: Sequence[tuple[Exact, int]], n: int, q: float) -> Exact:
    place = Fraction(str(q)) / 100 * (n - 1)
    low = math.floor(place)
    below, above = pairs[low][0], pairs[min(low + 1, n - 1)][0]
    return below + (above - below) * (place - low)


def _lower(pairs: Sequence[tuple[Exact, int]], n: int, q: float) -> Exact:
    return pairs[math.floor(Fraction(str(q)) / 100 * (n - 1))][0]


def _cumulative(pairs: Sequence[tuple[Exact, int]], n: int, q: float) -> Exact:
    wanted, weight = Fraction(str(q)) / 100 * n, 0
    for value, own in pairs:
        weight += own
        if weight >= wanted:
            return value
    return pairs[-1][0]


METHODS: dict[str, Callable[[Sequence[tuple[Exact, int]], int, float], Exact]] = {
    "linear": _linear,
    "lower": _lower,
    "cumulative": _cumulative,
}
"""``linear`` and ``lower`` are those of ``numpy.percentile``; ``cumulative`` is the least value at or below which lies a share
``q/100`` of all weight."""


def quantile(values: Sequence[Exact], q: float, method: str) -> float:
    """The ``q``-th percentile of values (at least one) by one of ``METHODS``."""
    return float(METHODS[method]([(value, 1) for value in sorted(values)], len(values), q))
