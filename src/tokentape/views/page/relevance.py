"""What tokens rest on: the explanations of a trace, as sparse rows with their check, their cost and what they cannot prove."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tokentape.views.page.parts import Part, missing
from tokentape.views.page.rounding import near, rounded, short
from tokentape.views.shape import name_alone
from tokentape.views.units import duration
from tokentape.words.catalogue import Message, area

if TYPE_CHECKING:
    from tokentape.data.explanation import Explanation, ReplayCheck
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["CELLS", "check_part", "explained", "method_note", "relevance_part", "unread"]

CELLS = 100_000
"""Cells of one explanation that a page holds; of a larger one each row keeps its largest."""

_LEDGER = ("biases", "positions", "leaks", "residual")


def relevance_part(trace: Trace, tape: Tape, explanations: Sequence[Explanation] | None = None) -> Part:
    """The explanations of a trace, in the order of the tape; ``explanations`` are those to choose from where they are at hand."""
    of_it = [one for one in (tape.explanations if explanations is None else explanations) if one.trace == trace.number]
    if not of_it:
        return unread(Message("page_attention.unexplained"), trace, tape, "--all")
    return {"explanations": [explained(one, trace, tape) for one in of_it]}


def explained(found: Explanation, trace: Trace, tape: Tape, *, cells: int = CELLS) -> Part:
    """One explanation. Positions of the replayed sequence are places: a replay has the prompt's ids and then the tokens'."""
    rows, kept = _rows(found, cells)
    foils = None if found.foil_ids is None else [name_alone(int(i), tape.pieces) for i in found.foil_ids]
    sizes = np.ma.filled(np.abs(found.relevance), 0.0)
    return {
        "number": found.number,
        "title": _title(found, foils).as_dict(),
        "caption": _caption(found, sizes, trace.n_prompt or 0).as_dict(),
        "method": found.method,
        "kind": found.kind,
        "unit": "nats" if found.kind == "logprob" else "logit",
        "targets": found.targets.tolist(),
        "together": found.together,
        "foils": foils,
        "starts": [source.start for source in found.sources],
        "stops": [source.stop for source in found.sources],
        "rows": rows,
        "limits": short(sizes.max(1), 4),
        "values": short(found.value, 4),
        "wholes": _wholes(found),
        "ledger": [
            {"name": Message(f"page_attention.ledger.{name}").as_dict(), "values": short(found.ledger[name], 4)}
            for name in _LEDGER
            if name in found.ledger
        ],
        "kept": None if kept is None else kept.as_dict(),
        "check": check_part(found.check),
        "cost": _cost(found).as_dict(),
        "note": method_note(found.method).as_dict(),
    }


def unread(what: Message, trace: Trace, tape: Tape, *flags: str) -> Part:
    """What stands where no replay was made: the command that makes one, with the tape by its name alone as a page may be handed on.

    Where the tape cannot be played back it says why in place of a command that would be refused.
    """
    if (why := _no_replay(trace)) is not None:
        return missing(
            Message("page_attention.and_why", {"what": what, "why": Message(f"page_attention.no_replay.{why}")})
        )
    name = "FILE" if tape.path is None else shlex.quote(tape.path.name)
    words = ["tokentape", "explain", name, *flags, *(["--trace", str(trace.number)] if trace.number else [])]
    if tape.setting.facts.get("engine") not in (None, "transformers"):
        words += ["--model", "MODEL"]
    if not np.ma.count(trace.tokens["logprob"]):
        words.append("--unchecked")
        what = Message("page_attention.and_why", {"what": what, "why": Message("page_attention.no_logprobs")})
    return missing(what, " ".join(words))


def _no_replay(trace: Trace) -> str | None:
    """Why no model can read again what was read: as ``tokentape explain`` refuses it."""
    if trace.prompt_ids is None or np.ma.getmaskarray(trace.tokens["id"]).any():
        return "no_ids"
    if not trace.n_prompt:
        return "no_prompt"
    if np.ma.filled(trace.steps["dropped"], 0).max(initial=0) > 0 or _windows(trace) > 1:
        return "window"
    return None


def _windows(trace: Trace) -> int:
    """The windows in which a text was scored: 1 of one that was read at once, or generated."""
    options = trace.run.options.get("score")
    documents = options.get("documents") if isinstance(options, Mapping) else None
    if not isinstance(documents, Sequence) or trace.row >= len(documents):
        return 1
    return int(documents[trace.row].get("n_windows") or 1)


def check_part(check: ReplayCheck | None) -> Part:
    """How far the replay is from the tape, in a sentence, and whether that passed; null where nothing was compared."""
    if check is None or check.largest is None:
        said = Message("page_attention.unchecked", {"reason": None if check is None else check.reason})
        return {"text": said.as_dict(), "passed": None}
    args: dict[str, Any] = {"largest": f"{check.largest:.1e}", "n": check.n}
    if check.passed:
        args["median"] = None if check.median is None else f"{check.median:.1e}"
        return {"text": Message("page_attention.agrees", args).as_dict(), "passed": True}
    args |= {"reason": check.reason, "tolerance": f"{check.tolerance:g}"}
    return {"text": Message("page_attention.disagrees", args).as_dict(), "passed": False}


def method_note(method: str) -> Message:
    """What a method asks and what it cannot prove."""
    key = f"page_attention.note.{method}"
    return Message(key) if key in area("page_attention") else Message("page_attention.note")


def _rows(found: Explanation, cells: int) -> tuple[Part, Message | None]:
    """Relevance to the fifth digit of the largest of its row; and what part of it is kept, where not all is."""
    data, mask = found.relevance.data, np.ma.getmaskarray(found.relevance)
    if (~mask).sum() <= cells:
        ends = [int(np.flatnonzero(~row)[-1]) + 1 if not row.all() else 0 for row in mask]
        values = [value for row, end in zip(data, ends, strict=True) for value in _near_largest(row[:end])]
        return {"counts": ends, "columns": None, "values": values, "per": 1}, None
    k = max(1, cells // len(data))
    sizes = np.where(mask, -1.0, np.abs(data))
    best = np.sort(np.argsort(-sizes, axis=1, kind="stable")[:, :k], axis=1)
    columns = [row[sizes[i, row] > 0] for i, row in enumerate(best)]
    values = [value for row, places in zip(data, columns, strict=True) for value in _near_largest(row[places])]
    whole = np.where(mask, 0.0, np.abs(data)).sum(1)
    part = np.array([sizes[i, places].sum() for i, places in enumerate(columns)])
    share = float((part[whole > 0] / whole[whole > 0]).mean()) if (whole > 0).any() else 1.0
    sparse = {
        "counts": [len(places) for places in columns],
        "columns": np.concatenate(columns).tolist(),
        "values": values,
        "per": 1,
    }
    return sparse, Message("page_attention.largest_kept", {"k": k, "share": f"{share:.1%}"})


def _near_largest(row: npt.NDArray[np.float64]) -> list[float | None]:
    largest = float(np.nanmax(np.abs(row), initial=0.0))
    return near(row, 5 - math.ceil(math.log10(largest)) if largest > 0 else 0)


def _wholes(found: Explanation) -> list[float | None] | None:
    """What a share is a part of, for the rows that have shares."""
    shares = found.shares()
    if shares is None:
        return None
    telling = [not row.all() for row in np.ma.getmaskarray(shares)]
    tokens = found.ledger["tokens"].tolist()
    return [rounded(value, 6) if tells else None for value, tells in zip(tokens, telling, strict=True)]


def _title(found: Explanation, foils: Sequence[str] | None) -> Message:
    against = foils[0] if foils and len(set(foils)) == 1 else None
    kind = "foils" if foils and against is None else found.kind
    what = Message(f"page_attention.kind.{kind}", {"foil": against} if kind == "foil" else {})
    by = found.sources[0].kind
    args = {"method": found.method, "what": what, "by": Message(f"page_attention.by.{by}"), "n": len(found.targets)}
    return Message("page_attention.title_together" if found.together else "page_attention.title", args)


def _caption(found: Explanation, sizes: npt.NDArray[np.float64], n_prompt: int) -> Message:
    """Where the relevance lies: its part in the prompt, and how far back the strongest source is."""
    moved = sizes.sum(1) > 0
    if not moved.any():
        return Message("page_attention.idle", {"n": len(found.targets)})
    inside = np.array([source.stop <= n_prompt for source in found.sources])
    share = (sizes[moved][:, inside].sum(1) / sizes[moved].sum(1)).mean()
    last = found.targets[-1:] if found.together else found.targets
    ends = np.array([source.stop - 1 for source in found.sources])
    back = np.median((last - ends[sizes.argmax(1)])[moved])
    best = sizes[moved].max(1) / sizes[moved].sum(1)
    args = {
        "n": len(found.targets),
        "prompt": f"{share:.0%}",
        "back": round(float(back)),
        "best": f"{best.mean():.0%}",
    }
    return Message("page_attention.rests", args)


def _cost(found: Explanation) -> Message:
    passes = {name: int(found.passes.get(name, 0)) for name in ("forward", "backward")}
    return Message("page_attention.cost", {**passes, "cpu": None if found.cpu_ns is None else duration(found.cpu_ns)})
