"""An explanation in plain words: what each token rests on, how sure that is, and what the method cannot say."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.views.drawing import drawn_text, quoted
from tokentape.views.screen import Screen, columns, fit
from tokentape.views.text import folded
from tokentape.views.units import duration
from tokentape.words.retold import retold

if TYPE_CHECKING:
    from tokentape.data.explanation import Explanation, ReplayCheck, Source

__all__ = [
    "check_sentence",
    "explanation_document",
    "explanation_text",
    "ledger_sentence",
    "rows_text",
    "source_name",
    "value_text",
]

NameOf = Callable[[int], str]

BAR = 24
"""Cells of the longest bar."""

SHOWN = 0.02
"""Sources below this part of the largest are not named in a sentence."""


def explanation_text(found: Explanation, screen: Screen, name_of: NameOf, meaning: str, *, top: int = 10) -> str:
    """One row in detail, or a line for each of several; then the check of the replay and what was used.

    ``name_of`` gives the drawn name of a vocabulary id, ``meaning`` is the method's own sentence, in English.
    """
    if len(found.value) == 1:
        lines = _detail(found, screen, name_of, top)
    else:
        lines = rows_text(found, screen, name_of)
    return "\n".join(screen.safe(line) for line in [*lines, "", *_foot(found, screen, meaning)])


def _detail(found: Explanation, screen: Screen, name_of: NameOf, top: int) -> list[str]:
    lines = [screen.paint(screen.safe(_headline(found, 0, name_of, screen)), "bold"), ""]
    lines += _wrapped(_sentence(found, 0, name_of, min(top, 5), screen), screen)
    ranked = found.top(0, top)
    shares = found.shares()
    largest = max((abs(value) for _, value in ranked), default=0.0) or 1.0
    header, align = [screen.say(f"explanation.{name}") for name in ("source", "pos", "relevance")], "<>>"
    body = [[source_name(source), _range(source), f"{value:+.3f}"] for source, value in ranked]
    if shares is not None and not np.ma.getmaskarray(shares)[0].all():
        header.append(screen.say("explanation.share"))
        align += ">"
        place = {source: column for column, source in enumerate(found.sources)}
        for cells, (source, _) in zip(body, ranked, strict=True):
            cells.append(f"{100 * shares.data[0, place[source]]:.0f} %")
    header.append("")
    align += "<"
    full, empty = screen.choose("█", "#"), screen.choose("░", "-")
    for cells, (_, value) in zip(body, ranked, strict=True):
        cells.append((full if value >= 0 else empty) * round(BAR * abs(value) / largest))
    lines += ["", *columns(screen, header, body, align, stretch=0)]
    left = int((~np.ma.getmaskarray(found.relevance)[0]).sum()) - len(ranked)
    if left > 0:
        lines.append(screen.paint(screen.say("explanation.more", n=left, top=str(len(ranked) + left)), "dim"))
    if found.ledger:
        lines += ["", *_wrapped(ledger_sentence(found, 0, screen), screen)]
    return lines


def rows_text(found: Explanation, screen: Screen, name_of: NameOf, k: int = 3) -> list[str]:
    """A line for each target: its token and the ``k`` sources it rests on most."""
    body = []
    for row, (position, token) in enumerate(zip(found.targets, found.target_ids, strict=True)):
        top = found.top(row, k)
        told = screen.say("explanation.list").join(f"{source_name(source)} {value:+.2f}" for source, value in top)
        body.append([str(position), name_of(int(token)), f"{found.value[row]:.2f}", told])
    unit = "logit" if found.kind != "logprob" else "nats"
    header = [screen.say(f"explanation.{name}") for name in ("pos", "token", unit, "rests_most")]
    return columns(screen, header, body, "><><", stretch=3)


def _headline(found: Explanation, row: int, name_of: NameOf, screen: Screen) -> str:
    if found.together and len(found.targets) > 1:
        told = "".join(name_of(int(i)).strip("'\"") for i in found.target_ids)
        where = screen.say("explanation.at_span", first=str(found.targets[0]), last=str(found.targets[-1]))
        token = quoted(told)
    else:
        token, where = (
            name_of(int(found.target_ids[row])),
            screen.say("explanation.at", position=str(found.targets[row])),
        )
    facts = {"token": token, "where": where, "value": value_text(found.kind, f"{found.value[row]:.2f}", screen)}
    if found.foil_ids is None:
        return screen.say("explanation.head", **facts)
    return screen.say("explanation.head_foil", **facts, foil=name_of(int(found.foil_ids[row])))


def value_text(kind: str, value: str, screen: Screen) -> str:
    """A target's value with what it is: logits above the mean or against another token, or a log-probability."""
    return screen.say(f"explanation.value_{kind}", value=value)


