"""The documents of the pages that are served: the same as in a file, and what the page may ask of its server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tokentape.data.doubt import in_doubt
from tokentape.data.tape import open_tape
from tokentape.server.following import look, refusing_gone, settled_form
from tokentape.server.rows import moment_of
from tokentape.views.page.compare import compared_document
from tokentape.views.page.document import page_document
from tokentape.views.page.envelope import envelope
from tokentape.views.page.folder import folder_part

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.server.explaining import Explainer
    from tokentape.server.folder import Shelf
    from tokentape.server.gatekeeping import Gate
    from tokentape.server.rows import Mark, Moment
    from tokentape.words.catalogue import Lang

__all__ = ["MOST_TRACES", "Asked", "Pages"]

MOST_TRACES = 64
"""Sequences that a served page holds: of a tape with more the first, while it grows the last. The page says how many there are."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for: a language, certain sequences, what may differ between two tapes, also what a guard withheld."""

    lang: Lang | None = None
    traces: Sequence[int] | None = None
    across: Sequence[str] = ()
    withheld: bool = False


class Pages:
    """Makes the documents of what a shelf holds."""

    def __init__(self, shelf: Shelf, gate: Gate, explainer: Explainer | None, asked: Asked) -> None:
        self._shelf = shelf
        self._gate = gate
        self._explainer = explainer
        self._asked = asked

    def tape(self, path: Path) -> dict[str, Any]:
        """The page of one tape. Raises the tape's own errors."""
        form = look(path)
        with refusing_gone(path), open_tape(path) as tape:
            return self.document(tape, self.moment(tape, settled_form(form)).mark)

    def moment(self, tape: Tape, settled: str) -> Moment:
        """The rows of an open tape."""
        with in_doubt(tape):
            return moment_of(tape, settled, withheld=self._asked.withheld)

    def document(self, tape: Tape, mark: Mark) -> dict[str, Any]:
        """The document of an open tape as it is at a mark."""
        assert tape.path is not None
        name = quote(tape.path.name, safe="", errors="surrogateescape")
        explains = self._explainer is not None and self._explainer.offers(tape)
        live = {
            "events": f"/events?tape={name}",
            "since": str(mark),
            "explain": "/explain" if explains else None,
            "proof": self._gate.proof if explains else None,
            "folder": None if self._shelf.only is not None else "/",
        }
        asked = self._asked
        traces = _shown(tape) if asked.traces is None else asked.traces
        return page_document(tape, traces=traces, lang=asked.lang, live=live, withheld=asked.withheld)

    def folder_part(self) -> dict[str, Any]:
        """The listing of what there is now."""
        return folder_part(self._shelf.lines(), self._shelf.title)

    def folder(self) -> dict[str, Any]:
        """The page that lists the tapes."""
        live = {
            "events": "/folder/events",
            "since": self._shelf.version(),
            "explain": None,
            "proof": None,
            "folder": "/",
        }
        document = envelope(self._shelf.title, lang=self._asked.lang, live=live)
        return {**document, "folder": self.folder_part()}

    def compare(self, a: Path, b: Path) -> dict[str, Any]:
        """The page that compares two tapes, or says what keeps them from being compared."""
        folder = None if self._shelf.pair else "/"
        live = {"events": None, "since": "", "explain": None, "proof": None, "folder": folder}
        asked = self._asked
        with refusing_gone(a, b):
            found = compared_document(a, b, across=asked.across, lang=asked.lang, withheld=asked.withheld)
        return {**found, "live": live}


def _shown(tape: Tape) -> list[int] | None:
    """The numbers of the sequences that a page holds; None for all."""
    n = len(tape)
    if n <= MOST_TRACES:
        return None
    return list(range(n - MOST_TRACES, n)) if tape.state == "recording" else list(range(MOST_TRACES))
