"""An explanation alone, as a small page without script: for each target the sources it rests on most, as a table with
bars.

The page of a tape shows an explanation in its text; one that was just made may be of no tape yet, and has only the
labels of its sources.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import numpy as np

from tokentape.views.drawing import drawn_text, quoted
from tokentape.views.page.file import digest
from tokentape.words.catalogue import Lang, phrase

if TYPE_CHECKING:
    from tokentape.data.explanation import Explanation, Source

__all__ = ["explanation_height", "explanation_html", "target_names"]

TARGETS = 20
"""Targets that are shown; the rest is counted."""

SOURCES = 10
"""Sources of each."""

_BAR = 160

_STYLE = """
:root{color-scheme:light dark;--for:#2b6cb0;--against:#c05621;--rule:#d0d0d0}
@media (prefers-color-scheme:dark){:root{--for:#63a4e8;--against:#e8985f;--rule:#454545}}
body{font:14px/1.45 system-ui,sans-serif;margin:12px;color:CanvasText;background:Canvas}
h1{font-size:16px;margin:0 0 4px}
caption{text-align:start;font-weight:600;padding:14px 0 4px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th.s{width:12em}th.n{width:6em}
th{font-weight:400;text-align:start;opacity:.75}
td,th{padding:1px 14px 1px 0;border-bottom:1px solid var(--rule)}
td.n,th.n{text-align:end}
td.s{font-family:ui-monospace,monospace;white-space:pre-wrap;overflow-wrap:anywhere;max-width:24em}
rect.for{fill:var(--for)}rect.against{fill:var(--against)}line{stroke:CanvasText;opacity:.4}
p{margin:10px 0 0}
"""


def explanation_html(found: Explanation, lang: Lang = "en") -> str:
    """The page of an explanation: one document, which fetches and runs nothing."""
    n = len(found.targets)
    title = phrase("notebook.explanation", lang, n=n, method=found.method)
    rows = range(min(len(found.value), TARGETS))
    body = [f"<h1>{html.escape(title)}</h1>", *(_table(found, row, lang) for row in rows)]
    if (more := len(found.value) - len(rows)) > 0:
        body.append(_paragraph(phrase("notebook.more_targets", lang, n=more)))
    body.append(_paragraph(_check(found, lang)))
    if "notice" in found.notes:
        body.append(_paragraph(drawn_text(str(found.notes["notice"]))))
    policy = f"default-src 'none'; style-src '{digest(_STYLE)}'; base-uri 'none'; form-action 'none'"
    return (
        f'<!doctype html>\n<html lang="{"zh-Hans" if lang == "zh" else "en"}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def explanation_height(found: Explanation) -> int:
    """About how many pixels the page needs, where no label is so long that it is folded."""
    rows = [len(found.top(row, SOURCES)) for row in range(min(len(found.value), TARGETS))]
    return 110 + sum(84 + 24 * n for n in rows)


def target_names(found: Explanation) -> list[str]:
    """How each target is drawn: as the label of the source that stands in its place, else by its id."""
    alone = {source.start: source.label for source in found.sources if source.stop == source.start + 1}
    return [
        quoted(drawn_text(alone[position])) if position in alone else f"#{token}"
        for position, token in zip(found.targets.tolist(), found.target_ids.tolist(), strict=True)
    ]


def _headline(found: Explanation, row: int, lang: Lang) -> str:
    value, unit = f"{found.value[row]:.2f}", phrase(f"notebook.unit_{found.kind}", lang)
    if found.together and len(found.targets) > 1:
        first, last = str(found.targets[0]), str(found.targets[-1])
        return phrase("notebook.together", lang, n=len(found.targets), first=first, last=last, value=value, unit=unit)
    token, position = target_names(found)[row], str(found.targets[row])
    if found.foil_ids is None:
        return phrase("notebook.one", lang, token=token, position=position, value=value, unit=unit)
    foil = f"#{found.foil_ids[row]}"
    return phrase("notebook.against", lang, token=token, foil=foil, position=position, value=value, unit=unit)


def _table(found: Explanation, row: int, lang: Lang) -> str:
    ranked = found.top(row, SOURCES)
    caption = f"<caption>{html.escape(_headline(found, row, lang))}</caption>"
    if not ranked or not any(value for _, value in ranked):
        return f"<table>{caption}</table>{_paragraph(phrase('notebook.nothing', lang))}"
    shares = found.shares()
    told = shares is not None and not np.ma.getmaskarray(shares)[row].all()
    place = {source: column for column, source in enumerate(found.sources)}
    heads = [("source", "s"), ("position", "n"), ("relevance", "n"), *([("share", "n")] if told else []), ("bar", "")]
    lines = [_head(phrase(f"notebook.{name}", lang), kind) for name, kind in heads]
    largest = max(abs(value) for _, value in ranked)
    body = []
    for source, value in ranked:
        cells = [_cell(quoted(drawn_text(source.label)), "s"), _cell(_range(source), "n"), _cell(f"{value:+.3f}", "n")]
        if told and shares is not None:
            cells.append(_cell(f"{100 * shares.data[row, place[source]]:.0f} %", "n"))
        body.append(f"<tr>{''.join(cells)}<td>{_bar(value / largest)}</td></tr>")
    left = int((~np.ma.getmaskarray(found.relevance)[row]).sum()) - len(ranked)
    foot = _paragraph(phrase("notebook.more_sources", lang, n=left)) if left > 0 else ""
    return f"<table>{caption}<thead><tr>{''.join(lines)}</tr></thead><tbody>{''.join(body)}</tbody></table>{foot}"


def _bar(part: float) -> str:
    """A bar from the middle: to the right for what speaks for the target, to the left for what speaks against it."""
    half = _BAR / 2
    length = round(abs(part) * half, 1)
    kind, start = ("for", half) if part >= 0 else ("against", half - length)
    return (
        f'<svg width="{_BAR}" height="12" viewBox="0 0 {_BAR} 12" aria-hidden="true">'
        f'<rect class="{kind}" x="{start:g}" y="1" width="{length:g}" height="10"></rect>'
        f'<line x1="{half:g}" y1="0" x2="{half:g}" y2="12"></line></svg>'
    )


def _check(found: Explanation, lang: Lang) -> str:
    check = found.check
    if check.passed:
        return phrase("notebook.check_passed", lang, largest=f"{check.largest:.1e}", n=check.n)
    which = "missing" if check.largest is None else "failed"
    return phrase(f"notebook.check_{which}", lang, reason=drawn_text(str(check.reason)))


def _range(source: Source) -> str:
    return str(source.start) if source.stop == source.start + 1 else f"{source.start}-{source.stop - 1}"


def _head(text: str, kind: str) -> str:
    return f'<th scope="col" class="{kind}">{html.escape(text)}</th>'


def _cell(text: str, kind: str) -> str:
    return f'<td class="{kind}">{html.escape(text)}</td>'


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"
