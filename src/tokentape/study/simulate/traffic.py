"""Recorded traffic of production services as arrivals: the formats of Azure and Mooncake."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tokentape.study.simulate.arrivals import Arrivals
from tokentape.study.traffic.recorded import read_recorded

__all__ = ["READERS", "read_azure", "read_mooncake"]


def read_azure(path: str | os.PathLike[str]) -> Arrivals:
    """The Azure format: times to the tenth of a microsecond. Raises UsageError for a file that is no such table, with the line."""
    return _arrivals(path, "azure")


def read_mooncake(path: str | os.PathLike[str]) -> Arrivals:
    """The Mooncake format. What prompts have in common (``hash_ids``) is not used: each is read as a whole.

    Raises UsageError for a file that is no such list, with the line.
    """
    return _arrivals(path, "mooncake")


READERS: dict[str, Callable[[str | os.PathLike[str]], Arrivals]] = {"azure": read_azure, "mooncake": read_mooncake}
"""Formats by their names."""


def _arrivals(path: str | os.PathLike[str], form: str) -> Arrivals:
    found = read_recorded(Path(path), form)
    at, prompts, outputs = (np.array(column, np.int64) for column in (found.at_ns, found.n_prompt, found.n_output))
    return Arrivals(at, prompts, outputs, form)
