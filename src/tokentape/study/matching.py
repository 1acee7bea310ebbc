"""Two sequences laid side by side to their ends: which stretches of tokens say the same, and which stand for one another.

:mod:`tokentape.study.alignment` tells where two sequences part; what comes after may come together again, and that is found here.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from tokentape.study.times import plain_values

if TYPE_CHECKING:
    from tokentape.data.trace import Trace
    from tokentape.study.alignment import Alignment

__all__ = ["Stretch", "matched"]

MOST_TOKENS = 4096
"""Beyond this many tokens after the parting they stand opposite each other in their order: to look for more takes too long."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tokens ``a[0]`` to ``a[1]`` (half-open) of one sequence beside ``b[0]`` to ``b[1]`` of the other; one of them may be empty.

    ``kind`` is ``"same"`` where they say the same, one by one, ``"recut"`` where the same bytes are cut into other tokens, and
    ``"other"`` where they differ.
    """

    a: tuple[int, int]
    b: tuple[int, int]
    kind: str


def matched(a: Trace, b: Trace, alignment: Alignment) -> list[Stretch]:
    """The stretches of two aligned traces, in order, without a gap; none where the text of one is not known.

    Up to the parting they are those of the alignment; after it the longest stretches in common (Ratcliff and Metzener, Dr. Dobb's
    Journal, July 1988, as in ``difflib``).
    """
    if alignment.by is None:
        return []
    keys: list[list[Hashable]]
    if alignment.by == "ids":
        n = alignment.n_common
        found = [Stretch((0, n), (0, n), "same")] if n else []
        keys = [list(plain_values(trace.tokens["id"])) for trace in (a, b)]
    else:
        data = [[token or b"" for token in trace.token_bytes] for trace in (a, b)]
        found = _cut_alike(data[0], data[1])
        keys = [list(side) for side in data]
    start = (found[-1].a[1], found[-1].b[1]) if found else (0, 0)
    found += _after(keys[0], keys[1], start, by_bytes=alignment.by == "bytes")
    return _merged(found)


def _cut_alike(a: Sequence[bytes], b: Sequence[bytes]) -> list[Stretch]:
    """The stretches between two cuts that both texts have in common, as far as the texts are the same."""
    whole = [b"".join(side) for side in (a, b)]
    n = next((i for i, (x, y) in enumerate(zip(*whole, strict=False)) if x != y), min(map(len, whole)))
    after = [{end: i + 1 for i, end in enumerate(accumulate(map(len, side))) if end <= n} for side in (a, b)]
    cuts = [(0, 0), *((after[0][end], after[1][end]) for end in sorted(after[0].keys() & after[1].keys()))]
    return [
        Stretch((i, k), (j, m), "same" if (k - i, m - j) == (1, 1) else "recut")
        for (i, j), (k, m) in pairwise(cuts)
        if k > i or m > j
    ]


def _after(a: Sequence[Hashable], b: Sequence[Hashable], start: tuple[int, int], *, by_bytes: bool) -> list[Stretch]:
    i, j = start
    left = (len(a) - i, len(b) - j)
    if max(left) > MOST_TOKENS:
        n = min(left)
        kinds = ["same" if x == y else "other" for x, y in zip(a[i : i + n], b[j : j + n], strict=True)]
        pairs = [Stretch((i + k, i + k + 1), (j + k, j + k + 1), kind) for k, kind in enumerate(kinds)]
        rest = Stretch((i + n, len(a)), (j + n, len(b)), "other")
        return [*pairs, rest] if left[0] != left[1] else pairs
    found = []
    for tag, k, m, p, q in SequenceMatcher(None, a[i:], b[j:], autojunk=max(left) > 500).get_opcodes():
        mine, theirs = (i + k, i + m), (j + p, j + q)
        alike = by_bytes and _text(a[slice(*mine)]) == _text(b[slice(*theirs)])
        found.append(Stretch(mine, theirs, "same" if tag == "equal" else "recut" if alike else "other"))
    return found


def _text(tokens: Sequence[Hashable]) -> bytes:
    return b"".join(token for token in tokens if isinstance(token, bytes))


def _merged(found: Sequence[Stretch]) -> list[Stretch]:
    """Neighbours of one kind as one, where their tokens stand one by one."""
    merged: list[Stretch] = []
    for one in found:
        last = merged[-1] if merged else None
        joins = last is not None and last.kind == one.kind != "recut" and _one_by_one(last) and _one_by_one(one)
        if last is not None and joins:
            merged[-1] = Stretch((last.a[0], one.a[1]), (last.b[0], one.b[1]), one.kind)
        else:
            merged.append(one)
    return merged


def _one_by_one(one: Stretch) -> bool:
    return one.a[1] - one.a[0] == one.b[1] - one.b[0]
