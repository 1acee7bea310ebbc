"""A page within a number of bytes: what is left out first is what is missed least, and each thing left out is said.

In this order: maps of single attention heads, layers, candidates beyond the third, attention layer by layer, explanations but the
newest, all explanations and attention, sequences from the last to the second; at last, of the one that is left, the distribution
and all candidates. Of each kind the sequence that is shown first goes last. Its tokens are never left out, so a page may stay
larger than what was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.data.doubt import in_doubt
from tokentape.study.served import is_served
from tokentape.views.page.document import page_document
from tokentape.views.page.json_text import page_json
from tokentape.views.page.parts import Part, dropped, missing, named_ids
from tokentape.views.page.requests import telling_traces
from tokentape.words.catalogue import Message

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["DEFAULT_BYTES", "page_within", "within"]

DEFAULT_BYTES = 6_000_000

_LEAST_TOKEN = 60
"""Bytes that a token takes at the very least: sequences that cannot fit even so are not drawn up at all."""

_CANDIDATES = 3

Document = dict[str, Any]


def page_within(
    tape: Tape,
    max_bytes: int | None = DEFAULT_BYTES,
    *,
    around: Callable[[Document], int] | int = 0,
    traces: Sequence[int] | None = None,
    **options: Any,
) -> Document:
    """The document of a tape within ``max_bytes`` (None: whatever it takes), of which ``around`` are for what is not data.

    ``around`` is a number, or what tells it of a document, such as :func:`tokentape.views.page.file.shell_bytes`.
    ``traces`` and ``options`` are those of :func:`page_document`.
    """
    if max_bytes is None:
        return page_document(tape, traces=traces, **options)
    with in_doubt(tape):
        wanted = list(range(len(tape.traces))) if traces is None else list(traces)
        numbers = telling_traces(tape) if traces is None and is_served(tape) else wanted
        tokens = tape.columns("token")
        told = np.asarray(tokens["trace"])[np.asarray(tokens["overshoot"]) == 0]
        lengths = np.bincount(told, minlength=len(tape.traces)).tolist()
    most = sum(total * _LEAST_TOKEN <= max_bytes for total in accumulate(lengths[number] for number in numbers))
    taken = numbers[: max(1, most)]
    document = page_document(tape, traces=taken, **options)
    left = set(taken)
    return within(document, max_bytes, around=around, undrawn={one: lengths[one] for one in wanted if one not in left})


def within(
    document: Document,
    max_bytes: int,
    *,
    around: Callable[[Document], int] | int = 0,
    undrawn: dict[int, int] | None = None,
) -> Document:
    """A document that takes at most ``max_bytes``, with ``dropped`` saying what it lacks; itself where all of it fits.

    ``undrawn`` are sequences that are not even in it, by number, with how many tokens each has.
    """
    total = (around if isinstance(around, int) else around(document)) + len(page_json(document).encode())
    undrawn = undrawn or {}
    if document["tape"] is None or (total <= max_bytes and not undrawn):
        return document
    ladder = _Ladder(document, total, max_bytes, undrawn)
    for rung in _RUNGS:
        ladder.climb(*rung)
    ladder.leave_traces()
    for rung in _LAST_RUNGS:
        ladder.climb(*rung)
    return ladder.document()


class _Ladder:
    """A document that gets smaller, one kind of thing after another."""

    def __init__(self, document: Document, total: int, max_bytes: int, undrawn: dict[int, int]) -> None:
        self._whole = document
        self._tape = document["tape"]
        self._traces: list[Part] = list(self._tape["traces"])
        self._total, self._most = total, max_bytes
        n_tokens = sum(len(trace["tokens"]["step"]) for trace in self._traces)
        each = total / max(1, n_tokens)
        self._left = {number: round(each * n) for number, n in undrawn.items()}
        needed = total + sum(self._left.values())
        self.flag = f"--max-bytes {math.ceil(needed / 1e6)}MB"
        self._dropped: list[Part] = []

    def climb(self, key: str, lessen: Callable[[Part, str], Part]) -> None:
        """Lessen traces, the last first, until all fits; ``lessen`` gives the fields that take the place of a trace's own."""
        n = saved = 0
        for place in reversed(range(len(self._traces))):
            if self._total <= self._most:
                break
            trace = self._traces[place]
            fields = lessen(trace, self.flag)
            gain = sum(_size(trace[name]) - _size(value) for name, value in fields.items())
            if gain > 0:
                self._traces[place] = {**trace, **fields}
                self._total -= gain
                n, saved = n + 1, saved + gain
        if n:
            self._say(key, saved, self.flag, n=n)

    def leave_traces(self) -> None:
        gone = dict(self._left)
        while self._total > self._most and len(self._traces) > 1:
            trace = self._traces.pop()
            gone[trace["number"]] = gain = _size(trace)
            self._total -= gain
        if gone:
            first = min(gone)
            self._say("traces", sum(gone.values()), f"--trace {first}", n=len(gone), first=first)

    def _say(self, key: str, n_bytes: int, flag: str, **args: int) -> None:
        self._dropped.append(dropped(Message(f"page_core.dropped.{key}", args), n_bytes, flag))

    def document(self) -> Document:
        runs = {trace["run"] for trace in self._traces}
        named = {str(token_id) for trace in self._traces for token_id in named_ids(trace)}
        tape = {
            **self._tape,
            "traces": self._traces,
            "runs": [run for run in self._tape["runs"] if run["number"] in runs],
            "pieces": {token_id: name for token_id, name in self._tape["pieces"].items() if token_id in named},
            "overview": _linked(self._tape["overview"], {trace["number"] for trace in self._traces}),
        }
        return {**self._whole, "tape": tape, "dropped": [*self._whole["dropped"], *self._dropped]}


