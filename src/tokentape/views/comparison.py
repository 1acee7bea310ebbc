"""``compare``: two tapes side by side, as text for a terminal and as Markdown for a report of a build."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tokentape.study.alignment import Alignment, Choice
from tokentape.study.comparability import Difference
from tokentape.study.compare import Comparison, Side
from tokentape.study.side_by_side import CoefficientPair, Ratio, StepRatios
from tokentape.study.verdict import FASTER, SAME, SLOWER
from tokentape.views.card import finish_text
from tokentape.views.drawing import drawn_text, drawn_tokens, quoted
from tokentape.views.screen import Screen, columns
from tokentape.views.text import folded
from tokentape.views.units import ABSENT, count, duration

__all__ = ["comparison_markdown", "comparison_text"]

STRETCHES = 6
"""Rows into which the steps are gathered by context."""

ALIGNMENTS = 5
"""Partings that are shown; more are counted."""

_STYLE = {SLOWER: "red", FASTER: "green", SAME: "green"}

Table = tuple[list[str], list[list[str]], str]
"""Header, rows, alignment."""


def comparison_text(found: Comparison, screen: Screen) -> str:
    """Verdict, what differs, text, times, laws."""
    word = "" if found.verdict is None else found.verdict.word
    whole = found.sentence
    lines = [line for part in whole.split("\n") for line in folded(part, screen.width)]
    if word:
        lines[0] = lines[0].replace(word, screen.paint(word, _STYLE.get(word, "yellow")), 1)
    lines += ["", *columns(screen, *_sides(found))]
    lines += [f"question  {told}" for told in _question(found.differences)]
    lines += [f"note      {drawn_text(note)}" for note in found.notes]
    for title, body in (("text", _texts(found, screen)), ("time", _drawn(_times(found), screen)), _laws(found, screen)):
        if body:
            lines += ["", screen.paint(title, "bold"), *("  " + line if line else "" for line in body)]
    return "\n".join(screen.safe(line) for line in lines)


def comparison_markdown(found: Comparison) -> str:
    """A summary for the page of a build: verdict, what was compared, text, times."""
    screen = Screen(width=10_000)
    head, _, rest = found.sentence.partition(":")
    lines = [f"### {head}", "", (rest or head).strip(), "", *_markdown(_sides(found)), ""]
    lines += [f"- question: {told}" for told in _question(found.differences)]
    lines += [f"- {_escaped(drawn_text(note))}" for note in found.notes]
    for alignment in found.alignments[:ALIGNMENTS]:
        lines.append(f"- {_escaped(_outcome(alignment, found))}")
        if alignment.parting is not None:
            lines += ["", *_markdown(_choices(alignment)), ""]
    if times := _times(found):
        lines += ["", *_markdown(times)]
    if found.laws:
        lines += ["", *_markdown(_coefficients(found.laws))]
    return "\n".join(screen.safe(line) for line in lines)


def _drawn(table: Table | None, screen: Screen) -> list[str]:
    return [] if table is None else columns(screen, *table)


def _markdown(table: Table) -> list[str]:
    header, rows, align = table
    marks = ["---:" if side == ">" else "---" for side in align]
    return [f"| {' | '.join(map(_escaped, row))} |" for row in [header]] + [
        f"| {' | '.join(row)} |" for row in [marks, *([_escaped(cell) for cell in row] for row in rows)]
    ]


def _escaped(text: str) -> str:
    """Token text must stay text: no cell, tag or emphasis is to come of it."""
    for mark in "\\`*_[]|":
        text = text.replace(mark, "\\" + mark)
    return text.replace("&", "&amp;").replace("<", "&lt;")


# what was compared


def _sides(found: Comparison) -> Table:
    def row(name: str, side: Side) -> list[str]:
        state = "" if side.state == "complete" else f" ({side.state})"
        what = f"{count(side.n_runs, 'run')}, {count(side.n_traces, 'sequence')}, {count(side.n_tokens, 'token')}"
        return [name, drawn_text(side.path or "in memory") + state, drawn_text(side.model or ABSENT), what]

    return ["", "tape", "model", "holds"], [row("A", found.a), row("B", found.b)], "<<<<"


def _question(differences: Sequence[Difference]) -> list[str]:
    asked = [d for d in differences if d.because == "asked"]
    rest = [d for d in differences if d.because not in (None, "asked")]
    lines = [f"{d.name}: {_value(d.a)} | {_value(d.b)}" for d in asked]
    if rest:
        lines.append(f"and what follows from it: {', '.join(d.name for d in rest)}")
    return lines


def _value(value: object) -> str:
    text = drawn_text("none" if value is None else str(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


# text


def _texts(found: Comparison, screen: Screen) -> list[str]:
    lines: list[str] = []
    for alignment in found.alignments[:ALIGNMENTS]:
        lines.append(_outcome(alignment, found))
        if alignment.parting is not None:
            lines += ["  " + line for line in columns(screen, *_choices(alignment))]
            for name, choice in (("A", alignment.parting.a), ("B", alignment.parting.b)):
                if choice.candidates:
                    lines += ["  " + line for line in folded(_likely(name, choice), screen.width - 4)]
        if told := _deviation(alignment):
            lines.append(f"  {told}")
    if more := len(found.alignments) - ALIGNMENTS:
        lines += [f"{more:,} more, in --json"] if more > 0 else []
    return lines


def _outcome(alignment: Alignment, found: Comparison) -> str:
    repeats = f" ({alignment.n_alike:,} times)" if alignment.n_alike > 1 else ""
    name = f"sequence {alignment.a}" + ("" if alignment.a == alignment.b else f" of A, {alignment.b} of B")
    if alignment.by is None:
        return f"{name}: the text of one is not on its tape{repeats}"
    if alignment.parting is None:
        return f"{name}: the same, {count(alignment.n_common, 'token')}{repeats}"
    k, a, b = alignment.n_common, alignment.parting.a, alignment.parting.b
    for who, other, choice, state in (("A", "B", a, found.a.state), ("B", "A", b, found.b.state)):
        if choice.position is None:
            why = finish_text(choice.finish_reason, state, Screen())
            return f"{name}: {who} ends after {count(choice.index, 'token')} ({why}); {other} goes on{repeats}"
    where = f"position {a.position}"
    if alignment.by == "bytes":
        where += f", byte {alignment.parting.byte}"
        if b.index != a.index:
            where += f"; token {b.index} of B"
    if k == 0:
        return f"{name}: no common beginning{repeats}"
    return f"{name}: parts at token {k}, {where}{repeats}"


def _choices(alignment: Alignment) -> Table:
    parting = alignment.parting
    assert parting is not None
    rows = [
        ["A says", _name(parting.a), _share(parting.a.logprob), _share(parting.b.others_logprob, parting.b)],
        ["B says", _name(parting.b), _share(parting.a.others_logprob, parting.a), _share(parting.b.logprob)],
    ]
    return ["", "token", "A gives it", "B gives it"], rows, "<<>>"


def _name(choice: Choice) -> str:
    if choice.position is None:
        return "nothing more"
    return _token(choice.id, choice.data)


def _token(token_id: int | None, data: bytes | None) -> str:
    drawn = drawn_tokens([data])[0] if data else None
    return quoted(drawn) if drawn is not None else ABSENT if token_id is None else f"#{token_id}"


def _share(logprob: float | None, choice: Choice | None = None) -> str:
    """A probability; of a token that is not among the candidates kept, what it is at most."""
    if logprob is not None:
        return f"{100 * math.exp(logprob):.3g} %"
    if choice is not None and choice.candidates:
        return f"< {100 * math.exp(choice.candidates[-1][2]):.2g} %"
    return ABSENT


def _likely(name: str, choice: Choice) -> str:
    entries = [f"{_token(i, data)} {_share(p)}" for i, data, p in choice.candidates]
    return f"{name}'s most likely: {'  '.join(entries)}"


def _deviation(alignment: Alignment) -> str:
    found = alignment.deviation
    if found.nats is None:
        return "" if alignment.n_common == 0 else "log-probabilities are not on both tapes"
    before = "" if alignment.parting is None else " before that"
    return (
        f"log-probabilities{before} differ by {abs(found.nats):.2g} nats at most (token {found.index}, n = {found.n:,})"
    )


# times


def _times(found: Comparison) -> Table | None:
    rows = []
    if found.first_token is not None:
        rows.append(_ratio("TTFT", found.first_token))
    if found.steps is not None:
        rows.append(_ratio("step", found.steps.whole))
        rows += _stretches(found.steps)
    return (["", "A", "B", "B / A", "n of A", "n of B"], rows, "<>>>>>") if rows else None


def _ratio(name: str, ratio: Ratio) -> list[str]:
    numbers = [f"{ratio.ratio:.3f}", f"{ratio.n_a:,}", f"{ratio.n_b:,}"]
    return [name, duration(ratio.a_ns), duration(ratio.b_ns), *numbers]


def _stretches(steps: StepRatios) -> list[list[str]]:
    """The steps gathered by batch and context, each row the median of its places."""
    rows = []
    for batch in sorted({place[0] for place in steps.places}):
        here = [i for i, place in enumerate(steps.places) if place[0] == batch]
        n = min(STRETCHES, len(here))
        if n < 2 and len(steps.places) == len(here):
            continue
        for k in range(n):
            part = here[k * len(here) // n : (k + 1) * len(here) // n]
            first, last = steps.places[part[0]][1], steps.places[part[-1]][1]
            where = f"{steps.at} {first:,}" + ("" if first == last else f" to {last:,}")
            name = f"  {where}" + (f", batch {batch}" if batch != 1 else "")
            a, b = (sorted(side[i] for i in part)[len(part) // 2] for side in (steps.a_ns, steps.b_ns))
            ratios = sorted(steps.b_ns[i] / steps.a_ns[i] for i in part)
            rows.append([name, duration(a), duration(b), f"{ratios[len(ratios) // 2]:.3f}", "", ""])
    return rows


def _laws(found: Comparison, screen: Screen) -> tuple[str, list[str]]:
    if found.laws:
        return "law", columns(screen, *_coefficients(found.laws))
    if found.laws_missing and not found.same:
        return "law", folded(f"none: {found.laws_missing}", screen.width - 2)
    return "law", []


def _coefficients(laws: Sequence[CoefficientPair]) -> Table:
    def cell(value: tuple[float, float, float] | None) -> str:
        return ABSENT if value is None else f"{duration(value[0])} [{duration(value[1])}, {duration(value[2])}]"

    said = {None: "", True: "apart", False: "overlap"}
    rows = [[c.kind, c.meaning or c.name, c.per or "step", cell(c.a), cell(c.b), said[c.apart]] for c in laws]
    return ["", "coefficient", "for each", "A", "B", "intervals"], rows, "<<<>><"
