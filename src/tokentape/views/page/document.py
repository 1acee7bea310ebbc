"""The page's document: everything that the page shows of a tape, as plain values for JSON.

Its form is that of ``web/src/document.ts``. Every number is computed here, from the tape alone, so that two documents of one tape
are equal byte for byte. Of guarded sequences it holds what :mod:`tokentape.views.page.withheld` lets through, unless it is asked
for all.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokentape.data.doubt import in_doubt
from tokentape.study.metrics import summary
from tokentape.study.served import flights, is_served
from tokentape.study.served_summary import served_summary
from tokentape.views.card import finish_message, model_name, shown_path
from tokentape.views.drawing import drawn_text
from tokentape.views.learned import with_learned
from tokentape.views.page.attention import attention_part
from tokentape.views.page.cost import cost_part
from tokentape.views.page.distribution import distribution_part
from tokentape.views.page.envelope import envelope
from tokentape.views.page.layers import layers_part
from tokentape.views.page.measures import measures_part, received
from tokentape.views.page.overview import overview_part
from tokentape.views.page.overview_served import served_overview
from tokentape.views.page.parts import Part, guarded_part, missing, named_ids
from tokentape.views.page.provenance import provenance_part
from tokentape.views.page.relevance import relevance_part
from tokentape.views.page.requests import requests_part
from tokentape.views.page.runs import run_part
from tokentape.views.page.symbols import drawn_alone, n_prompt_places, symbols_part
from tokentape.views.page.time import time_part
from tokentape.views.page.tokens import tokens_part
from tokentape.views.page.withheld import LetThrough, let_through
from tokentape.words.catalogue import Lang, Message

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Piece, Trace

__all__ = ["page_document", "pieces_part", "trace_part"]


def page_document(
    tape: Tape,
    *,
    traces: Sequence[int] | None = None,
    lang: Lang | None = None,
    live: dict[str, Any] | None = None,
    withheld: bool = False,
) -> dict[str, Any]:
    """The document of a tape.

    ``traces`` are the numbers of the sequences that it holds, all of them by default; the page shows the first of them.
    ``live`` says what the page may ask of the server that serves it; ``withheld`` takes in what a guard withheld. A part for
    which the tape has nothing says so, and which command fills it. Reading a damaged tape raises DamagedTape.
    """
    with in_doubt(tape):
        part = _tape_part(tape if withheld else let_through(tape), traces)
    return envelope(_title(tape), tape=part, lang=lang, live=live)


def _tape_part(tape: Tape, traces: Sequence[int] | None) -> Part:
    """``TapePart``: what is known of the tape, and of the sequences asked for, in that order."""
    every = list(tape.traces)
    chosen = every if traces is None else [every[n] for n in dict.fromkeys(traces) if n < len(every)]
    built = {trace.number: trace_part(trace, tape) for trace in chosen}
    runs = {trace.run.number: trace for trace in chosen}
    name = "a.tape" if tape.path is None else shlex.quote(tape.path.name)
    return {
        "name": None if tape.path is None else drawn_text(tape.path.name),
        "state": tape.state,
        "n_traces": len(every),
        "traces": list(built.values()),
        "runs": [_run(trace, tape) for _, trace in sorted(runs.items())],
        "pieces": pieces_part(built.values(), with_learned(tape.pieces, chosen)),
        **_about(tape, built),
        "cost": guarded_part(lambda: cost_part(tape)),
        "provenance": provenance_part(tape),
        "alone": missing(Message("page_ui.no_compare"), f"tokentape view {name} other.tape --html compared.html"),
    }


def _about(tape: Tape, built: Mapping[int, Part]) -> Part:
    """The overview, and of a tape of requests to a server the part about them."""
    if not is_served(tape):
        return {"overview": overview_part(tape, summary(tape), built)}
    found = flights(tape)
    figures = served_summary(tape, found)
    return {
        "overview": served_overview(tape, found, figures, built),
        "requests": requests_part(tape, found, figures),
    }


def trace_part(trace: Trace, tape: Tape) -> Part:
    """One sequence: symbols, tokens, measures, and the parts that are about it."""
    n_prompt = n_prompt_places(trace)
    symbols, tokens = symbols_part(trace, tape), tokens_part(trace)
    attention = _unless_withheld(trace, tape, lambda: attention_part(trace, tape))
    return {
        "number": trace.number,
        "run": trace.run.number,
        "row": trace.row,
        "finish": finish_message(trace.finish_reason, tape.state).as_dict(),
        "guarded": trace.guarded,
        "symbols": symbols,
        "n_prompt": n_prompt,
        "tokens": tokens,
        "measures": measures_part(tokens, n_prompt, received(attention, len(symbols["text"]))),
        "distribution": guarded_part(lambda: distribution_part(trace, tape)),
        "relevance": _unless_withheld(trace, tape, lambda: relevance_part(trace, tape)),
        "attention": attention,
        "layers": _unless_withheld(trace, tape, lambda: layers_part(trace, tape)),
    }


def pieces_part(traces: Iterable[Part], pieces: Mapping[int, Piece]) -> dict[str, str]:
    """How the vocabulary entries are drawn that the traces name, by id."""
    return drawn_alone(pieces, sorted({token_id for trace in traces for token_id in named_ids(trace)}))


def _run(trace: Trace, tape: Tape) -> Part:
    return {**run_part(trace), "time": guarded_part(lambda: time_part(tape, trace.run.number))}


def _unless_withheld(trace: Trace, tape: Tape, build: Callable[[], Part]) -> Part:
    if not isinstance(trace, LetThrough):
        return guarded_part(build)
    command = None if tape.path is None else f"tokentape view {shlex.quote(shown_path(tape.path))} --withheld"
    return missing(Message("page_core.withheld"), command)


def _title(tape: Tape) -> str:
    name = tape.path.name if tape.path is not None else model_name(tape)
    return drawn_text(name or "tokentape")
