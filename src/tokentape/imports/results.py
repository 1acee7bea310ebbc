"""Results of another tool, read and ready to become a tape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tokentape.data.exchange import Exchange
from tokentape.data.request import Run, TraceHead
from tokentape.data.schema import CHANNELS
from tokentape.data.setting import Setting
from tokentape.data.tape import Tape
from tokentape.errors import UsageError
from tokentape.recorder.many import ManyRuns
from tokentape.recorder.tick import LiveRun, Said, Tick

__all__ = ["Asked", "Piece", "Results", "write"]

LONGEST_NS = 10 * 366 * 86_400 * 10**9

_MOMENTS = ("scheduled_ns", "connect_ns", "connected_ns", "sent_ns", "first_byte_ns", "ended_ns")


@dataclass(frozen=True, slots=True)
class Piece:
    """A message that brought something of an answer: when, its text and the number of its tokens where they are known, and
    whether it was reasoning.
    """

    at_ns: int
    data: bytes | None = None
    reasoning: bool = False
    n_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """One request and its answer, on the tool's own clock: ``start_ns`` and every other moment in nanoseconds.

    ``options`` are what was asked for. The ``exchange`` says how the tokens are known: without that, by its pieces.
    """

    start_ns: int
    pieces: tuple[Piece, ...]
    reason: str
    exchange: Exchange
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Results:
    """What a file says: ``facts`` of the Setting, ``asked`` the requests in the order of the file.

    ``lacks`` names what the file does not hold, ``duration_ns`` is how long the tool says that the run took, ``epoch`` whether its
    clock counts from 1970.
    """

    tool: str
    facts: Mapping[str, Any]
    asked: Sequence[Asked]
    lacks: tuple[str, ...] = ()
    duration_ns: int | None = None
    epoch: bool = False


def write(results: Results, source: Path, path: Path | None, *, overwrite: bool) -> Tape:
    """The results as a tape at ``path``, in memory where that is None; where it cannot be finished, nothing is left of it."""
    moments = [at for one in results.asked for at in _moments(one)]
    origin = min(moments, default=0)
    if max(moments, default=0) - origin > LONGEST_NS:
        raise UsageError(
            f"{source}: its first and last moment are more than ten years apart",
            why="moments of one run are on one clock",
            fix="give the file as the tool wrote it",
        )
    noted = {
        "tool": results.tool,
        "file": source.name,
        "lacks": list(results.lacks),
        "duration_ns": results.duration_ns,
    }
    notes: dict[str, Any] = {"imported": noted}
    if results.epoch:
        notes["origin_unix_ns"] = origin
    setting = Setting({"source": "import", "tool": results.tool, **results.facts})
    many = ManyRuns(path, setting, origin, notes=notes, overwrite=overwrite)
    try:
        for number, one in enumerate(results.asked):
            _put(many, number, one, origin)
        return many.close()
    except BaseException:
        many.close("partial").close()
        if path is not None:
            path.unlink(missing_ok=True)
        raise


def _moments(one: Asked) -> list[int]:
    """Every moment of a request."""
    known: list[int] = [at for name in _MOMENTS if (at := getattr(one.exchange, name)) is not None]
    return [one.start_ns, *(piece.at_ns for piece in one.pieces), *known]


def _put(many: ManyRuns, key: int, one: Asked, origin: int) -> None:
    heads = (TraceHead(0, one.exchange.n_prompt, None, None),)
    begun = LiveRun(Run(heads, one.options), one.start_ns, _nothing(), lambda: (one.reason,))
    many.begin(key, begun)
    before, ticks = one.start_ns, []
    for piece in one.pieces:
        ticks.append(Tick("chunk", 1, before, piece.at_ns, said=_said(piece)))
        before = piece.at_ns
    many.add(key, ticks)
    moved = {name: at - origin for name in _MOMENTS if (at := getattr(one.exchange, name)) is not None}
    many.end(key, (one.reason,), replace(one.exchange, **moved))


def _said(piece: Piece) -> tuple[Said, ...]:
    """A row for each token that is known to be there, else one for all; the text stands with the first."""
    channel = CHANNELS.index("reasoning") if piece.reasoning else None
    more = Said(0, None, None if piece.data is None else b"", channel=channel)
    return (Said(0, None, piece.data, channel=channel), *[more] * ((piece.n_tokens or 1) - 1))


def _nothing() -> Any:
    """No ticks to be driven: they were all there."""
    yield from ()
