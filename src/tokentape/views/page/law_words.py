"""The names that laws give their terms, as messages: a term, what it costs for each, its meaning."""

from __future__ import annotations

import re

from tokentape.words.catalogue import Message

__all__ = ["form_message", "meaning_message", "per_message", "term_message"]

_NAMES = {
    "constant": "constant",
    "sequences": "sequences",
    "positions": "positions",
    "key-value": "key-value",
    "tokens": "tokens",
    "attention": "attention",
    "layers": "layers",
    "weights": "weights",
    "cache": "cache",
    "compute": "compute",
    "attention compute": "attention-compute",
    "reductions": "reductions",
}

_PER = {
    "sequence": "sequence",
    "position": "position",
    "position of a sequence": "sequence-position",
    "token": "token",
    "pair of positions": "pair",
    "layer": "layer",
    "byte of weights": "weight-byte",
    "byte of cache": "cache-byte",
    "operation": "operation",
    "byte reduced": "reduced-byte",
    "sequence and layer": "sequence-layer",
}

_BEND = re.compile(r"(?P<name>.+?) (?P<side>beyond|up to) (?P<at>[\d.,e+-]+)(?: ?(?P<unit>/byte|tokens|MB))?")


def term_message(name: str) -> Message:
    """``key-value``, ``sequences beyond 4``: what it is called; a name that is not known stands for itself."""
    bend = _BEND.fullmatch(name)
    plain = bend["name"] if bend else name
    known = _NAMES.get(plain)
    term = Message("page_law.as_is", {"text": plain}) if known is None else Message(f"page_law.term.{known}")
    if bend is None:
        return term
    at = {"/byte": f"{bend['at']}/B", "MB": f"{bend['at']} MB"}.get(bend["unit"] or "", bend["at"])
    return Message(f"page_law.{'beyond' if bend['side'] == 'beyond' else 'up_to'}", {"term": term, "at": at})


def meaning_message(name: str) -> Message:
    """What a term stands for in the machine."""
    bend = _BEND.fullmatch(name)
    known = _NAMES.get(bend["name"] if bend else name)
    return Message("page_law.as_is", {"text": name}) if known is None else Message(f"page_law.meaning.{known}")


def per_message(per: str) -> Message:
    """What a coefficient is for each of: ``position of a sequence``; of none, each step."""
    if not per:
        return Message("page_law.per.step")
    known = _PER.get(per)
    return Message("page_law.as_is", {"text": per}) if known is None else Message(f"page_law.per.{known}")


def form_message(form: str) -> list[dict[str, object]]:
    """The terms of a form, whose sum it is."""
    return [term_message(name).as_dict() for name in form.split(" + ")]
