"""Values in a notebook: the same page as the file, in a frame of its own, and a text for where no page can be seen.

The page stands in the attribute ``srcdoc`` of an ``<iframe>``: it brings its script, style and data with it, asks no
server, and stays in the saved notebook and in what is converted from it. The frame is a sandbox, which may run the
page's script and let somebody download a chart or copy a command, and nothing else: it sees neither the notebook nor
its origin. Where a frame is not let through (GitHub, notebooks that are not trusted) the text within it remains.

:func:`tokentape.display.displayed_by` leads here from ``_repr_mimebundle_`` of Tape, Trace, Explanation, Law and
Comparison.
"""

from __future__ import annotations

import html
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tokentape.errors import TokentapeError, UsageError
from tokentape.views.drawing import drawn_text
from tokentape.words.catalogue import Lang, phrase
from tokentape.words.language import language_asked, language_of

if TYPE_CHECKING:
    from tokentape.data.explanation import Explanation
    from tokentape.data.trace import Trace
    from tokentape.display import Bundle
    from tokentape.study.compare import Comparison
    from tokentape.views.screen import Screen

__all__ = ["NotebookOptions", "frame", "mimebundle", "notebook"]

ROWS = 20
"""Tokens of a trace in its text."""


@dataclass(frozen=True, slots=True)
class NotebookOptions:
    """How values are shown in this notebook.

    ``max_bytes`` is the size of a page, which the notebook's file holds: what does not fit is left out, and the page
    says so. ``height`` is that of the frame in pixels. ``lang`` ``"auto"`` lets the browser decide, unless
    TOKENTAPE_LANG does. Without ``page`` there is only the text.
    """

    max_bytes: int = 2_000_000
    height: int = 640
    lang: Literal["auto", "en", "zh"] = "auto"
    page: bool = True


_options = NotebookOptions()


def notebook(
    *,
    max_bytes: int | None = None,
    height: int | None = None,
    lang: Literal["auto", "en", "zh"] | None = None,
    page: bool | None = None,
) -> NotebookOptions:
    """Set how values are shown from now on, where given; returns what holds. Raises UsageError."""
    global _options
    for name, number, what in (("max_bytes", max_bytes, "bytes"), ("height", height, "pixels")):
        if number is not None and number < 1:
            fix = f"{name}={getattr(NotebookOptions(), name)}"
            raise UsageError(f"{name}={number}", why=f"it is a number of {what}", fix=fix)
    if lang not in (None, "auto", "en", "zh"):
        raise UsageError(f"lang={lang!r}", why="the page speaks English and Chinese", fix='lang="en", "zh" or "auto"')
    _options = NotebookOptions(
        max_bytes=_options.max_bytes if max_bytes is None else max_bytes,
        height=_options.height if height is None else height,
        lang=_options.lang if lang is None else lang,
        page=_options.page if page is None else page,
    )
    return _options


def mimebundle(value: Any) -> Bundle:
    """What to show of a value: its text, and its page where one can be seen.

    A page that cannot be made (a tape that was closed, or is not there any more) is told in the text.
    """
    from tokentape.data.explanation import Explanation
    from tokentape.views.page.explanation import explanation_height

    screen = _screen()
    if isinstance(value, Explanation) and value.withheld:
        return {"text/plain": phrase("notebook.withheld", screen.lang, what=repr(value))}
    try:
        text = _text(value, screen)
    except TokentapeError as error:
        return {"text/plain": f"{_name(value)}\n{_refused(error, screen.lang)}"}
    if not _options.page or not _wants_pages():
        return {"text/plain": text}
    try:
        title, page = _page(value)
    except TokentapeError as error:
        return {"text/plain": f"{text}\n{_refused(error, screen.lang)}"}
    height = min(_options.height, explanation_height(value)) if isinstance(value, Explanation) else _options.height
    shown = frame(page, phrase("notebook.title", screen.lang, name=title), text, height)
    return {"text/plain": text, "text/html": shown}


def frame(page: str, title: str, text: str, height: int) -> str:
    """A page in a frame of so many pixels. ``text`` is for where frames are taken out: within the element no browser
    shows it.
    """
    # Between single quotes, as the data of the page is full of double ones. Brackets are written out too: there are programs
    # that look for tags without regard to where attributes end.
    source = html.escape(page, quote=False).replace("'", "&#39;")
    return (
        f'<iframe title="{html.escape(title)}" sandbox="allow-scripts allow-downloads" allow="clipboard-write" width="100%" '
        f'height="{height}" style="width:100%;height:{height}px;border:0" '
        f"srcdoc='{source}'><pre>{html.escape(text)}</pre></iframe>"
    )


def _refused(error: TokentapeError, lang: Lang) -> str:
    return drawn_text(phrase("notebook.no_page", lang, what=error.what, why=error.why, fix=error.fix))


