"""The client measures itself: how late it sends, how late it reads, and how much of its core it uses.

* **dispatch delay**: from when a request could have been sent (it was due, and there was room for it) to when the client began
  to send it. What a request waits for room, where the number under way is limited, is no lateness of the client: it is told
  apart, and stands on the tape between ``scheduled_ns`` and ``start_ns``;
* **read lag**: from the kernel's stamp of the bytes to the return of the read that fetched them; where there is no such stamp,
  from the moment at which the selector told of the socket to that return;
* **loop lag**: how much later a turn of the loop was over than the moment until which it had meant to wait;
* **busy share**: the part of the time in which the client had work in hand, rather than waiting for sockets or for a moment to
  come; **CPU share**: the CPU time of its process over time, waiting in a loop for a near moment included;
* **pauses** of Python's garbage collector;
* **shared reads**: tokens of a sequence that one read brought together have one stamp, and the gap between them is not measured.
  A server may have sent them so; where nobody had looked at the sockets for a millisecond before, the client is to blame.

The client was **late** where, of what was measured,

* more than 1 % of the requests went out later than 10 % of the median time to first token, and 2 ms;
* or more than 1 % of the messages were read later than 10 % of the median gap, and 1 ms; half the median gap where all stamps are
  the kernel's, since they hold even so;
* or more than 1 % of the gaps were lost in shared reads for which the client is to blame, or for which others had its processor;
* or a process was busy more than 80 % of its time: it has no room left for what comes at once.

"More than 1 %" is said where chance would hardly (5 %, binomial) have brought as many of 1 %: one late request of 300 says nothing
of the others. By how much the figures of the server may be off is told with it (``off``): the time to first token since a request
was due by what requests were sent late; times that the client stamped itself by what it read late; what the kernel stamped, by
nothing.

The client, not the server, was the **bottleneck** where it was late in sending more than 10 % of the requests, lost gaps, or was
busy, while something was answered and the server did not fall behind (:mod:`tokentape.load.backlog`): that one and this are never
both said. Where the client was late and waited for a processor more than 5 % of the time, since others had it (Linux says so), that
is told too: more processes would not help. A process that died is told of as that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BLIND_NS", "BUSY_SHARE", "Lateness", "Tally", "more_than", "verdict"]

MS = 1_000_000
DISPATCH_SHARE, DISPATCH_LEAST_NS = 0.1, 2 * MS
READ_SHARE, READ_LEAST_NS = 0.1, 1 * MS
READ_SHARE_STAMPED = 0.5
LATE_SHARE, BOTTLENECK_SHARE = 0.01, 0.1
"""Of what is measured one by one, the part that has to be late."""
DOUBT, Z_DOUBT = 0.05, 1.645
MANY = 100
"""So many are expected of a share, when their number is normal."""
BUSY_SHARE = 0.8
STARVED_SHARE = 0.05
SHARED_SHARE = 0.01
BLIND_NS = 1 * MS
"""For so long sockets were not looked at, when what one read brings is the client's doing."""
FOR_P99 = 662
"""Values without which there is no 99th percentile (:mod:`tokentape.study.percentiles`)."""

_FINE = 5
"""Bits of a number that are kept: a bucket is at most 3 % wide."""


