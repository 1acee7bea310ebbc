"""Gradients as explanations: input x gradient, saliency, and integrated gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tokentape.errors import UsageError
from tokentape.explain.gradients.backward import parts, reduced
from tokentape.explain.gradients.baselines import Baseline, baseline_entries, entry_vectors
from tokentape.explain.gradients.path import Integral, integrated
from tokentape.explain.question import Attribution, Question, raised
from tokentape.explain.replacing.standins import neutral_id
from tokentape.explain.replay import Progress, Replay

__all__ = ["input_x_gradient", "integrated_gradients", "saliency"]

MOST_STEPS = 1000
"""More points of one Gauss-Legendre rule are not computed in a reasonable time, nor of use."""

FINE = 100
"""Parts of the way of one integral that progress is told in."""

Floats = npt.NDArray[np.float64]
Reduce = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def input_x_gradient(replay: Replay, question: Question, *, progress: Progress | None = None) -> Attribution:
    """How each value changes with each token's vector, times that vector: ``sum_d x[t, d] * dv / dx[t, d]``.

    Vectors are those that the model's entry gives: before a norm the product would be zero, since a norm does not see
    the length of what it reads. Source: M. Denil et al., "Extraction of Salient Sentences from Labelled Documents", 2014,
    section 3; A. Shrikumar et al., "Not Just a Black Box", 2016, section 2. Exact; one backward pass a target. Raises
    ExplainError where the model gives no gradients, OutOfMemory.
    """
    return _at_the_point(replay, question, progress, lambda gradients, own: (gradients * own).sum(-1))


def saliency(replay: Replay, question: Question, *, progress: Progress | None = None) -> Attribution:
    """How steeply each value changes with each token's vector, whichever way: ``sqrt(sum_d (dv / dx[t, d])^2)``.

    Never negative: it says that a source matters, not whether it speaks for or against. Vectors are those that the model's
    entry gives. Source: K. Simonyan et al., "Deep Inside Convolutional Networks", ICLR workshop 2014, section 3; for words
    J. Li et al., "Visualizing and Understanding Neural Models in NLP", NAACL 2016, section 5.1; the norm over a vector
    D. Atanasova et al., "A Diagnostic Study of Explainability Techniques for Text Classification", EMNLP 2020. Exact;
    one backward pass a target. Raises ExplainError where the model gives no gradients, OutOfMemory.
    """
    return _at_the_point(replay, question, progress, lambda gradients, own: gradients.norm(dim=-1))


def _at_the_point(replay: Replay, question: Question, progress: Progress | None, reduce: Reduce) -> Attribution:
    """What ``reduce`` makes of the gradients ``[..., T, D]`` at the recorded vectors ``[T, D]``."""
    n, stop = len(question.targets), question.targets[-1]
    replay.target_ids(question)
    entry = entry_vectors(replay, replay.ids_tensor(stop))
    relevance, value, done = np.zeros((question.n_rows, stop)), np.zeros(question.n_rows), 0
    whole = torch.zeros_like(raised(entry[0]))
    for row, part in parts(question, replay.causal.vocab_size):
        own = entry[:, : part.targets[-1]]
        if question.together:
            # the gradient of a sum is the sum of those of its parts, its norm is not
            values, found = reduced(replay, part, own, raised)
            whole[: own.shape[1]] += found[0, 0]
        else:
            values, found = reduced(replay, part, own, partial(_reduced, reduce, raised(own[0])))
            relevance[row : row + part.n_rows, : own.shape[1]] = found[:, 0].double().cpu().numpy()
        value[row : row + part.n_rows] += values[:, 0].double().cpu().numpy()
        done += len(part.targets)
        if progress is not None:
            progress(done, n)
    if question.together:
        relevance[0] = reduce(whole, raised(entry[0])).double().cpu().numpy()
    return Attribution(question.by_segment(relevance), value)


def _reduced(reduce: Reduce, own: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    return reduce(raised(gradients), own)


def integrated_gradients(
    replay: Replay,
    question: Question,
    *,
    baseline: Baseline = "token",
    steps: int | None = None,
    max_steps: int = 4096,
    draws: int = 4,
    seed: int = 0,
    progress: Progress | None = None,
) -> Attribution:
    """Gradients summed along the straight way from a neutral input b to the recorded x, times how far each vector goes.

    ``IG[t] = sum_d (x - b)[t, d] * integral_0^1 dv / dx[t, d] at b + a (x - b) da``, whose sum over tokens is ``v(x) - v(b)``
    (completeness). Source: M. Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017, equations 1-3.
    Vectors are those that the model's entry gives, before which a norm would make the way singular.

    ``baseline`` is ``"token"`` (a neutral token at each position), ``"mean"`` (the mean vector of the vocabulary), ``"zero"``,
    the id of another token, or ``"random"``: the mean over ``draws`` sequences of ordinary tokens (G. Erion et al.,
    "Improving performance of deep learning models with axiomatic attribution priors and expected gradients", 2021).
    Points are added until completeness holds to 1 % for each row, at most ``max_steps``; ``steps`` is a fixed number of points
    instead, by Gauss-Legendre. Choices of the largest scores (experts) are kept as the input makes them all along the way.

    ``notes`` say for each row the value at the baseline (of the path, with its choices kept) and the error of completeness
    as a part of the change (null where nothing changes), whether all rows converged, and the ``steps`` of the row that took
    most. Raises UsageError for a baseline or a number that cannot be, ExplainError where the model gives no gradients,
    OutOfMemory.
    """
    _check(steps, max_steps, draws)
    replay.target_ids(question)
    stop = question.targets[-1]
    entry = entry_vectors(replay, replay.ids_tensor(stop))
    bases = baseline_entries(replay, baseline, stop, draws=draws, seed=seed)
    todo = [(base, row, part) for base in bases.split(1) for row, part in parts(question, replay.causal.vocab_size)]
    total = _Total(question, len(bases))
    for index, (base, row, part) in enumerate(todo):
        last = part.targets[-1]
        found = integrated(
            replay,
            part,
            base[:, :last],
            entry[:, :last],
            steps=steps,
            most=max_steps,
            progress=_within(progress, index, len(todo)),
        )
        total.add(slice(row, row + part.n_rows), found)
        if progress is not None:
            progress((index + 1) * FINE, len(todo) * FINE)
    options = {"draws": draws, "seed": seed} if baseline == "random" else {}
    if baseline == "token":
        options = {"id": neutral_id(replay.causal)}
    return total.attribution({"baseline": baseline, **options})


def _check(steps: int | None, max_steps: int, draws: int) -> None:
    for name, number, most in (("steps", steps, MOST_STEPS), ("max_steps", max_steps, None), ("draws", draws, None)):
        if number is not None and not 1 <= number <= (most or number):
            raise UsageError(
                f"{name}={number}",
                why=f"points and draws are counted, each is at least 1{f', and steps at most {most}' if most else ''}",
                fix=f"{name}=16",
            )


def _within(progress: Progress | None, index: int, n: int) -> Callable[[float], None] | None:
    """What is told of the part of one way, as told of all of them."""
    if progress is None:
        return None
    return lambda part: progress(int((index + part) * FINE), n * FINE)


class _Total:
    """Integrals of several parts of a question, from one baseline or the mean over several."""

    def __init__(self, question: Question, n_bases: int) -> None:
        self._question = question
        self._share = 1 / n_bases
        self._along = np.zeros((question.n_rows, question.targets[-1]))
        self._start, self._change = np.zeros(question.n_rows), np.zeros(question.n_rows)
        self._converged, self._steps, self._choices = True, 0, 0

    def add(self, rows: slice, found: Integral) -> None:
        """Add an integral to some rows."""
        self._along[rows, : found.along.shape[1]] += self._share * found.along
        self._start[rows] += self._share * found.start
        self._change[rows] += self._share * found.change
        self._converged &= bool(found.converged.all())
        self._steps = max(self._steps, found.steps)
        self._choices = max(self._choices, found.choices)

    def attribution(self, notes: dict[str, Any]) -> Attribution:
        """What was found of all rows."""
        error, change = np.abs(self._along.sum(1) - self._change), np.abs(self._change)
        found = {
            "steps": self._steps,
            "converged": self._converged,
            "completeness": [float(e / c) if c else None for e, c in zip(error, change, strict=True)],
            "baseline_value": [float(value) for value in self._start],
            "choices_kept": self._choices,
        }
        return Attribution(self._question.by_segment(self._along), self._start + self._change, notes={**notes, **found})
