"""Two tapes' times side by side for the page: steps at equal context, ratios with intervals, coefficients of both laws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tokentape.study.side_by_side import BLOCKS, CoefficientPair, Ratio, StepRatios
from tokentape.study.verdict import Question, Verdict, judge_blocks
from tokentape.views.page.law_words import meaning_message, per_message, term_message
from tokentape.views.page.parts import Part
from tokentape.views.page.rounding import rounded, short
from tokentape.words.catalogue import Message

if TYPE_CHECKING:
    from tokentape.study.compare import Comparison

__all__ = ["coefficients_part", "ratios_part", "series_part"]

MOST_PLACES = 1200
"""Places of one batch that are drawn; where there are more, a mark is the median of neighbours."""

STRETCHES = 6


def series_part(steps: StepRatios | None) -> Part | None:
    """Times of both at each place that both have, one series a batch; null without steps at equal places."""
    if steps is None:
        return None
    batches = [_batch(steps, batch) for batch in sorted({place[0] for place in steps.places})]
    whole = steps.whole
    told = {"n": len(steps.places), "ratio": f"{whole.ratio:.3f}", "at": Message(f"page_compare.at_{steps.at}")}
    return {"at": steps.at, "caption": Message("page_compare.series_caption", told).as_dict(), "batches": batches}


def _batch(steps: StepRatios, batch: int) -> Part:
    rows = np.array([i for i, place in enumerate(steps.places) if place[0] == batch])
    marks = np.array_split(rows, min(len(rows), MOST_PLACES))
    a, b = np.asarray(steps.a_ns), np.asarray(steps.b_ns)
    x = np.array([steps.places[i][1] for i in range(len(steps.places))], float)
    return {
        "batch": batch,
        "x": short([x[mark].mean() for mark in marks], 6),
        "a_ns": short([np.median(a[mark]) for mark in marks], 5),
        "b_ns": short([np.median(b[mark]) for mark in marks], 5),
        "ratio": short([math.exp(np.median(np.log(b[mark] / a[mark]))) for mark in marks], 5),
    }


def ratios_part(found: Comparison) -> list[Part]:
    """Rows of times of A and of B and their ratio: time to first token, all steps, and the steps by stretches of context.

    The interval of the verdict stands with what the verdict is about, and so does its own ratio where it does not hold the median
    of the places, which is made of other values; a stretch has one where it has enough steps, by the means of blocks of them, as in
    :func:`~tokentape.study.verdict.judge_blocks`.
    """
    verdict, rows = found.verdict, []
    bounds = None if verdict is None else _bounds(verdict)
    if found.first_token is not None:
        rows.append(_row(Message("page_compare.ttft"), found.first_token, bounds if found.of == "ttft" else None))
    if found.steps is not None:
        rows.append(_row(Message("page_compare.step"), found.steps.whole, bounds if found.of == "decode" else None))
        rows += _stretches(
            found.steps, Question() if verdict is None else Question(verdict.threshold, verdict.confidence)
        )
    return rows


Bounds = tuple[float, float, float]
"""A ratio with both ends of its interval."""


def _bounds(verdict: Verdict) -> Bounds | None:
    if verdict.change is None or verdict.low is None or verdict.high is None:
        return None
    return 1 + verdict.change, 1 + verdict.low, 1 + verdict.high


def _row(label: Message, ratio: Ratio, bounds: Bounds | None, *, inner: bool = False) -> Part:
    value, low, high = bounds or (ratio.ratio, None, None)
    if low is None or high is None or low <= ratio.ratio <= high:
        value = ratio.ratio
    return {
        "label": label.as_dict(),
        "inner": int(inner),
        "a_ns": rounded(ratio.a_ns, 6),
        "b_ns": rounded(ratio.b_ns, 6),
        "ratio": rounded(value, 6),
        "low": rounded(low, 6),
        "high": rounded(high, 6),
        "n_a": ratio.n_a,
        "n_b": ratio.n_b,
    }


def _stretches(steps: StepRatios, question: Question) -> Iterator[Part]:
    """The steps gathered by batch and context, each row the medians of its places."""
    a, b = np.asarray(steps.a_ns), np.asarray(steps.b_ns)
    batches = sorted({place[0] for place in steps.places})
    for batch in batches:
        rows = np.array([i for i, place in enumerate(steps.places) if place[0] == batch])
        parts = np.array_split(rows, min(STRETCHES, len(rows)))
        if len(parts) < 2 and len(batches) == 1:
            continue
        for part in parts:
            logs = np.log(b[part] / a[part])
            where = {"first": steps.places[part[0]][1], "last": steps.places[part[-1]][1], "batch": batch}
            key = "page_compare.stretch" if len(batches) == 1 else "page_compare.stretch_batch"
            label = Message(key, {**where, "at": Message(f"page_compare.at_{steps.at}")})
            ratio = Ratio(
                float(np.median(a[part])), float(np.median(b[part])), math.exp(np.median(logs)), len(part), len(part)
            )
            yield _row(label, ratio, _interval(logs.tolist(), question), inner=True)


def _interval(logs: Sequence[float], question: Question) -> Bounds | None:
    if len(logs) < 2 * BLOCKS:
        return None
    return _bounds(
        judge_blocks([float(np.median(block)) for block in np.array_split(np.asarray(logs), BLOCKS)], question)
    )


def coefficients_part(pairs: Sequence[CoefficientPair]) -> list[Part]:
    """Coefficients of both laws (ns), ``[value, low, high]`` each, and B's less A's with its interval.

    The interval of the difference is made from those of its parts, which are of independent fits: the distances to their ends
    add up as squares do (G. Y. Zou, A. Donner, Statistics in Medicine 27, 2008: the method of variance estimates recovery).
    """
    return [
        {
            "kind": pair.kind,
            "term": term_message(pair.name).as_dict(),
            "meaning": meaning_message(pair.name).as_dict(),
            "per": per_message(pair.per).as_dict(),
            "a": None if pair.a is None else short(pair.a, 5),
            "b": None if pair.b is None else short(pair.b, 5),
            "difference": None if (found := _difference(pair)) is None else short(found, 5),
            "apart": pair.apart,
        }
        for pair in pairs
    ]


def _difference(pair: CoefficientPair) -> tuple[float, float, float] | None:
    if pair.a is None or pair.b is None:
        return None
    (a, a_low, a_high), (b, b_low, b_high) = pair.a, pair.b
    return b - a, b - a - math.hypot(b - b_low, a_high - a), b - a + math.hypot(b_high - b, a - a_low)
