"""``tokentape show`` of several loads: the table that a sweep over rates, or over concurrency, makes of its tapes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokentape.cli.output import document, print_document, print_lines
from tokentape.errors import TokentapeError, UsageError

if TYPE_CHECKING:
    from tokentape.data.tape import Tape

__all__ = ["print_sweeps", "swept_files"]

_SAME = ("model", "url", "engine", "api")
"""Facts of the Setting without which two loads are of two servers."""


def swept_files(files: Sequence[Path]) -> list[Path]:
    """The tapes that were asked for together: several, those of a folder, or those that a sweep wrote beside the place that it was
    given. None where one tape was asked for.
    """
    if len(files) > 1:
        return list(dict.fromkeys(files))
    from tokentape.views.folder import tapes_in

    (file,) = files
    if file.is_dir():
        return tapes_in(file)
    if file.exists() or not file.parent.is_dir():
        return []
    step = re.compile(rf"{re.escape(file.stem)}-\d[\d.]*(e[+-]?\d+)?{re.escape(file.suffix or '.tape')}")
    found = [one for one in tapes_in(file.parent) if step.fullmatch(one.name)]
    return found if len(found) > 1 else []


def print_sweeps(
    asked: Sequence[Path], files: Sequence[Path], objectives: str | None, since: str | None, *, as_json: bool
) -> None:
    """The table of each sweep that the tapes are of; ``asked`` is where they were found.

    Raises UsageError where they are of none.
    """
    from tokentape.views.load_sweep import load_sweep_text
    from tokentape.views.screen import Screen

    found_by_name = len(asked) == 1
    with ExitStack() as opened:
        tapes = [tape for file in files if (tape := _load(file, opened, skips=found_by_name)) is not None]
        groups = _sweeps(tapes) if found_by_name else [tapes]
        if not groups:
            raise UsageError(
                f"{asked[0]} has no sweep",
                why=f"{len(tapes)} of its tapes are loads, and no two of them differ in the rate or the concurrency alone",
                fix=f"tokentape ls {asked[0]}",
            )
        sweeps = [_swept(group, objectives, since) for group in groups]
    if as_json:
        print_document(document("show", sweeps=sweeps))
    else:
        screen = Screen.of(sys.stdout)
        print_lines("\n\n".join(load_sweep_text(one, screen) for one in sweeps))


def _load(file: Path, opened: ExitStack, *, skips: bool) -> Tape | None:
    """A tape with a load; ``skips`` passes over what is none, and says so of what cannot be read."""
    from tokentape.data.tape import open_tape

    try:
        tape = opened.enter_context(open_tape(file))
    except TokentapeError as error:
        if not skips:
            raise
        click.echo(f"left out: {error.what}", err=True)
        return None
    if isinstance(tape.notes.get("load"), Mapping):
        return tape
    if skips:
        return None
    raise UsageError(
        f"{file} is no load",
        why="a table over rates is made of tapes that a load wrote, one for each rate",
        fix=f"tokentape show {file}, or tokentape compare of two tapes",
    )


def _sweeps(tapes: Sequence[Tape]) -> list[list[Tape]]:
    """The tapes of a folder that are alike but for the rate, or for the number of users of a closed loop."""
    from tokentape.study.comparability import told_plan

    groups: dict[str, list[Tape]] = {}
    for tape in tapes:
        plan = told_plan(tape)
        swept = "concurrency" if plan.get("rate") is None else "rate"
        alike = {name: value for name, value in plan.items() if name != swept}
        key = json.dumps([alike, [tape.setting.facts.get(name) for name in _SAME]], sort_keys=True, default=str)
        groups.setdefault(key, []).append(tape)
    return [group for group in groups.values() if len({_asked(tape, _by(group)) for tape in group}) > 1]


def _by(tapes: Sequence[Tape]) -> str:
    """What changes from one tape of a sweep to the next. Raises UsageError where that is another thing, or nothing."""
    from tokentape.study.comparability import load_differences, told_loads

    loads = {d.name: d for tape in tapes[1:] for d in load_differences(tapes[0], tape)}
    servers = [
        f"{name} {tapes[0].setting.facts.get(name)} | {tape.setting.facts.get(name)}"
        for name in _SAME
        for tape in tapes[1:]
        if tape.setting.facts.get(name) != tapes[0].setting.facts.get(name)
    ]
    if servers or len(loads) > 1 or not loads.keys() <= {"rate", "concurrency"}:
        differ = "; ".join([*servers[:3], *([told_loads(list(loads.values()))] if loads else [])])
        raise UsageError(
            f"the loads differ in {differ}",
            why="a sweep changes the rate or the concurrency, and nothing else",
            fix="give the tapes of one sweep; or tokentape compare A B",
        )
    return next(iter(loads), "rate" if _rate(tapes[0]) is not None else "concurrency")


def _rate(tape: Tape) -> float | None:
    rate = tape.notes["load"].get("rate")
    return rate if isinstance(rate, int | float) else None


def _asked(tape: Tape, by: str) -> float:
    value = tape.notes["load"].get(by)
    return float(value) if isinstance(value, int | float) else 0.0


def _swept(tapes: Sequence[Tape], objectives: str | None, asked: str | None) -> dict[str, Any]:
    """What :func:`~tokentape.load.knee.sweep_rates` would have found, with the percentiles of each step.

    Where nothing else was asked, requests count from when they were due, if those of all tapes were.
    """
    from tokentape.load.account import account_of
    from tokentape.load.knee import Swept, step_of
    from tokentape.study.metrics import check_since
    from tokentape.study.served_rates import was_due
    from tokentape.study.slo import parse_slo

    by, slo = _by(tapes), None if objectives is None else parse_slo(objectives)
    since = asked or ("due" if all(was_due(tape) for tape in tapes) else "start")
    rows = []
    for tape in tapes:
        check_since(tape, since)
        account = account_of(tape, slo, since=since)
        rows.append((step_of(_asked(tape, by), account, str(tape.path)), account, tape.state))
    rows.sort(key=lambda row: row[0].rate)
    found = Swept(tuple(step for step, _, _ in rows), objectives, by=by).as_dict()
    more = [
        {
            "state": state,
            "ttft": account["ttft_from_due" if since == "due" else "ttft"],
            "gap": account["token_gap" if account["token_gap"]["n"] else "chunk_gap"],
            "goodput": account["goodput"],
        }
        for _, account, state in rows
    ]
    steps = [{**step, **told} for step, told in zip(found["steps"], more, strict=True)]
    return {**found, "steps": steps, "since": since}
