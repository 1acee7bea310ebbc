"""Change points of a series, and the warm-up at its start, found from the series itself.

The level of the series is taken as piecewise constant: the segments are those that minimise the squared distance from their
means plus a penalty for each change, found exactly by PELT (R. Killick, P. Fearnhead, I. A. Eckley, "Optimal detection of
changepoints with a linear computational cost", JASA 107, 2012). Three things keep it from seeing changes in what is noise:

- outliers, up to three in a row (context switches), are drawn in to three deviations from the median of their neighbours;
- the deviation is a median over differences of neighbours, which a change of level does not touch;
- the penalty grows with the autocorrelation, as the variance of a mean does: ``(1 + r) / (1 - r)``, with ``r`` from the ratio of
  differences two apart to differences one apart, which is ``1 + r``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["MAD_TO_SD", "change_points", "warm_up"]

Floats = npt.NDArray[np.float64]

FEWEST = 6
"""Of fewer values nothing is said."""

EXACT = 2000
"""Series longer than this are cut into so many blocks, whose medians are looked at first."""

PENALTY = 3.0
"""A change costs so many times ``ln n`` variances: a parameter of level, one of place, and one to be on the safe side."""

DEVIATIONS = 3.0

SLOWER = math.log(1.01)
"""What is within one per cent of the settled level is settled."""

MAD_TO_SD = 1.4826
"""A normal distribution's standard deviation over the median of its absolute deviations."""

_MOST_R = 0.9


def change_points(values: Sequence[float] | Floats) -> list[int]:
    """Where the level of ``values`` changes: the indexes at which a new level begins, ascending, 0 never among them.

    Give logarithms of times, whose noise grows with them. Fewer than six values have no change points. Raises ValueError for
    values that are not finite.
    """
    series = np.asarray(values, dtype=np.float64)
    if not np.isfinite(series).all():
        raise ValueError("a series with values that are not finite has no change points")
    n = len(series)
    if n < FEWEST:
        return []
    if n <= EXACT:
        return _changes(series)
    size = -(-n // EXACT)
    n_blocks = n // size
    medians = np.median(series[: n_blocks * size].reshape(n_blocks, size), axis=1)
    coarse = [cut * size for cut in _changes(medians)]
    return _moved([0, *coarse, n], series, size)


def warm_up(times: Sequence[float] | Floats) -> int:
    """How many of the first ``times`` (positive, in any unit) are slower because something was being prepared.

    The settled level is that of the second half. Left out are the first segments between change points whose level is above
    it, and then the values above its band of three deviations; never more than half of all. 0 where the series begins as it
    goes on, and for fewer than six values. Raises ValueError for times that are not positive.
    """
    series = np.asarray(times, dtype=np.float64)
    if not (series > 0).all():
        raise ValueError("times are positive")
    n = len(series)
    if n < FEWEST:
        return 0
    logs = np.log(series)
    settled = logs[n // 2 :]
    level = float(np.median(settled))
    # of few settled values the median is a guess, so the differences of all have a say
    deviation = max(MAD_TO_SD * float(np.median(np.abs(settled - level))), _deviation(np.diff(logs)) / math.sqrt(2))
    most = n // 2
    head = logs[: max(min(n, EXACT), FEWEST)]
    cuts = [*change_points(head), len(head)]
    first, left_out = 0, 0
    for cut in cuts:
        margin = max(SLOWER, DEVIATIONS * deviation / math.sqrt(cut - first))
        if cut > most or float(np.median(logs[first:cut])) <= level + margin:
            break
        first = left_out = cut
    while left_out and logs[left_out - 1] <= level + max(SLOWER, deviation):  # an outlier drawn in blurs the place
        left_out -= 1
    while left_out < most and logs[left_out] > level + max(SLOWER, DEVIATIONS * deviation):
        left_out += 1
    return left_out


def _changes(series: Floats) -> list[int]:
    drawn_in, variance = _tamed(series)
    return _pelt(drawn_in, PENALTY * math.log(len(series)) * variance)


def _tamed(series: Floats) -> tuple[Floats, float]:
    """The series with its outliers drawn in, and the variance of its noise as it counts for means."""
    one, two = _deviation(series[1:] - series[:-1]), _deviation(series[2:] - series[:-2])
    scale = float(np.abs(series).max())
    if one <= 1e-12 * scale:  # most neighbours are equal: a clock that ticks coarsely, or a series on paper
        one = max(float(np.abs(np.diff(series)).mean()) / len(series), 1e-12 * scale, 1e-300)
        two = one
    r = min(max((two / one) ** 2 - 1 - 1 / math.sqrt(len(series)), 0.0), _MOST_R)
    width = DEVIATIONS * one / math.sqrt(2 * (1 - r))
    middle = _running_median(series)
    drawn_in = np.clip(series, middle - width, middle + width)
    # of what is left of heavy tails the differences know, and the median does not
    variance = max(one**2, float(np.mean(np.diff(drawn_in) ** 2))) / (2 * (1 - r))
    return drawn_in, variance * (1 + r) / (1 - r)


def _deviation(differences: Floats) -> float:
    return MAD_TO_SD * float(np.median(np.abs(differences)))


def _running_median(series: Floats) -> Floats:
    """The median of seven neighbours; at the ends of the last four. A level that holds for four values is kept."""
    if len(series) < 7:
        return np.full(len(series), np.median(series))
    found = series.copy()
    found[3:-3] = np.median(np.lib.stride_tricks.sliding_window_view(series, 7), axis=1)
    found[:3], found[-3:] = np.median(series[:4]), np.median(series[-4:])
    return found


def _pelt(series: Floats, penalty: float) -> list[int]:
    """The change points that minimise squared distances plus ``penalty`` for each, exactly."""
    n = len(series)
    centred = series - series.mean()
    sums = np.concatenate([[0.0], np.cumsum(centred)])
    squares = np.concatenate([[0.0], np.cumsum(centred**2)])
    best = np.empty(n + 1)
    best[0] = -penalty
    before = np.zeros(n + 1, np.int64)
    starts = np.array([0])
    for end in range(1, n + 1):
        cost = squares[end] - squares[starts] - (sums[end] - sums[starts]) ** 2 / (end - starts)
        total = best[starts] + cost
        place = int(np.argmin(total))
        before[end], best[end] = starts[place], total[place] + penalty
        starts = np.append(starts[total <= best[end]], end)
    found = []
    end = int(before[n])
    while end > 0:
        found.append(end)
        end = int(before[end])
    return found[::-1]


def _moved(cuts: list[int], series: Floats, reach: int) -> list[int]:
    """Change points of blocks, each moved to the place near it that divides the two levels best."""
    found = []
    for left, cut, right in zip(cuts, cuts[1:], cuts[2:], strict=False):
        before, after = np.median(series[left:cut]), np.median(series[cut:right])
        start, stop = max(left + 1, cut - reach), min(right - 1, cut + reach)
        worse = np.abs(series[start:stop] - before) - np.abs(series[start:stop] - after)
        found.append(start + int(np.argmin(np.concatenate([[0.0], np.cumsum(worse)]))))
    return found
