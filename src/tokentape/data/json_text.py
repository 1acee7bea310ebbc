"""JSON as the tape keeps it: text without spaces, of what JSON can hold and nothing else."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt

from tokentape.errors import UsageError

__all__ = ["as_json", "shortest"]

FEWEST_DIGITS, MOST_DIGITS = 7, 9
"""Of a float32: so many it has nearly always, and so many tell any two of them apart."""


def as_json(value: object, what: str) -> str:
    """``value`` as JSON text; raises UsageError, naming ``what``, where JSON cannot hold it."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{what} cannot be written down", why=str(error), fix="give what JSON can hold; null for NaN"
        ) from error
    return text


def shortest(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The same numbers as doubles that JSON writes with few digits: 0.1, where the nearest double is 0.10000000149011612.

    As float32 they are again what they were, to the bit. Numbers beyond 1e12, or nearer to 0 than its inverse, keep their digits.
    """
    given = values.ravel()
    found = given.astype(np.float64)
    size = np.abs(found)
    places = np.flatnonzero((size > 1e-12) & (size < 1e12))
    behind = FEWEST_DIGITS - 1 - np.floor(np.log10(size[places])).astype(np.int64)
    for _ in range(FEWEST_DIGITS, MOST_DIGITS + 1):
        # powers of ten up to 1e22 are exact, so one rounding is all that stands between a decimal and its double
        scale = 10.0 ** np.abs(behind)
        exact = found[places]
        rounded = np.where(behind >= 0, np.rint(exact * scale) / scale, np.rint(exact / scale) * scale)
        same = rounded.astype(np.float32) == given[places]
        found[places[same]] = rounded[same]
        places, behind = places[~same], behind[~same] + 1
    return found.reshape(values.shape)
