"""Ticks become records, many at once: marks become nanoseconds, tensors become numbers, ids become bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tokentape.data.blocks import Draft, DraftTokens
from tokentape.data.control import Decision
from tokentape.data.control_rows import EFFECT_ROW
from tokentape.data.schema import KINDS, STEP_COLUMNS
from tokentape.recorder.tick import LiveRun, Probe, Said, Speller, Tick

__all__ = ["Made", "RowMaker"]

Kept = Sequence[Any]
"""What each probe kept of a tick."""

_UNKNOWN = (None, None, None, None, None)
"""Log-probability, entropy, rank, log-probability after the rules, candidates."""

_NUMBER_OF = {kind: number for number, kind in enumerate(KINDS)}
_OF_MESSAGES = {"read_ns": "read", "parsed_ns": "parsed"}
_FROM_PROBES = tuple(column.name for column in STEP_COLUMNS[8:])


@dataclass(slots=True)
class _Tokens:
    """Columns of the tokens of some ticks. A column is a list, or one value for all."""

    n: int = 0
    traces: Any = field(default_factory=list)
    positions: Any = field(default_factory=list)
    steps: Any = field(default_factory=list)
    ids: Any = field(default_factory=list)
    beliefs: Any = field(default_factory=list)
    forced: Any = field(default_factory=list)
    overshoot: Any = field(default_factory=list)
    data: Any = field(default_factory=list)
    wanted: Any = None
    allowed: Any = None
    removed: Any = None
    channels: Any = None

    def add(self, trace: int, position: int, step: int, said: Said) -> None:
        self.n += 1
        self.traces.append(trace)
        self.positions.append(position)
        self.steps.append(step)
        self.ids.append(said.id)
        self.beliefs.append((said.logprob, said.entropy, said.rank, said.rules_logprob, said.candidates))
        self.forced.append(+said.forced)
        self.overshoot.append(+said.overshoot)
        self.data.append(said.data)
        if said.effects and self.allowed is None:  # rules are measured from here on
            before = [None] * (self.n - 1)
            self.wanted, self.allowed, self.removed = before, before.copy(), before.copy()
        if said.channel is not None and self.channels is None:
            self.channels = [None] * (self.n - 1)
        if self.channels is not None:
            self.channels.append(said.channel)
        if self.allowed is not None:
            self.wanted.append(said.wanted)
            self.allowed.append(said.allowed)
            self.removed.append(said.removed)


@dataclass(frozen=True, slots=True)
class Made:
    """The little that a live line shows of some ticks: when each ended, and the bytes and surprise of the first sequence."""

    n_tokens: int
    ends_ns: Sequence[int]
    first_data: Sequence[bytes]
    first_surprise: Sequence[float | None]


class RowMaker:
    """Makes the records of one run, in order, into ``draft``; what goes beside them to ``pieces``, ``effects`` and ``decisions``.

    ``origin`` is the mark of the source's clock from which the tape counts. With ``text`` False, ids and bytes stay out of the
    tape.
    """

    def __init__(
        self, trace_numbers: Sequence[int], live: LiveRun, probes: Sequence[Probe], origin: int, *, text: bool
    ) -> None:
        self.draft = Draft()
        self.pieces: list[tuple[int, str, bytes, bool]] = []
        self.effects: list[EFFECT_ROW] = []
        self.decisions: list[tuple[int, Decision]] = []
        self._withheld = live.withheld
        self._traces = tuple(trace_numbers)
        self._origin = origin
        self._text = text
        self._index = 0
        self._first = tuple(head.n_prompt for head in live.run.traces)
        self._positions = [first or 0 for first in self._first]
        self._spellers: tuple[Speller | None, ...] = tuple(live.spellers) or (None,) * len(self._traces)
        self._seen: set[int] = set()
        self._step_probes = [(probe, i) for i, probe in enumerate(probes) if probe.series == "step"]
        self._token_probe = next(((probe, i) for i, probe in enumerate(probes) if probe.series == "token"), None)
        for head, speller in zip(live.run.traces, self._spellers, strict=True):
            self._keep_pieces(head.prompt_ids or (), speller)

    def make(self, ticks: Sequence[Tick], kept: Sequence[Kept | None], *, watched: bool = False) -> Made | None:
        """The records of some ticks, with what the probes kept of each (None where no probe did).

        Returns what an observer is told, where one is ``watched``.
        """
        if ticks[-1].ready is not None:
            for tick in ticks:
                tick.ready.synchronize()
        index = range(self._index, self._index + len(ticks))
        plain = len(self._traces) == 1 and all(map(_is_plain, ticks))
        beliefs = _resolved(*self._token_probe, ticks, kept) if self._token_probe is not None else ()
        tokens = self._one_each(ticks, beliefs, index) if plain else self._any_number(ticks, beliefs, index)
        found: dict[str, Any] = {}
        for probe, i in self._step_probes:
            found |= zip(probe.columns, _resolved(probe, i, ticks, kept), strict=True)
        origin = self._origin
        if ticks[-1].read is not None:  # messages of a server
            found |= {
                name: [_since(origin, getattr(tick, mark)) for tick in ticks] for name, mark in _OF_MESSAGES.items()
            }
        ends = [tick.end - origin for tick in ticks]
        self.draft.add(
            len(ticks),
            (
                index,
                _same([_NUMBER_OF[tick.kind] for tick in ticks]),
                _same([tick.batch for tick in ticks]),
                [tick.context for tick in ticks],
                _same([tick.n_in for tick in ticks]),
                1 if plain else _counted(tokens.steps, index),
                [tick.start - origin for tick in ticks],
                ends,
                *[found.get(name) for name in _FROM_PROBES],
            ),
            self._drafted(tokens) if tokens.n else None,
        )
        self._index = index.stop
        return _made(tokens, self._traces[0], ends, index, withheld=self._withheld) if watched else None

    @property
    def place(self) -> tuple[int, tuple[int, ...]]:
        """How far it has come, for :meth:`back_to`."""
        return self._index, tuple(self._positions)

    def back_to(self, place: tuple[int, tuple[int, ...]]) -> None:
        """Make again what came after that place: it could not be written, and nothing of it is on the tape."""
        self._index, positions = place
        self._positions = list(positions)
        pieces = self.pieces.copy()
        self.clear()
        self.pieces += pieces  # they are not told of a second time

    def clear(self) -> None:
        """Begin anew: what was made is on the tape."""
        self.draft.clear()
        for beside in (self.pieces, self.effects, self.decisions):
            beside.clear()

    def _one_each(self, ticks: Sequence[Tick], resolved: Sequence[Any], index: range) -> _Tokens:
        """The tokens of one sequence that gets one at every step, which is what most runs are."""
        ids = [tick.ids.tolist()[0] for tick in ticks]
        beliefs = [rows[0] if rows else _UNKNOWN for rows in resolved] if resolved else None
        at = self._positions[0]
        self._positions[0] = at + len(ids)
        (speller,) = self._spellers
        data = None if speller is None else [speller.feed(token_id) for token_id in ids]
        return _Tokens(len(ids), self._traces[0], range(at, at + len(ids)), index, ids, beliefs, 0, 0, data)

    def _any_number(self, ticks: Sequence[Tick], resolved: Sequence[Any], index: range) -> _Tokens:
        """The tokens of a batch, or of steps that give any number of them."""
        tokens = _Tokens()
        for place, (tick, step) in enumerate(zip(ticks, index, strict=True)):
            said = tick.said
            for one in _said(tick, resolved[place] if resolved else None) if said is None else said:
                self._say(tokens, step, one)
            self.decisions += self.placed(tick.decisions)
        return tokens

    def placed(self, decisions: Sequence[tuple[int, Decision]]) -> list[tuple[int, Decision]]:
        """Decisions with their traces and positions: whoever decided does not know where the prompt's padding ends."""
        found = []
        for row, one in decisions:
            position = max(self._positions[row] - 1, self._first[row] or 0)
            found.append((self._traces[row], replace(one, position=position)))
        return found

    def _say(self, tokens: _Tokens, step: int, said: Said) -> None:
        row = said.row
        speller = self._spellers[row]
        tokens.add(self._traces[row], self._positions[row], step, said)
        self.effects += [(self._traces[row], self._positions[row], one) for one in said.effects]
        if said.data is None and speller is not None and said.id is not None:
            tokens.data[-1] = speller.feed(said.id)
        self._positions[row] += 1

    def _drafted(self, tokens: _Tokens) -> DraftTokens:
        """Tokens as the draft takes them; notes the entries of the vocabulary that are new."""
        candidates = None
        columns: Sequence[Any] = (None, None, None, None)
        if tokens.beliefs is not None:
            *columns, candidates = zip(*tokens.beliefs, strict=True)
        speller = next((speller for speller in self._spellers if speller is not None), None)
        self._keep_pieces(tokens.ids, speller)
        self._keep_pieces(tokens.wanted or (), speller)
        for pairs in candidates or ():
            self._keep_pieces([token_id for token_id, _ in pairs or ()], speller)
        ids, data = (tokens.ids, tokens.data) if self._text else (None, None)
        return DraftTokens(
            tokens.n,
            tokens.traces,
            (
                tokens.positions,
                tokens.steps,
                ids,
                *columns,
                tokens.forced,
                tokens.overshoot,
                tokens.wanted if self._text else None,
                tokens.allowed,
                tokens.removed,
                tokens.channels,
            ),
            data,
            candidates if self._text else None,
        )

    def _keep_pieces(self, token_ids: Iterable[int | None], speller: Speller | None) -> None:
        """The vocabulary entry of each id, the first time that it occurs."""
        if speller is None or not self._text or self._seen.issuperset(token_ids):
            return
        for token_id in token_ids:
            if token_id is not None and token_id not in self._seen:
                entry = speller.piece(token_id)
                if entry is not None:  # a server may tell it later, or never
                    self._seen.add(token_id)
                    self.pieces.append((token_id, *entry))


