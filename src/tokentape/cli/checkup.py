"""What the doctor looks at, and how it measures the clock."""

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokentape.views.listing import Check
from tokentape.views.units import bytes_text, duration
from tokentape.views.units import rate as rate_text

if TYPE_CHECKING:
    from tokentape.study.cost.hardware import Hardware

__all__ = ["ClockJitter", "clock_jitter", "examine", "machine_checks"]

LOCAL = "pip install 'tokentape[local]'"
CLOCK_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class ClockJitter:
    """What reading the host clock over and over shows: the time between two readings, in nanoseconds.

    ``p50_ns`` is what a reading costs; ``p9999_ns`` and ``worst_ns`` are what other programs and the system take away.
    """

    name: str
    resolution_ns: int
    n: int
    p50_ns: int
    p9999_ns: int
    worst_ns: int


def clock_jitter(seconds: float = CLOCK_SECONDS) -> ClockJitter:
    """Read ``perf_counter_ns`` without a pause for ``seconds``."""
    read = time.perf_counter_ns
    gaps: list[int] = []
    keep = gaps.append
    collecting = gc.isenabled()
    gc.disable()
    try:
        before = read()
        end = before + int(seconds * 1e9)
        while before < end:
            now = read()
            keep(now - before)
            before = now
    finally:
        if collecting:
            gc.enable()
    gaps.sort()
    n = len(gaps)
    resolution = round(time.get_clock_info("perf_counter").resolution * 1e9)
    return ClockJitter("perf_counter_ns", resolution, n, gaps[n // 2], gaps[min(n - 1, n * 9999 // 10000)], gaps[-1])


def examine(clock: ClockJitter) -> list[Check]:
    """Every check, group by group."""
    return [*_programs(), *_torch(), *_clock(clock), *_machine(), *_models()]


def machine_checks(machine: Hardware, config: Any, path: Path) -> list[Check]:
    """What was measured of this machine, and the ceiling that it sets to a decode step of a model."""
    from tokentape.study.cost.prediction import predict

    group, told = "measured", machine.details
    reads = ", ".join(f"{rate:.1f} GB/s with {name.replace('_', ' ')}" for name, rate in told["read_gb_s"].items())
    checks = [Check(group, "read bandwidth", reads)]
    for dtype, rate in told["many_rows_gflops"].items():
        one = told["one_row_gflops"][dtype]
        text = f"{rate:,.0f} GFLOP/s with {told['rows']} rows; with one {one:,.1f}, reading {machine.one_row_gb_s[dtype]:.1f} GB/s"
        checks.append(Check(group, dtype, text))
    if machine.layer_floor_ns:
        text = f"{duration(machine.layer_floor_ns)}, however small the model (modelled from small operations)"
        checks.append(Check(group, "floor of a block", text))
    found = predict(config, hardware=machine, context=1024)
    step, speed = duration(found["decode_ns"]), rate_text(found["tokens_per_s"])
    text = f"{found.model_type} at 1,024 tokens in {found.dtype}: {step} at least ({found['decode_bound']}), so {speed} at most"
    checks.append(Check(group, "a decode step", text))
    checks.append(Check(group, "kept in", f"{path}: tokentape predict CONFIG --on this"))
    return checks


_NO_MODEL = "tapes can be read, models cannot be run"
_OPTIONAL = {
    **dict.fromkeys(("torch", "transformers", "tokenizers", "safetensors"), (_NO_MODEL, LOCAL)),
    "llguidance": ("no text can be held to a schema, a pattern or a grammar", LOCAL),
    "jsonschema": ("JSON that was held to a schema is not judged once more", LOCAL),
    "sacrebleu": ("translations have no chrF and BLEU", "pip install 'tokentape[tasks]'"),
}
"""Packages of the extras: what is lost without them, and how to get them."""


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _programs() -> Iterator[Check]:
    import sqlite3

    from tokentape._version import __version__
    from tokentape.data.schema import SCHEMA_VERSION

    group = "programs"
    yield Check(group, "tokentape", f"{__version__}, tape schema {SCHEMA_VERSION}")
    yield Check(group, "python", f"{platform.python_version()} ({sys.executable})")
    yield Check(group, "sqlite", sqlite3.sqlite_version)
    yield Check(group, "numpy", _version("numpy") or "unknown")
    for name, (lost, fix) in _OPTIONAL.items():
        found = _version(name) if importlib.util.find_spec(name) is not None else None
        if found is None:
            yield Check(group, name, f"not installed: {lost}", "missing", fix)
        else:
            yield Check(group, name, found)


def _torch() -> Iterator[Check]:
    group = "devices"
    if importlib.util.find_spec("torch") is None:
        yield Check(group, "torch devices", "unknown without torch", "note")
        return
    try:
        import torch
    except Exception as error:  # a broken build is what a doctor is asked about
        yield Check(group, "torch", f"does not import: {type(error).__name__}: {error}", "missing", LOCAL)
        return
    yield Check(group, "cpu", f"{_processor()}; torch uses {torch.get_num_threads()} threads")
    yield _cuda(torch, group)
    if sys.platform == "darwin":
        there = torch.backends.mps.is_available()
        yield Check(group, "mps", "available" if there else "not available", "ok" if there else "note")


def _cuda(torch: Any, group: str) -> Check:
    if not torch.cuda.is_available():
        why = "this torch is a CPU build" if torch.version.cuda is None else "torch sees no device"
        return Check(group, "cuda", f"none: {why}", "note")
    found = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        found.append(f"cuda:{index} {facts.name}, {bytes_text(facts.total_memory)}")
    return Check(group, "cuda", f"{'; '.join(found)} (CUDA {torch.version.cuda})")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _clock(clock: ClockJitter) -> Iterator[Check]:
    group = "clock"
    yield Check(
        group, clock.name, f"a reading costs {duration(clock.p50_ns)}, resolution {duration(clock.resolution_ns)}"
    )
    noisy = clock.p9999_ns > 1_000_000
    text = f"p99.99 {duration(clock.p9999_ns)}, worst {duration(clock.worst_ns)} (n = {clock.n:,} gaps)"
    fix = "close what else runs, or record longer and read the percentiles" if noisy else ""
    yield Check(group, "jitter", text, "note" if noisy else "ok", fix)


def _machine() -> Iterator[Check]:
    group = "machine"
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    yield Check(group, "system", f"{platform.system()} {platform.release()} {platform.machine()}")
    yield Check(group, "cores", f"{cores}, {usable} of them for this process" if usable != cores else str(cores))
    if hasattr(os, "getloadavg"):
        load = os.getloadavg()[0]
        busy = load > usable * 0.75
        text = f"{load:.2f} over the last minute"
        fix = "other programs compete for the cores: --threads 1 suffers least, timings are noisy" if busy else ""
        yield Check(group, "load", text, "note" if busy else "ok", fix)
    total, available = _memory()
    if total is not None:
        yield Check(group, "memory", f"{bytes_text(available)} available of {bytes_text(total)}")


def _memory() -> tuple[int | None, int | None]:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        total, available = sizes["MemTotal"], sizes["MemAvailable"]
    except (OSError, ValueError, KeyError, IndexError):
        return None, None
    try:  # a container may be given less than the machine has
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return total, available
    return min(total, limit), min(available, max(0, limit - used))


def _models() -> Iterator[Check]:
    group = "models"
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    n = sum(1 for _ in cache.glob("models--*")) if cache.is_dir() else 0
    yield Check(group, "cache", f"{cache}: {n} models" if cache.is_dir() else f"{cache} (not there yet)")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    yield Check(
        group,
        "hub",
        "offline: HF_HUB_OFFLINE is set" if offline else "may be asked for models",
        "note" if offline else "ok",
    )
    if os.environ.get("HF_ENDPOINT"):
        yield Check(group, "endpoint", os.environ["HF_ENDPOINT"])
    yield Check(
        group, "token", "HF_TOKEN is set" if os.environ.get("HF_TOKEN") else "HF_TOKEN is not set: open models only"
    )
    folder = Path(os.environ.get("TOKENTAPE_DIR") or ".")
    writable = os.access(folder, os.W_OK)
    fix = "" if writable else "export TOKENTAPE_DIR=a folder of your own"
    yield Check(group, "tapes go to", str(folder.resolve()), "ok" if writable else "missing", fix)
