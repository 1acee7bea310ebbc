"""When bytes came: by the kernel, where it says so, on the clock that everything else is measured with.

Linux stamps a segment as it is received (``SO_TIMESTAMPNS``), long before a busy process comes round to reading it. The stamp is of
the wall clock; what it is on the monotonic clock follows from a paired reading of both. Both run at the same rate (NTP slews
them together), so the difference holds until somebody sets the wall clock, which is noticed at the next read.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = ["Stamp", "WallClock", "kernel_stamp", "stamped_by_kernel"]

SO_TIMESTAMPNS = 35
"""Of Linux, in asm-generic/socket.h; the module socket has no name for it. The control message has the same number."""

ANCILLARY_BYTES = socket.CMSG_SPACE(16) if hasattr(socket, "CMSG_SPACE") else 0
_TIMESPEC = struct.Struct("@qq")

STEP_NS = 50_000
"""The two clocks are paired anew where they seem to have moved apart by more than this."""

PAIRS, MOST_PAIRS = 8, 200
"""Readings of both clocks of which the tightest counts."""

TIGHT_NS = 5_000
"""A pair is off by at most half of its width, which is some hundred nanoseconds where nothing comes between."""


class Stamp(NamedTuple):
    """When some bytes had come (``ns``) and when the read that brought them returned (``read_ns``), on the monotonic clock."""

    ns: int
    read_ns: int
    by_kernel: bool


class WallClock:
    """What a moment of the wall clock is on the monotonic one; ``now`` and ``wall`` read them, in nanoseconds."""

    def __init__(self, now: Callable[[], int] = time.perf_counter_ns, wall: Callable[[], int] = time.time_ns) -> None:
        self._now = now
        self._wall = wall
        self.steps = 0
        self._stepped_ns = 0
        self._apart = self._paired()

    def _paired(self) -> int:
        """Wall clock minus monotonic clock, of the tightest of some pairs; of more where this process was held up in each."""
        best = None
        for n in range(MOST_PAIRS):
            before = self._now()
            wall = self._wall()
            width = self._now() - before
            if best is None or width < best[0]:
                best = width, wall - before - width // 2
            if n + 1 >= PAIRS and best[0] <= TIGHT_NS:
                break
        assert best is not None
        return best[1]

    def monotonic(self, wall_ns: int, read_ns: int, not_before: int) -> int | None:
        """The moment ``wall_ns`` on the monotonic clock; None where it cannot be, before ``not_before`` or after ``read_ns``.

        To be called soon after ``read_ns``: the clocks are compared, and paired anew where one of them was set. Whoever noticed
        that, a stamp that may be from before it says nothing any more: of each connection that is what came after
        a ``not_before`` from before it.
        """
        if abs(self._wall() - self._now() - self._apart) > STEP_NS:
            apart = self._paired()
            if abs(apart - self._apart) > STEP_NS // 2:
                self.steps += 1
                self._apart = apart
                self._stepped_ns = self._now()
        if not_before < self._stepped_ns:
            return None  # whether the stamp is from before or after that is not known
        found = wall_ns - self._apart
        return found if not_before <= found <= read_ns else None


def stamped_by_kernel(connection: socket.socket) -> bool:
    """Ask the kernel to stamp what this socket receives; whether it will."""
    if not sys.platform.startswith("linux") or time.get_clock_info("perf_counter").implementation != (
        "clock_gettime(CLOCK_MONOTONIC)"
    ):
        return False
    try:
        connection.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True


def kernel_stamp(ancillary: Sequence[tuple[int, int, bytes]]) -> int | None:
    """The stamp among the control messages of a read, in nanoseconds of the wall clock."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) == _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return None
