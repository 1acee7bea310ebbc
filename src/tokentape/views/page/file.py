"""The page as one file: script, style and data in it, nothing fetched, readable without script, for years.

The policy in its head lets run and style what was shipped, by its hash, and nothing else. The data is a block that no browser
runs; what was said by a model comes to the screen as text alone.
"""

from __future__ import annotations

import base64
import hashlib
import html
import os
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from tokentape.data.outputs import arriving, refuse_place
from tokentape.errors import MissingExtra, UsageError
from tokentape.views.page.json_text import page_json
from tokentape.words.catalogue import Lang, Message, said

__all__ = ["PAGE", "bundle", "digest", "page_html", "policy", "shell_bytes", "write_page"]

PAGE = "a page"
"""What takes no tape's place."""

_TEXT = 20_000
"""Characters of the text that is read without script."""

_SAID_OF_DROPPED = 2048


@cache
def bundle() -> tuple[str, str]:
    """Script and style of the page. Raises MissingExtra where they were not built, as in a checkout of the sources."""
    folder = resources.files("tokentape.views") / "static"
    try:
        script, style = ((folder / name).read_text("utf-8") for name in ("view.js", "view.css"))
    except FileNotFoundError as error:
        raise MissingExtra(
            "the page's script and style are not here",
            why=f"{error.filename} does not exist: a checkout of the sources without them",
            fix="make web (needs node), or pip install tokentape",
        ) from error
    if "</script" in script.lower() or "<!--" in script or "</style" in style.lower():
        raise ValueError("the bundle would end the element that it stands in")
    return script, style


def policy(*, connect: bool = False) -> str:
    """The content security policy of the page; with ``connect`` it may ask the server that served it."""
    script, style = bundle()
    rules = [
        "default-src 'none'",
        f"script-src '{digest(script)}'",
        f"style-src '{digest(style)}'",
        *(["connect-src 'self'"] if connect else []),
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join(rules)


def page_html(document: Mapping[str, Any], *, framed: bool = False) -> str:
    """The page of a document, as UTF-8 text of one file; ``framed``, it keeps its state to itself, as the address of a frame is
    nobody's. Raises MissingExtra where the bundle was not built.
    """
    before, after = _around(document, framed=framed)
    return f"{before}{page_json(document)}{after}"


def shell_bytes(document: Mapping[str, Any]) -> int:
    """What the page of a document takes beside its data, the text that is read without script included, and what may yet be
    said of what was left out.
    """
    return sum(len(part.encode()) for part in _around(document)) + _SAID_OF_DROPPED


def _around(document: Mapping[str, Any], *, framed: bool = False) -> tuple[str, str]:
    """What stands before and after the data."""
    script, style = bundle()
    lang: Lang = document["lang"] or "en"
    head = (
        '<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy(connect=document["live"] is not None)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f'<meta name="generator" content="tokentape {_escaped(document["tokentape"])}">\n'
        f"<title>{_escaped(document['title'])}</title>\n"
        f"<style>{style}</style>\n"
    )
    before = (
        f'<!doctype html>\n<html lang="{"zh-Hans" if lang == "zh" else "en"}">\n<head>\n{head}</head>\n<body>\n'
        f'<div id="tokentape"{" data-frame" if framed else ""}></div>\n'
        f"<noscript>\n{_without_script(document, lang)}</noscript>\n"
        '<script type="application/json" id="tokentape-data">'
    )
    return before, f"</script>\n<script>{script}</script>\n</body>\n</html>\n"


def write_page(document: Mapping[str, Any], path: str | os.PathLike[str], *, overwrite: bool = False) -> int:
    """Write the page of a document to a file, whole or not at all; returns its bytes. Raises TapeExists, UsageError."""
    place = Path(path)
    refuse_place(place, overwrite=overwrite, what=PAGE, fix="another path, or --overwrite")
    data = page_html(document).encode()
    try:
        with arriving(place) as file:
            file.write(data)
    except OSError as error:
        raise UsageError(
            f"{place} cannot be written", why=str(error), fix="give a path in a folder that can be"
        ) from error
    return len(data)


def digest(text: str) -> str:
    """What a content security policy calls a script or a style by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _escaped(text: str) -> str:
    """Text as text in HTML, surrogates written out: UTF-8 has no place for them."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode())


def _said(message: Mapping[str, Any], lang: Lang) -> str:
    return said(Message.of(message), lang)


def _without_script(document: Mapping[str, Any], lang: Lang) -> str:
    """What is read where no script runs: the figures, and the text of the first sequence."""
    lines = [f"<h1>{_escaped(document['title'])}</h1>", f"<p>{_escaped(said(Message('page_core.noscript'), lang))}</p>"]
    tape = document["tape"]
    if tape is not None:
        overview = tape["overview"]
        lines.append(f"<p>{_escaped(_said(overview['verdict'], lang))}</p>")
        lines.append("<ul>")
        for figure in overview["figures"]:
            note = "" if figure["note"] is None else f" ({_said(figure['note'], lang)})"
            lines.append(f"<li>{_escaped(_said(figure['label'], lang) + ': ' + (figure['text'] or '–') + note)}</li>")
        lines += [f"<li>{_escaped(_said(finding['text'], lang))}</li>" for finding in overview["findings"]]
        lines.append("</ul>")
        for trace in tape["traces"][:1]:
            text = "".join(trace["symbols"]["text"])
            lines.append(f"<p>{_escaped(text[:_TEXT] + ('…' if len(text) > _TEXT else ''))}</p>")
    return "\n".join(["<blockquote>", *lines, "</blockquote>"]) + "\n"  # which has margins though nothing styles it
