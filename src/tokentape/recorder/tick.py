"""Ticks, and the two protocols around them: a Source yields ticks, a Probe keeps columns of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from tokentape.clock import Clock
    from tokentape.data.control import Decision, Effect, Outcome
    from tokentape.data.exchange import Exchange, Scrape
    from tokentape.data.request import Request, Run
    from tokentape.data.setting import Setting

__all__ = ["LiveRun", "Probe", "Said", "Source", "Speller", "Stage", "Tick", "needs_of"]


@dataclass(frozen=True, slots=True)
class Said:
    """One token of a tick, in plain values, from a source that has no tensors.

    ``candidates`` are ``(id, logprob)`` pairs, best first; ``data`` are the token's bytes where the source knows them. What
    the source cannot tell is None. ``channel`` is an index of :data:`~tokentape.data.schema.CHANNELS`, None where all is text.
    """

    row: int
    id: int | None
    data: bytes | None = None
    logprob: float | None = None
    entropy: float | None = None
    rank: int | None = None
    rules_logprob: float | None = None
    candidates: tuple[tuple[int, float], ...] | None = None
    forced: bool = False
    overshoot: bool = False
    wanted: int | None = None
    allowed: int | None = None
    removed: float | None = None
    effects: tuple[Effect, ...] = ()
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """What one rule made of the logits: ``scores`` ``[B, V]`` after it; ``masks`` is whether it can only have made some minus
    infinity.

    ``marks`` are those of the source's clock around its call, None where it was not called for this token.
    """

    rule: int
    scores: Any
    masks: bool
    marks: tuple[int, int] | None


@dataclass(slots=True)
class Tick:
    """One live forward pass or network chunk; it may hold tensors, and dies as soon as the probes have seen it.

    ``start``, ``end`` and the pair ``forward`` are marks of the source's clock, integers of nanoseconds; ``device`` is a pair of
    marks of its device clock.
    The tokens are either ``said``, any number a sequence, or ``ids`` (``[B]``, a tensor), one a sequence. With ``ids``: ``live``
    (``[B]``) tells which rows were still unfinished (None means all), ``padded`` whether the finished ones got padding, which is
    no token, or went on, and ``forced`` (``[B]``) which tokens a rule gave. ``logits`` and ``scores`` are ``[B, V]`` in fp32,
    before and after the rules; ``scores`` is None where no rule ran. ``last`` is True where the source knows that no other tick
    follows. ``ready``, set by the recorder, is waited for before any
    tensor is read.

    What rules did: ``rules`` is a pair of marks around them; ``stages`` are the logits after each of them, where they are measured,
    and ``wanted`` (``[B]``) what would have been chosen without ours. ``given`` are ids that the rule ``given_by`` put before the
    tick's own token (in a batch of one) and that the same forward pass read, which has ``given_logits`` (``[k, V]``) for them;
    ``trailing`` likewise after it, at the end of a sequence, which no pass reads. ``decisions`` are those of guards, with their
    rows; ``dropped`` counts the positions that a windowed cache no longer holds.

    Of a message of a server ``end`` is when its last byte came, ``read`` when the read returned that brought it, ``parsed`` when
    it was understood.
    """

    kind: str
    batch: int
    start: int
    end: int
    context: int | None = None
    n_in: int | None = None
    forward: tuple[int, int] | None = None
    device: tuple[Any, Any] | None = None
    ids: Any = None
    live: Any = None
    forced: Any = None
    said: tuple[Said, ...] | None = None
    logits: Any = None
    scores: Any = None
    cache: Any = None
    padded: bool = True
    last: bool = False
    ready: Any = None
    rules: tuple[int, int] | None = None
    stages: tuple[Stage, ...] | None = None
    wanted: Any = None
    given: tuple[int, ...] = ()
    given_logits: Any = None
    trailing: tuple[int, ...] = ()
    given_by: int = 0
    decisions: Sequence[tuple[int, Decision]] = ()
    dropped: int | None = None
    read: int | None = None
    parsed: int | None = None

    def release(self) -> None:
        """Let go of everything of vocabulary size and of the cache."""
        self.logits = self.scores = self.cache = self.given_logits = None
        self.stages = None if self.stages is None else ()  # that there were some is still known


class Speller(Protocol):
    """Gives the bytes of one sequence's tokens, fed one id after another."""

    def feed(self, token_id: int) -> bytes:
        """Bytes that this token adds to the text."""

    def piece(self, token_id: int) -> tuple[str, bytes, bool] | None:
        """The vocabulary's own string for an id, its bytes out of context, and whether it is special; None where nobody told it."""


