"""Ticks become rows: marks become nanoseconds, tensors become numbers, ids become bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tokentape.data.packing import candidates_json
from tokentape.data.schema import KINDS, STEP_COLUMNS
from tokentape.recorder.tick import LiveRun, Probe, Speller, Tick

__all__ = ["Made", "RowMaker"]

_FROM_PROBES = tuple(column.name for column in STEP_COLUMNS[8:])
_Belief = tuple[Any, Any, Any, Any, Any]
"""Log-probability, entropy, rank, log-probability after the rules, candidates."""

_UNKNOWN: _Belief = (None, None, None, None, None)


@dataclass(slots=True)
class Made:
    """The rows of one tick, in the order of the schema, and the little that a live line shows of it."""

    step: tuple[Any, ...]
    tokens: list[tuple[Any, ...]]
    pieces: list[tuple[int, str, bytes, bool]]
    end_ns: int
    first_data: bytes
    first_surprise: float | None


class RowMaker:
    """Makes the rows of one run, tick by tick and in order.

    ``ns`` turns a mark of the source's clock into nanoseconds since the tape's origin. With ``text`` False, ids and bytes stay
    out of the rows.
    """

    def __init__(
        self,
        run_number: int,
        trace_numbers: Sequence[int],
        live: LiveRun,
        probes: Sequence[Probe],
        ns: Callable[[Any], int],
        *,
        text: bool,
    ) -> None:
        self.n_traces = len(trace_numbers)
        self._run = run_number
        self._traces = tuple(trace_numbers)
        self._ns = ns
        self._text = text
        self._index = 0
        self._positions = [head.n_prompt for head in live.run.traces]
        self._spellers: tuple[Speller | None, ...] = tuple(live.spellers) or (None,) * self.n_traces
        self._heads = live.run.traces
        self._seen: set[int] = set()
        self._step_probes = [(i, probe) for i, probe in enumerate(probes) if probe.series == "step"]
        self._token_probes = [(i, probe) for i, probe in enumerate(probes) if probe.series == "token"]
        names = [name for _, probe in self._step_probes for name in probe.columns]
        self._order = [names.index(name) if name in names else None for name in _FROM_PROBES]

    def prompt_pieces(self) -> list[tuple[int, str, bytes, bool]]:
        """The vocabulary entries of the prompts."""
        pieces: list[tuple[int, str, bytes, bool]] = []
        for head, speller in zip(self._heads, self._spellers, strict=True):
            for token_id in head.prompt_ids or ():
                pieces.extend(self._piece(token_id, speller))
        return pieces

    def make(self, tick: Tick, kept: Sequence[Any]) -> Made:
        """The rows of ``tick``; ``kept`` has what each probe kept of it."""
        if tick.ready is not None:
            tick.ready.synchronize()
        found: list[Any] = []
        for i, probe in self._step_probes:
            found += probe.resolve(kept[i], tick)
        made = Made((), [], [], self._ns(tick.end), b"", None)
        if tick.said is None:
            self._add_ids(made, tick, kept)
        else:
            for said in tick.said:
                belief = (said.logprob, said.entropy, said.rank, said.rules_logprob, said.candidates)
                self._add_token(made, said.row, said.id, said.data, belief, said.forced, said.overshoot)
        made.step = (
            self._run,
            self._index,
            KINDS.index(tick.kind),
            tick.batch,
            tick.context,
            tick.n_in,
            len(made.tokens),
            self._ns(tick.start),
            made.end_ns,
            *[None if where is None else found[where] for where in self._order],
        )
        self._index += 1
        return made

    def _add_ids(self, made: Made, tick: Tick, kept: Sequence[Any]) -> None:
        """The tokens of a tick that carries tensors: one a sequence that was still unfinished."""
        live = None if tick.live is None else tick.live.tolist()
        if live is not None and not any(live):
            return  # the loop ran past the end of all sequences: no token of this step belongs to any
        forced = None if tick.forced is None else tick.forced.tolist()
        beliefs: Sequence[_Belief] = ()
        for i, probe in self._token_probes:
            beliefs = probe.resolve(kept[i], tick)
        for row, token_id in enumerate(tick.ids.tolist()):
            over = live is not None and not live[row]
            if over and tick.padded:
                continue
            belief = beliefs[row] if beliefs else _UNKNOWN
            self._add_token(made, row, token_id, None, belief, forced is not None and forced[row], over)

    def _add_token(
        self, made: Made, row: int, token_id: int | None, data: bytes | None, belief: _Belief, forced: bool, over: bool
    ) -> None:
        speller = self._spellers[row]
        if data is None and speller is not None and token_id is not None:
            data = speller.feed(token_id)
        logprob, entropy, rank, rules_logprob, candidates = belief
        if row == 0:
            made.first_data += data or b""
            made.first_surprise = None if logprob is None else -logprob
        position = self._positions[row]
        self._positions[row] = position + 1
        kept_id = token_id if self._text else None
        facts = (
            self._traces[row],
            position,
            self._index,
            kept_id,
            logprob,
            entropy,
            rank,
            rules_logprob,
            +forced,
            +over,
        )
        if not self._text:
            made.tokens.append((*facts, None, None, None))
            return
        shown = None if candidates is None else candidates_json(candidates)
        made.tokens.append((*facts, *_text_or_raw(data), shown))
        if token_id is not None and token_id not in self._seen:
            made.pieces.extend(self._piece(token_id, speller))
        for candidate, _ in candidates or ():
            if candidate not in self._seen:
                made.pieces.extend(self._piece(candidate, speller))

    def _piece(self, token_id: int, speller: Speller | None) -> Iterator[tuple[int, str, bytes, bool]]:
        """The vocabulary entry of an id, the first time that it occurs."""
        if speller is not None and token_id not in self._seen and self._text:
            self._seen.add(token_id)
            yield (token_id, *speller.piece(token_id))


def _text_or_raw(data: bytes | None) -> tuple[str | None, bytes | None]:
    """A token's bytes as text, or as they are where alone they are no UTF-8 (a character that spans tokens)."""
    if data is None:
        return None, None
    try:
        return data.decode(), None
    except UnicodeDecodeError:
        return None, data
