"""The measurement of a machine, with an engine that takes exactly as long as it is told to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tokentape.errors import RecordingError
from tokentape.experiment.machine import BUFFER_BYTES, MANY, WIDTH, Engine, keep, measure, numpy_engine
from tokentape.study.cost.hardware import find_hardware


class PaperMachine:
    """Reads 10 bytes a ns with one thread and 30 with four, multiplies 50 operations a ns, or 2 in one row."""

    def __init__(self) -> None:
        self.now, self.threads, self.n_runs = 0, 4, 0

    def clock(self) -> int:
        return self.now

    def spend(self, ns: float) -> Callable[[], None]:
        def work() -> None:
            self.n_runs += 1
            # the first run is slow, as first runs are
            self.now += round(ns * (9 if self.n_runs == 1 else 1))

        return work

    @contextlib.contextmanager
    def limited(self, n: int) -> Iterator[None]:
        before, self.threads = self.threads, n
        yield
        self.threads = before

    def reader(self, n_bytes: int) -> Callable[[], Any]:
        return self.spend(n_bytes / (10 if self.threads == 1 else 30))

    def multiplier(self, m: int, n: int, dtype: str) -> Callable[[], Any] | None:
        rate = {"float32": 50.0, "bfloat16": 100.0}.get(dtype)
        return None if rate is None else self.spend(2 * m * n * WIDTH / (rate if m > 1 else 2.0))

    def engine(self) -> Engine:
        return Engine("paper 1.0", "cpu", 4, self.limited, self.reader, self.multiplier, self.spend(250))


def test_rates_are_exact() -> None:
    machine, told = PaperMachine(), []
    found = measure(machine.engine(), tell=told.append, now_ns=machine.clock)
    assert found.details["read_gb_s"] == pytest.approx({"one_thread": 10.0, "all_threads": 30.0}, rel=1e-6)
    assert found.bandwidth_gb_s == pytest.approx(30.0, rel=1e-6)
    assert found.tflops == pytest.approx({"float32": 0.05, "bfloat16": 0.1}, rel=1e-6)  # float16 is not to be had
    assert found.one_row_gb_s == pytest.approx({"float32": 4.0, "bfloat16": 2.0}, rel=1e-6)
    assert found.layer_floor_ns == 40 * 250
    assert found.measured and found.source == "measured with paper 1.0"
    assert told[0].startswith("reading memory") and len(told) == 6
    assert machine.threads == 4, "as it was before"


def test_a_matrix_for_one_row_is_past_every_cache() -> None:
    asked: list[tuple[int, int]] = []
    machine = PaperMachine()

    def multiplier(m: int, n: int, dtype: str) -> Callable[[], Any] | None:
        asked.append((m, n))
        return machine.spend(1e6)

    engine = Engine(
        "paper", "cpu", None, lambda n: contextlib.nullcontext(), machine.reader, multiplier, None, ("bfloat16",)
    )
    found = measure(engine, now_ns=machine.clock)
    assert asked == [(1, BUFFER_BYTES // (2 * WIDTH * 2)), (MANY, WIDTH)]
    assert list(found.details["read_gb_s"]) == ["all_threads"] and found.layer_floor_ns == 0


def test_what_is_kept_is_what_this_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    machine = PaperMachine()
    found = measure(machine.engine(), now_ns=machine.clock)
    path = keep(found)
    assert path.parent.parent == tmp_path / "cache"
    assert find_hardware("this") == found
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_where_it_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    machine = PaperMachine()
    with pytest.raises(RecordingError, match="could not be kept") as caught:
        keep(measure(machine.engine(), now_ns=machine.clock), tmp_path / "file" / "machine.json")
    assert "XDG_CACHE_HOME" in caught.value.fix


@pytest.mark.slow
def test_numpy_measures_without_torch() -> None:
    found = measure(numpy_engine())
    assert list(found.tflops) == ["float32"] and found.bandwidth_gb_s > 0.1


@pytest.mark.slow
def test_this_machine() -> None:
    found = measure()
    assert {"float32", "bfloat16"} <= set(found.tflops)
    assert found.details["read_gb_s"].keys() <= {"one_thread", "all_threads"}
    assert all(rate > 0 for rate in (*found.tflops.values(), *found.one_row_gb_s.values(), found.bandwidth_gb_s))
