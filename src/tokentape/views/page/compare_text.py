"""Two tapes' texts side by side for the page: aligned tokens, where they part, what each gave to either choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tokentape.study.alignment import Alignment, Choice, Parting
from tokentape.study.matching import matched
from tokentape.study.times import plain_values
from tokentape.views.card import finish_message
from tokentape.views.drawing import drawn_tokens
from tokentape.views.page.parts import Part
from tokentape.views.page.rounding import near, rounded
from tokentape.views.page.symbols import n_prompt_places, symbols_part
from tokentape.views.page.tokens import gaps_ns
from tokentape.words.catalogue import Message

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace
    from tokentape.study.compare import Comparison

__all__ = ["MOST_ALIGNMENTS", "alignments_part"]

MOST_ALIGNMENTS = 12
"""Pairs of sequences that are laid side by side; those that part first, the rest are counted."""

MOST_CANDIDATES = 10

_KINDS = {"same": 0, "recut": 1, "other": 2}


def alignments_part(found: Comparison, tapes: tuple[Tape, Tape]) -> list[Part]:
    """``Aligned`` of ``web/src/document.ts``, one for each pair of sequences, those that part before those that do not."""
    ordered = sorted(found.alignments, key=lambda one: one.parting is None)  # stable: else in the order of the tapes
    return [_aligned(one, found, tapes) for one in ordered[:MOST_ALIGNMENTS]]


def _aligned(one: Alignment, found: Comparison, tapes: tuple[Tape, Tape]) -> Part:
    traces = [next(t for t in tape.traces if t.number == n) for tape, n in zip(tapes, (one.a, one.b), strict=True)]
    stretches = matched(traces[0], traces[1], one)
    parting = one.parting
    return {
        "a": one.a,
        "b": one.b,
        "n_alike": one.n_alike,
        "by": one.by,
        "outcome": _outcome(one, (found.a.state, found.b.state)).as_dict(),
        "deviation": None if (told := _deviation(one)) is None else told.as_dict(),
        # flat: a from, a to, b from, b to, kind; half-open
        "stretches": [value for s in stretches for value in (*s.a, *s.b, _KINDS[s.kind])],
        "sides": [_side(trace, tape) for trace, tape in zip(traces, tapes, strict=True)],
        "parting": None if parting is None else _parting(parting, one.by),
    }


def _side(trace: Trace, tape: Tape) -> Part:
    symbols, n_prompt = symbols_part(trace, tape), n_prompt_places(trace)
    return {
        "prompt": "".join(symbols["text"][:n_prompt])[:2000],
        **{name: symbols[name][n_prompt:] for name in ("text", "open", "special")},
        "share": near([None if nats is None else math.exp(nats) for nats in plain_values(trace.tokens["logprob"])], 5),
        "gap_ns": gaps_ns(trace),
    }


def _outcome(one: Alignment, states: tuple[str, str]) -> Message:
    """Whether they say the same, where they part, or which of them ends before the other."""
    name = Message("page_compare.sequence" if one.a == one.b else "page_compare.sequences", {"a": one.a, "b": one.b})
    told = {"name": name, "n": one.n_common}
    if one.by is None:
        return Message("page_compare.untold", {"name": name})
    if one.parting is None:
        return Message("page_compare.same", told)
    sides = (("A", "B", one.parting.a, states[0]), ("B", "A", one.parting.b, states[1]))
    for who, other, choice, state in sides:
        if choice.position is None:
            why = finish_message(choice.finish_reason, state)
            return Message("page_compare.ends", {**told, "who": who, "other": other, "n": choice.index, "why": why})
    if one.n_common == 0:
        return Message("page_compare.no_common", {"name": name})
    return Message("page_compare.parts", {**told, "position": one.parting.a.position})


def _deviation(one: Alignment) -> Message | None:
    """How far their log-probabilities lay apart where they said the same."""
    if one.deviation.nats is None:
        return None if one.n_common == 0 else Message("page_compare.no_logprobs")
    told = {"nats": f"{abs(one.deviation.nats):.2g}", "token": one.deviation.index, "n": one.deviation.n}
    return Message("page_compare.deviation", told)


def _parting(parting: Parting, by: str | None) -> Part:
    """What each said there, and the candidates of both with what A and what B gave to each; null where it is not among them."""
    sides = (parting.a, parting.b)
    keys = [_key(side.id, side.data, by) for side in sides]
    shares: dict[Any, list[float | None]] = {}
    names: dict[Any, str] = {}
    for k, side in enumerate(sides):
        own = [(side.id, side.data, side.logprob), *side.candidates] if side.position is not None else []
        for token_id, data, logprob in own:
            key = _key(token_id, data, by)
            names.setdefault(key, _name(token_id, data))
            row = shares.setdefault(key, [None, None])
            if logprob is not None:
                row[k] = math.exp(logprob)
    ordered = sorted(shares, key=lambda key: -max(share or 0.0 for share in shares[key]))
    said = [key for key in keys if key in shares]
    kept = [key for i, key in enumerate(ordered) if i < MOST_CANDIDATES or key in said]
    return {
        "index": [side.index for side in sides],
        "position": [side.position for side in sides],
        "name": [names[key] for key in kept],
        "share": [near([shares[key][k] for key in kept], 5) for k in (0, 1)],
        "said": [kept.index(key) if side.position is not None else None for key, side in zip(keys, sides, strict=True)],
        # what a token that is not among the candidates kept has at most
        "below": [_below(side) for side in sides],
    }


def _below(side: Choice) -> float | None:
    return rounded(math.exp(side.candidates[-1][2]), 3) if side.candidates else None


def _key(token_id: int | None, data: bytes | None, by: str | None) -> Any:
    return token_id if by == "ids" else data if data else ("id", token_id)


def _name(token_id: int | None, data: bytes | None) -> str:
    drawn: Sequence[str | None] = drawn_tokens([data[:64]]) if data else [None]
    return drawn[0] if drawn[0] is not None else "" if token_id is None else f"#{token_id}"