def _size(value: Any) -> int:
    return len(page_json(value).encode())


def _linked(overview: Part, numbers: set[int]) -> Part:
    """The overview without links into sequences that are gone."""
    findings = [
        finding
        if finding["link"].get("trace", None) in (None, *numbers)
        else {**finding, "link": {"part": finding["link"]["part"]}}
        for finding in overview["findings"]
    ]
    return {**overview, "findings": findings}


def _left_out(flag: str) -> Part:
    return missing(Message("page_core.left_out", {"flag": flag}))


def _heads(trace: Part, flag: str) -> Part:
    attention = trace["attention"]
    return {"attention": {**attention, "head_rows": [], "heads": []}} if attention.get("heads") else {}


def _layers(trace: Part, flag: str) -> Part:
    return {} if "missing" in trace["layers"] else {"layers": _left_out(flag)}


def _candidates(trace: Part, flag: str) -> Part:
    tokens = trace["tokens"]
    cut = {name: [row[:_CANDIDATES] for row in tokens[name]] for name in ("candidate_ids", "candidate_logprobs")}
    return {"tokens": {**tokens, **cut}}


def _attention_layers(trace: Part, flag: str) -> Part:
    attention = trace["attention"]
    return {"attention": {**attention, "layers": [None] * len(attention["layers"])}} if attention.get("layers") else {}


def _older(trace: Part, flag: str) -> Part:
    relevance = trace["relevance"]
    there = relevance.get("explanations", [])
    return {"relevance": {**relevance, "explanations": there[-1:]}} if len(there) > 1 else {}


def _explained(trace: Part, flag: str) -> Part:
    return {name: _left_out(flag) for name in ("relevance", "attention") if "missing" not in trace[name]}


_RUNGS: tuple[tuple[str, Callable[[Part, str], Part]], ...] = (
    ("heads", _heads),
    ("layers", _layers),
    ("candidates", _candidates),
    ("attention_layers", _attention_layers),
    ("older", _older),
    ("explained", _explained),
)


def _distribution(trace: Part, flag: str) -> Part:
    return {} if "missing" in trace["distribution"] else {"distribution": _left_out(flag)}


def _all_candidates(trace: Part, flag: str) -> Part:
    tokens = trace["tokens"]
    none: list[list[Any]] = [[] for _ in tokens["step"]]
    return {"tokens": {**tokens, "candidate_ids": none, "candidate_logprobs": none}}


_LAST_RUNGS: tuple[tuple[str, Callable[[Part, str], Part]], ...] = (
    ("distribution", _distribution),
    ("all_candidates", _all_candidates),
)
