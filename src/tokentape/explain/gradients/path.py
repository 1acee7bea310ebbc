"""The integral of gradients along the straight way from a neutral input to the recorded one, as exact as is asked.

The way is cut into panels, each integrated by Gauss-Legendre. What a panel should give is known without its integral: how
much the value changes from its start to its end. So each panel knows its error, and those that are off are halved until
the errors together are small. Points thus gather where the value is steep, which for most models is near the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tokentape.explain.gradients.backward import BATCH_TOKENS, contracted, recorded
from tokentape.explain.gradients.choices import Kept, Noted, Unbroken
from tokentape.explain.question import Question
from tokentape.explain.replay import HEAD_BYTES, Replay

__all__ = ["TOLERANCE", "Integral", "integrated"]

TOLERANCE = 0.01
"""Largest error, as a part of the value's change from the baseline to the input."""

FLOOR = 1e-5
"""Errors below this part of the value itself do not count: they are its rounding, where the change is small."""

POINTS = 8
"""Points of a panel."""

NARROWEST = 2.0**-30
"""Panels are not halved below this: the value jumps there, and does not get smoother."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Integral:
    """``along`` ``[n_rows, T]``: for each position the integral of the gradient times how far its vector goes; ``change``
    ``[n_rows]`` how much the value does change from ``start`` ``[n_rows]``; ``converged`` ``[n_rows]``; ``steps`` at how
    many points gradients were taken; ``choices`` how many hard choices were kept as the input made them.
    """

    along: Floats
    start: Floats
    change: Floats
    converged: npt.NDArray[np.bool_]
    steps: int
    choices: int


@dataclass(frozen=True, eq=False)
class _Panel:
    start: float
    stop: float
    along: Floats
    error: Floats


class _Way:
    """Points between two inputs ``[1, T, D]``, 0 the first and 1 the second, with the choices that the second makes."""

    def __init__(self, replay: Replay, question: Question, base: torch.Tensor, entry: torch.Tensor) -> None:
        self._replay, self._question = replay, question
        self._base, self._entry = base, entry
        self._noted: dict[int, list[torch.Tensor]] = {}
        self.known: dict[float, Floats] = {}
        self.values([1.0])
        self.values([0.0])

    @property
    def choices(self) -> int:
        """Hard choices of one sequence."""
        return len(self._noted[1])

    def values(self, places: Sequence[float]) -> None:
        """Have the values ``[n_rows]`` at some places in :attr:`known`."""
        for some in self._batches([place for place in places if place not in self.known]):
            self.known.update(zip(some, self._values(self._inputs(some), self._mode(len(some))).T, strict=True))

    def slopes(self, places: Sequence[float]) -> Floats:
        """What moving along the way changes, by position: ``[n_rows, P, T]``."""
        found = []
        for some in self._batches(places):
            mode, direction = self._mode(len(some)), self._entry - self._base
            _, along = contracted(self._replay, self._question, self._inputs(some), direction, mode)
            found.append(along.cpu().double().numpy())
        return np.concatenate(found, 1)

    def _mode(self, size: int) -> Unbroken:
        """Choices are kept as so many copies of the input make them: in a batch they may come in another order."""
        if size not in self._noted:
            noted = Noted()
            if size == 1 or self.choices:
                self._values(self._entry.repeat(size, *[1] * (self._entry.dim() - 1)), noted)
            self._noted[size] = noted.choices
        return Kept(self._noted[size])

    def _inputs(self, places: Sequence[float]) -> torch.Tensor:
        at = torch.tensor(places, dtype=self._entry.dtype, device=self._entry.device)
        at = at.view(-1, *[1] * (self._entry.dim() - 1))
        # exact at both ends
        return torch.lerp(self._base, self._entry, at)

    def _values(self, inputs: torch.Tensor, mode: Unbroken) -> Floats:
        replay, question = self._replay, self._question
        # a model that switches gradients off shows its choices by it: they have to be on
        with recorded(replay, mode):
            logits = replay.logits(question.targets, entry=inputs.clone())
        values = question.fold(question.values(logits.detach(), replay.target_ids(question)).transpose(0, 1))
        found: Floats = values.cpu().double().numpy()
        return found

    def _batches(self, places: Sequence[float]) -> Iterator[Sequence[float]]:
        length, head = self._entry.shape[1], 4 * len(self._question.targets) * self._replay.causal.vocab_size
        size = max(1, min(BATCH_TOKENS // length, HEAD_BYTES // head))
        for start in range(0, len(places), size):
            yield places[start : start + size]


def integrated(
    replay: Replay,
    question: Question,
    base: torch.Tensor,
    entry: torch.Tensor,
    *,
    steps: int | None,
    most: int,
    progress: Callable[[float], None] | None = None,
) -> Integral:
    """The integral from ``base`` to ``entry``, both ``[1, T, D]``.

    With ``steps`` one panel of so many points; without it panels until each row's errors together are within
    :data:`TOLERANCE`, or ``most`` points are spent. ``progress`` is told which part of the way is done.
    """
    way = _Way(replay, question, base, entry)
    start, end = way.known[0.0], way.known[1.0]
    change = end - start
    scale = np.maximum(1, np.maximum(np.abs(start), np.abs(end)))
    rounding = max(FLOOR, 16 * torch.finfo(entry.dtype).eps)
    allowed = np.maximum(TOLERANCE * np.abs(change), rounding * scale)
    panels = _panels(way, [(0.0, 1.0)], steps or POINTS)
    spent = steps or POINTS
    while steps is None:
        off = _to_halve(panels, allowed, (most - spent) // (2 * POINTS))
        if not off:
            break
        if progress is not None:
            progress(1 - sum(panel.stop - panel.start for panel in off))
        halves = [half for panel in off for half in _halves(panel)]
        panels = [panel for panel in panels if panel not in off] + _panels(way, halves, POINTS)
        spent += POINTS * len(halves)
    along: Floats = np.sum([panel.along for panel in panels], 0)
    error = np.abs(along.sum(1) - change)
    return Integral(along, start, change, error <= allowed, spent, way.choices)


def _panels(way: _Way, ranges: Sequence[tuple[float, float]], points: int) -> list[_Panel]:
    nodes, weights = np.polynomial.legendre.leggauss(points)
    way.values([end for _, end in ranges])
    places = [float(a + (b - a) * (node + 1) / 2) for a, b in ranges for node in nodes]
    slopes = way.slopes(places)
    found = []
    for index, (a, b) in enumerate(ranges):
        own = slopes[:, index * points : (index + 1) * points]
        along = np.einsum("rpt,p->rt", own, weights * (b - a) / 2)
        found.append(_Panel(a, b, along, along.sum(1) - (way.known[b] - way.known[a])))
    return found


def _to_halve(panels: list[_Panel], allowed: Floats, room: int) -> list[_Panel]:
    """Panels that a row's error is owed to, worst first and no more than there is room for; none where all rows are done.

    Done is a row whose error is allowed, and would be if the panels' errors had other signs.
    """
    errors = np.array([panel.error for panel in panels])
    if (np.abs(errors.sum(0)) <= allowed).all() and (np.sqrt((errors**2).sum(0)) <= allowed).all():
        return []
    shares = [
        (float((np.abs(panel.error) / allowed).max()), panel)
        for panel in panels
        if panel.stop - panel.start > NARROWEST
    ]
    owed = [pair for pair in shares if pair[0] > 0.5 / len(panels)]
    return [panel for _, panel in sorted(owed, key=lambda pair: -pair[0])[:room]]


def _halves(panel: _Panel) -> tuple[tuple[float, float], tuple[float, float]]:
    middle = (panel.start + panel.stop) / 2
    return (panel.start, middle), (middle, panel.stop)