def _since(origin: int, mark: int | None) -> int | None:
    return None if mark is None else mark - origin


def _resolved(probe: Probe, i: int, ticks: Sequence[Tick], kept: Sequence[Kept | None]) -> Sequence[Any]:
    """What the ``i``-th probe makes of what it kept."""
    return probe.resolve([None if one is None else one[i] for one in kept], ticks)


def _is_plain(tick: Tick) -> bool:
    """Whether a tick gives a sequence the one token that was chosen, and no rule of ours was there."""
    return (
        tick.said is None
        and tick.live is None
        and tick.forced is None
        and tick.stages is None
        and not (tick.given or tick.trailing or tick.decisions)
    )


def _said(tick: Tick, beliefs: Sequence[Any] | None) -> list[Said]:
    """The tokens of a tick that carries tensors: what was given, and one for each sequence that was still unfinished."""
    first = len(tick.given)
    said = [
        _one(0, token_id, beliefs[place] if beliefs else _UNKNOWN, forced=True)
        for place, token_id in enumerate(tick.given)
    ]
    live = None if tick.live is None else tick.live.tolist()
    if live is not None and not any(live):
        return said  # past the end of all sequences, or where no token was left: this step has none of its own
    forced = None if tick.forced is None else tick.forced.tolist()
    for row, token_id in enumerate(tick.ids.tolist()):
        over = live is not None and not live[row]
        if over and tick.padded:
            continue
        was_forced = forced is not None and bool(forced[row])
        belief = beliefs[first + row] if beliefs else _UNKNOWN
        said.append(_one(row, token_id, belief, forced=was_forced, overshoot=over))
    return said + [_one(0, token_id, _UNKNOWN, forced=True) for token_id in tick.trailing]


