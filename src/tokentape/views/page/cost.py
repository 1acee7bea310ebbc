"""What the steps of a tape cost: work and bytes counted from the model's configuration, against the times and memory measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.errors import StudyError, UsageError
from tokentape.study.cost.configuration import config_in
from tokentape.study.law.gathering import workload_of
from tokentape.views.cost_text import number
from tokentape.views.page.accelerators import accelerators, longest_request
from tokentape.views.page.cost_figures import cost_figures, per_token, share_text
from tokentape.views.page.cost_steps import RunMemory, RunWork, memory_of_runs, works_of_runs
from tokentape.views.page.parts import Part, missing, refused
from tokentape.views.page.roofs import Machine, machine_name, machine_of, rate_text, roof_line
from tokentape.views.page.rounding import short
from tokentape.views.units import bytes_text, duration
from tokentape.words.catalogue import Message

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.study.cost.counting import ModelWork

__all__ = ["cost_part"]

_NEAR = 0.05
"""Readings of the cache that are no farther from what was counted are told as a percentage of it."""


def cost_part(tape: Tape) -> Part:
    """The part Cost of the page, as plain values: ``CostPart`` of ``web/src/document.ts``, or why there is none.

    Work and bytes are counted from the configuration in the tape's Setting; nothing is run and no model is needed. The roofline
    is that of the machine the tape was made on: as ``doctor --measure`` measured it, if that was this machine, else as the
    catalogue has its GPU, else there is none.
    """
    facts = tape.setting.facts
    try:
        config_in(facts, str(tape.path or "the tape"))
    except StudyError:
        return missing(Message("page_cost.no_config"), 'tokentape record MODEL "PROMPT" -o NAME.tape')
    try:
        work = workload_of(facts)
    except (StudyError, UsageError) as error:
        return refused(error)
    machine = _with_rate(machine_of(facts), work)
    runs = works_of_runs(tape, work, machine.hardware)
    memory = memory_of_runs(tape, work)
    asked = longest_request(tape)
    span = _span(runs)
    return {
        "caption": _caption(runs, machine).as_dict(),
        "clock": runs[0].clock if runs else None,
        "figures": cost_figures(tape, work, machine, runs, memory, asked),
        "span": short(span, 4),
        "roofs": _roofs(machine, work, span),
        "runs": [run.as_dict() for run in runs],
        "left_out": _left_out(tape, runs),
        "memory": {"caption": _grown(memory).as_dict(), "runs": [run.as_dict() for run in memory]},
        "accelerators": missing(Message("page_cost.no_request_given" if _all_given(tape) else "page_cost.no_request"))
        if asked is None
        else {**accelerators(work, asked, span), "asked": _asked(asked, work).as_dict()},
    }


def _all_given(tape: Tape) -> bool:
    return bool(tape.traces) and all(trace.finish_reason == "given" for trace in tape.traces)


def _with_rate(machine: Machine, work: ModelWork) -> Machine:
    """The machine, or that it has no rate for the dtype that was run."""
    if machine.hardware is None:
        return machine
    try:
        machine.hardware.peak(work.compute_dtype)
    except UsageError:
        note = Message("page_cost.machine_no_rate", {"name": machine.hardware.name, "dtype": work.compute_dtype})
        return Machine(None, "unavailable", note)
    return machine


def _span(runs: Sequence[RunWork]) -> tuple[float, float]:
    """The least and the largest operations a byte of all marks, with room to both sides."""
    found = [float(value) for run in runs for value in run.flops / run.moved]
    return (min(found) / 3, max(found) * 3) if found else (0.1, 1000.0)


def _roofs(machine: Machine, work: ModelWork, span: tuple[float, float]) -> Any:
    """The roof of the tape's machine, and the lower one for a single row where it was measured; or why there is none."""
    known = machine.hardware
    if known is None:
        return missing(Message("page_cost.no_roof", {"why": machine.note}), "tokentape doctor --measure")
    dtype, n = work.compute_dtype, work.tensor_parallel
    told = {"name": machine_name(known).as_dict(), "badge": machine.badge, "note": machine.note.as_dict()}
    found = [{**told, "one_row": 0, "line": roof_line(known, dtype, n, span)}]
    if known.one_row_gb_s.get(dtype, known.bandwidth_gb_s) < known.bandwidth_gb_s:
        found.append({**told, "one_row": 1, "line": roof_line(known, dtype, n, span, one_row=True)})
    return found


def _caption(runs: Sequence[RunWork], machine: Machine) -> Message:
    """What a decode step does, and how near to the roof it comes; of a tape that has none, what a prefill does."""
    kind, marks = per_token(runs)
    if marks is None:
        return Message("page_cost.caption_none")
    flops, moved, ns, share = marks
    told = {
        "kind": Message(f"page_cost.kind_{kind}"),
        "flops": number(flops, "FLOP"),
        "bytes": bytes_text(round(moved)),
        "intensity": number(flops / moved),
        "time": duration(ns),
        "rate": rate_text(flops / ns * 1e9, "FLOP/s"),
        "bandwidth": rate_text(moved / ns * 1e9, "B/s"),
    }
    if share is None or machine.hardware is None:
        return Message("page_cost.caption", told)
    key = "page_cost.caption_roof" if share <= 1 else "page_cost.caption_beyond"
    return Message(key, {**told, "share": share_text(share), "machine": machine_name(machine.hardware)})


def _left_out(tape: Tape, runs: Sequence[RunWork]) -> dict[str, Any] | None:
    """How many steps have no mark, because their context is not known or they read neither a token each nor a whole prompt."""
    n = len(tape.columns("step")["index"]) - sum(int(run.n.sum()) for run in runs)
    return Message("page_cost.left_out", {"n": n}).as_dict() if n else None


def _grown(memory: Sequence[RunMemory]) -> Message:
    """How far the cache grew, against what was counted, and the most that the process held."""
    cached = [
        (cache, modelled)
        for run in memory
        for cache, modelled in zip(run.cache, run.modelled, strict=True)
        if cache is not None and modelled
    ]
    rss = [value for run in memory for value in (*run.rss, *run.device) if value is not None]
    if not cached:
        return (
            Message("page_cost.grown_none")
            if not rss
            else Message("page_cost.grown_rss", {"rss": bytes_text(max(rss))})
        )
    ratios = np.array([cache / modelled for cache, modelled in cached])
    told = {
        "low": bytes_text(min(cache for cache, _ in cached)),
        "high": bytes_text(max(cache for cache, _ in cached)),
        "n": len(cached),
        "rss": bytes_text(max(rss)) if rss else None,
    }
    if np.all(ratios == 1):
        return Message("page_cost.grown_exact", told)
    if (off := float(np.abs(ratios - 1).max())) < _NEAR:
        return Message("page_cost.grown_near", {**told, "off": f"{off:.1%}"})
    return Message(
        "page_cost.grown", {**told, "least": number(float(ratios.min())), "most": number(float(ratios.max()))}
    )


def _asked(asked: Any, work: ModelWork) -> Message:
    told = {"prompt": asked.context, "n": asked.new_tokens, "batch": asked.batch, "dtype": work.dtype_text}
    found = Message("page_cost.asked", told)
    if work.tensor_parallel > 1:
        found = Message("page_cost.asked_parallel", {**told, "devices": work.tensor_parallel})
    return (
        found if asked.window is None else Message("page_cost.asked_window", {"asked": found, "window": asked.window})
    )