@dataclass(slots=True)
class LiveRun:
    """A run that has been prepared and is about to be driven.

    ``start`` is the mark at which the request was handed over, ``prepared`` the mark at which the run was ready to be driven;
    what passes between that and the first tick is the recorder's time, not the run's. ``ticks`` does the work when iterated.
    ``finish_reasons`` is asked once, after the last tick, for one reason a trace, and ``outcomes`` for how the
    constraints of each ended; ``last_decisions`` where the run was cut off, for what guards make of what they held back.
    ``exchange`` is asked once, after the last tick, for what passed with a server, in nanoseconds since the mark given, the tape's
    origin; so is ``scrapes``, for readings of the server before and after.
    ``spellers`` has one entry a trace, None where bytes cannot be told. ``withheld`` is True where a guard decides what may be
    shown, so that nobody is shown tokens as they come.

    For tensors on a device: ``fence`` records an event in its stream; what was enqueued before it may be read once the event's
    ``synchronize()`` has returned. ``aside`` gives a context in which reading does not wait for what is enqueued later.
    """

    run: Run
    start: Any
    ticks: Generator[Tick]
    finish_reasons: Callable[[], Sequence[str | None]]
    spellers: Sequence[Speller | None] = field(default_factory=tuple)
    prepared: Any = None
    fence: Callable[[], Any] | None = None
    aside: Callable[[], AbstractContextManager[Any]] | None = None
    outcomes: Callable[[], Sequence[Sequence[Outcome]]] | None = None
    last_decisions: Callable[[], Sequence[tuple[int, Decision]]] | None = None
    exchange: Callable[[Any], Exchange] | None = None
    scrapes: Callable[[Any], Sequence[Scrape]] | None = None
    withheld: bool = False

    def concluded(self, *, cut_off: bool) -> tuple[Sequence[Sequence[Outcome]] | None, Sequence[tuple[int, Decision]]]:
        """How the constraints of the run ended, and what guards make of what they held back where it was ``cut_off``."""
        decisions = self.last_decisions() if cut_off and self.last_decisions is not None else ()
        return (None if self.outcomes is None else self.outcomes()), decisions


@runtime_checkable
class Source(Protocol):
    """Whatever can answer a request with ticks: a model in this process, an endpoint, a script."""

    clock: Clock

    def setting(self) -> Setting:
        """What must be equal for two runs of this source to be comparable."""

    def start(self, request: Request, needs: frozenset[str]) -> LiveRun:
        """Prepare the request; ``needs`` is what the probes keep, and nothing else has to be computed.

        Raises :class:`~tokentape.errors.UsageError` for a request that cannot be answered, before any work is done.
        """


@runtime_checkable
class Probe(Protocol):
    """Keeps one family of columns.

    ``keep`` runs inside the loop and must not wait for a device; ``resolve`` runs later, perhaps on another thread, for many
    ticks at once and in order. ``needs`` names what the source must put into the tick: ``"logits"``,
    ``"cache"``, ``"device_clock"``.
    """

    @property
    def name(self) -> str: ...

    @property
    def series(self) -> str:
        """``"step"`` or ``"token"``, the series that has the columns."""

    @property
    def every_tick(self) -> bool:
        """Whether ``keep`` is asked at each tick, or at readings alone; of the ticks between None is kept.

        Readings are taken at the first and last step of a run, at steps that are unusually slow, and several times a second.
        """

    @property
    def needs(self) -> frozenset[str]: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    def begin(self, ask: Callable[[], None]) -> None:
        """A run starts. ``ask``, called at any time, makes the tick under way one at which a reading is taken."""

    def keep(self, tick: Tick) -> Any:
        """Note what the columns need of the tick, as little as possible."""

    def resolve(self, kept: Sequence[Any], ticks: Sequence[Tick]) -> Sequence[Any]:
        """What was kept of some ticks, as values.

        Of the series ``"step"`` a column each: a list with a value a tick, or one value for all. Of ``"token"`` an entry a
        tick, in it for each sequence a tuple in the order of ``columns``; nothing at all where nothing is known.
        """

    def end(self) -> None:
        """The run is over; release what was taken in ``begin``."""


def needs_of(probes: Iterable[Probe]) -> frozenset[str]:
    """What a source must put into its ticks for the probes."""
    return frozenset().union(*(probe.needs for probe in probes))
