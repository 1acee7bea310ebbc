"""A sweep over rates as its tapes tell it afterwards: throughput, percentiles and goodput at each rate, and the knee."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokentape.views.card import shown_path
from tokentape.views.load_table import sweep_verdicts
from tokentape.views.screen import Screen, columns
from tokentape.views.units import ABSENT, duration

__all__ = ["load_sweep_text"]


def load_sweep_text(found: Mapping[str, Any], screen: Screen) -> str:
    """The table of a sweep, and under it its knee, and the largest rate that met the objectives.

    ``found`` is as ``Swept.as_dict`` gives it, each step with its ``state`` and the figures ``ttft``, ``gap``, ``goodput`` of its
    account; ``since`` is the moment from which times to first token and objectives count.
    """
    say = screen.say
    promised = found["slo"] is not None
    names = [found["by"], "n", "due", "ended", "tokens", "ttft_p50", "ttft_worst", "gap_p50", "gap_worst"]
    names += ["good", "share"] if promised else []
    header = [say(f"load.col_{name}") for name in [*names, "client", "server", "tape"]]
    rows = [_row(step, screen, promised=promised) for step in found["steps"]]
    lines = columns(screen, header, rows, ">" * len(names) + "<<<")
    if found["since"] == "due":
        lines.append(say("load.sweep_from_due"))
    return "\n".join(screen.safe(line) for line in [*lines, *sweep_verdicts(found, screen)])


def _row(step: Mapping[str, Any], screen: Screen, *, promised: bool) -> list[str]:
    good = step["goodput"]
    path = ABSENT if step["path"] is None else shown_path(Path(step["path"]))
    if step["state"] != "complete":
        path = screen.say("card.state", path=path, state=screen.say(f"card.{step['state']}"))
    kept = [] if good is None else [_number(good["requests_per_s"]), _percent(good["share"])]
    return [
        f"{step['rate']:.4g}",
        f"{step['n_requests']:,}",
        *(_number(step[name]) for name in ("due_per_s", "requests_per_s", "tokens_per_s")),
        *_middle_and_worst(step["ttft"], screen),
        *_middle_and_worst(step["gap"], screen),
        *(kept if kept or not promised else [ABSENT, ABSENT]),
        screen.say("load.late" if step["client_late"] else "load.ok"),
        screen.say("load.behind" if step["server_behind"] else "load.ok"),
        path,
    ]


def _middle_and_worst(found: Mapping[str, Any], screen: Screen) -> list[str]:
    """The median and the 99th percentile; of too few values the mean, and the largest."""
    cells = []
    for name, instead in (("p50", "mean"), ("p99", "max")):
        told = found[name] is not None or found[instead] is None
        cells.append(duration(found[name]) if told else screen.say(f"load.{instead}", value=duration(found[instead])))
    return cells


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.4g}"


def _percent(share: float | None) -> str:
    return ABSENT if share is None else f"{share * 100:.3g} %"
