"""Tables of `explain.py`: what was found, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tokentape.explain.judging.evaluation import Evaluation

COLUMNS = {
    "hit": "hit@1", "mass": "mass", "mass_related": "related", "abpc_neutral": "ABPC neutral", "abpc_random": "ABPC random",
    "comprehensiveness_neutral": "compr. n", "comprehensiveness_random": "compr. r", "sufficiency_neutral": "suff. n",
    "sufficiency_random": "suff. r", "leave_one_out": "loo", "first": "first", "forward": "fwd", "backward": "bwd",
    "cpu_seconds": "CPU ms",
}  # fmt: skip
WITH_INTERVAL = ("hit", "mass", "abpc_neutral", "abpc_random")


def mean(evaluation: Evaluation, method: str, figure: str) -> float:
    found = evaluation.values(method, figure)
    return float(np.nanmean(found)) if not np.isnan(found).all() else 0.0


def printed(title: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    print(f"\n{title}")
    lines = [list(head), *map(list, body)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for first, *rest in lines:
        cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        print("  ".join([first.ljust(widths[0]), *cells]).rstrip(), flush=True)


def table(title: str, found: Evaluation) -> None:
    order = sorted(found.methods, key=lambda name: -mean(found, name, "abpc_random"))
    body = [[name, *(cell(found, name, figure) for figure in COLUMNS)] for name in order]
    printed(f"{title}, n = {len(found.items)}", ["method", *COLUMNS.values()], body)
    for name, reason in found.refused.items():
        print(f"{name}: {reason}")


def cell(found: Evaluation, name: str, figure: str) -> str:
    known = found.estimate(name, figure)
    if known.mean is None:
        return ""
    if figure in ("forward", "backward"):
        return f"{known.mean:.0f}"
    if figure == "cpu_seconds":
        return f"{1000 * known.mean:.1f}"
    if figure in WITH_INTERVAL and known.low is not None and known.high is not None:
        return f"{known.mean:.3f} ({known.low:.2f} to {known.high:.2f})"
    return f"{known.mean:.2f}"


def by_task(title: str, tasks: Mapping[str, Evaluation]) -> None:
    methods = list(dict.fromkeys(name for one in tasks.values() for name in one.methods))
    body = [
        [name, *(cell(one, name, "hit") if name in one.methods else "" for one in tasks.values())] for name in methods
    ]
    printed(title, ["hit@1", *tasks], body)


def number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)


def print_sanity(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    head = [
        "sanity",
        "n",
        "rho",
        "without 0",
        "|rho|",
        "without 0",
        "chance",
        "changed",
        "foil gap",
        "to the bit",
        "flipped",
    ]
    body = []
    for row in rows:
        changed = "yes" if row["changed"] else "NO" if row["claims_parameters"] else "no"
        flipped = "yes" if row["flipped"] else "NO" if row["claims_contrastive"] else "no"
        figures = [
            number(row["rho"]["mean"]),
            number(row["rho_rest"]["mean"]),
            number(row["size"]),
            number(row["size_rest"]),
        ]
        exact = "yes" if row["foil_exact"] else "no"
        body.append(
            [
                row["method"],
                str(row["n"]),
                *figures,
                number(row["chance"]),
                changed,
                f"{row['foil_largest']:.1e}",
                exact,
                flipped,
            ]
        )
    printed(f"{title}: NO where a method claims it", head, body)


def print_choice(kind: str, names: Sequence[str], chosen: Mapping[str, Any]) -> None:
    head = ["the rule", *(f"hit@1 {name}" for name in names), "mean", "behind the best", "ABPC random", "passes"]
    body = []
    for row in chosen["candidates"]:
        hits = [number(hit, ".3f") for hit in [*row["hits"], row["hit"]]]
        behind = row["behind"] or {"mean": None, "low": None, "high": None}
        apart = f"{number(behind['mean'], '.3f')} ({number(behind['low'], '.3f')} to {number(behind['high'], '.3f')})"
        body.append([row["method"], *hits, apart, number(row["abpc_random"]), number(row["passes"], ".0f")])
    printed(f"{kind}: the default by the rule is {chosen['default']}", head, body)


def print_peers(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    body = [
        [
            f"{row['figure']} less {row['peer']}",
            number(row["mean"], "+.3f"),
            f"({number(row['low'], '+.3f')} to {number(row['high'], '+.3f')})",
            number(row["p"], ".4f"),
            str(row["n"]),
        ]
        for row in rows
    ]
    if body:
        printed(title, ["difference", "mean", "95 %", "p", "n"], body)


def print_cost(found: Mapping[str, Any]) -> None:
    body = [
        [
            row["what"], f"{row['cpu_seconds']:.2f}", f"{row['least']:.2f} to {row['most']:.2f}", str(row["forward"]),
            str(row["backward"]), number(row["times_faster"], ".1f"),
        ]
        for row in found["rows"]
    ]  # fmt: skip
    title = f"R[t, s] for {found['targets']} targets of {found['tokens']} tokens, {found['repeats']} rounds"
    printed(title, ["what", "CPU s", "least to most", "fwd", "bwd", "times faster than inseq"], body)


def print_memory(row: Mapping[str, Any]) -> None:
    sizes = {name: f"{row[f'{name}_bytes'] / 1e9:.2f} GB" for name in ("weights", "loaded", "peak", "all_at_once")}
    print(
        f"\nattention of {row['tokens']} tokens, {row['layers']} layers of {row['heads']} heads: peak {sizes['peak']} resident, "
        f"{sizes['loaded']} of it before ({sizes['weights']} of weights); all weights at once: {sizes['all_at_once']}"
    )
