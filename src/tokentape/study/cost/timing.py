"""Times, rates and energy of a prediction: from the roofline of a machine, or from a law that was fitted to measurements."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from tokentape.study.cost.counting import ModelWork
from tokentape.study.cost.figure import Figure, modelled, unavailable
from tokentape.study.cost.hardware import Hardware
from tokentape.study.cost.roofline import Roof, roof
from tokentape.study.cost.work import Work

if TYPE_CHECKING:
    from tokentape.study.cost.prediction import Calibration

__all__ = ["over_steps", "times"]

_SAMPLES = 64
"""Steps at which a long generation is looked at; between them cost is very nearly straight."""

_NAMES = {"prefill_ns": "ns", "decode_ns": "ns", "tokens_per_s": "tokens/s", "request_ns": "ns", "energy_j": "J"}


def over_steps(cost: Callable[[float], float], context: int, new_tokens: int) -> float:
    """The sum of ``cost`` over the steps after the prompt: the prefill gives the first new token, so there is one step less.

    The ``i``-th step attends ``context + i`` positions.
    """
    n = new_tokens - 1
    if n <= _SAMPLES:
        return sum(cost(context + i) for i in range(1, n + 1))
    marks = [1 + (n - 1) * i / _SAMPLES for i in range(_SAMPLES + 1)]
    found = [cost(context + at) for at in marks]
    return n * (sum(found) - (found[0] + found[-1]) / 2) / _SAMPLES


def times(
    work: ModelWork,
    machine: Hardware | None,
    context: int,
    batch: int,
    new_tokens: int,
    law: Calibration | None,
    measured_on: Hardware | None = None,
) -> dict[str, Figure]:
    """Figures of time: prefill, the first step after it, tokens a second, the whole request, and its energy.

    A ``law`` that was ``measured_on`` another machine is carried over to ``machine`` by the ratio of their rooflines.
    """
    if law is not None:
        return _calibrated(work, law, machine, context, batch, new_tokens, measured_on)
    if machine is None:
        return {name: unavailable(unit, "no machine was named") for name, unit in _NAMES.items()}
    seen = replace(work, pairs="seen")

    def least(made: Work, rows: float) -> Roof:
        return roof(made, machine, work.compute_dtype, work.tensor_parallel, rows)

    read, step = least(seen.prefill(context, batch), context * batch), least(seen.decode(context + 1, batch), batch)
    rest = over_steps(lambda at: least(seen.decode(at, batch), batch).ns, context, new_tokens)
    basis = "measured peaks" if machine.measured else "peaks of the data sheet"
    figures = {
        "prefill_ns": modelled(read.ns, "ns", f"the least possible, bound by {read.bound}; {basis}"),
        "prefill_bound": modelled(read.bound, "", "the slowest part of the roofline"),
        "decode_ns": modelled(step.ns, "ns", f"the least possible, bound by {step.bound}; {basis}"),
        "decode_bound": modelled(step.bound, "", "the slowest part of the roofline"),
        "tokens_per_s": modelled(batch / step.ns * 1e9, "tokens/s", "the most possible, all sequences"),
        "request_ns": modelled(read.ns + rest, "ns", "the least possible, prompt and new tokens"),
    }
    figures["energy_j"] = _energy(machine, work, read.ns + rest, "the least time")
    return figures


def _energy(machine: Hardware | None, work: ModelWork, ns: float, what: str) -> Figure:
    if machine is None or machine.tdp_w is None:
        return unavailable("J", "the power of the machine is not known")
    return modelled(machine.tdp_w * work.tensor_parallel * ns / 1e9, "J", f"{machine.tdp_w:g} W a device over {what}")


CARRIED_OVER = 0.25
"""How far a time may be off, as a logarithm at the edge of its interval, once it is carried over to another machine: programs
reach different shares of the peaks of different machines."""


def _calibrated(
    work: ModelWork,
    law: Calibration,
    machine: Hardware | None,
    context: int,
    batch: int,
    new_tokens: int,
    measured_on: Hardware | None,
) -> dict[str, Figure]:
    why = "by a law that was fitted to measurements"
    counted = replace(work, pairs="all")  # the law was fitted to what was run, masked products included
    other = machine if measured_on is not None and machine is not None else None
    if other is not None and measured_on is not None:
        why += f" on {measured_on.name}, carried over by the ratio of the rooflines"

    @cache
    def asked(kind: str, at: float) -> tuple[float, float, float]:
        ns, low, high = law.time_of(kind, counted, at, batch)
        if other is None or measured_on is None:
            return ns, low, high
        made = counted.prefill(at, batch) if kind == "prefill" else counted.decode(at, batch)
        rows = at * batch if kind == "prefill" else batch
        roofs = [roof(made, one, work.compute_dtype, work.tensor_parallel, rows).ns for one in (other, measured_on)]
        ratio = roofs[0] / roofs[1]
        return ns * ratio, low * ratio * math.exp(-CARRIED_OVER), high * ratio * math.exp(CARRIED_OVER)

    read, step = asked("prefill", context), asked("decode", context + 1)
    whole = [
        read[i] + over_steps(lambda at, i=i: asked("decode", at)[i], context, new_tokens)  # type: ignore[misc]
        for i in range(3)
    ]
    return {
        "prefill_ns": Figure(read[0], "ns", "modelled", why, read[1], read[2]),
        "decode_ns": Figure(step[0], "ns", "modelled", why, step[1], step[2]),
        "tokens_per_s": Figure(
            batch / step[0] * 1e9, "tokens/s", "modelled", why, batch / step[2] * 1e9, batch / step[1] * 1e9
        ),
        "request_ns": Figure(whole[0], "ns", "modelled", why, whole[1], whole[2]),
        "energy_j": _energy(machine, work, whole[0], "the time of the law"),
    }
