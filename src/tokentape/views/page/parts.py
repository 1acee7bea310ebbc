"""The small values that every part of the page is made of; their forms are those of ``web/src/document.ts``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

from tokentape.errors import ExplainError, StudyError, TokentapeError, UsageError
from tokentape.views.drawing import drawn_text
from tokentape.words.catalogue import Message

__all__ = [
    "Badge",
    "Part",
    "PartName",
    "Unit",
    "dropped",
    "figure",
    "guarded_part",
    "link",
    "missing",
    "named_ids",
    "refused",
]

Part: TypeAlias = dict[str, Any]

Unit: TypeAlias = Literal["ns", "nats", "bytes", "tokens", "share", "count", "logit", "flops", ""]

Badge: TypeAlias = Literal["measured", "modelled", "unavailable"]

PartName: TypeAlias = Literal[
    "overview", "tokens", "time", "distribution", "attention", "layers", "cost", "compare", "provenance", "requests"
]


def missing(message: Message, run: str | None = None) -> Part:
    """What stands where nothing was recorded: why, and the command that fills it (to be copied); None where none helps.

    There is none either with a name that a terminal would act on.
    """
    return {"missing": message.as_dict(), "run": None if run is None or drawn_text(run) != run else run}


def refused(error: TokentapeError) -> Part:
    """The same from an error: its words, as they are told on the command line (in English)."""
    said = Message("page_core.refused", {"what": error.what, "why": error.why, "fix": error.fix})
    return missing(said)


def guarded_part(build: Callable[[], Part]) -> Part:
    """What a builder makes; where the tape does not hold what it asks, the error's words. Any other error goes on."""
    try:
        return build()
    except (StudyError, UsageError, ExplainError) as error:
        return refused(error)


def figure(
    label: Message,
    text: str | None,
    value: float | None = None,
    unit: Unit = "",
    *,
    badge: Badge | None = None,
    note: Message | None = None,
) -> Part:
    """A figure with where it comes from.

    ``text`` is how it is written, with its unit, and ``value`` the number in ``unit``; both None where there is none, and then
    the badge is "unavailable". Otherwise it is "measured" unless told.
    """
    return {
        "label": label.as_dict(),
        "text": text,
        "value": value,
        "unit": unit,
        "badge": badge or ("unavailable" if text is None else "measured"),
        "note": None if note is None else note.as_dict(),
    }


def link(part: PartName, *, trace: int | None = None, place: int | None = None) -> Part:
    """Where a link leads: a part, and what is selected there (``place`` counts the prompt's tokens)."""
    found: Part = {"part": part}
    if trace is not None:
        found["trace"] = trace
    if place is not None:
        found["place"] = place
    return found


def dropped(what: Message, n_bytes: int, flag: str) -> Part:
    """Something that the byte budget left out, and the flag that brings it back."""
    return {"what": what.as_dict(), "bytes": n_bytes, "flag": flag}


def named_ids(value: Any, key: str = "") -> Iterator[int]:
    """Every vocabulary id that a part names: under ``ids``, ``..._ids`` and ``wanted``, however deep."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from named_ids(inner, str(name))
    elif isinstance(value, list) and (key in ("ids", "wanted") or key.endswith("_ids")):
        yield from _flat(value)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for inner in value:
            yield from named_ids(inner)


def _flat(values: Iterable[Any]) -> Iterator[int]:
    for value in values:
        if isinstance(value, list):
            yield from _flat(value)
        elif value is not None:
            yield value
