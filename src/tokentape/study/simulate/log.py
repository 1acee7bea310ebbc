"""What happened in a simulated server, as it happened."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Log"]


@dataclass
class Log:
    """Events of one run; times are femtoseconds.

    ``admitted``, ``preempted`` and ``ended`` hold (time, request), ``first`` the time of each request's first token. ``gaps`` are
    series of token gaps: first gap, growth from one to the next, how many steps, how many sequences had each. ``memory`` is (time,
    blocks, positions) at events. ``n_steps`` counts forward passes, ``busy_fs`` their time.
    """

    first: list[int | None]
    admitted: list[tuple[int, int]] = field(default_factory=list)
    preempted: list[tuple[int, int]] = field(default_factory=list)
    ended: list[tuple[int, int]] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    gaps: list[tuple[int, int, int, int]] = field(default_factory=list)
    memory: list[tuple[int, int, int]] = field(default_factory=list)
    n_steps: int = 0
    busy_fs: int = 0
