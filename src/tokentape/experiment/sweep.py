"""``sweep``: a model measured over a grid of contexts and batches, into one tape.

Every run of the tape is a visit: a cell of the grid, measured once. The run's ``options["sweep"]`` says which: kind, context,
batch, round, whether it is of the reference cell, and whether its cache was filled rather than read. Where it was filled, the
first step is of the kind prefill and reads one token a sequence (``n_in == batch``, ``context > 1``): that is no measurement of
a prefill. Plan, cells and what was left out are in the tape's note ``sweep``.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.data.tape import Tape, open_tape
from tokentape.errors import OutOfMemory, UsageError
from tokentape.experiment.design import outlook
from tokentape.experiment.grid import KINDS, Cell, LeftOut, cells_of, fitting, read_axis
from tokentape.experiment.order import Made, Order, order_of
from tokentape.experiment.resume import Earlier, earlier
from tokentape.experiment.visits import NOTE, Plan, Visit, advice_of, cell_of, reference_cell
from tokentape.models.failures import is_out_of_memory
from tokentape.recorder.probes import tier
from tokentape.recorder.recorder import Recorder

if TYPE_CHECKING:
    from tokentape.experiment.bench import Bench
    from tokentape.recorder.tick import Source

__all__ = ["Progress", "carry_out", "sweep"]

SHARE_OF_MEMORY = 0.9
"""How much of the free memory may be planned with."""

Axis = str | int | Iterable[int]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sweep has come, told after each visit.

    ``step_ns`` is the median of the visit's steps but the first, of a prefill its one step; None where the cell was found to be
    impossible. ``n_all`` is None where the time decides how many visits there are. ``left_s`` is what the visits to come will
    take, judged by those made.
    """

    visit: Visit
    step_ns: float | None
    n_done: int
    n_all: int | None
    left_s: float | None


def sweep(
    source: Source | Bench,
    *,
    context: Axis,
    batch: Axis = 1,
    repeat: int = 3,
    steps: int = 16,
    kinds: Sequence[str] = KINDS,
    prefill_tokens: int | None = None,
    budget_s: float | None = None,
    memory_bytes: int | None = None,
    seed: int = 0,
    path: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    observer: Callable[[Progress], None] | None = None,
) -> Tape:
    """Measure decode and prefill of ``source`` over a grid, ``repeat`` times a cell, and return the tape.

    ``context`` and ``batch`` are numbers, or texts as :func:`~tokentape.experiment.grid.read_axis` takes them. A visit to a
    decode cell has ``steps`` steps after its first. Prefills read at most ``prefill_tokens``, by default as many as the longest
    context has. ``budget_s`` chooses the visits that narrow the law most until so many seconds are spent; ``repeat`` then does not
    count. What needs more than ``memory_bytes`` beside the weights is left out, by default more than 90 % of what is free.
    ``seed`` decides order and token ids. A tape at ``path`` that holds the same sweep, broken off, is gone on with.

    On Ctrl-C the tape is saved, and the exception goes on. Raises :class:`~tokentape.errors.UsageError`,
    :class:`~tokentape.errors.TapeExists`, :class:`~tokentape.errors.TapeBusy` and what recording raises.
    """
    plan = Plan(
        read_axis(context, "context"),
        read_axis(batch, "batch"),
        tuple(kinds),
        repeat,
        steps,
        seed,
        prefill_tokens,
        budget_s,
    )
    return carry_out(
        plan,
        lambda: source,
        memory_bytes=memory_bytes,
        path=path,
        resume=resume,
        overwrite=overwrite,
        observer=observer,
    )


def carry_out(
    plan: Plan,
    load: Callable[[], Source | Bench],
    *,
    memory_bytes: int | None = None,
    path: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    observer: Callable[[Progress], None] | None = None,
) -> Tape:
    """:func:`sweep`, with a source that is loaded once it is known that the plan and the path will do."""
    plan.check()
    place = None if path is None else Path(path)
    before = earlier(place, plan, resume=resume, overwrite=overwrite)
    bench = _bench_of(load(), plan.seed)
    if before is not None:
        before.check_setting(bench.setting(), "sweep")
        if before.complete:
            return open_tape(before.path)
    with bench.ready():
        session = _Session(bench, plan, observer, before)
        return session.run(place, memory_bytes, overwrite=overwrite)


def _bench_of(source: Any, seed: int) -> Bench:
    from tokentape.sources.local import LocalSource

    if isinstance(source, LocalSource):
        from tokentape.experiment.bench import LocalBench

        return LocalBench(source, seed)
    if not hasattr(source, "footprint"):
        raise UsageError(
            f"a {type(source).__name__} cannot be swept",
            why="a sweep fills the cache of a model in this process, and no other source lets it",
            fix="tt.sweep(tt.local(MODEL), ...)",
        )
    found: Bench = source
    return found


