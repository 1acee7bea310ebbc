"""The listing of a folder's tapes, as the page that is served shows it."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from tokentape.views.drawing import drawn_text
from tokentape.views.listing import TapeLine
from tokentape.views.page.parts import Part
from tokentape.views.page.rounding import rounded
from tokentape.words.catalogue import Message

__all__ = ["folder_part"]

_LONGEST = 300
"""Characters of a prompt."""


def folder_part(lines: Sequence[TapeLine], title: str) -> Part:
    """``FolderPart`` of the page's document: the tapes in the order given, with what they are sorted by."""
    tokens = sum(line.n_tokens or 0 for line in lines)
    recording = sum(line.state == "recording" for line in lines)
    return {
        "title": Message("page_live.tapes.title", {"folder": drawn_text(title)}).as_dict(),
        "caption": Message(
            "page_live.tapes.caption", {"n": len(lines), "tokens": tokens, "recording": recording}
        ).as_dict(),
        "tapes": [_tape(line) for line in lines],
    }


def _tape(line: TapeLine) -> Part:
    name = line.path.name
    said = line.prompt if line.problem is None else line.problem
    return {
        "name": drawn_text(name),
        "link": quote(name, safe="", errors="surrogateescape"),
        "state": line.state,
        "model": None if line.model is None else drawn_text(line.model),
        "tokens": line.n_tokens,
        "speed": rounded(line.tokens_per_s, 4),
        "created": line.created,
        "prompt": None if said is None else drawn_text(said[:_LONGEST]),
    }
