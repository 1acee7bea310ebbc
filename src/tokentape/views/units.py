"""Numbers with their units, as a person reads them."""

from __future__ import annotations

import math
from datetime import datetime

__all__ = ["bytes_text", "count", "duration", "moment", "percent", "rate"]

ABSENT = "n/a"
"""What is shown for a null."""


def duration(ns: float | None) -> str:
    """Three significant digits in ns, us, ms or s; from 100 s on minutes and seconds."""
    if ns is None:
        return ABSENT
    if math.isinf(ns):  # the end of an interval that has none
        return "inf" if ns > 0 else "-inf"
    for size, unit in ((1, "ns"), (1e3, "us"), (1e6, "ms")):
        if abs(ns) < 999.5 * size:
            return f"{_three(ns / size)} {unit}"
    seconds = ns / 1e9
    if seconds < 99.95:
        return f"{_three(seconds)} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def rate(per_s: float | None, unit: str = "tokens/s") -> str:
    """A rate with three significant digits."""
    return ABSENT if per_s is None else f"{_three(per_s)} {unit}"


def bytes_text(size: int | None) -> str:
    """Bytes in binary units."""
    if size is None:
        return ABSENT
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1023.5 or unit == "TiB":
            return f"{size} B" if unit == "B" else f"{_three(value)} {unit}"
        value /= 1024
    raise AssertionError


def percent(logprob: float) -> str:
    """A probability in whole percent, from its logarithm."""
    share = 100 * math.exp(logprob)
    return "<1%" if share < 0.5 else f"{share:.0f}%"


def count(n: int, noun: str) -> str:
    """``1 token``, ``1,234 tokens``."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def moment(unix_ns: int | None) -> str:
    """A date and time of day on this machine."""
    return ABSENT if unix_ns is None else datetime.fromtimestamp(unix_ns / 1e9).strftime("%Y-%m-%d %H:%M:%S")


def _three(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) < 1000:
        value = float(f"{value:.3g}")  # 0.9996 has the digits of 1
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 3)}f}"
