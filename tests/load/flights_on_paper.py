"""A world on paper for the load's loop: a clock that moves only when told, and flights that follow a script."""

from __future__ import annotations

import selectors
from dataclasses import dataclass, field

from tokentape.data.exchange import Exchange
from tokentape.data.request import Run, TraceHead
from tokentape.load.workloads import Conversation, Turn
from tokentape.recorder.tick import LiveRun, Said, Tick

MS = 1_000_000


def talk(number, turns=1, name=None, think_ns=0):
    made = tuple(Turn(prompt=f"turn {i}", think_ns=think_ns if i else 0) for i in range(turns))
    return Conversation(number, made, name or (f"c{number}" if turns > 1 else None))


@dataclass
class World:
    """A clock and its sockets. ``events`` are ``(moment, flight)``; moving a flight takes ``cost_ns``, launching ``launch_ns``."""

    now_ns: int = 0
    cost_ns: int = 0
    launch_ns: int = 0
    watched: dict = field(default_factory=dict)
    flights: list = field(default_factory=list)
    stops: list = field(default_factory=list)

    def now(self):
        return self.now_ns

    def watch(self, key, fileno, mask):
        self.watched[key] = fileno

    def forget(self, key):
        self.watched.pop(key, None)

    def wait(self, until_ns, *, exact):
        for at_ns, extra_ns in list(self.stops):  # the process is held up
            if self.now_ns >= at_ns:
                self.stops.remove((at_ns, extra_ns))
                self.now_ns += extra_ns
        upcoming = [f.next_ns for f in self.flights if not f.done and f.next_ns is not None]
        moment = min([until_ns, *upcoming])
        self.now_ns = max(self.now_ns, moment)
        ready = {f.number for f in self.flights if not f.done and f.next_ns is not None and f.next_ns <= self.now_ns}
        return [key for key, number in self.watched.items() if number in ready]


@dataclass
class PaperFlight:
    """An answer: texts at times since its start; ``fault`` ends it instead where set, ``limit_ns`` after its start at most."""

    world: World
    number: int
    script: tuple = ((10 * MS, "a"), (15 * MS, "b"))
    fault: str | None = None
    status: int | None = 200
    limit_ns: int | None = None
    wants: int = selectors.EVENT_READ
    done: bool = False

    def __post_init__(self):
        self.start_ns = self.world.now_ns
        self.left = list(self.script)
        self.reason = "stop"

    @property
    def next_ns(self):
        return self.start_ns + self.left[0][0] if self.left else None

    @property
    def deadline_ns(self):
        return None if self.limit_ns is None else self.start_ns + self.limit_ns

    def fileno(self):
        return self.number

    def advance(self, now):
        self.world.now_ns += self.world.cost_ns
        ticks = []
        while self.left and self.start_ns + self.left[0][0] <= now:
            at, text = self.left.pop(0)
            said = (Said(0, None, text.encode()),) if text else ()
            end = self.start_ns + at
            ticks.append(Tick("chunk", 1, end, end, said=said, read=now, parsed=now))
        if not self.left and self.script:
            self.done = True
            self.reason = "error" if self.fault not in (None, "no_done") else "stop"
        if not self.done and self.deadline_ns is not None and now >= self.deadline_ns:
            self.done, self.reason, self.fault = True, "error", "timeout"
        return ticks

    def live(self):
        run = Run((TraceHead(0, None, None, None),), {"number": self.number})
        return LiveRun(run, self.start_ns, iter(()), self.finish_reasons)

    def finish_reasons(self):
        return [self.reason]

    def exchange(self, origin):
        seen = None if self.fault in ("refused", "timeout") else self.start_ns + 1 - origin
        return Exchange(fault=self.fault, status=self.status, first_byte_ns=seen, ended_ns=self.world.now_ns - origin)

    def abort(self, reason):
        self.done, self.reason = True, reason


@dataclass
class PaperLauncher:
    """Launches what ``answers`` says for the n-th request: keyword arguments of a :class:`PaperFlight`."""

    world: World
    answers: object = None
    launched: list = field(default_factory=list)
    prepared: list = field(default_factory=list)
    landings: list = field(default_factory=list)

    def prepare(self, errand):
        self.prepared.append(errand)

    def launch(self, errand):
        self.world.now_ns += self.world.launch_ns
        number = len(self.launched)
        self.launched.append((self.world.now_ns, errand))
        how = self.answers(number, errand) if self.answers else {}
        flight = PaperFlight(self.world, number, **how)
        self.world.flights.append(flight)
        return flight

    def close(self):
        pass

    def landed(self, flight):
        self.landings.append(flight.number)


@dataclass
class Heard:
    """All that a loop told."""

    begun_: list = field(default_factory=list)
    ticks: dict = field(default_factory=dict)
    ends: dict = field(default_factory=dict)

    def begun(self, key, live):
        self.begun_.append(key)

    def ticked(self, key, ticks):
        self.ticks.setdefault(key, []).extend(ticks)

    def ended(self, key, reasons, exchange):
        self.ends[key] = (list(reasons), exchange)
