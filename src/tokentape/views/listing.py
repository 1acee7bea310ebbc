"""Tables and reports that are not about one tape's tokens: ``ls``, ``verify``, ``schema``, ``doctor``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.cells import cell_len

from tokentape.data.schema import CANDIDATE_COLUMNS, SCHEMA_VERSION, SERIES, Column
from tokentape.views.drawing import drawn_text
from tokentape.views.screen import Screen, columns, fit, pad
from tokentape.words.retold import retold

__all__ = ["Check", "TapeLine", "doctor_report", "schema_document", "schema_table", "tape_list", "verify_report"]

_PROMPT = 40

_MARK = 9
"""Cells before the name of a file that was checked."""


@dataclass(frozen=True, slots=True)
class TapeLine:
    """One file of a folder: its figures, or what is wrong with it.

    ``tokens_per_s`` is of decoding; of requests to a server it and ``requests_per_s`` are over the whole time that they took.
    """

    path: Path
    state: str
    model: str | None = None
    prompt: str | None = None
    n_tokens: int | None = None
    n_traces: int | None = None
    tokens_per_s: float | None = None
    created: str | None = None
    n_requests: int | None = None
    requests_per_s: float | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor: ``state`` is ``ok``, ``note`` or ``missing``; ``fix`` is what to do about it."""

    group: str
    name: str
    value: str
    state: str = "ok"
    fix: str = ""


def tape_list(lines: Sequence[TapeLine], screen: Screen) -> str:
    """The tapes of a folder as a table, newest last; those that cannot be read with what is wrong. Requests have columns where a
    tape has some.
    """
    rows = []
    served = any(tape.n_requests is not None for tape in lines)
    for tape in lines:
        prompt = "" if tape.prompt is None else drawn_text(tape.prompt)
        if tape.problem is not None:
            prompt = drawn_text(retold(tape.problem, screen.lang))
        rows.append(
            [
                drawn_text(tape.path.name),
                screen.say(f"listing.state.{tape.state}"),
                "" if tape.model is None else drawn_text(tape.model),
                "" if tape.n_tokens is None else f"{tape.n_tokens:,}",
                "" if tape.tokens_per_s is None else f"{tape.tokens_per_s:,.1f}",
                *(_requests(tape) if served else ()),
                tape.created or "",
                fit(screen.safe(prompt), _PROMPT, screen.choose("…", "...")),
            ]
        )
    of_requests = ("requests", "requests_speed") if served else ()
    names = ("tape", "state", "model", "tokens", "speed", *of_requests, "date", "prompt")
    align = "<<<>>" + ">" * len(of_requests) + "<<"
    table = columns(screen, [screen.say(f"listing.{name}") for name in names], rows, align, stretch=len(names) - 1)
    return "\n".join(screen.safe(line) for line in table)


def _requests(tape: TapeLine) -> tuple[str, str]:
    n, per_s = tape.n_requests, tape.requests_per_s
    return "" if n is None else f"{n:,}", "" if per_s is None else f"{per_s:,.2f}"


def verify_report(results: Sequence[tuple[Path, Sequence[str]]], screen: Screen) -> str:
    """For each file ``ok``, or every problem that was found."""
    lines = []
    for path, problems in results:
        name = drawn_text(str(path))
        mark, style = ("problem", "red") if problems else ("ok", "green")
        word = screen.say(f"listing.{mark}")
        told = screen.say("listing.problems", name=name, n=len(problems)) if problems else name
        lines.append(screen.paint(word, style) + " " * (_MARK - cell_len(word)) + told)
        lines += [f"           {drawn_text(_problem(problem, screen))}" for problem in problems]
    return "\n".join(screen.safe(line) for line in lines)


def _problem(problem: str, screen: Screen) -> str:
    if screen.lang == "en":
        return problem
    where, colon, what = problem.partition(": ")
    sides = [retold(side, screen.lang, "listing.where", "listing.what", "listing.is") for side in (where, what)]
    return "：".join(sides) if colon else sides[0]


def schema_table(screen: Screen) -> str:
    """Every column of a tape with its type, unit and meaning."""
    parts = [screen.say("listing.schema", n=SCHEMA_VERSION)]
    for series, listed in {**SERIES, "candidates": CANDIDATE_COLUMNS}.items():
        parts += ["", screen.paint(series, "bold"), *_schema_lines(listed, screen)]
    return "\n".join(screen.safe(part) for part in parts)


def _schema_lines(listed: Sequence[Column], screen: Screen) -> list[str]:
    nullable = screen.say("listing.nullable")
    rows = [[c.name, c.dtype, nullable if c.nullable else "", c.unit, _meaning(c)] for c in listed]
    header = [screen.say(f"listing.{name}") for name in ("column", "dtype", "null", "unit", "meaning")]
    return columns(screen, header, rows, "<<<<<")


def _meaning(column: Column) -> str:
    return column.meaning + (f": {', '.join(column.choices)}" if column.choices else "")


def doctor_report(checks: Sequence[Check], screen: Screen) -> str:
    """What was found, by group, and at the end what is missing and how to get it."""
    names = [retold(check.name, screen.lang, "listing.name") for check in checks]
    width = max(cell_len(name) for name in names)
    paints = {"note": "yellow", "missing": "red"}
    lines: list[str] = []
    group = None
    for check, name in zip(checks, names, strict=True):
        if check.group != group:
            group = check.group
            lines += [*([""] if lines else []), screen.paint(retold(group, screen.lang, "listing.group"), "bold")]
        mark = ""
        if check.state != "ok":
            mark = f"  {screen.paint(screen.say(f'listing.{check.state}'), paints[check.state])}"
        value = retold(check.value, screen.lang, "listing.value", "cost.bound")
        lines.append(f"  {pad(name, width)}  {drawn_text(value)}{mark}")
    todo = [(name, check.fix) for check, name in zip(checks, names, strict=True) if check.fix]
    if todo:
        lines += ["", screen.paint(screen.say("listing.to_do"), "bold")]
        lines += [
            f"  {screen.say('listing.todo', name=name, fix=retold(fix, screen.lang, 'listing.fix'))}"
            for name, fix in todo
        ]
    return "\n".join(screen.safe(line) for line in lines)


def schema_document() -> dict[str, Any]:
    """The same as :func:`schema_table` as plain values."""
    listed: Mapping[str, tuple[Column, ...]] = {**SERIES, "candidates": CANDIDATE_COLUMNS}
    return {
        "tape_schema_version": SCHEMA_VERSION,
        "series": {
            series: [
                {
                    "name": c.name,
                    "dtype": c.dtype,
                    "unit": c.unit or None,
                    "nullable": c.nullable,
                    "choices": list(c.choices) or None,
                    "meaning": c.meaning,
                }
                for c in columns_
            ]
            for series, columns_ in listed.items()
        },
    }
