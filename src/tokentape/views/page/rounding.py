"""Numbers as short as they may be: a report holds many, and nobody reads their tenth digit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["near", "out_of", "rounded", "short", "whole"]


def short(values: Iterable[Any] | npt.NDArray[Any], digits: int = 5) -> list[float | None]:
    """Floats rounded to so many significant digits; None for null, masked, NaN and infinite ones.

    Works on sequences, arrays and masked arrays of one axis. What has no fraction after rounding is a whole number, which
    JSON writes shorter.
    """
    array = np.ma.filled(np.ma.asarray(values, dtype=np.float64), np.nan) if isinstance(values, np.ndarray) else None
    listed: Sequence[float | None] = list(values) if array is None else array.tolist()
    return [rounded(value, digits) for value in listed]


def rounded(value: float | None, digits: int = 5) -> float | None:
    """One number with so many significant digits; None for what is none. A whole result is an ``int``."""
    if value is None or not math.isfinite(value):
        return None
    found = float(f"{value:.{digits}g}")
    return int(found) if found.is_integer() and abs(found) < 1e15 else found


def near(values: Iterable[Any] | npt.NDArray[Any], decimals: int = 4) -> list[float | None]:
    """The same with so many digits behind the point, for values whose size does not matter, such as shares."""
    array = np.ma.filled(np.ma.asarray(values, dtype=np.float64), np.nan) if isinstance(values, np.ndarray) else None
    listed = list(values) if array is None else array.tolist()
    found = [None if value is None or not math.isfinite(value) else round(value, decimals) for value in listed]
    return [int(value) if value is not None and float(value).is_integer() else value for value in found]


def whole(values: Iterable[Any] | npt.NDArray[Any]) -> list[int | None]:
    """Whole numbers as they are, None for null and masked ones."""
    listed = np.ma.asarray(values).tolist() if isinstance(values, np.ndarray) else list(values)
    return [None if value is None else int(value) for value in listed]


def out_of(part: int, total: int) -> str:
    """``part`` of ``total`` in percent; 0 % and 100 % only where it is none or all of them."""
    text = f"{part / total:.0%}"
    return ">99%" if text == "100%" and part < total else "<1%" if text == "0%" and part else text
