"""The machine that a tape was made on, as far as it is known, and rooflines as lines to draw."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokentape.errors import UsageError
from tokentape.study.cost.hardware import find_hardware, in_catalogue, machine_file
from tokentape.views.page.parts import Badge
from tokentape.views.page.rounding import rounded, short
from tokentape.words.catalogue import Message

if TYPE_CHECKING:
    from tokentape.study.cost.hardware import Hardware

__all__ = ["Machine", "machine_name", "machine_of", "rate_text", "roof_line"]


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine with where its peaks come from; ``hardware`` is None, and the badge "unavailable", where they are not known."""

    hardware: Hardware | None
    badge: Badge
    note: Message


def machine_of(facts: Mapping[str, Any]) -> Machine:
    """The machine of a Setting: as it was measured, if that was here; else as the catalogue has its GPU or processor."""
    named = (facts.get("gpu") or "").split("+")[0] or facts.get("processor")
    if machine_file().is_file() and facts.get("hostname") == socket.gethostname():
        try:
            here = find_hardware("this")
        except UsageError as error:
            return Machine(None, "unavailable", Message("page_cost.machine_damaged", {"why": error.why}))
        if (facts.get("gpu") or "cpu").split("+")[0] in here.name:
            threads, used = here.details.get("threads"), facts.get("torch_threads")
            told = {"when": here.measured}
            if threads is not None and used is not None and threads != used:
                return Machine(
                    here, "measured", Message("page_cost.machine_threads", {**told, "n": threads, "used": used})
                )
            return Machine(here, "measured", Message("page_cost.machine_measured", told))
    found = in_catalogue(named, exactly=True) if named else []
    if not named:
        return Machine(None, "unavailable", Message("page_cost.machine_unnamed"))
    if len(found) != 1:
        return Machine(None, "unavailable", Message("page_cost.machine_unknown", {"name": named}))
    return Machine(found[0], "modelled", Message("page_cost.machine_sheet", {"source": found[0].source}))


def machine_name(machine: Hardware) -> Message:
    """What a machine is called in a sentence; one that was measured has its device between brackets."""
    if machine.measured is None:
        return Message("page_law.as_is", {"text": machine.name})
    return Message("page_cost.here", {"device": machine.name.partition("(")[2].rstrip(")") or machine.name})


def roof_line(
    machine: Hardware, dtype: str, devices: int, span: tuple[float, float], *, one_row: bool = False
) -> list[float | None]:
    """``[x, y, x, y, x, y]``: operations a second over operations a byte, from the left of ``span`` by the ridge to its right.

    Memory bounds what lies left of the ridge, arithmetic what lies right of it. ``one_row`` reads memory as
    products with one row do.
    """
    peak = machine.peak(dtype)[0] * devices
    rate = machine.bandwidth_gb_s
    if one_row:
        rate = min(rate, machine.one_row_gb_s.get(dtype, rate))
    bandwidth = rate * 1e9 * devices
    ridge = peak / bandwidth
    low, high = min(span[0], ridge / 2), max(span[1], ridge * 2)
    return short([low, bandwidth * low, ridge, peak, high, peak], 4)


def rate_text(per_s: float | None, unit: str) -> str | None:
    """``12.3 GB/s``, ``4.5 TFLOP/s``: powers of ten, three significant digits."""
    if per_s is None:
        return None
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if per_s >= size * 0.9995:
            return f"{rounded(per_s / size, 3):,g} {prefix}{unit}"
    return f"{rounded(per_s, 3):,g} {unit}"
