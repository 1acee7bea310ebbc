"""Tables and reports that are not about one tape's tokens: ``ls``, ``verify``, ``schema``, ``doctor``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokentape.data.schema import CANDIDATE_COLUMNS, SCHEMA_VERSION, SERIES, Column
from tokentape.views.drawing import drawn_text
from tokentape.views.screen import Screen, columns, fit
from tokentape.views.units import count

__all__ = ["Check", "TapeLine", "doctor_report", "schema_document", "schema_table", "tape_list", "verify_report"]

_PROMPT = 40


@dataclass(frozen=True, slots=True)
class TapeLine:
    """One file of a folder: its figures, or what is wrong with it."""

    path: Path
    state: str
    model: str | None = None
    prompt: str | None = None
    n_tokens: int | None = None
    n_traces: int | None = None
    tokens_per_s: float | None = None
    created: str | None = None
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
    """The tapes of a folder as a table, newest last; those that cannot be read with what is wrong."""
    rows = []
    for tape in lines:
        prompt = "" if tape.prompt is None else drawn_text(tape.prompt)
        if tape.problem is not None:
            prompt = drawn_text(tape.problem)
        rows.append(
            [
                drawn_text(tape.path.name),
                tape.state,
                "" if tape.model is None else drawn_text(tape.model),
                "" if tape.n_tokens is None else f"{tape.n_tokens:,}",
                "" if tape.tokens_per_s is None else f"{tape.tokens_per_s:,.1f}",
                tape.created or "",
                fit(screen.safe(prompt), _PROMPT, screen.choose("…", "...")),
            ]
        )
    header = ["tape", "state", "model", "tokens", "tokens/s", "date", "prompt"]
    return "\n".join(columns(screen, header, rows, "<<<>><<", stretch=6))


def verify_report(results: Sequence[tuple[Path, Sequence[str]]], screen: Screen) -> str:
    """For each file ``ok``, or every problem that was found."""
    lines = []
    for path, problems in results:
        name = drawn_text(str(path))
        if not problems:
            lines.append(f"{screen.paint('ok', 'green')}       {name}")
            continue
        lines.append(f"{screen.paint('problem', 'red')}  {name}: {count(len(problems), 'problem')}")
        lines += [f"           {drawn_text(problem)}" for problem in problems]
    return "\n".join(screen.safe(line) for line in lines)


def schema_table(screen: Screen) -> str:
    """Every column of a tape with its type, unit and meaning."""
    parts = [f"tape format, schema version {SCHEMA_VERSION}"]
    for series, listed in {**SERIES, "candidates": CANDIDATE_COLUMNS}.items():
        parts += ["", screen.paint(series, "bold"), *_schema_lines(listed, screen)]
    return "\n".join(parts)


def _schema_lines(listed: Sequence[Column], screen: Screen) -> list[str]:
    rows = [[c.name, c.dtype, "yes" if c.nullable else "", c.unit, _meaning(c)] for c in listed]
    return columns(screen, ["column", "dtype", "null", "unit", "meaning"], rows, "<<<<<")


def _meaning(column: Column) -> str:
    return column.meaning + (f": {', '.join(column.choices)}" if column.choices else "")


def doctor_report(checks: Sequence[Check], screen: Screen) -> str:
    """What was found, by group, and at the end what is missing and how to get it."""
    width = max(len(check.name) for check in checks)
    marks = {"ok": "ok", "note": "note", "missing": "missing"}
    paints = {"ok": "green", "note": "yellow", "missing": "red"}
    lines: list[str] = []
    group = None
    for check in checks:
        if check.group != group:
            group = check.group
            lines += [*([""] if lines else []), screen.paint(group, "bold")]
        mark = "" if check.state == "ok" else f"  {screen.paint(marks[check.state], paints[check.state])}"
        lines.append(f"  {check.name:<{width}}  {drawn_text(check.value)}{mark}")
    todo = [check for check in checks if check.fix]
    if todo:
        lines += ["", screen.paint("to do", "bold")]
        lines += [f"  {check.name}: {check.fix}" for check in todo]
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
