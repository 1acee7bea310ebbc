"""Two sequences token by token: where they part, what each said there and believed of the other, and how far they agreed before.

Where both have one vocabulary, ids are compared. Else bytes are: two tokenizers may cut the same text differently, and it parts
where its bytes do.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tokentape.study.times import plain_values

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["Alignment", "Choice", "Deviation", "Parting", "align", "same_vocabulary"]


@dataclass(frozen=True, slots=True)
class Choice:
    """What one side said at the parting: token ``index`` of its trace, at ``position``; all None where the trace had ended.

    ``logprob`` (nats) is its own of its token, ``others_logprob`` its own of the token that the other side said: None where that is
    not among the ``candidates``, which are ``(id, bytes, logprob)``, best first.
    """

    index: int
    position: int | None
    id: int | None
    data: bytes | None
    logprob: float | None
    others_logprob: float | None
    candidates: tuple[tuple[int, bytes | None, float], ...]
    finish_reason: str | None


@dataclass(frozen=True, slots=True)
class Parting:
    """The first place at which two sequences differ; ``byte`` is its offset in the text where bytes were compared."""

    a: Choice
    b: Choice
    byte: int | None = None


@dataclass(frozen=True, slots=True)
class Deviation:
    """The largest difference of log-probabilities (nats, B less A) of what both said, at token ``index`` of A; of ``n``."""

    nats: float | None
    index: int | None
    n: int


@dataclass(frozen=True, slots=True)
class Alignment:
    """Trace ``a`` of one tape beside trace ``b`` of the other.

    ``n_common`` tokens of A come before the ``parting``; it is None where both say the same to the end. ``by`` is ``"ids"``,
    ``"bytes"``, or None where the text of one is not known, and nothing can be said. ``n_alike`` pairs of traces, this one
    included, have the same prompt and said the same.
    """

    a: int
    b: int
    n_a: int
    n_b: int
    by: str | None
    n_common: int
    parting: Parting | None
    deviation: Deviation
    n_alike: int = 1


def same_vocabulary(a: Tape, b: Tape) -> bool:
    """Whether an id means the same on both tapes: one tokenizer by its hash, or no id that both know and spell differently."""
    hashes = [tape.setting.facts.get("tokenizer") for tape in (a, b)]
    if None not in hashes:
        return bool(hashes[0] == hashes[1])
    both = a.pieces.keys() & b.pieces.keys()
    return all(a.pieces[i].bytes == b.pieces[i].bytes for i in both)


def align(a: Trace, b: Trace, tapes: tuple[Tape, Tape], *, by_ids: bool) -> Alignment:
    """Lay one trace beside the other; ``by_ids`` where they have one vocabulary."""
    ids = [plain_values(trace.tokens["id"]) for trace in (a, b)]
    sizes = (len(ids[0]), len(ids[1]))
    if by_ids and None not in ids[0] and None not in ids[1]:
        n = _common(ids[0], ids[1])
        places = None if n == sizes[0] == sizes[1] else (n, n)
        spans = [(i, i + 1) for i in range(n)]
        return _alignment(a, b, tapes, "ids", n, places, None, list(zip(spans, spans, strict=True)))
    raw = [trace.token_bytes for trace in (a, b)]
    texts = [[data for data in tokens if data is not None] for tokens in raw]
    if len(texts[0]) < sizes[0] or len(texts[1]) < sizes[1]:
        return Alignment(a.number, b.number, *sizes, None, 0, None, Deviation(None, None, 0))
    whole = [b"".join(tokens) for tokens in texts]
    n = _common(whole[0], whole[1])
    ends = [list(itertools.accumulate(map(len, tokens))) for tokens in texts]
    # a token of no bytes at the end says nothing that could part
    places = None if n == len(whole[0]) == len(whole[1]) else (_holding(ends[0], n), _holding(ends[1], n))
    common = sizes[0] if places is None else places[0]
    return _alignment(a, b, tapes, "bytes", common, places, None if places is None else n, _pieces_alike(ends, n))


def _common(a: Sequence[object], b: Sequence[object]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _holding(ends: Sequence[int], byte: int) -> int:
    """The index of the token that holds a byte; how many there are, where the text ends before it."""
    return next((i for i, end in enumerate(ends) if end > byte), len(ends))


def _pieces_alike(ends: Sequence[Sequence[int]], n: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Of both texts the spans of tokens between two cuts that they have in common, up to byte ``n``."""
    after = [{end: i + 1 for i, end in enumerate(side) if end <= n} for side in ends]
    shared = sorted(after[0].keys() & after[1].keys())
    cuts = [(0, 0), *((after[0][end], after[1][end]) for end in shared)]
    return [((i, k), (j, m)) for (i, j), (k, m) in itertools.pairwise(cuts) if k > i and m > j]


def _alignment(
    a: Trace,
    b: Trace,
    tapes: tuple[Tape, Tape],
    by: str,
    n_common: int,
    places: tuple[int, int] | None,
    byte: int | None,
    spans: Sequence[tuple[tuple[int, int], tuple[int, int]]],
) -> Alignment:
    sizes = (len(a.tokens["id"]), len(b.tokens["id"]))
    parting = None
    if places is not None:
        said = [_said(trace, place) for trace, place in zip((a, b), places, strict=True)]
        sides = [
            _choice(trace, place, tape, other, by)
            for trace, place, tape, other in zip((a, b), places, tapes, reversed(said), strict=True)
        ]
        parting = Parting(sides[0], sides[1], byte)
    return Alignment(a.number, b.number, *sizes, by, n_common, parting, _deviation(a, b, spans))


def _said(trace: Trace, index: int) -> tuple[int | None, bytes | None]:
    if index >= len(trace.tokens["id"]):
        return None, None
    return plain_values(trace.tokens["id"])[index], trace.token_bytes[index]


def _choice(trace: Trace, index: int, tape: Tape, other: tuple[int | None, bytes | None], by: str) -> Choice:
    token_id, data = _said(trace, index)
    if index >= len(trace.tokens["id"]):
        return Choice(index, None, None, None, None, None, (), trace.finish_reason)
    pairs = zip(plain_values(trace.candidates.ids[index]), plain_values(trace.candidates.logprob[index]), strict=True)
    known = [(i, piece.bytes if (piece := tape.pieces.get(i)) else None, p) for i, p in pairs if i is not None]
    match = [p for i, spelled, p in known if (i == other[0] if by == "ids" else spelled and spelled == other[1])]
    return Choice(
        index=index,
        position=int(trace.tokens["position"][index]),
        id=token_id,
        data=data,
        logprob=plain_values(trace.tokens["logprob"])[index],
        others_logprob=match[0] if match and other != (None, None) else None,
        candidates=tuple(known),
        finish_reason=trace.finish_reason,
    )


def _deviation(a: Trace, b: Trace, spans: Sequence[tuple[tuple[int, int], tuple[int, int]]]) -> Deviation:
    """Over tokens that both said, or stretches of them that make the same bytes."""
    columns = [np.ma.filled(trace.tokens["logprob"].astype(float), np.nan) for trace in (a, b)]
    found = [
        (float(columns[1][slice(*theirs)].sum() - columns[0][slice(*mine)].sum()), mine[0]) for mine, theirs in spans
    ]
    known = [(nats, index) for nats, index in found if nats == nats]
    if not known:
        return Deviation(None, None, 0)
    nats, index = max(known, key=lambda pair: abs(pair[0]))
    return Deviation(nats, index, len(known))
