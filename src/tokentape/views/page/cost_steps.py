"""What the steps of a tape did, counted, beside how long they took: the points of a roofline, and memory as it grew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tokentape.study.cost.roofline import roof
from tokentape.study.law.points import StepTimes, step_times_of
from tokentape.views.page.rounding import near, short, whole

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.study.cost.counting import ModelWork
    from tokentape.study.cost.hardware import Hardware
    from tokentape.study.cost.work import Work

__all__ = ["RunMemory", "RunWork", "memory_of_runs", "works_of_runs"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST_MARKS = 800
"""Marks of all runs together; where there are more steps, a mark stands for several that follow one another."""

LEAST_MARKS = 8
MOST_READINGS = 400
"""Readings of memory that are drawn of one run."""


@dataclass(frozen=True)
class RunWork:
    """Marks of one run, ``[n]`` each, in the order of time: each is one step, or the median of several decode steps.

    ``step`` is the index of the first step of a mark and ``n`` how many it stands for; ``ns`` their time; ``flops`` and ``moved``
    (bytes) what one such step has to do at least; ``least_ns`` what the machine would need for it, NaN where it is not known.
    """

    run: int
    clock: str
    step: Ints
    n: Ints
    decode: npt.NDArray[np.bool_]
    context: Array
    batch: Ints
    ns: Array
    flops: Array
    moved: Array
    least_ns: Array

    @property
    def share(self) -> Array:
        """The least time over the time it took."""
        return self.least_ns / self.ns

    def as_dict(self) -> dict[str, Any]:
        """The marks for the page: intensity in operations a byte, rates in operations and bytes a second."""
        seconds = self.ns / 1e9
        return {
            "run": self.run,
            "step": self.step.tolist(),
            "n": self.n.tolist(),
            "decode": self.decode.astype(int).tolist(),
            "context": near(self.context, 1),
            "batch": self.batch.tolist(),
            "ns": whole(np.round(self.ns)),
            "intensity": short(self.flops / self.moved, 4),
            "flops_per_s": short(self.flops / seconds, 4),
            "bytes_per_s": short(self.moved / seconds, 4),
            "reach": short(self.flops / self.least_ns * 1e9, 4),
            "share": short(self.share, 4),
        }


def works_of_runs(tape: Tape, work: ModelWork, machine: Hardware | None) -> list[RunWork]:
    """The marks of every run that has a step whose context is known; masked products do not count as work."""
    times = step_times_of(tape)
    if not len(times):
        return []
    index = _indexes(tape, times)
    runs = np.unique(times.run)
    most = max(LEAST_MARKS, MOST_MARKS // len(runs))
    seen = replace(work, pairs="seen")
    counts = {True: cache(seen.decode), False: cache(seen.prefill)}  # the runs of a sweep have their contexts in common
    return [_work_of_run(int(run), times, index, most, seen, counts, machine) for run in runs]


def _indexes(tape: Tape, times: StepTimes) -> Ints:
    """The index in its run of each placed step."""
    columns = tape.columns("step")
    ended = np.asarray(columns["end_ns"]) > np.asarray(columns["start_ns"])
    rows = zip(*(np.asarray(columns[name])[ended].tolist() for name in ("run", "start_ns", "index")), strict=True)
    known = {(run, start): index for run, start, index in rows}
    return np.array([known[key] for key in zip(times.run.tolist(), times.start_ns.tolist(), strict=True)], np.int64)


def _work_of_run(
    run: int,
    times: StepTimes,
    index: Ints,
    most: int,
    work: ModelWork,
    counts: Mapping[bool, Callable[[float, float], Work]],
    machine: Hardware | None,
) -> RunWork:
    rows = np.flatnonzero(times.run == run)
    marks = list(_marks(rows, times, most))
    context = np.array([times.context[mark].mean() for mark in marks])
    batch = np.array([times.batch[mark[0]] for mark in marks], np.int64)
    decode = np.array([times.decode[mark[0]] for mark in marks], bool)
    flops, moved, least = np.empty(len(marks)), np.empty(len(marks)), np.full(len(marks), np.nan)
    for i, (is_decode, at, n) in enumerate(zip(decode.tolist(), context.tolist(), batch.tolist(), strict=True)):
        done = counts[is_decode](at, n)
        flops[i] = done.flops + done.attention_flops
        moved[i] = done.weight_bytes + done.kv_bytes + done.kv_write_bytes  # as the roofline counts them
        if machine is not None:
            rows_at_once = n if is_decode else at * n
            least[i] = roof(done, machine, work.compute_dtype, work.tensor_parallel, rows_at_once).ns
    return RunWork(
        run=run,
        clock=times.clock,
        step=np.array([index[mark[0]] for mark in marks], np.int64),
        n=np.array([len(mark) for mark in marks], np.int64),
        decode=decode,
        context=context,
        batch=batch,
        ns=np.array([np.median(times.ns[mark]) for mark in marks]),
        flops=flops,
        moved=moved,
        least_ns=least,
    )


def _marks(rows: Ints, times: StepTimes, most: int) -> Iterator[Ints]:
    """The steps of each mark: every prefill by itself, decode steps of one batch in stretches of equal length."""
    decode, batch = times.decode[rows], times.batch[rows]
    edges = np.flatnonzero((decode[1:] != decode[:-1]) | (batch[1:] != batch[:-1]) | ~decode[1:]) + 1
    size = -(-len(rows) // most)
    for stretch in np.split(rows, edges):
        yield from np.array_split(stretch, -(-len(stretch) // size))


@dataclass(frozen=True)
class RunMemory:
    """Readings of one run: bytes after each ``step`` that has one, None where unavailable; ``modelled`` of the cache.

    ``held`` are the positions of a sequence that the cache has then: fewer than ``context`` behind a window.
    """

    run: int
    step: list[int]
    context: list[int | None]
    held: list[int | None]
    batch: list[int]
    cache: list[int | None]
    modelled: list[int | None]
    rss: list[int | None]
    device: list[int | None]

    def as_dict(self) -> dict[str, Any]:
        """The same for the page."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "held"}


def memory_of_runs(tape: Tape, work: ModelWork) -> list[RunMemory]:
    """The readings of every run that has one, evenly chosen where there are very many."""
    columns = tape.columns("step")
    names = ("cache_bytes", "rss_bytes", "device_bytes")
    read = ~np.logical_and.reduce([np.ma.getmaskarray(columns[name]) for name in names])
    run = np.asarray(columns["run"])
    found = []
    for number in np.unique(run[read]).tolist():
        rows = np.flatnonzero(read & (run == number))
        if len(rows) > MOST_READINGS:
            rows = rows[np.linspace(0, len(rows) - 1, MOST_READINGS).round().astype(int)]
        context, batch = whole(columns["context"][rows]), np.asarray(columns["batch"])[rows].tolist()
        dropped = columns["dropped"][rows].filled(0).tolist()
        held = [None if at is None else at - gone for at, gone in zip(context, dropped, strict=True)]
        modelled = [None if at is None else round(work.cache_bytes(at, n)) for at, n in zip(held, batch, strict=True)]
        cache, rss, device = (whole(columns[name][rows]) for name in names)
        steps = np.asarray(columns["index"])[rows].tolist()
        found.append(RunMemory(int(number), steps, context, held, batch, cache, modelled, rss, device))
    return found
