"""Two models on the same texts: who found what likelier, span by span, however their tokenizers cut it.

Texts are laid side by side by their bytes. A **span** is what lies between two cuts that both tokenizers make, with no such cut
inside: of each model the log-probabilities of its tokens add up to one of the span, and these can be compared. The **difference**
is B less A; in bits per byte a negative one means that B needs fewer bits, and so predicts better.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.errors import NotComparable
from tokentape.study.scores import DocumentScore, scores, spelled_bytes
from tokentape.study.surprise import surprises_nats

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["ScoreComparison", "Span", "compare_scores"]

CONFIDENCE = 0.95
LEAST_UNITS = 20
"""Documents that an interval rests on, or blocks of spans where there are fewer documents."""
SPANS_PER_BLOCK = 10
"""Neighbouring spans are alike; a block of so many and more is as good as independent of the next (batch means: B. Schmeiser,
"Batch size effects in the analysis of simulation output", Operations Research 30, 1982)."""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes ``start`` to ``stop`` of the text of document ``index``, ``data``, and its log-probability (nats) under both."""

    index: int
    start: int
    stop: int
    data: bytes
    a: float
    b: float

    @property
    def difference(self) -> float:
        """B less A, in nats: above 0 where B found it likelier."""
        return self.b - self.a


@dataclass(frozen=True, slots=True)
class ScoreComparison:
    """Two models on the same documents.

    ``a`` and ``b`` are bits per byte over the ``n_bytes`` that both scored, ``difference`` is B less A with its interval
    ``low`` to ``high`` (None where ``n_units`` are too few), which rests on ``units``: ``"documents"`` or ``"blocks"`` of spans.
    ``left_out`` names documents that could not be laid side by side, and why.
    """

    models: tuple[str, str]
    a: float
    b: float
    difference: float
    low: float | None
    high: float | None
    confidence: float
    units: str
    n_units: int
    n_documents: int
    n_bytes: int
    n_tokens: tuple[int, int]
    spans: tuple[Span, ...]
    left_out: tuple[tuple[str, str], ...]

    def largest(self, n: int) -> list[Span]:
        """The ``n`` spans whose difference is largest, whoever it favours."""
        return sorted(self.spans, key=lambda span: -abs(span.difference))[:n]

    def as_dict(self, largest: int = 20) -> dict[str, Any]:
        """Plain values; of the spans their number and the largest differences."""
        own = "models a b difference low high confidence units n_units n_documents n_bytes n_tokens".split()
        return {
            **{name: getattr(self, name) for name in own},
            "n_spans": len(self.spans),
            "left_out": [list(one) for one in self.left_out],
            "largest": [
                {
                    "document": span.index,
                    "start": span.start,
                    "stop": span.stop,
                    "text": span.data.decode("utf-8", "replace"),
                    "a": span.a,
                    "b": span.b,
                    "difference": span.difference,
                }
                for span in self.largest(largest)
            ],
        }


def compare_scores(a: Tape, b: Tape) -> ScoreComparison:
    """Lay the scores of two tapes side by side; documents are paired by their numbers.

    The interval is Student's t for a ratio of sums over the units (W. G. Cochran, "Sampling techniques", 1977, section 6.3),
    each of which is one paired difference. Raises StudyError where a tape has no scores, NotComparable where no document can
    be compared.
    """
    sides = [{one.index: one for one in scores(tape)} for tape in (a, b)]
    spans: list[Span] = []
    left_out: list[tuple[str, str]] = []
    for index in sorted(sides[0].keys() | sides[1].keys()):
        pair = [side.get(index) for side in sides]
        found = _side_by_side(pair, (a, b))
        if isinstance(found, str):
            left_out.append((next(one.name for one in pair if one is not None), found))
        else:
            spans += found
    n_bytes = sum(span.stop - span.start for span in spans)
    if not n_bytes:
        name, why = left_out[0] if left_out else ("the texts", "they hold no byte that both scored")
        raise NotComparable(f"no text can be laid side by side: {name}", why=why, fix="score the same texts with both")
    bits = [-math.fsum(getattr(span, side) for span in spans) / math.log(2) / n_bytes for side in ("a", "b")]
    units, found_units = _units(spans)
    interval = _interval(found_units)
    return ScoreComparison(
        models=(_model(a), _model(b)),
        a=bits[0],
        b=bits[1],
        difference=bits[1] - bits[0],
        low=None if interval is None else interval[0],
        high=None if interval is None else interval[1],
        confidence=CONFIDENCE,
        units=units,
        n_units=len(found_units),
        n_documents=len({span.index for span in spans}),
        n_bytes=n_bytes,
        n_tokens=(_n_tokens(sides[0], spans), _n_tokens(sides[1], spans)),
        spans=tuple(spans),
        left_out=tuple(left_out),
    )


