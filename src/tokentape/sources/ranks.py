"""The times of all ranks of a model that is shared out, beside those of the rank that recorded."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tokentape.data.store import TapeWriter
from tokentape.data.tape import Tape

if TYPE_CHECKING:
    from tokentape.models.parallel import Ranks

__all__ = ["RANKS", "with_ranks"]

RANKS = "ranks"
"""The note that holds them: ``size``; ``hosts`` and ``forward_ns`` (the sum over all steps) by rank; and of each step in its order
``slowest``, the rank whose forward pass took longest, and ``slowest_ns``, how long it took."""


class Gathers(Protocol):
    """The ranks, met; every one of them has to ask."""

    ranks: Ranks

    def gathered(self, value: Any) -> list[Any]: ...


def with_ranks(tape: Tape, party: Gathers) -> Tape:
    """The same tape, with what each rank's steps took noted on it; ranks but the first get their own tape back.

    Times are gathered once, after the run: a rank that waited for another inside a layer has that in its own time.
    """
    steps = tape.columns("step")
    found = party.gathered((platform.node(), steps["forward_ns"].filled(-1).tolist() if steps.n_rows else []))
    if party.ranks.rank or tape.path is None:
        return tape
    path, state = tape.path, tape.state
    tape.close()
    writer = TapeWriter.resume(path)
    writer.note(RANKS, ranks_note([host for host, _ in found], [times for _, times in found]))
    return writer.close(state)


def ranks_note(hosts: list[str], forward_ns: list[list[int]]) -> dict[str, Any]:
    """The note of ranks on ``hosts`` whose passes took ``forward_ns`` (by rank, by step; -1 where that is not known)."""
    n_steps = min(map(len, forward_ns))
    times = np.array([one[:n_steps] for one in forward_ns], dtype=np.int64).reshape(len(forward_ns), n_steps)
    return {
        "size": len(hosts),
        "hosts": hosts,
        "forward_ns": times.sum(axis=1).tolist(),
        "slowest": times.argmax(axis=0).tolist() if n_steps else [],
        "slowest_ns": times.max(axis=0).tolist() if n_steps else [],
    }
