"""What this machine can do, measured: how fast it reads memory, how fast it multiplies matrices.

A decode step reads every weight once, so it takes no less than their bytes over the read bandwidth; a long prefill multiplies,
so it takes no less than its operations over the matrix rate. Both are the best of several runs: a peak, not a typical.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from tokentape.errors import RecordingError
from tokentape.study.cost.hardware import Hardware, machine_file

__all__ = ["Engine", "keep", "measure"]

BUFFER_BYTES = 512_000_000
"""Far more than any cache of a processor holds."""

SECONDS = 0.3
"""Time that each figure may take, after its first run; one that takes longer is run twice."""

WIDTH = 4096
"""Values of a row; a matrix for one row has as many columns as fill half of :data:`BUFFER_BYTES`, past every cache."""

MANY = 256
"""Rows that stand for a prefill."""

BLOCK_OPERATIONS = 40
"""Small operations that a block of a transformer starts, about: each takes its dispatch, however little it computes."""

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

DTYPES = tuple(_BYTES)

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Engine:
    """Something that reads and multiplies; ``threads`` is None where their number cannot be chosen.

    ``reader`` makes a buffer and gives a function that reads all of it; ``multiplier`` makes a product of ``[m, WIDTH]`` with
    ``[WIDTH, n]`` in a dtype, or gives None where the dtype is not to be had; ``small`` is one operation on little.
    """

    name: str
    device: str
    threads: int | None
    limit_threads: Callable[[int], contextlib.AbstractContextManager[Any]]
    reader: Callable[[int], Callable[[], Any]]
    multiplier: Callable[[int, int, str], Callable[[], Any] | None]
    small: Callable[[], Any] | None
    dtypes: tuple[str, ...] = DTYPES


def _silent(text: str) -> None:
    """Tell nobody."""


def measure(engine: Engine | None = None, *, tell: Tell = _silent, now_ns: Callable[[], int] | None = None) -> Hardware:
    """Measure this machine, in some seconds.

    ``engine`` is torch's, on a GPU where there is one, or numpy's where there is no torch. ``tell`` is told what comes
    next. ``now_ns`` is a clock in nanoseconds. The peaks are those of all threads; ``details`` hold one thread and one row.
    """
    engine = engine or _engine()
    clock = now_ns or time.perf_counter_ns
    reads = _reads(engine, clock, tell)
    one_row, many_rows = {}, {}
    for dtype in engine.dtypes:
        tell(f"multiplying matrices, {dtype}")
        n = BUFFER_BYTES // (2 * WIDTH * _BYTES[dtype])
        single = engine.multiplier(1, n, dtype)
        if single is None:
            continue
        one_row[dtype] = 2 * WIDTH * n / _best(single, clock)
        several = engine.multiplier(MANY, WIDTH, dtype)
        assert several is not None
        many_rows[dtype] = 2 * MANY * WIDTH * WIDTH / _best(several, clock)
    floor = 0.0
    if engine.small is not None:
        tell("starting small operations")
        floor = BLOCK_OPERATIONS * _typical(engine.small, clock)
    read_in_rows = {dtype: rate * _BYTES[dtype] / 2 for dtype, rate in one_row.items()}
    return Hardware(
        name=f"this machine ({engine.device})",
        tflops={dtype: rate / 1e3 for dtype, rate in many_rows.items()},
        memory_gb=_memory_gb(engine),
        # reading a matrix to multiply one row is reading too: whichever goes faster is what the memory gives
        bandwidth_gb_s=max(*reads.values(), *read_in_rows.values()),
        link_gb_s=None,
        tdp_w=None,
        source=f"measured with {engine.name}",
        layer_floor_ns=floor,
        one_row_gb_s=read_in_rows,
        measured=datetime.now().strftime("%Y-%m-%d %H:%M"),
        details={
            "read_gb_s": reads,
            "one_row_gflops": one_row,
            "many_rows_gflops": many_rows,
            "buffer_bytes": BUFFER_BYTES,
            "matrix": WIDTH,
            "rows": MANY,
            "threads": engine.threads,
            "engine": engine.name,
        },
    )


def _reads(engine: Engine, clock: Callable[[], int], tell: Tell) -> dict[str, float]:
    """10^9 bytes a second that one thread and all threads read."""
    counts = (
        {"all_threads": engine.threads} if engine.threads is None else {"one_thread": 1, "all_threads": engine.threads}
    )
    found = {}
    for label, threads in counts.items():
        tell(f"reading memory, {label.replace('_', ' ')}")
        with engine.limit_threads(threads or 1):
            found[label] = BUFFER_BYTES / _best(engine.reader(BUFFER_BYTES), clock)
    return found


def keep(found: Hardware, path: Path | None = None) -> Path:
    """Write a measurement to where ``--on this`` looks for it. Raises RecordingError where that cannot be."""
    path = path or machine_file()
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(found.as_dict(), indent=1), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise RecordingError(
            f"the measurement could not be kept in {path}",
            why=str(error),
            fix="export XDG_CACHE_HOME=a folder of your own",
        ) from error
    return path


def _runs(work: Callable[[], Any], clock: Callable[[], int]) -> list[int]:
    work()  # allocates, and wakes threads
    took: list[int] = []
    end = clock() + int(SECONDS * 1e9)
    while not took or clock() < end:
        began = clock()
        work()
        took.append(max(1, clock() - began))
    return took


def _best(work: Callable[[], Any], clock: Callable[[], int]) -> float:
    """Nanoseconds of the fastest run."""
    return float(min(_runs(work, clock)))


def _typical(work: Callable[[], Any], clock: Callable[[], int]) -> float:
    """Nanoseconds of the run in the middle."""
    took = sorted(_runs(work, clock))
    return float(took[len(took) // 2])


def _memory_gb(engine: Engine) -> float | None:
    if engine.device != "cpu":
        import torch

        return float(torch.cuda.get_device_properties(0).total_memory) / 1e9
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (ValueError, OSError, AttributeError):
        return None


def _engine() -> Engine:
    try:
        import torch
    except ImportError:
        return numpy_engine()
    return torch_engine(torch)


def numpy_engine() -> Engine:
    """Products of numpy itself, in float32 alone: the threads are those of its BLAS, and cannot be chosen from here."""

    def reader(n_bytes: int) -> Callable[[], Any]:
        buffer = np.ones(n_bytes // 4, np.float32)
        return lambda: np.dot(buffer, buffer)

    def multiplier(m: int, n: int, dtype: str) -> Callable[[], Any] | None:
        a, b = np.ones((m, WIDTH), np.float32), np.ones((n, WIDTH), np.float32)
        return lambda: a @ b.T

    return Engine(
        f"numpy {np.__version__}",
        "cpu",
        None,
        lambda n: contextlib.nullcontext(),
        reader,
        multiplier,
        None,
        ("float32",),
    )


def torch_engine(torch: Any) -> Engine:
    """Torch on the first GPU, or on the processor with as many threads as it would use."""
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"

    def done() -> None:
        if on_gpu:
            torch.cuda.synchronize()

    @contextlib.contextmanager
    def limited(n: int) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(n)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def timed(work: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> None:
            with torch.no_grad():
                work()
            done()

        return run

    def reader(n_bytes: int) -> Callable[[], Any]:
        buffer = torch.ones(n_bytes // 4, dtype=torch.float32, device=device)
        return timed(buffer.sum)

    def multiplier(m: int, n: int, dtype: str) -> Callable[[], Any] | None:
        kind = getattr(torch, dtype)
        try:
            a, b = (torch.ones(rows, WIDTH, dtype=kind, device=device) for rows in (m, n))
            torch.nn.functional.linear(a[:1], b[:8]).sum()
        except RuntimeError:
            return None  # this build multiplies no such values
        return timed(lambda: torch.nn.functional.linear(a, b))

    little = torch.ones(1, 64, device=device)
    return Engine(
        name=f"torch {torch.__version__}",
        device=torch.cuda.get_device_name(0) if on_gpu else "cpu",
        threads=None if on_gpu else torch.get_num_threads(),
        limit_threads=limited,
        reader=reader,
        multiplier=multiplier,
        small=timed(lambda: little.add(1.0)),
    )
