"""Sanity: does a map change with the model it explains, and turn its sign when target and foil change places?

A map that stays when the weights are shuffled explains something else than the model: the input, or where tokens stand.
Source: J. Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018, section 3.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tokentape.errors import UsageError
from tokentape.explain.judging.estimates import Estimate, bootstrapped, rank_correlation
from tokentape.explain.judging.faithfulness import Explainer, explainers
from tokentape.explain.question import Question
from tokentape.explain.replay import Progress, Replay
from tokentape.models.anatomy import anatomy_of
from tokentape.models.causal import CausalModel

__all__ = [
    "CHANGED",
    "FLIPPED",
    "FoilSwap",
    "Randomisation",
    "foil_swap",
    "parameter_randomisation",
    "randomised",
    "stages_of",
]

CHANGED = 0.2
"""A map has changed where its rank correlation with the map before, averaged over items, lies within this of zero."""

FLIPPED = 1e-6
"""Largest sum of a relevance and its swapped one, relative to the item's largest, that counts as a turned sign."""

Floats = npt.NDArray[np.float64]
Pairs = Iterable[tuple[Replay, Question]]
Methods = Iterable[str | Explainer] | Mapping[str, str | Explainer]


@dataclass(frozen=True, slots=True)
class Randomisation:
    """How alike the maps of one method are before and after the model's parameters were shuffled down to ``stage``.

    ``rho`` is Spearman's correlation of an item's relevance with that under the shuffled model, the mean over shuffles and
    then over items; ``rho_rest`` leaves out position 0, on which many models rest whatever they read. ``size`` and ``size_rest``
    are the same of ``|rho|``; unrelated maps would have ``chance``, which is not 0, for an item has few sources. What maps have
    in common only because of where their tokens stand counts against a method.
    """

    method: str
    stage: str
    rho: Estimate
    rho_rest: Estimate
    size: Estimate
    size_rest: Estimate
    chance: float

    @property
    def changed(self) -> bool:
        """Whether both mean correlations lie within :data:`CHANGED` of zero; not so where there is none."""
        means = (self.rho.mean, self.rho_rest.mean)
        return all(mean is not None and abs(mean) < CHANGED for mean in means)


@dataclass(frozen=True, slots=True)
class FoilSwap:
    """Whether the relevance of the target against the foil is that of the foil against the target, with its sign turned.

    ``largest`` is the largest ``|there + back|`` over the ``n`` targets, relative to the largest ``|there|`` of each;
    ``exact`` says that all are equal to the bit.
    """

    method: str
    n: int
    largest: float
    exact: bool

    @property
    def flipped(self) -> bool:
        return self.largest <= FLIPPED


def stages_of(causal: CausalModel) -> list[tuple[str, list[nn.Parameter]]]:
    """The model's parameters from the output down: head, last norm, blocks from the last on, what is left; each once.

    A head that shares its weights with the embedding takes them along.
    """
    anatomy = anatomy_of(causal.model)
    named: list[tuple[str, nn.Module | None]] = [("head", anatomy.head), ("final norm", anatomy.final_norm)]
    named += [(f"block {i}", block) for i, block in reversed(list(enumerate(anatomy.blocks)))]
    seen: set[int] = set()
    stages = []
    for name, module in [*named, ("embedding", causal.model)]:
        own = [] if module is None else [p for p in module.parameters() if id(p) not in seen]
        seen.update(map(id, own))
        if own:
            stages.append((name, own))
    return stages


def randomised(causal: CausalModel, seed: int, n_stages: int | None = None) -> CausalModel:
    """A copy of the model with the values of each parameter shuffled, of the first ``n_stages`` of :func:`stages_of` or of all.

    Shuffled, not drawn anew: a parameter keeps its spread, so that the model stays as wide awake as it was. The model
    itself is not touched.
    """
    other = replace(causal, model=copy.deepcopy(causal.model))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameters in stages_of(other)[:n_stages]:
            for parameter in parameters:
                shuffle = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                parameter.copy_(parameter.flatten()[shuffle].view_as(parameter))
    return other


