"""How a load stands: what the live table shows, counted as records come in."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tokentape.data.exchange import Exchange
from tokentape.load.backlog import Passed
from tokentape.load.lateness import Tally
from tokentape.recorder.tick import Tick

__all__ = ["Standing"]

S = 1_000_000_000
RECENT_NS = 5 * S
"""What rates are told of: the last seconds."""


@dataclass(slots=True)
class _Under:
    start: int
    first: int | None = None
    read: int | None = None
    before: dict[int, int] = field(default_factory=dict)
    now: dict[int, int] = field(default_factory=dict)
    """When each answer of the request got a token: before the arrival that came last, and in it."""

    def gaps(self, tick: Tick) -> list[int]:
        """The gaps from arrivals before this message to its own, each measurement of time once."""
        if tick.read is None or tick.read != self.read:
            self.before |= self.now
            self.read, self.now = tick.read, {}
        counted = {self.before[row] for row in self.now if row in self.before}
        rows = {one.row for one in tick.said or ()} - self.now.keys()
        self.now |= dict.fromkeys(rows, tick.end)
        new = {self.before[row] for row in rows if row in self.before} - counted
        return [tick.end - at for at in sorted(new)]


@dataclass
class Standing:
    """Counts and percentiles so far; ``began`` is the mark at which the load began, ``n_all`` how many requests there will be,
    ``origin`` the mark from which exchanges count. ``passed`` are requests that were due at a moment of the schedule.

    ``gap`` are the chunk gaps of the tape, between arrivals: what a message has of tokens is known only when its answer is over.
    Percentiles of a live table are raw: of all that has come, whatever their number; those of the tape are not told of too few.
    """

    began: int
    n_all: int | None = None
    duration_ns: int | None = None
    origin: int = 0
    sent: int = 0
    done: int = 0
    failed: int = 0
    retried: int = 0
    n_tokens: int = 0
    ttft: Tally = field(default_factory=Tally)
    gap: Tally = field(default_factory=Tally)
    delay: Tally = field(default_factory=Tally)
    faults: dict[str, int] = field(default_factory=dict)
    client: dict[int, dict[str, Any]] = field(default_factory=dict)
    passed: list[Passed] = field(default_factory=list)
    _under: dict[int, _Under] = field(default_factory=dict)
    _recent: deque[tuple[int, int, int]] = field(default_factory=deque)

    def begun(self, key: int, start: int) -> None:
        """A request has been sent."""
        self.sent += 1
        self._under[key] = _Under(start)

    def ticked(self, key: int, ticks: Sequence[Tick]) -> None:
        """Chunks of a request have come."""
        one = self._under[key]
        for tick in ticks:
            if not tick.said:
                continue
            if one.first is None:
                one.first = tick.end
                self.ttft.add(tick.end - one.start)
            for ns in one.gaps(tick):
                self.gap.add(ns)
            self.n_tokens += len(tick.said)
            self._recent.append((tick.end, len(tick.said), 0))

    def ended(self, key: int, reasons: Sequence[str | None], passed: Exchange, now: int) -> None:
        """A request is over."""
        under = self._under.pop(key, None)
        if passed.scheduled_ns is not None and passed.retry_of is None and not passed.turn:
            due = passed.scheduled_ns + self.origin
            first = None if under is None or under.first is None else under.first - due
            self.passed.append(Passed(due, now, first))
        well = passed.fault in (None, "no_done") and not {"error", "interrupted"} & set(reasons)
        self.done += well
        self.failed += not well
        self.retried += passed.retry_of is not None
        if passed.fault is not None:
            self.faults[passed.fault] = self.faults.get(passed.fault, 0) + 1
        self._recent.append((now, 0, 1))

    @property
    def under_way(self) -> int:
        return len(self._under)

    def as_dict(self, now: int) -> dict[str, Any]:
        """How it stands at a mark, as plain values; times in nanoseconds, rates of the last seconds."""
        while self._recent and self._recent[0][0] < now - RECENT_NS:
            self._recent.popleft()
        span = max(1, min(RECENT_NS, now - self.began))
        states = self.client.values()
        return {
            "elapsed_ns": max(0, now - self.began),
            "duration_ns": self.duration_ns,
            "n_all": self.n_all,
            "sent": self.sent,
            "done": self.done,
            "failed": self.failed,
            "retried": self.retried,
            "under_way": self.under_way,
            "waiting": sum(one.get("waiting", 0) for one in states),
            "requests_per_s": sum(n for _, _, n in self._recent) * S / span,
            "tokens_per_s": sum(n for _, n, _ in self._recent) * S / span,
            "n_tokens": self.n_tokens,
            "ttft_ns": self.ttft.as_dict(),
            "gap_ns": self.gap.as_dict(),
            "faults": dict(self.faults),
            "dispatch_delay_ns": max((one.get("dispatch_delay_p99_ns", 0) for one in states), default=None),
            "read_lag_ns": max((one.get("read_lag_p99_ns", 0) for one in states), default=None),
            "busy_share": max((one.get("busy_share", 0.0) for one in states), default=None),
        }
