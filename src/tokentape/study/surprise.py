"""How likely the model found its own tokens.

**Surprise** is ``-logprob`` under the model's own distribution, in nats; **perplexity** ``exp`` of its mean over tokens; **bits per
byte** its sum in bits over the bytes of the text, which compares models whose tokenizers differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokentape.study.times import plain_values

if TYPE_CHECKING:
    from tokentape.data.trace import Trace

__all__ = ["SurprisingToken", "bits_per_byte", "mean_surprise_nats", "most_surprising", "perplexity", "surprises_nats"]


@dataclass(frozen=True, slots=True)
class SurprisingToken:
    """The token with the lowest log-probability."""

    trace: int
    index: int
    position: int
    surprise_nats: float
    rank: int | None


def surprises_nats(trace: Trace) -> list[float | None]:
    """``-logprob`` of each token, None where it is not known."""
    return [None if value is None else -float(value) for value in plain_values(trace.tokens["logprob"])]


def mean_surprise_nats(traces: Iterable[Trace]) -> float | None:
    """Mean of ``-logprob`` over all tokens that have one."""
    known = [s for trace in traces for s in surprises_nats(trace) if s is not None]
    return math.fsum(known) / len(known) if known else None


def perplexity(surprise_nats: float | None) -> float | None:
    """``exp`` of a mean surprise; None where that is unknown or beyond a float (more than 709 nats a token).

    Source: F. Jelinek et al., "Perplexity: a measure of the difficulty of speech recognition tasks", JASA 62 (1977).
    """
    try:
        return None if surprise_nats is None else math.exp(surprise_nats)
    except OverflowError:
        return None


def bits_per_byte(traces: Iterable[Trace]) -> float | None:
    """The bits of surprise of the tokens over the bytes of their text.

    Over the tokens of which both are known; None where none is, or where they have no bytes. Tokens without text (end of text)
    count with their surprise. Source: L. Gao et al., "The Pile", 2020, section 3.1.
    """
    nats, n_bytes, n = [], 0, 0
    for trace in traces:
        for surprise, data in zip(surprises_nats(trace), trace.token_bytes, strict=True):
            if surprise is not None and data is not None:
                nats.append(surprise)
                n_bytes += len(data)
                n += 1
    return math.fsum(nats) / math.log(2) / n_bytes if n and n_bytes else None


def most_surprising(traces: Sequence[Trace]) -> SurprisingToken | None:
    """The token with the largest surprise, the first of several."""
    known = [(s, t, i) for t, trace in enumerate(traces) for i, s in enumerate(surprises_nats(trace)) if s is not None]
    if not known:
        return None
    surprise, t, index = max(known, key=lambda item: (item[0], -item[1], -item[2]))
    tokens = traces[t].tokens
    rank = plain_values(tokens["rank"])[index]
    return SurprisingToken(traces[t].number, index, int(tokens["position"][index]), surprise, rank)