def _sentence(found: Explanation, row: int, name_of: NameOf, k: int, screen: Screen) -> str:
    """What the target rests on, in words; percentages only where the method keeps a ledger."""
    ranked = found.top(row, len(found.sources))
    most = max((abs(value) for _, value in ranked), default=0.0)
    if not most:
        return screen.say("explanation.none")
    shares = found.shares()
    place = {source: column for column, source in enumerate(found.sources)}

    def told(source: Source, value: float) -> str:
        if shares is not None and not np.ma.getmaskarray(shares)[row].all():
            return f"{source_name(source)} {100 * abs(shares.data[row, place[source]]):.0f} %"
        return screen.say("explanation.weighed", source=source_name(source), value=f"{abs(value):.2f}")

    named = [(source, value) for source, value in ranked if abs(value) >= SHOWN * most]
    pro = [told(source, value) for source, value in named if value > 0][:k]
    contra = [told(source, value) for source, value in named if value < 0][: max(1, k - len(pro))]
    together = found.together and len(found.targets) > 1
    target = screen.say("explanation.the_answer") if together else name_of(int(found.target_ids[row]))
    key = "against" if not pro else "for_against" if contra else "for"
    return screen.say(f"explanation.{key}", target=target, pro=_listed(pro, screen), contra=_listed(contra, screen))


def ledger_sentence(found: Explanation, row: int, screen: Screen) -> str:
    """Where the value comes from, entry by entry."""
    entries = [
        f"{retold(name, screen.lang, 'explanation.entry')} {values[row]:+.3f}"
        for name, values in found.ledger.items()
        if name != "residual"
    ]
    facts = {"value": f"{found.value[row]:.3f}", "entries": " ".join(entries)}
    residual = found.ledger.get("residual")
    if residual is None:
        return screen.say("explanation.books", **facts)
    return screen.say("explanation.books_left", **facts, residual=f"{abs(residual[row]):.0e}")


def check_sentence(check: ReplayCheck, screen: Screen) -> str:
    """Whether the replay computed what the tape says, and what it was played with where that was not on the tape."""
    told = _agreement(check, screen)
    return told if check.how == "ids" else screen.say(f"explanation.how.{check.how}", check=told)


def _agreement(check: ReplayCheck, screen: Screen) -> str:
    if check.passed:
        facts = {"largest": f"{check.largest:.1e}", "median": f"{check.median:.1e}", "n": str(check.n)}
        return screen.say("explanation.chooses" if check.how == "choices" else "explanation.agrees", **facts)
    reason = retold(str(check.reason), screen.lang, "explanation.reason")
    if check.largest is None:
        return screen.say("explanation.unchecked", reason=reason)
    facts = {"largest": f"{check.largest:.2g}", "tolerance": f"{check.tolerance:g}"}
    return screen.say("explanation.disagrees", reason=reason, **facts)


def _foot(found: Explanation, screen: Screen, meaning: str) -> list[str]:
    told = screen.say(
        "explanation.foot" if found.cpu_ns is None else "explanation.foot_cpu",
        method=found.method,
        meaning=retold(meaning, screen.lang, "explanation.meaning"),
        **{name: str(found.passes.get(name, 0)) for name in ("forward", "backward")},
        cpu=duration(found.cpu_ns),
    )
    lines = [*_wrapped(told, screen)]
    if "notice" in found.notes:
        lines += _wrapped(retold(str(found.notes["notice"]), screen.lang, "explanation.notice"), screen)
    check = check_sentence(found.check, screen)
    return [screen.paint(line, "dim") for line in lines] + [screen.paint(check, "dim" if found.check.passed else "red")]


def _wrapped(text: str, screen: Screen) -> list[str]:
    return folded(screen.safe(text), screen.width)


def source_name(source: Source) -> str:
    """A source between quotes, long ones cut in the middle of nothing: at their end."""
    return quoted(fit(drawn_text(source.label, keep=""), 40))


def _range(source: Source) -> str:
    return str(source.start) if source.stop == source.start + 1 else f"{source.start}-{source.stop - 1}"


def _listed(parts: Sequence[str], screen: Screen) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return screen.say("explanation.and", most=screen.say("explanation.list").join(parts[:-1]), last=parts[-1])


def explanation_document(found: Explanation, name_of: NameOf) -> dict[str, Any]:
    """An explanation as plain values, for JSON; null where a target cannot see a source."""
    shares = found.shares()
    return {
        "trace": found.trace,
        "number": found.number,
        "method": found.method,
        "options": dict(found.options),
        "notes": dict(found.notes),
        "kind": found.kind,
        "together": found.together,
        "targets": [
            {"position": int(p), "id": int(i), "token": name_of(int(i))}
            for p, i in zip(found.targets, found.target_ids, strict=True)
        ],
        "foil_ids": None if found.foil_ids is None else found.foil_ids.tolist(),
        "sources": [{"start": s.start, "stop": s.stop, "label": s.label, "kind": s.kind} for s in found.sources],
        "relevance": found.relevance.tolist(),
        "shares": None if shares is None else shares.tolist(),
        "value": found.value.tolist(),
        "ledger": _ledger(found.ledger),
        "replay_check": asdict(found.check),
        "passes": dict(found.passes),
        "cpu_ns": found.cpu_ns,
        "made": dict(found.made),
    }


def _ledger(ledger: Mapping[str, Any]) -> dict[str, list[float | None]]:
    return {name: [v if math.isfinite(v) else None for v in values.tolist()] for name, values in ledger.items()}
