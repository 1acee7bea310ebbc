"""A model on paper that can be swept: what each cell takes is told, and passes on a clock of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any

from tokentape.clock import FakeClock
from tokentape.data.request import Run, TraceHead
from tokentape.data.setting import Setting
from tokentape.experiment.grid import Cell, Footprint
from tokentape.experiment.visits import Visit
from tokentape.recorder.tick import LiveRun, Said, Tick

MS = 1_000_000
NOTHING = Footprint(0.0, 0.0, 0.0, 0.0, 0.0)


def law(cell: Cell) -> int:
    """What a step takes: decode ``1 ms + 0.5 ms batch + 1 us batch context``, prefill ``2 ms + 10 us T + 1 ns T^2``."""
    tokens = cell.context * cell.batch
    if cell.kind == "decode":
        return MS + MS // 2 * cell.batch + 1_000 * tokens
    return 2 * MS + 10_000 * tokens + cell.context * tokens


class PaperBench:
    """A bench on paper. ``fails`` is asked before each tick, and may raise."""

    name = "paper"

    def __init__(
        self,
        ns: Callable[[Cell], int] = law,
        *,
        positions: int | None = None,
        free: int | None = None,
        footprint: Footprint = NOTHING,
        facts: dict[str, Any] | None = None,
        fails: Callable[[Visit, int], None] = lambda visit, step: None,
    ) -> None:
        self.clock = FakeClock()
        self.positions = positions
        self.visits: list[Visit] = []
        self._ns, self._free, self._footprint, self._fails = ns, free, footprint, fails
        self._facts = facts or {"model": "paper"}

    def setting(self) -> Setting:
        return Setting(self._facts)

    def ready(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def footprint(self) -> Footprint:
        return self._footprint

    def memory_bytes(self) -> int | None:
        return self._free

    def start(self, visit: Visit, n_steps: int, needs: frozenset[str]) -> LiveRun:
        self.visits.append(visit)
        cell = visit.cell
        heads = tuple(TraceHead(row, cell.context, None, None) for row in range(cell.batch))
        n = n_steps + 1 if cell.kind == "decode" else 1
        options = {"sweep": {**visit.as_options(), "filled": cell.kind == "decode"}}
        return LiveRun(Run(heads, options), self.clock.mark(), self._ticks(visit, n), lambda: ["length"] * cell.batch)

    def _ticks(self, visit: Visit, n: int) -> Generator[Tick]:
        cell = visit.cell
        for step in range(n):
            self._fails(visit, step)
            start = self.clock.mark()
            self.clock.advance(self._ns(cell))
            said = tuple(Said(row, 0) for row in range(cell.batch))
            n_in = cell.batch * (cell.context if cell.kind == "prefill" else 1)
            kind = "decode" if step else "prefill"
            tick = Tick(kind, cell.batch, start, self.clock.mark(), context=cell.context + step, n_in=n_in, said=said)
            tick.last = step == n - 1
            yield tick
