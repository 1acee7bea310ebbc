"""Faithfulness: does a method name the sources on which the model's answer rests?

Two tests, neither of which asks whether an explanation looks right. *Replace* what it names and see how the value falls
(:mod:`tokentape.explain.judging.deletion`): no truth is needed, but the model is asked about inputs it may never have seen. *Plant*
evidence, and see whether the explanation finds it: there the truth is known, and the input is ordinary.

Figures of one item, ``OP`` an operator, ``Q`` a percentage:

| figure | meaning | better |
|---|---|---|
| ``abpc_OP`` | area between the deletion curves of the least and the most relevant first | higher |
| ``deletion_OP`` | mean of the curve of deletion, most relevant first (MoRF) | lower |
| ``insertion_OP`` | mean of the curve of insertion, most relevant first; of deletion, least relevant first (LeRF) | higher |
| ``comprehensiveness_OP_Q`` | fall of the value when the top Q % of sources are replaced; without Q, the mean | higher |
| ``sufficiency_OP_Q`` | fall of the value when all but the top Q % are replaced; without Q, the mean | lower |
| ``leave_one_out`` | rank correlation (Spearman) with the fall of the value when each source alone is replaced | higher |
| ``hit`` | whether the most relevant source lies in the evidence (hit@1) | higher |
| ``mass`` | share of the positive relevance that lies in the evidence | higher |
| ``mass_related`` | the same of the evidence and what points at it | higher |
| ``first`` | share of the absolute relevance on the first source, where attention has its sink | - |
| ``forward``, ``backward`` | sequences through the model for the method itself | lower |
| ``cpu_seconds`` | CPU time of the method itself, all threads | lower |

Values are in the unit of the question: logits, or nats. Sources: comprehensiveness and sufficiency: J. DeYoung et al., "ERASER",
ACL 2020, section 5; theirs removes tokens and reads probabilities. Mass: L. Arras et al., "CLEVR-XAI", Information Fusion 81
(2022), section 3.3.
"""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from tokentape.errors import ExplainError, UsageError
from tokentape.explain.judging.deletion import Bools, Deletion, Order, curves, order
from tokentape.explain.judging.estimates import RESAMPLES, rank_correlation
from tokentape.explain.judging.evaluation import GRID, Evaluation
from tokentape.explain.methods import Method, method_named
from tokentape.explain.question import Attribution, Question
from tokentape.explain.replacing.standins import OPERATORS, fills
from tokentape.explain.replay import Passes, Progress, Replay

__all__ = ["PERCENTS", "Explainer", "evaluate", "explainers", "random_order"]

Floats = npt.NDArray[np.float64]
Explainer = Callable[[Replay, Question], Attribution]
Positions = Collection[int]

PERCENTS = (10, 20, 50)


def random_order(replay: Replay, question: Question, seed: int = 0) -> Attribution:
    """Relevance drawn at random: the floor that a method has to be above. The same question has the same answer."""
    rng = np.random.default_rng([seed, *question.targets, *replay.ids])
    drawn = np.where(question.visible(), rng.random((question.n_rows, question.n_segments)), np.nan)
    return Attribution(drawn, np.full(question.n_rows, np.nan))


def explainers(methods: Iterable[str | Explainer] | Mapping[str, str | Explainer]) -> dict[str, Explainer]:
    """Methods by the name they are shown with: names of the table, its entries, functions, or a mapping that names them.

    Raises UsageError for a name that the table does not have, and for two methods of one name.
    """
    if isinstance(methods, Mapping):
        return {name: method_named(m) if isinstance(m, str) else m for name, m in methods.items()}
    named: dict[str, Explainer] = {}
    for given in [methods] if isinstance(methods, str) else methods:
        method = method_named(given) if isinstance(given, str) else given
        name = _name(method)
        if name in named:
            raise UsageError(
                f"two methods are called {name!r}",
                why="figures are told apart by the methods' names",
                fix="evaluate(items, {'ours': one, 'theirs': other})",
            )
        named[name] = method
    return named