def _wants_pages() -> bool:
    """Whether what is shown goes to something that knows HTML; IPython on a terminal does not."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    kinds = getattr(getattr(shell, "display_formatter", None), "active_types", None)
    return kinds is None or "text/html" in kinds


def _lang() -> Lang | None:
    """The language of a page; None lets the browser decide."""
    return language_asked() if _options.lang == "auto" else _options.lang


def _screen() -> Screen:
    from tokentape.views.screen import Screen

    return Screen(width=100, lang=_lang() or language_of())


def _text(value: Any, screen: Screen) -> str:
    from tokentape.data.explanation import Explanation
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace
    from tokentape.study.law.laws import Law

    if isinstance(value, Tape):
        from tokentape.views.card import card

        return card(value, screen)
    if isinstance(value, Trace):
        return _trace_text(value, screen)
    if isinstance(value, Explanation):
        return _explanation_text(value, screen)
    if isinstance(value, Law):
        from tokentape.views.law_text import law_text

        return law_text(value, screen)
    from tokentape.views.comparison import comparison_text

    return comparison_text(_let_through(value), screen)


def _name(value: Any) -> str:
    """How a value is called that cannot be shown; a comparison without its texts."""
    from tokentape.study.compare import Comparison

    return f"<{value.a.path} / {value.b.path}>" if isinstance(value, Comparison) else repr(value)


def _let_through(found: Comparison) -> Comparison:
    """The comparison without the words that a guard withheld; of tapes in memory, which are not at hand, without any."""
    from dataclasses import replace

    from tokentape.data.tape import open_tape
    from tokentape.study.compare import compare
    from tokentape.views.page.withheld import let_through

    if not found.withheld:
        return found
    if found.a.path is None or found.b.path is None:
        return replace(found, alignments=())
    with open_tape(found.a.path) as a, open_tape(found.b.path) as b:
        return compare(let_through(a), let_through(b), across=_asked(found), of=found.of)


def _asked(found: Comparison) -> list[str]:
    """What was named as the question."""
    return [difference.name for difference in found.differences if difference.because == "asked"]


def _trace_text(trace: Trace, screen: Screen) -> str:
    from tokentape.data.tape import tape_of
    from tokentape.views.page.withheld import let_through
    from tokentape.views.text import show

    return show(let_through(tape_of(trace)), screen, rows=ROWS, traces=[trace.number])


def _explanation_text(found: Explanation, screen: Screen) -> str:
    from tokentape.views.explanation_text import explanation_text
    from tokentape.views.page.explanation import target_names

    names = dict(zip(found.target_ids.tolist(), target_names(found), strict=True))
    where = "docs/explanation/relevance.md says what it can prove"
    return explanation_text(found, screen, lambda token: names.get(token, f"#{token}"), where)


def _page(value: Any) -> tuple[str, str]:
    """Title and page of a value."""
    from tokentape.data.explanation import Explanation
    from tokentape.data.tape import Tape, tape_of
    from tokentape.data.trace import Trace
    from tokentape.study.law.laws import Law
    from tokentape.views.page.budget import page_within, within
    from tokentape.views.page.file import shell_bytes

    lang, most = _lang(), _options.max_bytes
    if isinstance(value, Explanation):
        from tokentape.views.page.explanation import explanation_html

        return value.method, explanation_html(value, lang or language_of())
    if isinstance(value, Tape):
        return _framed(page_within(value, most, around=shell_bytes, lang=lang))
    if isinstance(value, Trace):
        return _framed(page_within(tape_of(value), most, around=shell_bytes, traces=[value.number], lang=lang))
    if isinstance(value, Law):
        from tokentape.views.page.law import law_document

        return _framed(law_document(value, lang=lang))
    return _framed(within(_compared(value, lang), most, around=shell_bytes))


def _compared(found: Comparison, lang: Lang | None) -> dict[str, Any]:
    """The document of a comparison, whose tapes are opened again for their texts."""
    from tokentape.data.tape import open_tape
    from tokentape.views.page.compare import compare_document, compared_document

    if found.a.path is None or found.b.path is None:
        raise UsageError(
            "the comparison is of a tape in memory",
            why="its page shows both texts, which are read from the tapes again",
            fix="save the tape first: tape.save(path)",
        )
    with open_tape(found.a.path) as a, open_tape(found.b.path) as b:
        if not found.withheld:
            return compare_document(found, (a, b), lang)
        return compared_document(a, b, across=_asked(found), of=found.of, lang=lang)


def _framed(document: dict[str, Any]) -> tuple[str, str]:
    """Title and page of a document that stands in a frame."""
    from tokentape.views.page.file import page_html

    return str(document["title"]), page_html(document, framed=True)
