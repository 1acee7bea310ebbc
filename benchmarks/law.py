"""How well the law of latency predicts what it was not fitted to, and what the noise of the machine allows at best.

    python benchmarks/law.py                    sweeps of the shipped model and of the shape of BLOOM-560m, then the table
    python benchmarks/law.py --tape a.tape      a sweep that was recorded before
    python benchmarks/law.py --only table       other people's measurements alone

Of a sweep, three questions. *Between*: the settings are dealt into four parts, each part is hidden in turn and asked for, and
that several times; the smallest and largest contexts of each batch are never hidden. *Twice* and *four times*: only contexts up to
one of the measured lengths are fitted, and twice, or four times, that length is asked for, with each length in turn that has four
shorter ones and a measurement that far beyond it. An error is that of a predicted setting against the median of its visits; an
interval holds or misses each visit, and beside the share that held stands its standard error, by settings. The *noise floor* is
the error of the best predictor there could be: a visit against the median of the other visits of its setting, and the median of
all of them as far as two halves of them agree.

The sweep of BLOOM-560m ends below 8,192 positions in all: from there on a layer's keys take more than 32 MiB, glibc maps each
copy of them anew, and a step takes half as long again. No law that was fitted below can know of such a cliff. Its prefills cross
one: from 724 tokens on, the scores of a layer's heads take more than 32 MiB, and a token takes 10 to 25 % longer.

Of the table, each setting is left out in turn, choice of the form and all; then one model is predicted from another.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokentape.errors import TooFewPoints
from tokentape.study.law.fitting import fit_cells
from tokentape.study.law.gathering import Subject, cell_key, cells_of
from tokentape.study.law.laws import fit_points
from tokentape.study.law.measurements import read_table
from tokentape.study.law.points import Point, points_of

HERE = Path(__file__).resolve().parent
MATERIAL = Path(os.environ.get("TOKENTAPE_MATERIAL", HERE.parents[1] / "shared" / "material"))
LEAST_PREFILL = 128
"""Prefills of fewer tokens are mostly the launching of kernels."""

PARTS = 4
"""Settings are hidden a quarter at a time."""

LEAST_LEVELS = 5
"""So many lengths at least a law is fitted to that is asked for a longer one."""

NEAR = 0.1
"""Octaves by which a measured length may differ from the one that is asked for."""

SWEEPS = {
    "demo": [
        *("demo", "--context", "16..256/13", "--batch", "1,2,4,8", "--repeat", "15", "--threads", "1"),
        *("--prefill-tokens", "2048"),
    ],
    "bloom-560m": [
        str(MATERIAL / "configs" / "bloom-560m"),
        *("--random-weights", "0", "--context", "64..1984/16", "--batch", "1,2,4", "--repeat", "5", "--threads", "1"),
        *("--steps", "10", "--prefill-tokens", "1024"),
    ],
}


class Asked:
    """Errors and hits of one question, over all the fits that were asked it."""

    def __init__(self) -> None:
        self.held: dict[tuple[Any, ...], list[bool]] = defaultdict(list)
        self.errors: list[float] = []
        self.visits: list[float] = []

    def ask(self, known: Sequence[Point], hidden: Sequence[Point], kind: str, subject: Subject) -> None:
        try:
            law = fit_points(known, (subject,), [kind])
        except TooFewPoints as error:
            print(f"{kind}: {error.why}", file=sys.stderr)
            return
        for key, visits in by_cell(hidden).items():
            context = float(np.mean([point.context for point in visits]))
            try:
                found = law.predict(context=context, batch=visits[0].batch, kind=kind)
            except TooFewPoints:
                continue
            measured = [point.ns for point in visits]
            self.errors.append(abs(found.ns / float(np.median(measured)) - 1))
            self.visits += [abs(found.ns / ns - 1) for ns in measured]
            self.held[key] += [found.low_ns <= ns <= found.high_ns for ns in measured]

    def row(self) -> dict[str, Any]:
        if not self.errors:
            return {"n": 0}
        held = np.concatenate([np.asarray(hits, float) for hits in self.held.values()])
        # the visits of a setting hit or miss together: how far their sums scatter tells how sure the share is
        apart = [float(np.sum(np.asarray(hits) - held.mean())) for hits in self.held.values()]
        return {
            "n": len(self.errors),
            "n_cells": len(self.held),
            "median_error": float(np.median(self.errors)),
            "p90_error": float(np.quantile(self.errors, 0.9)),
            "visit_median_error": float(np.median(self.visits)),
            "n_visits": len(held),
            "coverage": float(held.mean()),
            "coverage_error": float(np.linalg.norm(apart) / len(held)),
        }


def by_cell(points: Sequence[Point]) -> dict[tuple[Any, ...], list[Point]]:
    """The points of each setting."""
    cells: dict[tuple[Any, ...], list[Point]] = defaultdict(list)
    for point in points:
        cells[cell_key(point)].append(point)
    return cells


def questions(
    points: Sequence[Point], kind: str, subject: Subject, rounds: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each question with its figures."""
    good = [point for point in points if point.kind == kind and point.cause is None]
    if kind == "prefill":
        good = [point for point in good if point.context * point.batch >= LEAST_PREFILL]
    cells = by_cell(good)
    inner = _inner(sorted(cells))
    between = Asked()
    random = np.random.default_rng(0)
    for _ in range(rounds):
        dealt = random.permutation(len(inner))
        for part in range(PARTS):
            keys = {inner[i] for i in dealt[part::PARTS]}
            known = [point for key in cells if key not in keys for point in cells[key]]
            hidden = [point for key in keys for point in cells[key]]
            between.ask(known, hidden, kind, subject)
    yield "between", between.row()
    for name, factor in (("twice", 2), ("four times", 4)):
        beyond = Asked()
        for longest in _levels(good)[LEAST_LEVELS - 1 :]:
            far = [point for point in good if abs(np.log2(point.context / (factor * longest))) < NEAR]
            known = [point for point in good if point.context <= longest * 2**NEAR]
            if far:
                beyond.ask(known, far, kind, subject)
        yield name, beyond.row()
    yield "noise floor", floor(good)


