"""Other people's measurements: a table of prompt and token times by setting, read into points.

The form is that of the traces of Splitwise (P. Patel et al., "Splitwise: Efficient Generative LLM Inference Using Phase
Splitting", ISCA 2024; mutinifni/splitwise-sim): a row a run, times in milliseconds.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokentape.errors import StudyError, UsageError
from tokentape.study.cost.counting import workload
from tokentape.study.law.gathering import Subject
from tokentape.study.law.points import Point

__all__ = ["Table", "read_table"]

NEEDED = ("prompt_size", "batch_size", "token_size", "prompt_time", "token_time")
WHOSE = ("model", "hardware", "tensor_parallel")

ADDS_UP = 1.05
"""A run whose end-to-end time exceeds the sum of its parts by more than this holds something that its parts do not tell."""


@dataclass(frozen=True)
class Table:
    """Points by subject (model, hardware and devices), and why rows were left out, with how many."""

    points: tuple[Point, ...]
    subjects: tuple[Subject, ...]
    left_out: Mapping[str, int]

    def of(self, keep: Sequence[int]) -> tuple[list[Point], tuple[Subject, ...]]:
        """The points of some subjects, renumbered for a fit of their own."""
        place = {old: new for new, old in enumerate(keep)}
        points = [
            Point(p.kind, p.context, p.batch, p.ns, p.n, labels={**p.labels, "subject": place[p.labels["subject"]]})
            for p in self.points
            if p.labels["subject"] in place
        ]
        return points, tuple(self.subjects[old] for old in keep)


def read_table(path: str | os.PathLike[str], configs: Mapping[str, Any] | None = None) -> Table:
    """Read a CSV with the columns ``prompt_size, batch_size, token_size, prompt_time, token_time`` (times in ms).

    ``model``, ``hardware`` and ``tensor_parallel`` tell the subjects apart; ``configs`` gives a model's configuration, so that
    its work is known. Two traps of such tables are minded: ``token_size`` is a cap, and where ``e2e_time`` is there the number
    of tokens follows from it; and a row whose end-to-end time is more than 5 % above the sum of its parts is left out.

    Raises UsageError for a file that is no such table, StudyError where no row can be used.
    """
    place = Path(path)
    rows = _rows(place)
    subjects: dict[tuple[str, ...], Subject] = {}
    order: list[tuple[str, ...]] = []
    points: list[Point] = []
    left: dict[str, int] = {}
    for number, row in enumerate(rows, 2):
        values = _numbers(row, number, place)
        why = _contradiction(values)
        if why is not None:
            left[why] = left.get(why, 0) + 1
            continue
        whose = tuple(row.get(name) or "" for name in WHOSE)
        if whose not in subjects:
            subjects[whose] = _subject(whose, configs or {})
            order.append(whose)
        points += _points(values, order.index(whose))
    if not points:
        raise StudyError(
            f"no row of {place} can be used",
            why="; ".join(f"{why} ({n})" for why, n in left.items()) or "it has no rows",
            fix="give a table of measured prompt and token times",
        )
    return Table(tuple(points), tuple(subjects[whose] for whose in order), left)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or []
            missing = [name for name in NEEDED if name not in names]
            if missing:
                raise UsageError(
                    f"{path} lacks {'the column' if len(missing) == 1 else 'the columns'} {', '.join(missing)}",
                    why=f"a table of latencies has {', '.join(NEEDED)}; this one has {', '.join(names) or 'nothing'}",
                    fix="rename its columns, times in milliseconds",
                )
            return list(reader)
    except (OSError, UnicodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read", why=str(error), fix="give a CSV file") from error


def _numbers(row: Mapping[str, str | None], number: int, path: Path) -> dict[str, float]:
    values = {}
    for name in (*NEEDED, "e2e_time"):
        text = row.get(name)
        if text in (None, "") and name == "e2e_time":
            continue
        try:
            values[name] = float(text or "")
        except ValueError:
            raise UsageError(
                f"{path}, line {number}: {name} is {text!r}", why="it has to be a number", fix="mend or drop the line"
            ) from None
    return values


def _contradiction(values: Mapping[str, float]) -> str | None:
    """Why a row says nothing of its setting; None where it does."""
    if min(values[name] for name in NEEDED) <= 0:
        return "a size or a time is not above zero"
    if "e2e_time" in values:
        parts = values["prompt_time"] + (values["token_size"] - 1) * values["token_time"]
        if values["e2e_time"] > ADDS_UP * parts:
            return "its end-to-end time is more than its parts add up to"
    return None


def _points(values: Mapping[str, float], subject: int) -> list[Point]:
    prompt, batch, cap = values["prompt_size"], round(values["batch_size"]), values["token_size"]
    n_tokens = cap
    if "e2e_time" in values:
        n_tokens = min(cap, max(2.0, (values["e2e_time"] - values["prompt_time"]) / values["token_time"] + 1))
    return [
        Point(
            "prefill",
            prompt,
            batch,
            values["prompt_time"] * 1e6,
            labels={"subject": subject, "setting": (prompt, batch)},
        ),
        Point(
            "decode",
            # the middle of what was generated
            prompt + n_tokens / 2,
            batch,
            values["token_time"] * 1e6,
            n=round(n_tokens) - 1,
            labels={"subject": subject, "setting": (prompt, batch, cap)},
        ),
    ]


def _subject(whose: tuple[str, ...], configs: Mapping[str, Any]) -> Subject:
    model, hardware, parallel = whose
    n_devices = int(float(parallel)) if parallel else 1
    name = " ".join(word for word in (model or "a model", hardware, f"x {n_devices}" if n_devices > 1 else "") if word)
    facts = {"model": model, "gpu": hardware or None, "tensor_parallel": n_devices}
    work = workload(configs[model], "float16", n_devices) if model in configs else None
    return Subject(name, name, facts, work)
