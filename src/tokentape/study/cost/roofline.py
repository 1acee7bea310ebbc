"""The least time that a machine needs for some work: as long as the slower of its arithmetic and its memory.

Source: S. Williams, A. Waterman, D. Patterson, "Roofline", CACM 52(4), 2009. No program reaches it; none is faster.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokentape.study.cost.hardware import Hardware
from tokentape.study.cost.work import Work

__all__ = ["Roof", "roof"]


@dataclass(frozen=True, slots=True)
class Roof:
    """Times of one forward pass on ``devices`` devices, in nanoseconds; ``bound`` names the longest part.

    ``link_ns`` is None where devices have to exchange sums and the link's rate is not known.
    """

    compute_ns: float
    memory_ns: float
    link_ns: float | None
    floor_ns: float

    @property
    def ns(self) -> float:
        """The least time: arithmetic and memory at once, then the link and the floor."""
        return max(self.compute_ns, self.memory_ns) + (self.link_ns or 0.0) + self.floor_ns

    @property
    def bound(self) -> str:
        """``"compute"``, ``"bandwidth"``, ``"link"`` or ``"floor"``."""
        parts = {
            "compute": self.compute_ns,
            "bandwidth": self.memory_ns,
            "link": self.link_ns or 0.0,
            "floor": self.floor_ns,
        }
        return max(parts, key=lambda name: parts[name])


def roof(work: Work, hardware: Hardware, dtype: str, devices: int = 1, rows: float | None = None) -> Roof:
    """The roofline of ``work`` in ``dtype``, shared evenly by ``devices`` devices.

    ``rows`` is how many tokens each product takes at once, where that is known: one row may read weights slower than
    memory gives them.
    """
    rate, _ = hardware.peak(dtype)
    slower = hardware.bandwidth_gb_s
    if rows == 1:
        slower = min(slower, hardware.one_row_gb_s.get(dtype, slower))
    moved = work.weight_bytes * hardware.bandwidth_gb_s / slower + work.kv_bytes + work.kv_write_bytes
    link: float | None = 0.0
    if work.reduce_bytes:
        link = work.reduce_bytes / (hardware.link_gb_s * 1e9) * 1e9 if hardware.link_gb_s else None
    return Roof(
        compute_ns=(work.flops + work.attention_flops) / (rate * devices) * 1e9,
        memory_ns=moved / (hardware.bandwidth_gb_s * 1e9 * devices) * 1e9,
        link_ns=link,
        floor_ns=work.layers * hardware.layer_floor_ns,
    )