def _levels(points: Sequence[Point]) -> list[float]:
    """The measured contexts, those of one cell as one."""
    levels: dict[int, list[float]] = defaultdict(list)
    for point in points:
        levels[cell_key(point)[1]].append(point.context)
    return [float(np.median(levels[key])) for key in sorted(levels)]


def _inner(keys: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The cells that have a smaller and a larger context of their batch around them: to ask for another one extrapolates."""
    found = []
    for key in keys:
        _, context, batch = key
        contexts = [c for _, c, other in keys if other == batch]
        if min(contexts) < context < max(contexts):
            found.append(key)
    return found


def floor(points: Sequence[Point]) -> dict[str, Any]:
    """Each visit against the median of the others of its setting: by visit, and as it comes to medians of all visits."""
    apart, medians = [], []
    for visits in by_cell(points).values():
        values = [point.ns for point in visits]
        if len(values) < 2:
            continue
        apart += [abs(ns / float(np.median([*values[:i], *values[i + 1 :]])) - 1) for i, ns in enumerate(values)]
        # two halves of the visits: how far their medians are apart tells how far a median of all is from the truth
        medians.append(abs(float(np.median(values[::2]) / np.median(values[1::2])) - 1) / 2)
    return {
        "n": len(medians),
        "median_error": float(np.median(medians)) if medians else None,
        "p90_error": float(np.quantile(medians, 0.9)) if medians else None,
        "visit_median_error": float(np.median(apart)) if apart else None,
        "n_visits": len(apart),
        "coverage": None,
    }


def sweep_rows(path: Path, rounds: int) -> list[dict[str, Any]]:
    import tokentape

    with tokentape.open(path) as tape:
        points = points_of(tape, {"subject": 0})
        facts = tape.setting.facts
    name = str(facts.get("model"))
    print(f"{path}: {name}, {facts.get('torch_threads')} threads, {len(points)} points", file=sys.stderr)
    subject = Subject(name, "", dict(facts))
    return [
        {"model": name, "threads": facts.get("torch_threads"), "kind": kind, "question": question, **row}
        for kind in ("decode", "prefill")
        for question, row in questions(points, kind, subject, rounds)
    ]


def table_rows() -> list[dict[str, Any]]:
    path = MATERIAL / "latency" / "splitwise_a100.csv"
    if not path.is_file():
        print(f"no table at {path}: set TOKENTAPE_MATERIAL", file=sys.stderr)
        return []
    files = sorted((HERE / "architectures").glob("*.json"))
    table = read_table(path, {file.stem: json.loads(file.read_text()) for file in files})
    rows = []
    for kind in ("decode", "prefill"):
        every = range(len(table.subjects))
        for name, groups in (("each alone", [[i] for i in every]), ("all together", [list(every)])):
            checks = []
            for group in groups:
                points, subjects = table.of(group)
                if len(group) > 1:
                    subjects = tuple(subject.as_pooled() for subject in subjects)
                cells = cells_of(kind, [point for point in points if point.kind == kind], subjects)
                checks.append(fit_cells(cells, max_folds=len(cells)).check)
            n = sum(check.n for check in checks if check)
            row: dict[str, Any] = {"model": "splitwise", "kind": kind, "question": f"left out, {name}", "n": n}
            for figure in ("mean_error", "median_error", "p90_error", "coverage"):
                row[figure] = sum(getattr(check, figure) * check.n for check in checks if check) / n
            rows.append(row)
        rows.append(transferred(table, kind))
    return rows


def transferred(table: Any, kind: str) -> dict[str, Any]:
    known = [i for i, subject in enumerate(table.subjects) if "llama" in subject.name]
    points, subjects = table.of(known)
    law = fit_points(points, tuple(subject.as_pooled() for subject in subjects), [kind])
    (other,) = (i for i in range(len(table.subjects)) if i not in known)
    points, subjects = table.of([other])
    cells = cells_of(kind, [point for point in points if point.kind == kind], subjects)
    errors, held = [], []
    for i in range(len(cells)):
        loads = cells.loads
        found = law.predict(context=loads.context[i], batch=loads.batch[i], kind=kind, of=subjects[0].workload)
        errors.append(abs(found.ns / cells.ns[i] - 1))
        held += [found.low_ns <= ns <= found.high_ns for ns in np.exp(cells.logs[i])]
    return {
        "model": "splitwise",
        "kind": kind,
        "question": f"{table.subjects[other].name}, never seen",
        "n": len(errors),
        "mean_error": float(np.mean(errors)),
        "median_error": float(np.median(errors)),
        "p90_error": float(np.quantile(errors, 0.9)),
        "coverage": float(np.mean(held)),
    }


def printed(rows: Sequence[dict[str, Any]]) -> None:
    head = ["model", "kind", "question", "n", "settings", "mean", "median", "p90", "visit", "held", "+-"]
    lines = [head]
    for row in rows:
        names = ("mean_error", "median_error", "p90_error", "visit_median_error", "coverage", "coverage_error")
        figures = [row.get(name) for name in names]
        shares = ["" if figure is None else f"{figure:.1%}" for figure in figures]
        counts = [str(row["n"]), str(row.get("n_cells", row["n"]))]
        lines.append([str(row["model"]), row["kind"], row["question"], *counts, *shares])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["sweeps", "table"])
    parser.add_argument("--model", choices=list(SWEEPS), action="append", help="sweep this one only")
    parser.add_argument("--tape", type=Path, action="append", help="a sweep recorded before, instead of a new one")
    parser.add_argument("--keep", type=Path, help="a folder to keep the sweeps in")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as passing:
        paths = list(given.tape or [])
        if not paths and given.only != "table":
            for name in given.model or SWEEPS:
                path = (given.keep or Path(passing)) / f"{name}.tape"
                command = [sys.executable, "-m", "tokentape", "sweep", *SWEEPS[name], "-o", str(path), "--overwrite"]
                subprocess.run(command, check=True, stdout=sys.stderr)
                paths.append(path)
        for path in paths:
            rows += sweep_rows(path, given.rounds)
    if given.only != "sweeps" and not given.tape:
        rows += table_rows()
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    if given.json:
        print(json.dumps({"machine": machine, "rows": rows}, indent=1))
    else:
        print(machine)
        printed(rows)


if __name__ == "__main__":
    main()
