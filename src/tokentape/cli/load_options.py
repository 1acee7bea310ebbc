"""The options of ``tokentape record --endpoint`` that make a load of it: how many requests, when, and of what."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from tokentape.cli.sections import in_section
from tokentape.errors import UsageError

__all__ = ["LOAD_FLAGS", "TRAFFIC_OPTIONS", "refuse_load"]

_load = partial(in_section, "Load")

TRAFFIC_OPTIONS = [
    _load(
        "--rate", metavar="R", help="Requests a second, whatever becomes of them. 1,2,4 or 1..64: a sweep over rates."
    ),
    _load(
        "--concurrency",
        metavar="N",
        help="N requests at a time, each after another (1,2,4: a sweep); with --rate at most N.",
    ),
    _load(
        "--arrivals", metavar="KIND", help="poisson (default), gamma, constant, trace (default where there are times)."
    ),
    _load("--burstiness", type=float, metavar="X", help="Shape of gamma arrivals: below 1 they come in bursts."),
    _load("--ramp", metavar="TIME", help="Let the rate rise from 0 for so long."),
    _load("--duration", metavar="TIME", help="Begin nothing after so long: 90s, 10m."),
    _load("--requests", type=int, metavar="N", help="So many requests (of conversations, so many of these)."),
    _load(
        "--workload",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Traffic or prompts: Azure CSV, Mooncake JSONL, ShareGPT JSON, JSON lines, text.",
    ),
    _load(
        "--workload-format", metavar="NAME", help="azure, mooncake, sharegpt, jsonl, text; default: by its first line."
    ),
    _load("--time-scale", type=float, metavar="X", help="Times of the traffic times X: 0.1 is ten times as fast."),
    _load("--processes", type=int, metavar="N", help="N client processes, where one does not suffice."),
    _load("--slo", metavar="LIMITS", help="ttft=500ms,gap=50ms,e2e=10s: how many met all, from when they were due."),
    _load(
        "--slo-share", metavar="SHARE", help="A rate of a sweep meets them with so many of its requests; default 90%."
    ),
    _load(
        "--refine", type=click.IntRange(0, 20), metavar="N", help="N more rates where a sweep stops meeting them; 3."
    ),
]

LOAD_FLAGS = (
    "rate",
    "concurrency",
    "arrivals",
    "burstiness",
    "ramp",
    "duration",
    "requests",
    "workload",
    "workload_format",
    "time_scale",
    "processes",
    "slo",
    "slo_share",
    "refine",
)
"""The names of their values."""


def refuse_load(given: Mapping[str, Any]) -> None:
    """Raise UsageError for options of a load where there is no endpoint."""
    for name in LOAD_FLAGS:
        if given.get(name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{flag} without --endpoint",
                why="a load is put on a server; a model in this process answers one request after another",
                fix="add --endpoint URL; tokentape sweep measures a model in this process",
            )
