"""What every document of the page has around what it shows: version, title, language, words."""

from __future__ import annotations

from functools import cache
from typing import Any

from tokentape._version import __version__
from tokentape.views.page.parts import Part
from tokentape.words.catalogue import LANGS, Lang, phrases

__all__ = ["envelope", "page_words"]

SCHEMA = 1
"""Version of the page's document: a field that changes its meaning or goes raises it."""


def envelope(
    title: str,
    *,
    tape: Part | None = None,
    compare: Part | None = None,
    law: Part | None = None,
    lang: Lang | None = None,
    live: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A ``PageDocument`` of ``web/src/document.ts``, from which nothing was dropped. ``lang`` None lets the browser decide."""
    return {
        "schema": SCHEMA,
        "tokentape": __version__,
        "title": title,
        "lang": lang,
        "words": page_words(),
        "tape": tape,
        "compare": compare,
        "law": law,
        "dropped": [],
        "live": live,
    }


@cache
def page_words() -> dict[str, dict[str, str]]:
    """The page's part of the catalogue, by language."""
    return {lang: dict(sorted(phrases(lang, "page_").items())) for lang in LANGS}
