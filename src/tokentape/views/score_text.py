"""Scores of texts, and two models' scores side by side, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokentape.study.scores import DocumentScore, Total, total
from tokentape.views.drawing import drawn_text, drawn_tokens, quoted
from tokentape.views.screen import Screen, columns
from tokentape.views.shape import token_rows
from tokentape.views.units import ABSENT, count, duration

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.study.paired_scores import ScoreComparison

__all__ = ["comparison_text", "progress_text", "score_text"]

ROWS = 40
LEAST_EXPECTED = 5

_FIRST = {
    "bos": "the first token is conditioned on the beginning-of-text token",
    "eos": "the first token is conditioned on the end-of-text token",
    "skip": "the first token is read and not scored",
}


def score_text(found: Sequence[DocumentScore], tape: Tape, screen: Screen, *, rows: int | None = ROWS) -> str:
    """The figures of each document, at most ``rows`` of them, and of all together; of a single one what was least expected."""
    listed = found if rows is None else found[:rows]
    header = ["document", "logprob", "tokens", "perplexity", "bits/byte", "bits/char"]
    body = [[drawn_text(one.name), *_cells(one.total)] for one in listed]
    if len(found) > 1:
        body.append([f"all {len(found):,}", *_cells(total(found))])
    lines = columns(screen, header, body, "<>>>>>", stretch=0)
    if len(listed) < len(found):
        lines.append(screen.paint(f"{len(found) - len(listed):,} more documents: --rows 0 shows all", "dim"))
    if len(found) == 1:
        lines += _least_expected(found[0], tape, screen)
    return "\n".join(screen.safe(line) for line in [*lines, *_remarks(found)])


def _cells(sums: Total) -> list[str]:
    figures = (sums.logprob, sums.perplexity, sums.bits_per_byte, sums.bits_per_char)
    logprob, *rest = [ABSENT if value is None else f"{value:,.4f}" for value in figures]
    return [logprob, f"{sums.n_tokens:,}", *rest]


def _least_expected(one: DocumentScore, tape: Tape, screen: Screen) -> list[str]:
    known = [row for row in token_rows(tape.traces[one.trace], tape) if row.logprob is not None]
    lowest = sorted(known, key=lambda row: row.logprob or 0.0)[:LEAST_EXPECTED]
    body = [[str(row.position), row.name, f"{row.logprob:.3f}"] for row in lowest]
    return ["", *columns(screen, ["position", "least expected", "logprob"], body, "><>", stretch=1)]


def _remarks(found: Sequence[DocumentScore]) -> list[str]:
    """What has to be known to read the figures."""
    alone = [one for one in found if one.n_given == 1]
    lines = [f"{_FIRST[alone[0].first]}"] if alone and alone[0].first in _FIRST else []
    wide = max(one.n_windows for one in found)
    if wide > 1:
        lines.append(f"read in windows: {count(wide, 'window')} for the longest document; each token is scored once")
    if cut := sum(one.n_cut > 0 for one in found):
        lines.append(f"{count(cut, 'context')} did not fit into the window and lost their begin")
    if merged := [one for one in found if one.merged]:
        lines.append(
            f"warning: the tokenizer merges across the boundary of context and continuation in "
            f"{count(len(merged), 'document')}, the first {drawn_text(merged[0].name)}: what was scored is not quite the text"
        )
    if changed := [one for one in found if one.spelled is False and not one.merged]:
        lines.append(
            f"warning: the tokenizer lacks characters of the text, or changes it, in {count(len(changed), 'document')}, the "
            f"first {drawn_text(changed[0].name)}: its tokens do not make the bytes of the text"
        )
    return ["", *lines] if lines else []


def progress_text(n_done: int, n_all: int, tokens_done: int, left_s: float | None) -> str:
    """The line of progress after a batch."""
    left = "" if left_s is None else f", {duration(max(left_s, 0) * 1e9)} left"
    return f"{n_done:,} of {count(n_all, 'document')}, {count(tokens_done, 'token')}{left}"


def comparison_text(found: ScoreComparison, screen: Screen, *, rows: int = 10) -> str:
    """Two models on the same texts: bits per byte, their difference with its interval, and where it is largest."""
    header = ["", "model", "bits/byte", "tokens"]
    names = [drawn_text(model) for model in found.models]
    body = [
        ["A", names[0], f"{found.a:.4f}", f"{found.n_tokens[0]:,}"],
        ["B", names[1], f"{found.b:.4f}", f"{found.n_tokens[1]:,}"],
    ]
    lines = [*columns(screen, header, body, "<<>>", stretch=1), "", _difference(found)]
    spans = found.largest(rows)
    table = [
        [
            f"{span.index}:{span.start}",
            quoted(drawn_tokens([span.data])[0] or ""),
            *(f"{value:.3f}" for value in (span.a, span.b)),
            f"{span.difference:+.3f}",
        ]
        for span in spans
    ]
    head = ["document:byte", "largest differences", "logprob A", "logprob B", "B less A"]
    lines += ["", *columns(screen, head, table, "<<>>>", stretch=1)]
    lines += [f"left out: {drawn_text(name)}: {why}" for name, why in found.left_out[:rows]]
    if len(found.left_out) > rows:
        lines.append(f"left out: {len(found.left_out) - rows:,} more")
    return "\n".join(screen.safe(line) for line in lines)


def _difference(found: ScoreComparison) -> str:
    over = (
        f"{count(found.n_bytes, 'byte')} of {count(found.n_documents, 'document')}, {count(len(found.spans), 'span')}"
    )
    said = f"B needs {abs(found.difference):.4f} bits a byte {'fewer' if found.difference < 0 else 'more'} than A"
    if found.low is None or found.high is None:
        return f"{said}, over {over}; too little text for an interval"
    unit = "document" if found.units == "documents" else "block of spans"
    rests = f"{100 * found.confidence:.0f} %, n = {found.n_units} {unit}s".replace("block of spanss", "blocks of spans")
    return f"{said} ({found.low:+.4f} to {found.high:+.4f}; {rests}), over {over}"