def _name(method: Explainer) -> str:
    if isinstance(method, Method):
        return method.name
    if isinstance(method, functools.partial):
        return _name(method.func)
    return getattr(method, "__name__", type(method).__name__)


def evaluate(
    items: Iterable[tuple[Replay, Question]],
    methods: Iterable[str | Explainer] | Mapping[str, str | Explainer],
    evidence: Sequence[Positions | None] | None = None,
    operators: Sequence[str] = OPERATORS,
    *,
    related: Sequence[Positions | None] | None = None,
    draws: int = 3,
    steps: int = 20,
    percents: Sequence[int] = PERCENTS,
    seed: int = 0,
    resamples: int = RESAMPLES,
    progress: Progress | None = None,
) -> Evaluation:
    """The figures of each method on each question, a row of a question being an item of its own.

    ``methods`` are names of the table, or functions ``(replay, question) -> Attribution``; ``evidence`` has for each pair
    the positions that decide the target, or None, ``related`` those that point at them. All visible sources may be
    replaced, by each of the ``operators`` (:data:`~tokentape.explain.replacing.standins.OPERATORS`; ``random`` with that many
    ``draws``, the same for all methods); curves have at most ``steps`` steps. Sources to which a method gives NaN are never
    replaced for it. Equal arguments give equal figures, CPU seconds apart. ``progress`` is told how many pairs are done,
    and of how many.

    A method that refuses a pair (ExplainError) is left out of all figures, and its reason is kept. Raises UsageError where
    an answer does not fit its question, or ``evidence`` its items.
    """
    pairs = list(items)
    planted = [_each(given, len(pairs)) for given in (evidence, related)]
    judge = _Judge(explainers(methods), tuple(operators), draws, steps, tuple(percents), seed, resamples)
    for number, (replay, question) in enumerate(pairs):
        judge.pair(number, replay, question, *(given[number] for given in planted))
        if progress is not None:
            progress(number + 1, len(pairs))
    return judge.evaluation()


def _each(given: Sequence[Positions | None] | None, n: int) -> Sequence[Positions | None]:
    if given is not None and len(given) != n:
        raise UsageError(
            f"evidence for {len(given)} items, and there are {n}",
            why="each item has evidence of its own, or None",
            fix="evidence=[{3, 4}, None, ...], one for each (replay, question)",
        )
    return [None] * n if given is None else given


