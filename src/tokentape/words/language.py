"""Which language somebody reads."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tokentape.words.catalogue import LANGS, Lang

__all__ = ["VARIABLE", "language_asked", "language_named", "language_of"]

VARIABLE = "TOKENTAPE_LANG"
"""The environment variable that decides before the locale does."""


def language_asked(environ: Mapping[str, str] = os.environ) -> Lang | None:
    """The language that ``TOKENTAPE_LANG`` names; None where it is not set, or names none that there is."""
    return _known(environ.get(VARIABLE, "").replace("-", "_").partition("_")[0].lower())


def language_named(word: str | None, environ: Mapping[str, str] = os.environ) -> Lang | None:
    """The language of an option ``--lang``; where it was not given, that of :func:`language_asked`."""
    return language_asked(environ) if word is None else _known(word)


def _known(word: str) -> Lang | None:
    return next((lang for lang in LANGS if lang == word), None)


def language_of(environ: Mapping[str, str] = os.environ) -> Lang:
    """The language of a terminal: as asked for, else that of the locale for messages, else English."""
    if (asked := language_asked(environ)) is not None:
        return asked
    # the order of POSIX: LC_ALL over LC_MESSAGES over LANG
    locale = next((value for name in ("LC_ALL", "LC_MESSAGES", "LANG") if (value := environ.get(name))), "")
    return "zh" if locale.lower().startswith("zh") else "en"