def _model(tape: Tape) -> str:
    return str(tape.setting.facts.get("model") or "a model")


def _n_tokens(side: dict[int, DocumentScore], spans: Sequence[Span]) -> int:
    return sum(side[index].total.n_tokens for index in {span.index for span in spans})


def _side_by_side(pair: Sequence[DocumentScore | None], tapes: tuple[Tape, Tape]) -> list[Span] | str:
    """The spans of one document, or why there are none."""
    if pair[0] is None or pair[1] is None:
        return f"{'A' if pair[0] is None else 'B'} has not scored it"
    read = []
    for one, tape, side in zip(pair, tapes, "AB", strict=True):
        assert one is not None
        if one.spelled is False:
            return f"the tokens of {side} do not make the bytes of the text: it lacks characters, or changes them"
        found = _cuts(tape.traces[one.trace], tape, one.n_skipped)
        if isinstance(found, str):
            return found
        read.append(found)
    (text_a, cuts_a), (text_b, cuts_b) = read
    shared = sorted(cuts_a.keys() & cuts_b.keys())
    if len(shared) < 2:
        return "no cut of the one tokenizer is one of the other's"
    starts = (min(cuts_a), min(cuts_b))
    spans = []
    for start, stop in itertools.pairwise(shared):
        data = text_a[start - starts[0] : stop - starts[0]]
        if data != text_b[start - starts[1] : stop - starts[1]]:
            return f"the tokenizers spell it differently from byte {start} on"
        spans.append(Span(pair[0].index, start, stop, data, cuts_a[stop] - cuts_a[start], cuts_b[stop] - cuts_b[start]))
    return spans


def _cuts(trace: Trace, tape: Tape, begin: int) -> tuple[bytes, dict[int, float]] | str:
    """The bytes of a trace, and by each place where a token ends the log-probability up to there; ``begin`` is the first."""
    nats, data = surprises_nats(trace), spelled_bytes(trace, tape)
    if any(one is None for one in data):
        return "the bytes of its tokens are not on the tape"
    if any(one is None for one in nats):
        return "a log-probability of its tokens is not finite"
    place, so_far = begin, 0.0
    found = {begin: 0.0}
    for surprise, some in zip(nats, data, strict=True):
        place, so_far = place + len(some or b""), so_far - (surprise or 0.0)
        found[place] = so_far  # of tokens without bytes the last counts: what they cost belongs to what came before
    return b"".join(some or b"" for some in data), found


def _units(spans: Sequence[Span]) -> tuple[str, list[tuple[float, int]]]:
    """What the interval rests on: of each unit the difference in bits, B less A as surprise, and its bytes."""
    documents = [list(some) for _, some in itertools.groupby(spans, key=lambda span: span.index)]
    if len(documents) >= LEAST_UNITS:
        return "documents", [_unit(some) for some in documents]
    n = min(LEAST_UNITS, len(spans) // SPANS_PER_BLOCK)
    edges: list[int] = np.linspace(0, len(spans), n + 1).astype(int).tolist() if n else []
    return "blocks", [_unit(spans[start:stop]) for start, stop in itertools.pairwise(edges)]


def _unit(spans: Sequence[Span]) -> tuple[float, int]:
    return -math.fsum(span.difference for span in spans) / math.log(2), sum(span.stop - span.start for span in spans)


def _interval(units: Sequence[tuple[float, int]]) -> tuple[float, float] | None:
    if len(units) < LEAST_UNITS:
        return None
    from scipy.stats import t

    bits, sizes = np.array([unit[0] for unit in units]), np.array([unit[1] for unit in units], dtype=float)
    ratio, n = bits.sum() / sizes.sum(), len(units)
    error = math.sqrt(n / (n - 1) * float(((bits - ratio * sizes) ** 2).sum())) / sizes.sum()
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    return float(ratio - half), float(ratio + half)
