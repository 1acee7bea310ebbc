"""What a request gives to the figures of benchmark tools, one function a formula, in nanoseconds.

Each takes an :class:`~tokentape.study.answers.Answer` and gives its values: none where a tool gives none, None where the tape does
not tell what the tool would have seen. The symbols are those of :class:`~tokentape.study.readings.Formula`.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from tokentape.study.answers import Answer
from tokentape.study.readings import Exact

__all__ = [
    "after_first_chunk",
    "after_first_chunk_by_its_rest",
    "after_first_message",
    "between_chunks",
    "between_chunks_rounded",
    "between_iterations",
    "chunk_gaps",
    "first_chunk",
    "first_chunk_of_many",
    "first_chunk_or_0",
    "first_message",
    "first_output",
    "iterations",
    "message_gaps",
    "per_iteration",
    "second_chunk",
    "shared_gaps",
    "token_gaps",
    "whole",
    "whole_content",
    "whole_messages",
    "whole_per_token",
]

Times = list[Exact]
Values = Sequence[Exact] | None


def _divided(ns: int | None, n: int | None) -> Values:
    if n is None:
        return None
    return [] if ns is None or n < 1 else [Fraction(ns, n)]


def _known(ns: int | None) -> Times:
    return [] if ns is None else [ns]


def _less(n: int | None, by: int) -> int | None:
    return None if n is None else n - by


def first_message(one: Answer) -> Times:
    """m1 - t0."""
    return _known(one.since_start(one.messages[0].at_ns)) if one.messages else []


def first_chunk(one: Answer) -> Times:
    """c1 - t0."""
    return _known(one.since_start(one.shown[0].at_ns)) if one.shown else []


def first_chunk_or_0(one: Answer) -> Times:
    """c1 - t0, 0 of an answer without a token."""
    return first_chunk(one) if one.shown else [0]


def first_output(one: Answer) -> Times:
    """c1 - t0, of the chunks that are no reasoning."""
    return _known(one.since_start(one.output_ns)) if one.output_ns is not None else []


def first_chunk_of_many(one: Answer) -> Values:
    """c1 - t0 of an answer of more than one token."""
    if len(one.shown) > 1 or not one.shown:
        return first_chunk(one)
    return None if one.n_tokens is None else first_chunk(one) if one.n_tokens > 1 else []


def second_chunk(one: Answer) -> Values:
    """c2 - c1."""
    gaps = chunk_gaps(one)
    return None if gaps is None else gaps[:1]


def whole(one: Answer) -> Times:
    """Te - t0."""
    return _known(one.since_start(one.ended_ns)) if one.ended_ns is not None else []


def whole_messages(one: Answer) -> Times:
    """MM - t0."""
    return _known(one.since_start(one.messages[-1].at_ns)) if one.messages else []


def whole_content(one: Answer) -> Times:
    """Cm - t0."""
    return _known(one.since_start(one.shown[-1].at_ns)) if one.shown else []


def message_gaps(one: Answer) -> Values:
    """m[i] - m[i-1]."""
    return [after.at_ns - before.at_ns for before, after in pairwise(one.messages)] if one.whole else None


def chunk_gaps(one: Answer) -> list[int] | None:
    """c[i] - c[i-1]."""
    return [after.at_ns - before.at_ns for before, after in pairwise(one.shown)] if one.whole else None


def shared_gaps(one: Answer) -> Values:
    """The gap before a chunk of k tokens as k gaps of a k-th of it."""
    gaps, sizes = chunk_gaps(one), one.shown_sizes
    if gaps is None or sizes is None:
        return None
    return [Fraction(ns, size) for ns, size in zip(gaps, sizes[1:], strict=True) for _ in range(size)]


def token_gaps(one: Answer) -> Values:
    """Every token at the moment of its chunk: 0 inside one."""
    if one.shown_sizes is None:
        return None
    moments = [chunk.at_ns for chunk, size in zip(one.shown, one.shown_sizes, strict=True) for _ in range(size)]
    return [after - before for before, after in pairwise(moments)]


def after_first_message(one: Answer) -> Values:
    """(mM - m1) / (N - 1)."""
    return _divided(one.messages[-1].at_ns - one.messages[0].at_ns, _less(one.n_tokens, 1)) if one.messages else []


def after_first_chunk(one: Answer) -> Values:
    """(te - c1) / (N - 1)."""
    if not one.shown or one.ended_ns is None:
        return []
    return _divided(one.ended_ns - one.shown[0].at_ns, _less(one.n_tokens, 1))


def between_chunks(one: Answer) -> Values:
    """(cm - c1) / (N - 1)."""
    return _divided(one.shown[-1].at_ns - one.shown[0].at_ns, _less(one.n_tokens, 1)) if one.shown else []


def between_chunks_rounded(one: Answer) -> Values:
    """(cm - c1) / (N - 1) to the nanosecond, of more than one chunk."""
    found = between_chunks(one) if len(one.shown) > 1 else []
    return None if found is None else [round(value) for value in found]


def whole_per_token(one: Answer) -> Values:
    """(te - t0) / N, 0 of an answer without a token."""
    if one.n_tokens is None:
        return None
    return [Fraction(value) / one.n_tokens if one.n_tokens else 0 for value in whole(one)]


def after_first_chunk_by_its_rest(one: Answer) -> Values:
    """(te - c1) / (N - k1) of an answer that ended."""
    if one.outcome != "ended" or not one.shown or one.ended_ns is None:
        return []
    sizes = one.shown_sizes
    if sizes is None:
        return None
    return _divided(one.ended_ns - one.shown[0].at_ns, _less(one.n_tokens, sizes[0]))


def iterations(one: Answer) -> int | None:
    """N; where it is not told the messages that had a token, as GuideLLM counts, if all of them are known."""
    if one.n_tokens is None and one.whole:
        return len(one.shown)
    return one.n_tokens


def per_iteration(one: Answer) -> Values:
    """(cm - t0) / N; te where no message had a token."""
    last = one.shown[-1].at_ns if one.shown else one.ended_ns
    return [] if last is None else _divided(one.since_start(last), iterations(one))


def between_iterations(one: Answer) -> Values:
    """(cm - c1) / (N - 1)."""
    return _divided(one.shown[-1].at_ns - one.shown[0].at_ns, _less(iterations(one), 1)) if one.shown else []