@dataclass
class _Session:
    """One call of :func:`sweep`, from its cells to its tape."""

    bench: Bench
    plan: Plan
    observer: Callable[[Progress], None] | None
    before: Earlier | None
    note: dict[str, Any] = field(default_factory=dict)
    made: Made = field(default_factory=Made)

    def run(self, path: Path | None, memory_bytes: int | None, *, overwrite: bool) -> Tape:
        cells = self._cells(memory_bytes) if self.before is None else self._cells_again(self.before, memory_bytes)
        with self._recorder(path, overwrite) as recorder:
            try:
                self._visit_all(recorder, order_of(cells, self.plan, self.made))
            finally:
                gc.unfreeze()
            self.note["outlook"] = [asdict(one) for one in outlook(cells, self.made.steps, self.made.visits)]
            recorder.writer.note(NOTE, self.note)
        return recorder.tape

    def _cells(self, memory_bytes: int | None) -> list[Cell]:
        """The cells that are possible; writes down what is left out."""
        plan, free = self.plan, self.bench.memory_bytes()
        if memory_bytes is None and free is not None:
            memory_bytes = round(SHARE_OF_MEMORY * free)
        cells, too_long = cells_of(plan.contexts, plan.batches, plan.kinds, plan.prefill_tokens)
        kept, unfit = fitting(cells, self.bench.footprint(), self.bench.positions, memory_bytes, plan.steps + 1)
        left_out = [*too_long, *unfit]
        if not kept:
            raise _nothing_left(self.bench, plan, left_out)
        self.note = {
            "plan": plan.as_notes(),
            "cells": [asdict(cell) for cell in kept],
            "reference": asdict(reference_cell(kept)),
            "left_out": [_noted(one) for one in left_out],
            "impossible": [],
            "advice": advice_of(kept, plan),
        }
        return kept

    def _cells_again(self, before: Earlier, memory_bytes: int | None) -> list[Cell]:
        """The cells of an earlier call, without those that need more memory than this one was told."""
        self.note, self.made = dict(before.note), before.made
        footprint = self.bench.footprint()  # also what fills the caches
        kept, unfit = fitting(before.cells, footprint, self.bench.positions, memory_bytes, self.plan.steps + 1)
        if not kept:
            raise _nothing_left(self.bench, self.plan, unfit)
        self.note["cells"] = [one for one in self.note["cells"] if cell_of(one) not in {lost.cell for lost in unfit}]
        self.note["left_out"] = [*self.note["left_out"], *map(_noted, unfit)]
        return kept

    def _recorder(self, path: Path | None, overwrite: bool) -> Recorder:
        bench, before = self.bench, self.before
        origin = bench.clock.mark() if before is None else before.origin(bench.clock)
        return Recorder(
            path,
            bench.setting(),
            tier("timing"),
            bench.clock,
            origin=origin,
            notes={NOTE: self.note},
            overwrite=overwrite,
            text=False,
            writer=None if before is None else before.writer(),
        )

    def _visit_all(self, recorder: Recorder, order: Order) -> None:
        while (visit := order.next()) is not None:
            try:
                step_ns = self._visit(recorder, visit)
            except (OutOfMemory, MemoryError, RuntimeError) as error:
                if not isinstance(error, OutOfMemory) and not is_out_of_memory(error):
                    raise
                step_ns = None
                why = error.why if isinstance(error, OutOfMemory) else str(error) or "out of memory"
                self.note["impossible"] = [*self.note["impossible"], {**asdict(visit.cell), "why": why}]
                recorder.writer.note(NOTE, self.note)
                order.without(visit.cell)
            if self.observer is not None:
                self.observer(Progress(visit, step_ns, len(self.made.done), order.n_all, order.left_s()))

    def _visit(self, recorder: Recorder, visit: Visit) -> float:
        """Measure a cell once; returns the median of its steps, without the first if there are others."""
        clock, took = self.bench.clock, []
        began = clock.mark()
        live = self.bench.start(visit, self.plan.steps, recorder.needs)
        gc.collect()
        gc.freeze()  # what is alive now need not be looked at by a collection that falls into the visit
        recorder.begin(live, own_thread=False)
        try:
            with contextlib.closing(live.ticks):
                for tick in live.ticks:
                    took.append(clock.ns(tick.end, since=tick.start))
                    recorder.add(tick)
        except (OutOfMemory, MemoryError, RuntimeError):
            recorder.end(["criteria"] * len(live.run.traces))
            recorder.flush()
            recorder.writer.drop_last()
            raise
        recorder.end(live.finish_reasons())
        recorder.flush()
        step_ns = float(np.median(took[1:] or took))
        self.made.add(visit, step_ns / 1e9, clock.ns(clock.mark(), since=began) / 1e9)
        return step_ns


def _noted(one: LeftOut) -> dict[str, Any]:
    return {**asdict(one.cell), "reason": one.reason, "why": one.why}


def _nothing_left(bench: Bench, plan: Plan, left_out: Sequence[LeftOut]) -> UsageError:
    cheapest = min(left_out, key=lambda one: one.cell.context * one.cell.batch)
    positions = bench.positions
    fix = "a shorter --context, a smaller --batch, or more --memory"
    if positions is not None and min(plan.contexts) > positions:
        fix = f"--context {max(positions // 16, 1)}..{positions}"
    return UsageError(
        f"{bench.name} can be measured at no cell of this grid", why=f"{cheapest.cell}: {cheapest.why}", fix=fix
    )