def _one(row: int, token_id: int, belief: Sequence[Any], *, forced: bool, overshoot: bool = False) -> Said:
    logprob, entropy, rank, rules_logprob, candidates, *control = belief
    return Said(row, token_id, None, logprob, entropy, rank, rules_logprob, candidates, forced, overshoot, *control)


def _same(values: list[Any]) -> Any:
    """The one value for all, where there is one: it takes less room."""
    return values[0] if values.count(values[0]) == len(values) else values


def _counted(steps: Iterable[int], index: range) -> list[int]:
    counts = [0] * len(index)
    for step in steps:
        counts[step - index.start] += 1
    return counts


def _made(tokens: _Tokens, trace: int, ends: Sequence[int], index: range, *, withheld: bool) -> Made:
    data: list[bytes] = [b""] * len(index)
    surprise: list[float | None] = [None] * len(index)
    traces = [tokens.traces] * tokens.n if isinstance(tokens.traces, int) else tokens.traces
    for place in range(tokens.n):
        if traces[place] == trace:
            step = tokens.steps[place] - index.start
            data[step] += (tokens.data[place] if tokens.data and not withheld else None) or b""
            logprob = tokens.beliefs[place][0] if tokens.beliefs else None
            surprise[step] = None if logprob is None else -logprob
    return Made(tokens.n, ends, data, surprise)