@dataclass
class _Judge:
    """Grows by a pair of replay and question at a time, then becomes an Evaluation."""

    methods: dict[str, Explainer]
    operators: tuple[str, ...]
    draws: int
    steps: int
    percents: tuple[int, ...]
    seed: int
    resamples: int
    found: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    drawn: dict[str, dict[str, list[Floats]]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    items: list[tuple[int, int]] = field(default_factory=list)
    passes: int = 0
    cpu_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.found = {name: defaultdict(list) for name in self.methods}
        self.drawn = {name: defaultdict(list) for name in self.methods}

    def pair(self, number: int, replay: Replay, question: Question, *planted: Positions | None) -> None:
        """Ask every method, and judge each row of its answer."""
        answers = {}
        for name, method in self.methods.items():
            if name not in self.refused:
                try:
                    answers[name] = _asked(name, method, replay, question)
                except ExplainError as error:
                    self.refused[name] = f"{error.what}: {error.why}"
        start, own = time.process_time(), replace(replay, passes=Passes())
        made = fills(own, self.operators, self.draws, np.random.default_rng([self.seed, number]))
        for row in range(question.n_rows):
            self.items.append((number, row))
            deletion = Deletion(own, question, row, made)
            for name, (answer, cost) in answers.items():
                relevance = np.where(deletion.visible, answer.relevance[row], np.nan)
                # ties fall alike for all methods
                ordered = order(relevance, np.random.default_rng([self.seed, number, row]))
                hit = _found(question, relevance, ordered, *planted)
                for figure, value in {**hit, **self._deleted(name, deletion, relevance, ordered), **cost}.items():
                    self.found[name][figure].append(value)
        self.passes += own.passes.forward
        self.cpu_seconds += time.process_time() - start

    def _deleted(self, name: str, deletion: Deletion, relevance: Floats, ordered: Order) -> dict[str, float]:
        figures: dict[str, float] = {}
        tops = {percent: max(1, int(len(ordered) * percent / 100 + 0.5)) for percent in self.percents}
        for operator in self.operators:
            found = curves(deletion, ordered, operator, self.steps)
            shares = found.counts / max(found.counts[-1], 1)
            self.drawn[name][f"most_{operator}"].append(np.interp(GRID, shares, found.most))
            self.drawn[name][f"least_{operator}"].append(np.interp(GRID, shares, found.least))
            figures[f"abpc_{operator}"] = found.area
            figures[f"deletion_{operator}"] = float(found.most.mean())
            figures[f"insertion_{operator}"] = float(found.least.mean())
            without = deletion.without([ordered[:top] for top in tops.values()], operator)
            only = deletion.without([ordered[top:] for top in tops.values()], operator)
            for figure, values in (("comprehensiveness", without), ("sufficiency", only)):
                falls = deletion.full - values
                figures[f"{figure}_{operator}"] = float(falls.mean())
                figures |= {f"{figure}_{operator}_{top}": float(fall) for top, fall in zip(tops, falls, strict=True)}
        alone = deletion.leave_one_out(self.operators[0])
        return {**figures, "leave_one_out": rank_correlation(relevance, alone)}

    def evaluation(self) -> Evaluation:
        kept = [name for name in self.methods if name not in self.refused]
        settings = ("operators", "draws", "steps", "percents", "seed", "resamples")
        return Evaluation(
            figures={name: {k: np.array(v) for k, v in self.found[name].items()} for name in kept},
            curves={name: {k: np.array(v) for k, v in self.drawn[name].items()} for name in kept},
            items=tuple(self.items),
            refused=self.refused,
            settings={name: getattr(self, name) for name in settings},
            passes=self.passes,
            cpu_seconds=self.cpu_seconds,
        )


def _asked(name: str, method: Explainer, replay: Replay, question: Question) -> tuple[Attribution, dict[str, float]]:
    """A method's answer and what it cost, shared out among the rows."""
    own = replace(replay, passes=Passes())
    start = time.process_time()
    answer = method(own, question)
    seconds = time.process_time() - start
    wanted = (question.n_rows, question.n_segments)
    if np.shape(answer.relevance) != wanted:
        raise UsageError(
            f"{name} gave relevance of shape {np.shape(answer.relevance)}, and {wanted} was asked for",
            why="each row of the question has a value for each of its segments, NaN where it cannot see it",
            fix="return Attribution(relevance=question.by_segment(per_token), value=...)",
        )
    costs = {"forward": own.passes.forward, "backward": own.passes.backward, "cpu_seconds": seconds}
    return answer, {figure: cost / question.n_rows for figure, cost in costs.items()}


def _found(
    question: Question, relevance: Floats, ordered: Order, evidence: Positions | None, related: Positions | None
) -> dict[str, float]:
    """What the relevance ``[S]`` of one row says of the evidence, and of the first source."""
    total = float(np.nansum(np.abs(relevance)))
    first = float(np.nan_to_num(np.abs(relevance[0]))) / total if total else np.nan
    figures = {"hit": np.nan, "mass": np.nan, "mass_related": np.nan, "first": first}
    if evidence is not None and len(ordered):
        decisive = _holding(question, evidence)
        positive = np.nan_to_num(relevance.clip(min=0))
        figures["hit"] = float(decisive[ordered[0]])
        if positive.any():
            figures["mass"] = float(positive[decisive].sum() / positive.sum())
            figures["mass_related"] = float(
                positive[decisive | _holding(question, related or ())].sum() / positive.sum()
            )
    return figures


def _holding(question: Question, positions: Positions) -> Bools:
    """Which segments ``[S]`` hold one of the positions."""
    return np.array([any(start <= position < stop for position in positions) for start, stop in question.segments])
