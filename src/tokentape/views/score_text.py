"""Scores of texts, and two models' scores side by side, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokentape.study.scores import DocumentScore, Total, total
from tokentape.views.drawing import drawn_text, drawn_tokens, quoted
from tokentape.views.screen import Screen, columns
from tokentape.views.shape import token_rows
from tokentape.views.units import ABSENT, duration
from tokentape.words.retold import retold

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.study.paired_scores import ScoreComparison

__all__ = ["comparison_text", "progress_text", "score_text"]

ROWS = 40
LEAST_EXPECTED = 5

_FIRST = ("bos", "eos", "skip")
_ENGLISH = Screen()


def score_text(found: Sequence[DocumentScore], tape: Tape, screen: Screen, *, rows: int | None = ROWS) -> str:
    """The figures of each document, at most ``rows`` of them, and of all together; of a single one what was least expected."""
    listed = found if rows is None else found[:rows]
    names = ("document", "logprob", "tokens", "perplexity", "bits_byte", "bits_char")
    header = [screen.say(f"score.{name}") for name in names]
    body = [[drawn_text(one.name), *_cells(one.total)] for one in listed]
    if len(found) > 1:
        body.append([screen.say("score.all", n=len(found)), *_cells(total(found))])
    lines = columns(screen, header, body, "<>>>>>", stretch=0)
    if len(listed) < len(found):
        lines.append(screen.paint(screen.say("score.more", n=len(found) - len(listed)), "dim"))
    if len(found) == 1:
        lines += _least_expected(found[0], tape, screen)
    return "\n".join(screen.safe(line) for line in [*lines, *_remarks(found, screen)])


def _cells(sums: Total) -> list[str]:
    figures = (sums.logprob, sums.perplexity, sums.bits_per_byte, sums.bits_per_char)
    logprob, *rest = [ABSENT if value is None else f"{value:,.4f}" for value in figures]
    return [logprob, f"{sums.n_tokens:,}", *rest]


def _least_expected(one: DocumentScore, tape: Tape, screen: Screen) -> list[str]:
    known = [row for row in token_rows(tape.traces[one.trace], tape) if row.logprob is not None]
    lowest = sorted(known, key=lambda row: row.logprob or 0.0)[:LEAST_EXPECTED]
    body = [[str(row.position), row.name, f"{row.logprob:.3f}"] for row in lowest]
    header = [screen.say(f"score.{name}") for name in ("position", "least", "logprob")]
    return ["", *columns(screen, header, body, "><>", stretch=1)]


def _remarks(found: Sequence[DocumentScore], screen: Screen) -> list[str]:
    """What has to be known to read the figures."""
    alone = [one for one in found if one.n_given == 1]
    lines = [screen.say(f"score.first.{alone[0].first}")] if alone and alone[0].first in _FIRST else []
    wide = max(one.n_windows for one in found)
    if wide > 1:
        lines.append(screen.say("score.windows", n=wide))
    if cut := sum(one.n_cut > 0 for one in found):
        lines.append(screen.say("score.cut", n=cut))
    if merged := [one for one in found if one.merged]:
        lines.append(screen.say("score.merged", n=len(merged), name=drawn_text(merged[0].name)))
    if changed := [one for one in found if one.spelled is False and not one.merged]:
        lines.append(screen.say("score.changed", n=len(changed), name=drawn_text(changed[0].name)))
    return ["", *lines] if lines else []


def progress_text(n_done: int, n_all: int, tokens_done: int, left_s: float | None, screen: Screen = _ENGLISH) -> str:
    """The line of progress after a batch."""
    far = {"n": n_done, "all": n_all, "tokens": tokens_done}
    if left_s is None:
        return screen.say("score.progress", **far)
    return screen.say("score.progress_left", **far, left=duration(max(left_s, 0) * 1e9))


def comparison_text(found: ScoreComparison, screen: Screen, *, rows: int = 10) -> str:
    """Two models on the same texts: bits per byte, their difference with its interval, and where it is largest."""
    header = ["", *(screen.say(f"score.{name}") for name in ("model", "bits_byte", "tokens"))]
    names = [drawn_text(model) for model in found.models]
    body = [
        ["A", names[0], f"{found.a:.4f}", f"{found.n_tokens[0]:,}"],
        ["B", names[1], f"{found.b:.4f}", f"{found.n_tokens[1]:,}"],
    ]
    lines = [*columns(screen, header, body, "<<>>", stretch=1), "", _difference(found, screen)]
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
    sides = [screen.say("score.logprob_of", side=side) for side in "AB"]
    head = [screen.say("score.place"), screen.say("score.largest"), *sides, screen.say("score.b_less_a")]
    lines += ["", *columns(screen, head, table, "<<>>>", stretch=1)]
    left_out = [(drawn_text(name), retold(why, screen.lang)) for name, why in found.left_out[:rows]]
    lines += [screen.say("score.left_out", name=name, why=why) for name, why in left_out]
    if len(found.left_out) > rows:
        lines.append(screen.say("score.left_out_more", n=len(found.left_out) - rows))
    return "\n".join(screen.safe(line) for line in lines)


def _difference(found: ScoreComparison, screen: Screen) -> str:
    over = screen.say("score.over", bytes=found.n_bytes, documents=found.n_documents, spans=len(found.spans))
    key = "score.fewer" if found.difference < 0 else "score.more_bits"
    said = screen.say(key, bits=f"{abs(found.difference):.4f}")
    if found.low is None or found.high is None:
        return screen.say("score.no_interval", said=said, over=over)
    return screen.say(
        f"score.over_{found.units}",
        said=said,
        low=f"{found.low:+.4f}",
        high=f"{found.high:+.4f}",
        confidence=f"{100 * found.confidence:.0f}",
        n=str(found.n_units),
        over=over,
    )
