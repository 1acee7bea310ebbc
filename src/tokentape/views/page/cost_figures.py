"""The figures of the part Cost: each measured, modelled or unavailable, and which of these it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.study.cost.memory import memory_needed
from tokentape.views.cost_text import number
from tokentape.views.page.cost_steps import RunMemory, RunWork
from tokentape.views.page.parts import Badge, Part, Unit, figure
from tokentape.views.page.roofs import Machine, rate_text
from tokentape.views.page.rounding import rounded
from tokentape.views.units import bytes_text, duration
from tokentape.words.catalogue import Message

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.study.cost.counting import ModelWork
    from tokentape.views.page.accelerators import Asked

__all__ = ["cost_figures", "per_token", "share_text"]

Marks = tuple[float, float, float, float | None]
"""Medians over steps: operations, bytes, nanoseconds, share of the roofline."""


def share_text(share: float) -> str:
    """A share of the roofline in percent, two significant digits."""
    return f"{100 * share:.2g}%" if share < 0.995 else f"{100 * share:.0f}%"


def per_token(runs: Sequence[RunWork]) -> tuple[str, Marks | None]:
    """The medians of the decode steps; where there are none, those of the prefills."""
    for kind, decode in (("decode", True), ("prefill", False)):
        if (found := _medians(runs, decode)) is not None:
            return kind, found
    return "decode", None


def _medians(runs: Sequence[RunWork], decode: bool) -> Marks | None:
    rows = [(run.flops, run.moved, run.ns, run.share) for run in runs]
    kept = (
        [np.concatenate([row[i][run.decode == decode] for row, run in zip(rows, runs, strict=True)]) for i in range(4)]
        if runs
        else []
    )
    if not kept or not len(kept[0]):
        return None
    flops, moved, ns, share = kept
    # of the step in the middle by its time, which is the median that the part Time tells: the four belong together
    middle = int(np.argsort(ns, kind="stable")[(len(ns) - 1) // 2])
    near = float(share[middle])
    return float(flops[middle]), float(moved[middle]), float(ns[middle]), None if np.isnan(near) else near


def cost_figures(
    tape: Tape,
    work: ModelWork,
    machine: Machine,
    runs: Sequence[RunWork],
    memory: Sequence[RunMemory],
    asked: Asked | None,
) -> list[Part]:
    """The table of figures: the model, its steps, memory, the machine."""
    found = [*_model(tape, work, memory)]
    for kind, decode in (("decode", True), ("prefill", False)):
        found += _steps(kind, _medians(runs, decode), machine)
    return [*found, *_memory(work, memory, asked), *_machine(machine, work)]


def _figure(
    name: str, value: float | None, text: str | None, unit: Unit, badge: Badge, note: Message | None = None, **of: Any
) -> Part:
    label = Message(f"page_cost.{name}", of)
    if value is None or text is None:
        return figure(label, None, None, unit, note=note)
    return figure(label, text, rounded(value, 6), unit, badge=badge, note=note)


def _counted(n: float, unit: str) -> str:
    return number(n, unit)


def _model(tape: Tape, work: ModelWork, memory: Sequence[RunMemory]) -> Iterator[Part]:
    architecture, told = work.architecture, tape.setting.facts.get("parameters")
    n = architecture.parameters
    if isinstance(told, int):
        agrees = "same" if told == n else "other"
        note = Message(f"page_cost.parameters_{agrees}", {} if told == n else {"n": n})
        yield _figure("parameters", told, f"{told:,}", "count", "measured", note)
    else:
        yield _figure("parameters", n, f"{n:,}", "count", "modelled", Message("page_cost.from_config"))
    if architecture.active_parameters != n:
        active = architecture.active_parameters
        yield _figure("active", active, f"{active:,}", "count", "modelled", Message("page_cost.active_why"))
    weights = round(work.weight_bytes)
    note = Message("page_cost.weights_why", {"dtype": work.dtype_text})
    yield _figure("weights", weights, bytes_text(weights), "bytes", "modelled", note)
    yield from _cache_per_token(work, memory)
    if work.state_bytes:
        state = round(work.state_bytes)
        yield _figure("state", state, bytes_text(state), "bytes", "modelled", Message("page_cost.state_why"))
    flops = work.flops_per_token + work.head_flops
    yield _figure(
        "flops_per_token", flops, _counted(flops, "FLOP"), "flops", "modelled", Message("page_cost.flops_why")
    )


def _cache_per_token(work: ModelWork, memory: Sequence[RunMemory]) -> Iterator[Part]:
    """Counted, and measured between the first and the last reading of a run at one batch."""
    counted = work.kv_bytes_per_token
    text = bytes_text(round(counted))
    yield _figure("cache_per_token", counted, text, "bytes", "modelled", Message("page_cost.from_config"))
    grown = [slope for run in memory if (slope := _slope(run)) is not None]
    if not grown:
        yield _figure("cache_per_token", None, None, "bytes", "unavailable", Message("page_cost.no_cache_readings"))
        return
    measured = float(np.median(grown))
    note = Message("page_cost.cache_runs", {"n": len(grown)})
    yield _figure("cache_per_token", measured, bytes_text(round(measured)), "bytes", "measured", note)


def _slope(run: RunMemory) -> float | None:
    """Bytes that one more position of one sequence added, over the readings of a run; None with fewer than two lengths."""
    rows = zip(run.cache, run.held, run.batch, strict=True)
    known = [(cache, at, n) for cache, at, n in rows if cache is not None and at is not None]
    if len(known) < 2 or known[0][2] != known[-1][2] or known[-1][1] <= known[0][1]:
        return None
    (first, start, batch), (last, end, _) = known[0], known[-1]
    return (last - first) / (end - start) / batch


def _steps(kind: str, marks: Marks | None, machine: Machine) -> Iterator[Part]:
    if marks is None:
        return
    flops, moved, ns, share = marks
    of = {"kind": Message(f"page_cost.kind_{kind}")}
    both = Message("page_cost.counted_measured")
    yield _figure("step_time", ns, duration(ns), "ns", "measured", Message("page_cost.median_why"), **of)
    yield _figure(
        "step_flops", flops, _counted(flops, "FLOP"), "flops", "modelled", Message("page_cost.from_config"), **of
    )
    size = round(moved)
    yield _figure("step_bytes", size, bytes_text(size), "bytes", "modelled", Message("page_cost.bytes_why"), **of)
    rate, speed = flops / ns * 1e9, moved / ns * 1e9
    yield _figure("step_rate", rate, rate_text(rate, "FLOP/s"), "", "modelled", both, **of)
    yield _figure("step_bandwidth", speed, rate_text(speed, "B/s"), "", "modelled", both, **of)
    text = None if share is None else share_text(share)
    note = machine.note if share is None or share <= 1 else Message("page_cost.beyond_why")
    yield _figure("step_share", share, text, "share", "modelled", note, **of)


def _memory(work: ModelWork, memory: Sequence[RunMemory], asked: Asked | None) -> Iterator[Part]:
    for name in ("cache", "rss", "device"):
        known = [value for run in memory for value in getattr(run, name) if value is not None]
        most = max(known, default=None)
        note = Message("page_cost.readings" if known else f"page_cost.no_{name}", {"n": len(known)} if known else {})
        yield _figure(f"peak_{name}", most, None if most is None else bytes_text(most), "bytes", "measured", note)
    if asked is not None:
        needed = memory_needed(work, asked.context, asked.batch, asked.new_tokens)
        peak = round(needed.peak_bytes)
        parts = {
            "weights": bytes_text(round(needed.weight_bytes)),
            "cache": bytes_text(round(needed.cache_bytes)),
            "rest": bytes_text(round(needed.activation_bytes)),
        }
        key = "peak_why" if asked.window is None else "peak_why_window"
        yield _figure("peak_needed", peak, bytes_text(peak), "bytes", "modelled", Message(f"page_cost.{key}", parts))


def _machine(machine: Machine, work: ModelWork) -> Iterator[Part]:
    known, dtype = machine.hardware, work.compute_dtype
    if known is None:
        for name in ("machine_bandwidth", "machine_peak"):
            yield _figure(name, None, None, "", "unavailable", machine.note)
        return
    speed, (rate, found) = known.bandwidth_gb_s * 1e9, known.peak(dtype)
    yield _figure("machine_bandwidth", speed, rate_text(speed, "B/s"), "", machine.badge, machine.note)
    yield _figure(
        "machine_peak",
        rate,
        rate_text(rate, "FLOP/s"),
        "",
        machine.badge,
        Message("page_cost.peak_of", {"dtype": found}),
    )
