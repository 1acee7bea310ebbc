"""The law of latency: how long a step takes, as a function of context and batch, with intervals.

:func:`fit` reads tapes and gives a :class:`Law`: a form with physically named coefficients that are never negative, chosen by
cross-validation; what the form misses, learned from its residuals; and intervals that hold what was left out. How and why is
told in ``docs/explanation/laws.md``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.data.tape import Tape, open_tape
from tokentape.display import Displayed
from tokentape.errors import TooFewPoints, UsageError
from tokentape.study.law.fitting import CONFIDENCE, Check, Fitted, fit_cells
from tokentape.study.law.gathering import Subject, cells_of, check_enough, check_one_machine, subject_of
from tokentape.study.law.points import Point, points_of
from tokentape.study.law.terms import Loads

if TYPE_CHECKING:
    from tokentape.study.cost.work import Workload
    from tokentape.study.law.measurements import Table

__all__ = ["Coefficient", "Law", "Part", "Prediction", "fit", "fit_points", "fit_table"]

STRANGE = 0.1
"""By how much a model that was not measured may be off as a whole: a standard deviation of logarithms, from before anything is
measured. Fitted on one architecture, laws of work met another one within 3 % (decode) and 12 % (prefill) in the median
(``benchmarks/law.py``)."""


@dataclass(frozen=True)
class Coefficient:
    """One coefficient of a law with its interval, in nanoseconds for each ``per`` (empty: each step).

    ``share`` is its term's part of the predicted time, averaged over the cells. A ``value`` of 0 lies on its bound.
    """

    name: str
    per: str
    meaning: str
    value: float
    low: float
    high: float
    share: float


@dataclass(frozen=True)
class Prediction:
    """A predicted time of one step, with the interval that holds a measurement of it with ``confidence``.

    ``law_ns`` is what the law's terms alone give, before the correction by what was measured nearby. ``beyond`` names each axis
    on which the question lies outside of what was measured, with how many times: 4.0 is four times the largest, 0.5 half the
    smallest; empty where nothing is extrapolated.
    """

    kind: str
    context: float
    batch: float
    ns: float
    low_ns: float
    high_ns: float
    confidence: float
    law_ns: float
    beyond: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Part:
    """The law of one kind of step.

    ``context`` and ``batch`` are the smallest and largest measured. ``check`` tells how it did on cells that the fit had not
    seen. ``left_out`` counts points by cause. ``clock`` says whose time it is. ``missed`` is by how much the form alone is off,
    ``visit`` by how much measurements of one cell differ: both standard deviations of logarithms.
    """

    kind: str
    form: str
    coefficients: tuple[Coefficient, ...]
    also: tuple[str, ...]
    check: Check | None
    n_points: int
    n_cells: int
    context: tuple[float, float]
    batch: tuple[int, int]
    left_out: Mapping[str, int]
    clock: str
    missed: float
    visit: float
    fitted: Fitted = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain values; the data that the fit rests on are not among them."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "fitted"}
        found["coefficients"] = [asdict(coefficient) for coefficient in self.coefficients]
        found["check"] = None if self.check is None else asdict(self.check)
        return found


@dataclass(frozen=True)
class Law(Displayed):
    """What :func:`fit` gives: a part for decode steps, one for prefills, or the reason why one is missing.

    ``subjects`` are the Settings that it was fitted to. A law of several Settings is one of bytes and operations, and answers
    for models that it never saw.
    """

    decode: Part | None
    prefill: Part | None
    missing: Mapping[str, str]
    subjects: tuple[Subject, ...]
    points: tuple[Point, ...] = field(repr=False, compare=False, default=())

    @property
    def pooled(self) -> bool:
        """Whether it is a law of bytes and operations; one of several Settings always is."""
        return self.subjects[0].pooled

    def part(self, kind: str) -> Part:
        """The part of a kind of step; raises TooFewPoints where there is none, with the reason."""
        if kind not in ("decode", "prefill"):
            raise UsageError(f"no kind {kind!r}", why="a law has decode and prefill", fix='kind="decode"')
        found = self.decode if kind == "decode" else self.prefill
        if found is None:
            raise TooFewPoints(
                f"the law has no part for {kind} steps",
                why=self.missing.get(kind, "none was measured"),
                fix="tokentape sweep MODEL --context 64..1024 measures both kinds",
            )
        return found

    def predict(
        self,
        *,
        context: float,
        batch: float = 1,
        kind: str = "decode",
        confidence: float = CONFIDENCE,
        of: Workload | str | None = None,
    ) -> Prediction:
        """The time of one step: of a decode step at ``context`` positions, or of a prefill of ``context`` tokens a sequence.

        ``of`` names the subject that is meant where there are several, or is the workload of a model that was not measured.
        Raises UsageError for an impossible question, TooFewPoints where the axis asked for was never varied.
        """
        _check_question(context, batch, confidence)
        group, workload = self._asked(of)
        if group < 0 and not self.pooled:
            return self.across().predict(context=context, batch=batch, kind=kind, confidence=confidence, of=of)
        part = self.part(kind)
        # one Setting: batch and context have to have varied; several: their work has
        if workload is None:
            _check_varied(part, context, batch)
        loads = Loads.of(kind, [context], [batch], None if workload is None else [workload])
        groups = np.array([group])
        estimate = part.fitted.estimate(loads, groups, strange=STRANGE if group < 0 else 0.0)
        ns, width = float(estimate.ns[0]), part.fitted.quantile(confidence) * float(estimate.deviation[0])
        return Prediction(
            kind=kind,
            context=float(context),
            batch=float(batch),
            ns=ns,
            low_ns=ns * float(np.exp(-width)),
            high_ns=ns * float(np.exp(width)),
            confidence=confidence,
            law_ns=float(part.fitted.plain(loads)[0]),
            beyond=_beyond(part, context, batch),
        )

    def time_of(self, kind: str, workload: Workload, context: float, batch: float) -> tuple[float, float, float]:
        """Nanoseconds of one step of a model and the two ends of their interval, as :func:`tokentape.predict` asks."""
        found = self.predict(context=context, batch=batch, kind=kind, of=workload)
        return found.ns, found.low_ns, found.high_ns

    def _asked(self, of: Workload | str | None) -> tuple[int, Workload | None]:
        """The group that is meant, -1 for none of them, and its workload where the law is one of work."""
        names = [subject.name for subject in self.subjects]
        if of is None and len(names) == 1:
            return 0, self.subjects[0].workload if self.pooled else None
        if isinstance(of, str) and of in names:
            place = names.index(of)
            return place, self.subjects[place].workload if self.pooled else None
        if of is None or isinstance(of, str):
            raise UsageError(
                "several Settings were measured; which is meant?" if of is None else f"no Setting {of!r} in this law",
                why=f"it was fitted to {', '.join(names)}",
                fix=f"of={names[0]!r}, or the workload of a model",
            )
        for place, subject in enumerate(self.subjects):
            if subject.workload is not None and _identity(of) == _identity(subject.workload):
                return place, of if self.pooled else None
        return -1, of

    @cached_property
    def _across(self) -> Law:
        return fit_points(self.points, tuple(subject.as_pooled() for subject in self.subjects))

    def across(self) -> Law:
        """The same measurements as a law of bytes and operations, which answers for other models on the same machine.

        Raises StudyError where the tape does not hold its model's configuration.
        """
        return self if self.pooled else self._across

    def sentence(self) -> str | None:
        """What context costs, in one sentence; None without a decode part or without its key-value term."""
        return None if self.decode is None else context_sentence(self.decode)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "subjects": [subject.as_dict() for subject in self.subjects],
            "decode": None if self.decode is None else self.decode.as_dict(),
            "prefill": None if self.prefill is None else self.prefill.as_dict(),
            "missing": dict(self.missing),
            "sentence": self.sentence(),
        }


Source = Tape | str | os.PathLike[str]


def fit(*tapes: Source, kinds: Sequence[str] = ("decode", "prefill")) -> Law:
    """Fit the law of latency to one tape or several.

    Tapes of one Setting are put together. Tapes of several models on one machine give a law of bytes and operations, for which
    each tape has to hold its model's configuration. Raises NotComparable for tapes of different machines, TooFewPoints where
    neither kind of step was measured at enough places, and what opening a tape raises.
    """
    if not tapes:
        raise UsageError("no tape was given", why="a law is fitted to measurements", fix="fit('sweep.tape')")
    subjects: list[Subject] = []
    points: list[Point] = []
    for source in tapes:
        tape = source if isinstance(source, Tape) else open_tape(source)
        try:
            subject = subject_of(tape)
            known = [other.fingerprint for other in subjects]
            if subject.fingerprint not in known:
                subjects.append(subject)
                known.append(subject.fingerprint)
            points += points_of(tape, {"subject": known.index(subject.fingerprint)})
        finally:
            if tape is not source:
                tape.close()
    check_one_machine(subjects)
    if len(subjects) > 1:
        subjects = [subject.as_pooled() for subject in subjects]
    return fit_points(points, tuple(subjects), kinds)


def fit_points(
    points: Sequence[Point], subjects: tuple[Subject, ...], kinds: Sequence[str] = ("decode", "prefill")
) -> Law:
    """Fit points whose label ``subject`` is an index into ``subjects``. Raises TooFewPoints where no kind has enough."""
    parts: dict[str, Part] = {}
    missing: dict[str, str] = {}
    for kind in kinds:
        these = [point for point in points if point.kind == kind]
        try:
            check_enough(these, kind)
            parts[kind] = _part(kind, these, subjects)
        except TooFewPoints as error:
            missing[kind] = f"{error.what}: {error.why}"
    if not parts:
        raise TooFewPoints(
            "no law can be fitted to this",
            why="; ".join(missing.values()),
            fix="tokentape sweep MODEL --context 64..1024 --batch 1,2,4 measures what a law needs",
        )
    return Law(parts.get("decode"), parts.get("prefill"), missing, subjects, tuple(points))


def fit_table(table: Table) -> list[Law]:
    """The laws of a table of measurements: one of bytes and operations for all subjects of a hardware whose architectures
    are known, and one of its own for each other.
    """
    hardware: dict[Any, list[int]] = {}
    for place, subject in enumerate(table.subjects):
        known = subject.workload is not None
        hardware.setdefault((subject.facts.get("gpu"), "known") if known else place, []).append(place)
    laws = []
    for places in hardware.values():
        points, subjects = table.of(places)
        pooled = len(subjects) > 1
        laws.append(fit_points(points, tuple(subject.as_pooled() for subject in subjects) if pooled else subjects))
    return laws


def _part(kind: str, points: Sequence[Point], subjects: tuple[Subject, ...]) -> Part:
    good = [point for point in points if point.cause is None]
    cells = cells_of(kind, good, subjects)
    fitted = fit_cells(cells)
    return Part(
        kind=kind,
        form=fitted.forms[0].name,
        coefficients=coefficients_of(fitted),
        also=tuple(form.name for form in fitted.forms[1:]),
        check=fitted.check,
        n_points=len(good),
        n_cells=len(cells),
        context=(float(cells.loads.context.min()), float(cells.loads.context.max())),
        batch=(int(cells.loads.batch.min()), int(cells.loads.batch.max())),
        left_out=dict(Counter(point.cause for point in points if point.cause is not None)),
        clock=str(good[0].labels.get("clock", "host")),
        missed=float(np.sqrt(fitted.kernel.variance + fitted.kernel.nugget**2)),
        visit=float(np.sqrt(cells.visit_variance)),
        fitted=fitted,
    )


def coefficients_of(fitted: Fitted, confidence: float = CONFIDENCE) -> tuple[Coefficient, ...]:
    """The coefficients of the law with their intervals; what lies on its bound has 0 below it."""
    form, values, discrepancy = fitted.forms[0], fitted.coefficients[0], fitted.discrepancies[0]
    quantile = fitted.quantile(confidence) * fitted.stretch
    found = []
    for i, term in enumerate(form.terms):
        # the term itself and those that are there: one on its bound is asked how large it might have been
        used = [j for j in range(len(values)) if values[j] > 0 or j == i]
        covariance = discrepancy.covariance_of(discrepancy.slopes[:, used])
        j = used.index(i)
        width = quantile * float(np.sqrt(covariance[j, j]))
        value = float(values[i])
        found.append(
            Coefficient(
                name=term.name,
                per=term.per,
                meaning=term.meaning,
                value=value,
                low=max(0.0, value - width),
                high=value + width,
                share=float(np.mean(discrepancy.slopes[:, i] * value)),
            )
        )
    return tuple(found)


def context_sentence(part: Part) -> str | None:
    """``each 1,000 tokens of context add 3.1 ms to a token (2.9 to 3.3)``, at batch 1."""
    found = {c.name: c for c in part.coefficients}
    terms = [found[name] for name in ("key-value", "positions") if name in found]
    if not terms:
        return None
    value, low, high = (sum(getattr(c, name) for c in terms) * 1000 / 1e6 for name in ("value", "low", "high"))
    return f"each 1,000 tokens of context add {value:.3g} ms to a token ({low:.3g} to {high:.3g}), at batch 1"


def _check_question(context: float, batch: float, confidence: float) -> None:
    for name, value in (("context", context), ("batch", batch)):
        if not (np.isfinite(value) and value >= 1):
            raise UsageError(f"{name} {value:g}", why=f"a {name} is 1 or more", fix=f"{name}=1")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence {confidence:g}", why="it lies between 0 and 1", fix="confidence=0.9")


def _identity(work: Workload) -> Any:
    """What two workloads share that are of one model in one dtype on as many devices, however they were asked for."""
    names = ("architecture", "dtype", "tensor_parallel")
    return tuple(getattr(work, name) for name in names) if hasattr(work, "architecture") else work


def _check_varied(part: Part, context: float, batch: float) -> None:
    low, high = part.batch
    if low == high != batch:
        raise TooFewPoints(
            f"how a {part.kind} step depends on the batch was not measured",
            why=f"every measured step had a batch of {low}, so that nothing tells what {batch:g} would take",
            fix=f"ask for batch {low}, or tokentape sweep MODEL --batch 1,2,4,8",
        )


def _beyond(part: Part, context: float, batch: float) -> dict[str, float]:
    found = {}
    for name, value, (low, high) in (("context", context, part.context), ("batch", batch, part.batch)):
        if value > high * 1.05:
            found[name] = value / high
        elif value < low / 1.05:
            found[name] = value / low
    return found
