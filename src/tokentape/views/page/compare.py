"""Two tapes side by side, for the page: the verdict, what differs, both texts aligned, both series of times, both laws."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from tokentape.data.doubt import in_doubt
from tokentape.data.tape import Tape, open_tape
from tokentape.errors import NotComparable
from tokentape.study.comparability import Difference, differences
from tokentape.study.compare import WHAT, Comparison, Side, compare
from tokentape.study.verdict import Verdict
from tokentape.views.card import model_name, shown_path
from tokentape.views.compare_words import caveat_message, loads_message, told_message
from tokentape.views.drawing import drawn_text
from tokentape.views.page.compare_text import alignments_part
from tokentape.views.page.compare_time import coefficients_part, ratios_part, series_part
from tokentape.views.page.document import page_document
from tokentape.views.page.envelope import envelope
from tokentape.views.page.parts import Part, missing
from tokentape.views.page.rounding import rounded
from tokentape.views.page.withheld import let_through
from tokentape.words.catalogue import Message

if TYPE_CHECKING:
    from tokentape.words.catalogue import Lang

__all__ = ["compare_document", "compare_part", "compared_document", "refused_part"]

_VALUE = 160
"""Characters of a value that differs."""


def compared_document(
    a: Tape | str | os.PathLike[str],
    b: Tape | str | os.PathLike[str],
    *,
    across: Iterable[str] = (),
    of: str = "decode",
    lang: Lang | None = None,
    withheld: bool = False,
) -> dict[str, Any]:
    """The document of two tapes, opened where they are paths: compared, or what keeps them from being compared.

    ``across`` and ``of`` are those of :func:`tokentape.compare`, and it raises the same but for NotComparable.
    """
    across = [name for name in ([across] if isinstance(across, str) else across) if name.strip()]
    with ExitStack() as opened:
        tapes = tuple(tape if isinstance(tape, Tape) else opened.enter_context(open_tape(tape)) for tape in (a, b))
        seen = tapes if withheld else tuple(let_through(tape) for tape in tapes)
        pair = (seen[0], seen[1])
        try:
            with in_doubt(*tapes):
                part = compare_part(compare(*pair, across=across, of=of), pair)
        except NotComparable as error:
            part = refused_part(pair, across, error)
        return _document(part, pair, lang, withheld=withheld)


def compare_document(found: Comparison, tapes: tuple[Tape, Tape], lang: Lang | None = None) -> dict[str, Any]:
    """The document of a comparison of two open tapes; its other parts are of A."""
    return _document(compare_part(found, tapes), tapes, lang)


def _document(part: Part, tapes: tuple[Tape, Tape], lang: Lang | None, *, withheld: bool = False) -> dict[str, Any]:
    names = [drawn_text(tape.path.name if tape.path else model_name(tape) or "") for tape in tapes]
    first = page_document(tapes[0], lang=lang, withheld=withheld)["tape"]
    return envelope(" / ".join(names), tape=first, compare=part, lang=lang)


def compare_part(found: Comparison, tapes: tuple[Tape, Tape]) -> Part:
    """``ComparePart`` of ``web/src/document.ts``: a comparison, with the tapes that it is of for their texts."""
    n_more = max(0, len(found.alignments) - len(aligned := alignments_part(found, tapes)))
    sentence = _sentence(found.verdict, found.of)
    loads = [one for one in [loads_message(found.loads)] if one is not None]
    return {
        "caption": sentence.as_dict(),
        "refused": None,
        "verdict": None if found.verdict is None else _verdict(found.verdict, found.of),
        "caveat": None if found.caveat is None else caveat_message(found.caveat).as_dict(),
        "sides": [_side(found.a), _side(found.b)],
        "differences": _differences(found.differences),
        "notes": [one.as_dict() for one in [*loads, *(told_message(note) for note in found.notes)]],
        "aligned": aligned,
        "more": Message("page_compare.more", {"n": n_more}).as_dict() if n_more else None,
        "series": series_part(found.steps),
        "ratios": ratios_part(found),
        "laws": _laws(found, tapes),
    }


def refused_part(tapes: tuple[Tape, Tape], across: Sequence[str], error: NotComparable) -> Part:
    """The same for two tapes that may not be compared: what differs, and the command that makes it the question."""
    found = differences(*tapes, across)
    refused = [difference.name for difference in found if difference.because is None]
    sides = [
        Side(
            None if tape.path is None else str(tape.path),
            model_name(tape),
            tape.state,
            len(tape.runs),
            len(tape.traces),
            sum(len(trace.tokens["id"]) for trace in tape.traces),
        )
        for tape in tapes
    ]
    paths = [shlex.quote(shown_path(tape.path)) if tape.path else name for tape, name in zip(tapes, "AB", strict=True)]
    names = error.fix.rpartition("--across ")[2] if "--across " in error.fix else ",".join([*across, *refused])
    told = Message("page_compare.refused", {"n": len(refused), "names": ", ".join(map(drawn_text, refused))})
    return {
        "caption": told.as_dict(),
        "refused": missing(told, f"tokentape view {' '.join(paths)} --across {shlex.quote(names)}"),
        "verdict": None,
        "caveat": None,
        "sides": [_side(side) for side in sides],
        "differences": _differences(found),
        "notes": [],
        "aligned": [],
        "more": None,
        "series": None,
        "ratios": [],
        "laws": missing(Message("page_compare.not_compared")),
    }


def _verdict(verdict: Verdict, of: str) -> Part:
    return {
        "word": verdict.word,
        "name": Message(f"page_compare.word_{verdict.word}", {"size": f"{100 * verdict.threshold:g}%"}).as_dict(),
        "sentence": _sentence(verdict, of).as_dict(),
        "reason": None if verdict.reason is None else told_message(verdict.reason).as_dict(),
        **{name: rounded(getattr(verdict, name), 5) for name in ("threshold", "change", "low", "high")},
        "confidence": verdict.confidence,
        "n": verdict.n,
        "interleaved": int(verdict.interleaved),
    }


def _sentence(verdict: Verdict | None, of: str) -> Message:
    """What B takes more or less than A, with its interval; that both are one recording where there is no verdict."""
    if verdict is None:
        return Message("page_compare.one_recording")
    if verdict.change is None or verdict.low is None or verdict.high is None:
        return Message("page_compare.not_measured")
    assert of in WHAT
    key = "equal" if abs(verdict.change) < 0.0005 else "longer" if verdict.change > 0 else "less"
    told = {
        "what": Message(f"page_compare.what_{of}"),
        "low": f"{100 * verdict.low:+.1f}",
        "high": f"{100 * verdict.high:+.1f}%",
        "confidence": f"{100 * verdict.confidence:g}%",
        "n": Message(f"page_compare.{'pairs' if verdict.interleaved else 'values'}", {"n": verdict.n}),
    }
    if key != "equal":
        told["size"] = f"{abs(100 * verdict.change):.1f}%"
    return Message(f"page_compare.{key}", told)


def _side(side: Side) -> Part:
    return {
        "name": None if side.path is None else drawn_text(os.path.basename(side.path)),
        "model": None if side.model is None else drawn_text(side.model),
        "state": side.state,
        "n_runs": side.n_runs,
        "n_traces": side.n_traces,
        "n_tokens": side.n_tokens,
    }


def _differences(found: Sequence[Difference]) -> list[Part]:
    """What differs: what is refused first, then the question, then what follows from it."""
    order = {None: 0, "asked": 1}
    return [
        {"name": drawn_text(d.name), "kind": d.kind, "a": _value(d.a), "b": _value(d.b), "because": d.because}
        for d in sorted(found, key=lambda d: order.get(d.because, 2))
    ]


def _value(value: Any) -> str | None:
    if value is None:
        return None
    text = drawn_text(str(value))
    return text if len(text) <= _VALUE else f"{text[: _VALUE - 1]}…"


def _laws(found: Comparison, tapes: tuple[Tape, Tape]) -> Any:
    if found.laws:
        return coefficients_part(found.laws)
    if found.same:
        return missing(Message("page_compare.one_recording"))
    side = (found.laws_missing or "A")[:1]
    tape = tapes["AB".index(side)] if side in "AB" else tapes[0]
    model = shlex.quote(model_name(tape) or "MODEL")
    return missing(Message("page_compare.no_law", {"side": side}), f"tokentape sweep {model} --context 64..1024")
