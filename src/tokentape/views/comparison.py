"""``compare``: two tapes side by side, as text for a terminal and as Markdown for a report of a build."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tokentape.study.alignment import Alignment, Choice
from tokentape.study.comparability import Difference, told_loads
from tokentape.study.compare import WHAT, Comparison, Side
from tokentape.study.side_by_side import CoefficientPair, Ratio, StepRatios
from tokentape.study.verdict import FASTER, SAME, SLOWER, UNCLEAR, Verdict
from tokentape.views.card import finish_text
from tokentape.views.compare_words import caveat_message, loads_message, told_message
from tokentape.views.drawing import drawn_text, drawn_tokens, quoted
from tokentape.views.law_text import meaning_text, missing_text, term_text
from tokentape.views.screen import Screen, columns, pad
from tokentape.views.text import folded
from tokentape.views.units import ABSENT, duration
from tokentape.words.catalogue import said
from tokentape.words.retold import retold

__all__ = ["comparison_markdown", "comparison_text"]

STRETCHES = 6
"""Rows into which the steps are gathered by context."""

ALIGNMENTS = 5
"""Partings that are shown; more are counted."""

_LABEL = 10

_STYLE = {SLOWER: "red", FASTER: "green", SAME: "green"}

Table = tuple[list[str], list[list[str]], str]
"""Header, rows, alignment."""


def comparison_text(found: Comparison, screen: Screen) -> str:
    """Verdict, what differs, text, times, laws."""
    whole = found.sentence if screen.lang == "en" else _sentence(found, screen)
    lines = [line for part in whole.split("\n") for line in folded(part, screen.width)]
    if found.verdict is not None:
        word = screen.say(f"compare.word.{found.verdict.word}")
        lines[0] = lines[0].replace(word, screen.paint(word, _STYLE.get(found.verdict.word, "yellow")), 1)
    lines += ["", *columns(screen, *_sides(found, screen))]
    labelled = [("question", told) for told in _question(found.differences, screen)]
    if found.loads:
        labelled.append(("load", drawn_text(told_loads(found.loads))))
    labelled += [("note", _told(note, screen)) for note in found.notes]
    lines += [pad(screen.say(f"compare.{label}"), _LABEL) + told for label, told in labelled]
    parts = {"text": _texts(found, screen), "time": _drawn(_times(found, screen), screen), "law": _laws(found, screen)}
    for title, body in parts.items():
        if body:
            lines += ["", screen.paint(screen.say(f"compare.{title}"), "bold")]
            lines += ["  " + line if line else "" for line in body]
    return "\n".join(screen.safe(line) for line in lines)


def comparison_markdown(found: Comparison) -> str:
    """A summary for the page of a build, in English: verdict, what was compared, text, times."""
    screen = Screen(width=10_000)
    head, _, rest = found.sentence.partition(":")
    lines = [f"### {head}", "", (rest or head).strip(), "", *_markdown(_sides(found, screen)), ""]
    lines += [f"- question: {told}" for told in _question(found.differences, screen)]
    if found.loads:
        lines.append(f"- {screen.say('compare.load')}: {_escaped(drawn_text(told_loads(found.loads)))}")
    lines += [f"- {_escaped(drawn_text(note))}" for note in found.notes]
    for alignment in found.alignments[:ALIGNMENTS]:
        lines.append(f"- {_escaped(_outcome(alignment, found, screen))}")
        if alignment.parting is not None:
            lines += ["", *_markdown(_choices(alignment, screen)), ""]
    if times := _times(found, screen):
        lines += ["", *_markdown(times)]
    if found.laws:
        lines += ["", *_markdown(_coefficients(found.laws, screen))]
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


# the verdict in another language than that of the study


def _sentence(found: Comparison, screen: Screen) -> str:
    """What :attr:`Comparison.sentence` says, with the phrases of the page."""
    if found.verdict is None:
        return screen.say("page_compare.one_recording")
    size = f"{100 * found.verdict.threshold:g} %"
    told = [_change(found.verdict, found.of, screen)]
    if found.verdict.reason:
        told.append(_told(found.verdict.reason, screen))
    if (loads := loads_message(found.loads)) is not None:
        told.append(said(loads, screen.lang))
    if found.caveat is not None:
        told.append(said(caveat_message(found.caveat), screen.lang))
    return screen.say(
        "compare.head", word=screen.say(f"compare.word.{found.verdict.word}"), size=size, told="".join(told)
    )


def _change(verdict: Verdict, of: str, screen: Screen) -> str:
    """What B takes more or less than A, with its interval."""
    if verdict.change is None or verdict.low is None or verdict.high is None:
        return screen.say("page_compare.not_measured")
    assert of in WHAT
    as_long = verdict.word not in (SLOWER, FASTER, UNCLEAR) and abs(verdict.change) < 0.0005
    key = "equal" if as_long else "longer" if verdict.change >= 0 else "less"
    return screen.say(
        f"page_compare.{key}",
        what=screen.say(f"page_compare.what_{of}"),
        size=f"{abs(100 * verdict.change):.1f} %",
        low=f"{100 * verdict.low:+.1f}",
        high=f"{100 * verdict.high:+.1f} %",
        confidence=f"{100 * verdict.confidence:g} %",
        n=screen.say(f"page_compare.{'pairs' if verdict.interleaved else 'values'}", n=verdict.n),
    )


def _told(text: str, screen: Screen) -> str:
    """A note or a reason of the study."""
    if screen.lang == "en":
        return drawn_text(text)
    fuller = retold(text, screen.lang, "compare.reason")
    return said(told_message(text), screen.lang) if fuller == text else drawn_text(fuller)


# what was compared


def _sides(found: Comparison, screen: Screen) -> Table:
    def row(name: str, side: Side) -> list[str]:
        path = drawn_text(side.path) if side.path else screen.say("page_compare.in_memory")
        if side.state != "complete":
            path = screen.say("card.state", path=path, state=screen.say(f"card.{side.state}"))
        counts = {"runs": side.n_runs, "traces": side.n_traces, "tokens": side.n_tokens}
        return [name, path, drawn_text(side.model or ABSENT), screen.say("page_compare.holds_text", **counts)]

    header = ["", *(screen.say(f"compare.{name}") for name in ("tape", "model", "holds"))]
    return header, [row("A", found.a), row("B", found.b)], "<<<<"


def _question(differences: Sequence[Difference], screen: Screen) -> list[str]:
    asked = [d for d in differences if d.because == "asked"]
    rest = [d for d in differences if d.because not in (None, "asked")]
    lines = [f"{d.name}: {_value(d.a, screen)} | {_value(d.b, screen)}" for d in asked]
    if rest:
        lines.append(screen.say("compare.follows", names=", ".join(d.name for d in rest)))
    return lines


def _value(value: object, screen: Screen) -> str:
    text = screen.say("compare.none") if value is None else drawn_text(str(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


# text


def _texts(found: Comparison, screen: Screen) -> list[str]:
    lines: list[str] = []
    for alignment in found.alignments[:ALIGNMENTS]:
        lines.append(_outcome(alignment, found, screen))
        if alignment.parting is not None:
            lines += ["  " + line for line in columns(screen, *_choices(alignment, screen))]
            for name, choice in (("A", alignment.parting.a), ("B", alignment.parting.b)):
                if choice.candidates:
                    lines += ["  " + line for line in folded(_likely(name, choice, screen), screen.width - 4)]
        if told := _deviation(alignment, screen):
            lines.append(f"  {told}")
    if (more := len(found.alignments) - ALIGNMENTS) > 0:
        lines.append(screen.say("compare.more", n=more))
    return lines


def _outcome(alignment: Alignment, found: Comparison, screen: Screen) -> str:
    told = _outcome_once(alignment, found, screen)
    return screen.say("compare.repeats", told=told, n=alignment.n_alike) if alignment.n_alike > 1 else told


def _outcome_once(alignment: Alignment, found: Comparison, screen: Screen) -> str:
    alike = "sequence" if alignment.a == alignment.b else "sequences"
    name = screen.say(f"compare.{alike}", a=str(alignment.a), b=str(alignment.b))
    if alignment.by is None:
        return screen.say("compare.untold", name=name)
    if alignment.parting is None:
        return screen.say("compare.same", name=name, n=alignment.n_common)
    k, a, b = alignment.n_common, alignment.parting.a, alignment.parting.b
    for who, other, choice, state in (("A", "B", a, found.a.state), ("B", "A", b, found.b.state)):
        if choice.position is None:
            why = finish_text(choice.finish_reason, state, screen)
            return screen.say("compare.ends", name=name, who=who, n=choice.index, why=why, other=other)
    if k == 0:
        return screen.say("compare.no_common", name=name)
    where = screen.say("compare.at", position=str(a.position))
    if alignment.by == "bytes":
        where = screen.say("compare.at_byte", where=where, byte=str(alignment.parting.byte))
        if b.index != a.index:
            where = screen.say("compare.at_other", where=where, k=str(b.index))
    return screen.say("compare.parts", name=name, k=str(k), where=where)


def _choices(alignment: Alignment, screen: Screen) -> Table:
    parting = alignment.parting
    assert parting is not None
    a, b = parting.a, parting.b
    says, gives = ([screen.say(f"compare.{verb}", side=side) for side in "AB"] for verb in ("says", "gives"))
    rows = [
        [says[0], _name(a, screen), _share(a.logprob), _share(b.others_logprob, b)],
        [says[1], _name(b, screen), _share(a.others_logprob, a), _share(b.logprob)],
    ]
    return ["", screen.say("compare.token"), *gives], rows, "<<>>"


def _name(choice: Choice, screen: Screen) -> str:
    if choice.position is None:
        return screen.say("compare.nothing")
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


def _likely(name: str, choice: Choice, screen: Screen) -> str:
    entries = [f"{_token(i, data)} {_share(p)}" for i, data, p in choice.candidates]
    return screen.say("compare.likely", side=name, tokens="  ".join(entries))


def _deviation(alignment: Alignment, screen: Screen) -> str:
    found = alignment.deviation
    if found.nats is None:
        return "" if alignment.n_common == 0 else screen.say("compare.no_logprobs")
    key = "deviation" if alignment.parting is None else "deviation_before"
    return screen.say(f"compare.{key}", nats=f"{abs(found.nats):.2g}", k=str(found.index), n=found.n)


# times


def _times(found: Comparison, screen: Screen) -> Table | None:
    rows = []
    if found.first_token is not None:
        rows.append(_ratio(screen.say("compare.ttft"), found.first_token))
    if found.steps is not None:
        rows.append(_ratio(screen.say("compare.step"), found.steps.whole))
        rows += _stretches(found.steps, screen)
    counts = [screen.say("compare.n_of", side=side) for side in "AB"]
    return (["", "A", "B", "B / A", *counts], rows, "<>>>>>") if rows else None


def _ratio(name: str, ratio: Ratio) -> list[str]:
    numbers = [f"{ratio.ratio:.3f}", f"{ratio.n_a:,}", f"{ratio.n_b:,}"]
    return [name, duration(ratio.a_ns), duration(ratio.b_ns), *numbers]


def _stretches(steps: StepRatios, screen: Screen) -> list[list[str]]:
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
            key = ("nth_step" if steps.at == "step" else "context") + ("" if first == last else "_range")
            where = screen.say(f"compare.{key}", first=first, last=last)
            if batch != 1:
                where = screen.say("compare.batch", where=where, batch=str(batch))
            a, b = (sorted(side[i] for i in part)[len(part) // 2] for side in (steps.a_ns, steps.b_ns))
            ratios = sorted(steps.b_ns[i] / steps.a_ns[i] for i in part)
            rows.append([f"  {where}", duration(a), duration(b), f"{ratios[len(ratios) // 2]:.3f}", "", ""])
    return rows


def _laws(found: Comparison, screen: Screen) -> list[str]:
    if found.laws:
        return columns(screen, *_coefficients(found.laws, screen))
    if found.laws_missing and not found.same:
        why = missing_text(found.laws_missing, screen)
        return folded(screen.say("compare.no_law", why=why), screen.width - 2)
    return []


def _coefficients(laws: Sequence[CoefficientPair], screen: Screen) -> Table:
    def cell(value: tuple[float, float, float] | None) -> str:
        return ABSENT if value is None else f"{duration(value[0])} [{duration(value[1])}, {duration(value[2])}]"

    touch = {None: "", True: screen.say("compare.apart"), False: screen.say("compare.overlap")}
    rows = [
        [
            screen.say(f"law.kind.{c.kind}"),
            meaning_text(c.meaning, screen) if c.meaning else term_text(c.name, screen),
            retold(c.per or "step", screen.lang, "page_law.per"),
            cell(c.a),
            cell(c.b),
            touch[c.apart],
        ]
        for c in laws
    ]
    header = [screen.say(f"compare.{name}") for name in ("coefficient", "each", "intervals")]
    return ["", *header[:2], "A", "B", header[2]], rows, "<<<>><"