def parameter_randomisation(
    items: Pairs,
    methods: Methods,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    cascading: bool = False,
    progress: Progress | None = None,
) -> list[Randomisation]:
    """Compare the maps of each method with those of the same questions on shuffled copies of the model.

    All parameters at once, or, ``cascading``, from the output down, a stage of :func:`stages_of` more at a time. Raises
    UsageError where there is nothing to compare, or the items are of several models.
    """
    pairs, named = list(items), explainers(methods)
    causal = _one_model(pairs)
    stages = [name for name, _ in stages_of(causal)]
    depths = range(1, len(stages) + 1) if cascading else [len(stages)]
    before = {name: [method(*pair).relevance for pair in pairs] for name, method in named.items()}
    found, done = [], 0
    for depth in depths:
        alike: dict[str, list[Floats]] = {name: [] for name in named}
        for seed in seeds:
            other = randomised(causal, seed, depth)
            for name, method in named.items():
                after = [method(replace(replay, causal=other), question).relevance for replay, question in pairs]
                alike[name].append(np.concatenate(list(map(_alike, pairs, before[name], after))))
            done += 1
            if progress is not None:
                progress(done, len(depths) * len(seeds))
        stage = stages[depth - 1] if cascading else "all"
        found += [_randomisation(name, stage, np.array(rhos), _chance(pairs)) for name, rhos in alike.items()]
    return found


def _one_model(pairs: Sequence[tuple[Replay, Question]]) -> CausalModel:
    models = {id(replay.causal.model): replay.causal for replay, _ in pairs}
    if len(models) != 1:
        raise UsageError(
            f"items of {len(models)} models",
            why="the parameters of one model are shuffled, and its maps compared",
            fix="give at least one item, and those of each model by themselves",
        )
    return next(iter(models.values()))


def _alike(pair: tuple[Replay, Question], a: Floats, b: Floats) -> Floats:
    """Rank correlations ``[n_rows, 2]`` of two maps of a pair, over all sources and without the one at position 0."""
    rest = np.array([start > 0 for start, _ in pair[1].segments])
    return np.array([[rank_correlation(x, y), rank_correlation(x[rest], y[rest])] for x, y in zip(a, b, strict=True)])


def _chance(pairs: Sequence[tuple[Replay, Question]]) -> float:
    """Mean size of a rank correlation of unrelated maps: that of a normal variable of variance 1 / (n - 1), n sources."""
    counts = np.concatenate([question.visible().sum(1) for _, question in pairs])
    return float(np.mean([math.sqrt(2 / math.pi / (n - 1)) if n > 1 else math.nan for n in counts]))


def _randomisation(method: str, stage: str, rhos: Floats, chance: float) -> Randomisation:
    """From correlations ``[seeds, items, 2]``; a map that is constant under some seed counts by the others."""
    known = ~np.isnan(rhos)
    n = known.sum(0)

    def mean(values: Floats) -> Floats:
        return np.where(n > 0, np.where(known, values, 0).sum(0) / np.maximum(n, 1), np.nan)

    (rho, rho_rest), (size, size_rest) = ([bootstrapped(v) for v in mean(some).T] for some in (rhos, np.abs(rhos)))
    return Randomisation(method, stage, rho, rho_rest, size, size_rest, chance)


def foil_swap(items: Pairs, methods: Methods) -> list[FoilSwap]:
    """Ask each target of the items against its foil, then the foil against the target, in the same context.

    Raises UsageError for a question without foils.
    """
    turned = [two for replay, question in items for two in _turned(replay, question)]
    return [_foil_swap(name, method, turned) for name, method in explainers(methods).items()]


Turned = tuple[tuple[Replay, Question], tuple[Replay, Question]]


def _turned(replay: Replay, question: Question) -> Iterator[Turned]:
    """For each target, its own question and the one with target and foil changed; later tokens see neither."""
    if question.kind != "foil":
        raise UsageError(
            f"a question of kind {question.kind!r} has no foil to change places with",
            why="the swap compares a target against its foil with the foil against the target",
            fix="Question(targets, kind='foil', foils=...)",
        )
    for position, foil in zip(question.targets, question.foils, strict=True):
        token, before = replay.ids[position], replay.ids[:position]
        there = Question((position,), "foil", (foil,), question.segments)
        back = replace(there, foils=(token,))
        yield (replace(replay, ids=(*before, token)), there), (replace(replay, ids=(*before, foil)), back)


def _foil_swap(name: str, method: Explainer, turned: Sequence[Turned]) -> FoilSwap:
    largest, exact = 0.0, True
    for one, other in turned:
        there, back = method(*one).relevance, method(*other).relevance
        exact = exact and np.array_equal(there, -back, equal_nan=True)
        size = float(np.nanmax(np.abs(there)))
        gap = float(np.nanmax(np.abs(there + back)))
        largest = max(largest, gap / size if size else gap)
    return FoilSwap(name, len(turned), largest, exact)
