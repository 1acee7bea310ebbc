"""The loop of a client process: one selector, any number of requests under way, no thread and no coroutine.

A turn of the loop sends what is due, waits until something happens or the next moment comes, and moves each request that has
something to read or write. It only moves and stamps; what comes of it goes to a :class:`Hearer`.

The world is behind two protocols, :class:`~tokentape.load.waiting.Waiting` and :class:`Launcher`: with a clock and flights on paper
every decision of the loop is exact to the nanosecond.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from tokentape.data.exchange import Exchange
from tokentape.load.errands import Errand, Errands
from tokentape.load.grounded import Grounded, in_words
from tokentape.load.lateness import BLIND_NS, Lateness
from tokentape.load.waiting import Waiting
from tokentape.recorder.tick import LiveRun, Said, Tick
from tokentape.sources.endpoint.failures import may_go_better

__all__ = ["BEAT_NS", "Counts", "Engine", "Flying", "Hearer", "Launcher"]

MS = 1_000_000
BEAT_NS = 20 * MS
"""How often limits of time are looked at, and records handed on."""
AHEAD_NS = 300_000
"""So much time to the next moment that matters is enough to make its request ready."""
FIRST_PAUSE_NS, LONGEST_PAUSE_NS = 100 * MS, 5_000 * MS
"""The pause before a request is sent again; it doubles with each attempt."""
GONE_REQUESTS, GONE_NS = 8, 3_000 * MS
"""A server that answers nothing to so many requests in a row, over so long a time, is gone."""
_UNANSWERED = frozenset({"refused", "reset", "timeout", "tls"})


class Flying(Protocol):
    """A request on its way, as :class:`~tokentape.sources.endpoint.flight.Flight` is one."""

    @property
    def wants(self) -> int: ...
    @property
    def deadline_ns(self) -> int | None: ...
    @property
    def done(self) -> bool: ...
    def fileno(self) -> int: ...
    def advance(self, now: int) -> list[Tick]: ...
    def live(self) -> LiveRun | None: ...
    def finish_reasons(self) -> Sequence[str | None]: ...
    def exchange(self, origin: int) -> Exchange: ...
    def abort(self, reason: str) -> None: ...


class Launcher(Protocol):
    """Makes flights of errands, and gets them back when they have landed, for their connections."""

    def prepare(self, errand: Errand) -> None:
        """Make ready what can be before an errand is due."""

    def launch(self, errand: Errand) -> Flying:
        """The request on its way; its first byte goes out when the flight is first moved, or as soon as it is connected."""

    def landed(self, flight: Flying) -> None:
        """It is over."""

    def close(self) -> None:
        """Let go of connections; nothing is launched any more."""


class Hearer(Protocol):
    """Is told what happens, by the key of each request."""

    def begun(self, key: int, live: LiveRun) -> None: ...
    def ticked(self, key: int, ticks: list[Tick]) -> None: ...
    def ended(self, key: int, reasons: Sequence[str | None], exchange: Exchange) -> None: ...


@dataclass(slots=True)
class Counts:
    """How many requests have been sent, ended well, failed, are under way, and were due but never sent; ``gone`` is a server that
    answers no more.
    """

    sent: int = 0
    done: int = 0
    failed: int = 0
    under_way: int = 0
    unanswered: int = 0
    unsent: int = 0
    gone: bool = False


@dataclass(slots=True)
class _Flight:
    errand: Errand
    flight: Flying
    begun: bool = False
    answer: list[bytes] = field(default_factory=list)
    reads: dict[int, int] = field(default_factory=dict)
    """The read that brought the last token of each of its sequences."""
    broken: str | None = None
    """What went wrong here, rather than with the server, when its answer was to be understood."""


class Engine:
    """Does errands until none are left. ``origin`` is that of the tape; keys are ``first_key``, ``first_key + stride``, ..."""

    def __init__(
        self,
        errands: Errands,
        launcher: Launcher,
        hearer: Hearer,
        waiting: Waiting,
        *,
        origin: int,
        retries: int = 0,
        cap: int | None = None,
        process: int = 0,
        stride: int = 1,
        lateness: Lateness | None = None,
    ) -> None:
        self._errands = errands
        self._launcher = launcher
        self._hearer = hearer
        self._waiting = waiting
        self._origin = origin
        self._retries = retries
        self._cap = cap
        self._process = process
        self._stride = stride
        self._key = process
        self._flights: dict[int, _Flight] = {}
        self._freed_ns = 0
        self._hold_ns = 0
        self._answered_ns: int | None = None
        self._prepared: Errand | None = None
        self._beat_ns = 0
        self._told_ns = 0
        self._blind_ns = 0
        self.counts = Counts()
        self.lateness = lateness or Lateness()

    def step(self) -> bool:
        """One turn of the loop; False when all is done."""
        began = self._waiting.now()
        self._send_due(began)
        self.counts.unsent = self._errands.n_unsent
        if not self._flights and self._errands.done:
            self.lateness.busy_ns += self._waiting.now() - began
            return False
        until, exact = self._moment()
        self._make_ready(until, exact)
        asked = self._waiting.now()
        self.lateness.busy_ns += asked - began
        ready = self._waiting.wait(until, exact=exact)
        before, self._told_ns = self._told_ns, self._waiting.now()
        told = self._told_ns
        # for so long nobody looked: it was at work before it asked, and then was woken later than it had asked for
        self._blind_ns = max(asked - before if before else 0, told - max(until, asked))
        for key in ready:
            self._move(key)
        now = self._waiting.now()
        self.lateness.loop.add(now - told + max(0, told - max(until, asked)))
        if now >= self._beat_ns:
            self._beat_ns = now + BEAT_NS
            self._look_at_limits(now)
        self.lateness.busy_ns += self._waiting.now() - told
        return True

    def n_due(self, now: int) -> int:
        """How many requests are due and wait for room, as far as can be told."""
        return self._errands.n_due(now)

    def stop(self, reason: str) -> None:
        """Send nothing more, and break off what is under way."""
        self._errands.end()
        for key in list(self._flights):
            one = self._flights[key]
            one.flight.abort(reason)
            self._see(key, one, [])

    # sending

    def _send_due(self, now: int) -> None:
        while now >= self._hold_ns:
            errand = self._errands.next(now, len(self._flights))
            if errand is None:
                return
            self._launch(errand)
            now = self._waiting.now()

    def _launch(self, errand: Errand) -> None:
        flight = self._launched(errand)
        key, self._key = self._key, self._key + self._stride
        now = self._waiting.now()
        if (since := errand.when_ns) is not None:
            self.lateness.dispatch.add(now - max(since, self._freed_ns))
            if self._freed_ns > since:
                self.lateness.waited_for_room.add(self._freed_ns - since)
        self._flights[key] = one = _Flight(errand, flight)
        self.counts.sent += 1
        self.counts.under_way += 1
        self._see(key, one, self._advanced(one, now))

    def _launched(self, errand: Errand) -> Flying:
        """The request on its way, or one that stands for it where it cannot be made."""
        try:
            return self._launcher.launch(errand)
        except Exception as error:
            return Grounded(self._waiting.now(), in_words(error))

    def _moment(self) -> tuple[int, bool]:
        """Until when nothing has to be done, and whether that has to be done on time."""
        due = self._errands.next_ns
        if due is not None and self._cap is not None and len(self._flights) >= self._cap:
            due = None  # it waits for room, which comes when a flight ends
        if due is not None:
            due = max(due, self._hold_ns)
        elif self._hold_ns > self._waiting.now() and not self._errands.done:
            due = self._hold_ns
        return (self._beat_ns, False) if due is None or due > self._beat_ns else (due, True)

    def _make_ready(self, until: int, exact: bool) -> None:
        head = self._errands.head
        if head is not None and head is not self._prepared and until - self._waiting.now() > AHEAD_NS:
            self._prepared = head
            with contextlib.suppress(Exception):  # it is told of when the errand is due
                self._launcher.prepare(head)

    # what is under way

    def _move(self, key: Any) -> None:
        one = self._flights.get(key)
        if one is not None:  # else it was ended by what came before it in this turn
            self._see(key, one, self._advanced(one, self._waiting.now()))

    def _advanced(self, one: _Flight, now: int) -> list[Tick]:
        """The ticks of a flight moved on; whatever a server sends, it is the fault of this one request."""
        try:
            return one.flight.advance(now)
        except Exception as error:
            one.broken = in_words(error)
            one.flight.abort(one.broken)
            with contextlib.suppress(Exception):
                return one.flight.advance(now)  # what had been understood before
            return []

    def _look_at_limits(self, now: int) -> None:
        for key, one in list(self._flights.items()):
            limit = one.flight.deadline_ns
            if limit is not None and limit <= now:
                self._see(key, one, self._advanced(one, now))

    def _see(self, key: int, one: _Flight, ticks: list[Tick]) -> None:
        """Hand on what came of a move, and watch the socket for what the flight wants next."""
        flight = one.flight
        if not one.begun and (live := flight.live()) is not None:
            one.begun = True
            self._hearer.begun(key, live)
        if ticks:
            self._measure(one, ticks)
            if one.errand.goes_on:
                one.answer += [said.data or b"" for tick in ticks for said in tick.said or () if _is_answer(said)]
            self._hearer.ticked(key, ticks)
        if flight.done:
            self._land(key, one)
        else:
            self._waiting.watch(key, flight.fileno(), flight.wants)

    def _measure(self, one: _Flight, ticks: list[Tick]) -> None:
        own = self.lateness
        for tick in ticks:
            if tick.read is None:
                continue
            if tick.read == tick.end:  # nobody stamped the bytes before they were read
                own.read_stamps += 1
                lag = tick.read - min(self._told_ns, tick.read)
            else:
                own.kernel_stamps += 1
                lag = tick.read - tick.end
            own.read.add(lag)
            if not tick.said:
                continue
            row = tick.said[0].row
            if row in one.reads:
                own.gaps += 1
                if one.reads[row] == tick.read:  # and one stamp for both
                    own.shared_gaps += 1
                    own.missed_gaps += max(self._blind_ns, tick.read - self._told_ns, lag) >= BLIND_NS
            one.reads[row] = tick.read

    def _land(self, key: int, one: _Flight) -> None:
        self._waiting.forget(key)
        now = self._waiting.now()
        if self._cap is not None and len(self._flights) >= self._cap:
            self._freed_ns = now
        del self._flights[key]
        errand = one.errand
        passed = self._told(one)
        if not isinstance(one.flight, Grounded):
            self._launcher.landed(one.flight)
        assert one.begun  # a flight that is done can always tell of its run
        reasons = one.flight.finish_reasons()
        if one.broken is not None:
            reasons = ["error"] * len(reasons)
        self._hearer.ended(key, reasons, passed)
        self.counts.under_way -= 1
        well = passed.fault in (None, "no_done") and not {"error", "interrupted"} & set(reasons)
        if well:
            self.counts.done += 1
        else:
            self.counts.failed += 1
        self._count_answered(passed, now)
        if well and errand.goes_on:
            answer = b"".join(one.answer).decode("utf-8", "replace")
            self._errands.later(errand.follow_up(answer, now))
        elif not well and errand.attempt <= self._retries and may_go_better(passed.fault, passed.status):
            pause = min(LONGEST_PAUSE_NS, FIRST_PAUSE_NS << (errand.attempt - 1))
            self._errands.later(errand.again(key, now + pause))

    def _told(self, one: _Flight) -> Exchange:
        """What passed, with what only the load knows of it."""
        errand = one.errand
        due = errand.due_ns
        try:
            passed = one.flight.exchange(self._origin)
        except Exception as error:
            one.broken = one.broken or in_words(error)
            passed = Exchange(ended_ns=self._waiting.now() - self._origin)
        if one.broken is not None:
            passed = replace(passed, fault=passed.fault or "malformed", error=one.broken)
        return replace(
            passed,
            scheduled_ns=None if due is None else due - self._origin,
            attempt=errand.attempt,
            retry_of=errand.retry_of,
            process=self._process,
            conversation=errand.conversation.name,
            turn=errand.turn if errand.conversation.name is not None else None,
        )

    def _count_answered(self, passed: Exchange, now: int) -> None:
        """A server that is gone is not asked again and again as fast as it can refuse."""
        if self._answered_ns is None or passed.first_byte_ns is not None or passed.fault not in _UNANSWERED:
            self._answered_ns = now
            self.counts.unanswered = 0
            if passed.first_byte_ns is not None or passed.fault not in _UNANSWERED:
                return
        self.counts.unanswered += 1
        if self._errands.next_ns is None:  # a closed loop has nothing but the answers to go by
            self._hold_ns = now + min(1_000 * MS, 10 * MS << min(self.counts.unanswered, 10))
        if self.counts.unanswered >= GONE_REQUESTS and now - self._answered_ns >= GONE_NS:
            self.counts.gone = True


def _is_answer(said: Said) -> bool:
    """Whether a token is part of the first choice's text, and not of its reasoning or of a call."""
    return said.row == 0 and not said.channel