class Tally:
    """Counts of times in buckets at most 1/32 wide, so that any number of them takes little room; the largest one is exact."""

    __slots__ = ("counts", "most", "n", "total")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.n = 0
        self.total = 0
        self.most: int | None = None

    def add(self, ns: int) -> None:
        """A time, 0 where it is below."""
        ns = max(0, ns)
        shift = max(0, ns.bit_length() - _FINE - 1)
        bucket = (shift << 8) | (ns >> shift)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.n += 1
        self.total += ns
        if self.most is None or ns > self.most:
            self.most = ns

    def merge(self, other: Tally) -> None:
        """All that another one has counted."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.n += other.n
        self.total += other.total
        self.most = max((one for one in (self.most, other.most) if one is not None), default=None)

    def quantile(self, q: float) -> int | None:
        """The middle of the bucket of the ``q``-th percentile (nearest rank); None without any. Never above the largest."""
        if not self.n or self.most is None:
            return None
        left = max(1, -(-self.n * q // 100))
        for bucket in sorted(self.counts, key=_low):
            left -= self.counts[bucket]
            if left <= 0:
                width = 1 << (bucket >> 8)
                return min(self.most, _low(bucket) + width // 2)
        return self.most

    def above(self, limit: float) -> int:
        """How many are above a limit, to the width of a bucket."""
        if self.most is None or self.most <= limit:
            return 0
        return sum(count for bucket, count in self.counts.items() if _low(bucket) + (1 << (bucket >> 8)) // 2 >= limit)

    def as_dict(self) -> dict[str, Any]:
        """Percentiles, the largest, and how many they are of."""
        return {"p50": self.quantile(50), "p99": self.quantile(99), "max": self.most, "n": self.n}

    def as_honest_dict(self) -> dict[str, Any]:
        """The same, without a percentile of too few."""
        return {**self.as_dict(), "p99": self.quantile(99) if self.n >= FOR_P99 else None}


def _low(bucket: int) -> int:
    return (bucket & 0xFF) << (bucket >> 8)


_SUMS = ("kernel_stamps", "read_stamps", "gaps", "shared_gaps", "missed_gaps", "busy_ns", "cpu_ns", "wall_ns")


@dataclass
class Lateness:
    """What one client process measured of itself; times in nanoseconds. ``kernel_stamps`` and ``read_stamps`` count messages by who
    stamped them, ``gaps`` those between tokens of a sequence, ``shared_gaps`` those of them that lie within one read, and
    ``missed_gaps`` those of these for which nobody had looked for a while.
    """

    dispatch: Tally = field(default_factory=Tally)
    read: Tally = field(default_factory=Tally)
    loop: Tally = field(default_factory=Tally)
    collections: Tally = field(default_factory=Tally)
    waited_for_room: Tally = field(default_factory=Tally)
    kernel_stamps: int = 0
    read_stamps: int = 0
    gaps: int = 0
    shared_gaps: int = 0
    missed_gaps: int = 0
    busy_ns: int = 0
    cpu_ns: int = 0
    starved_ns: int | None = None
    wall_ns: int = 0
    worst_busy_share: float = 0.0
    worst_cpu_share: float = 0.0
    worst_starved_share: float | None = None

    def merge(self, other: Lateness) -> None:
        """Add what another process measured; of the shares the larger one stays."""
        for name in ("dispatch", "read", "loop", "collections", "waited_for_room"):
            getattr(self, name).merge(getattr(other, name))
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.starved_ns is not None and other.wall_ns:
            self.worst_starved_share = max(self.worst_starved_share or 0.0, other.starved_ns / other.wall_ns)
        self.worst_busy_share = max(self.worst_busy_share, other.busy_share or 0.0, other.worst_busy_share)
        self.worst_cpu_share = max(self.worst_cpu_share, other.cpu_share or 0.0, other.worst_cpu_share)

    @property
    def busy_share(self) -> float | None:
        return self.busy_ns / self.wall_ns if self.wall_ns else None

    @property
    def cpu_share(self) -> float | None:
        return self.cpu_ns / self.wall_ns if self.wall_ns else None


def verdict(
    measured: Iterable[Lateness],
    *,
    ttft_ns: float | None,
    gap_ns: float | None,
    processes: int,
    died: Sequence[str] = (),
    behind: bool = False,
) -> dict[str, Any]:
    """Whether the client kept up, by the rules above, with its figures, as plain values.

    ``ttft_ns`` and ``gap_ns`` are medians of what was recorded, None where nothing was answered; ``behind`` is whether the server
    fell behind. ``said`` are the reasons, as keys of the catalogue with what fills them, ``reasons`` the same as sentences,
    ``off`` by how much the figures may be off, and what share of their medians that is.
    """
    whole = Lateness()
    for one in measured:
        whole.merge(one)
    limits = _limits(whole, ttft_ns, gap_ns)
    said = _late(whole, limits)
    starved, late = whole.worst_starved_share, bool(said)
    limited = ttft_ns is not None and not behind and _is_bottleneck(whole, limits, said)
    if said and starved is not None and starved > STARVED_SHARE:
        said.append({"key": "load.late_starved", "share": starved})
    said += [{"key": "load.late_died", "what": what} for what in died]
    return {
        "bottleneck": limited,
        "late": late,
        "answered": ttft_ns is not None,
        "dispatch_delay_ns": whole.dispatch.as_honest_dict(),
        "read_lag_ns": whole.read.as_honest_dict(),
        "loop_lag_ns": whole.loop.as_honest_dict(),
        "gc_ns": {**whole.collections.as_honest_dict(), "total": whole.collections.total},
        "waited_for_room_ns": whole.waited_for_room.as_honest_dict(),
        "cpu_share": _share(whole.worst_cpu_share, whole.wall_ns),
        "busy_share": _share(whole.worst_busy_share, whole.wall_ns),
        "starved_share": None if starved is None else round(starved, 4),
        "stamps": {"kernel": whole.kernel_stamps, "read": whole.read_stamps},
        "gaps": {"n": whole.gaps, "shared": whole.shared_gaps, "missed": whole.missed_gaps},
        "limits": limits,
        "off": _off(whole, ttft_ns, gap_ns),
        "processes": processes,
        "died": list(died),
        "reasons": [_sentence(one) for one in said],
        "said": said,
    }


def _limits(whole: Lateness, ttft_ns: float | None, gap_ns: float | None) -> dict[str, float]:
    read_share = READ_SHARE if whole.read_stamps or not whole.kernel_stamps else READ_SHARE_STAMPED
    return {
        "dispatch_delay_ns": max(DISPATCH_LEAST_NS, round(DISPATCH_SHARE * (ttft_ns or 0))),
        "read_lag_ns": max(READ_LEAST_NS, round(read_share * (gap_ns or 0))),
        "busy_share": BUSY_SHARE,
        "shared_share": SHARED_SHARE,
    }


def _late(whole: Lateness, limits: Mapping[str, float]) -> list[dict[str, Any]]:
    """In what it was late."""
    said: list[dict[str, Any]] = []
    tallies = (("dispatch_delay_ns", "load.late_sent", whole.dispatch), ("read_lag_ns", "load.late_read", whole.read))
    for name, key, tally in tallies:
        n_late = tally.above(limits[name])
        if more_than(LATE_SHARE, n_late, tally.n):
            worst = {"p99_ns": tally.quantile(99)} if tally.n >= FOR_P99 else {"max_ns": tally.most}
            key = key if tally.n >= FOR_P99 else f"{key}_most"
            said.append({"key": key, **worst, "limit_ns": limits[name], "n": n_late, "of": tally.n})
    starved = (whole.worst_starved_share or 0.0) > STARVED_SHARE
    missed = whole.shared_gaps if starved else whole.missed_gaps
    if missed > SHARED_SHARE * whole.gaps:
        said.append({"key": "load.late_shared", "n": missed, "of": whole.gaps})
    if whole.worst_busy_share > BUSY_SHARE:
        said.append({"key": "load.late_busy", "share": whole.worst_busy_share, "limit": BUSY_SHARE})
    return said


def _is_bottleneck(whole: Lateness, limits: Mapping[str, float], said: Sequence[Mapping[str, Any]]) -> bool:
    """Whether what it was late in held the load up, or took from what was measured."""
    if {"load.late_shared", "load.late_busy"} & {one["key"] for one in said}:
        return True
    return whole.dispatch.above(limits["dispatch_delay_ns"]) > BOTTLENECK_SHARE * whole.dispatch.n


def _off(whole: Lateness, ttft_ns: float | None, gap_ns: float | None) -> list[dict[str, Any]]:
    """By how much figures may be off, the largest first."""
    read = _worst(whole.read) if whole.read_stamps else 0
    found = [("ttft_due", _worst(whole.dispatch), ttft_ns), ("ttft", read, ttft_ns), ("gap", read, gap_ns)]
    off = [{"figure": name, "ns": ns, "share": round(ns / of, 4)} for name, ns, of in found if ns and of]
    return sorted(off, key=lambda one: -float(one["share"]))


def _worst(tally: Tally) -> int:
    """The 99th percentile, or the largest where there are too few for one."""
    return (tally.quantile(99) if tally.n >= FOR_P99 else tally.most) or 0


def more_than(share: float, n_seen: int, n: int) -> bool:
    """Whether ``n_seen`` of ``n`` say that more than ``share`` are so: were it just so many, it would be seen in 5 of 100 cases."""
    if n_seen <= share * n:
        return False
    if n * share >= MANY:
        return n_seen - share * n > Z_DOUBT * math.sqrt(n * share * (1 - share))
    fewer = term = (1 - share) ** n
    for i in range(n_seen - 1):
        term *= (n - i) / (i + 1) * share / (1 - share)
        fewer += term
    return 1 - fewer <= DOUBT


def _share(share: float, wall_ns: int) -> float | None:
    return round(share, 4) if wall_ns else None


def _sentence(one: Mapping[str, Any]) -> str:
    if one["key"] == "load.late_busy":
        return f"a client process was busy {one['share']:.0%} of its time"
    if one["key"] == "load.late_starved":
        return f"other processes had its processor {one['share']:.0%} of the time"
    if one["key"] == "load.late_died":
        return str(one["what"])
    if one["key"] == "load.late_shared":
        return f"it read several messages at once: {one['n']} of {one['of']} gaps are not measured"
    what = "requests were sent" if one["key"].startswith("load.late_sent") else "answers were read"
    limit = f"limit {one['limit_ns'] / MS:.3g} ms"
    if "max_ns" in one:
        return f"{what} {one['max_ns'] / MS:.3g} ms late at most ({limit})"
    return f"{what} {one['p99_ns'] / MS:.3g} ms late at the 99th percentile ({limit})"
