"""Sweeps: of a model on paper exactly, of real small models as they are, and broken off at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paper_bench import PaperBench, law

import tokentape as tt
from families import causal
from tokentape.errors import OutOfMemory, TapeBusy, TapeExists, UsageError
from tokentape.experiment.bench import LocalBench
from tokentape.experiment.grid import Cell, Footprint
from tokentape.experiment.sweep import Progress, sweep
from tokentape.experiment.visits import (
    REFERENCE_EVERY,
    Plan,
    Visit,
    account_of,
    reference_cell,
    repeats_of,
    schedule,
    visits_of,
)

GRID: dict[str, Any] = {"context": "16..64", "batch": "1,2", "repeat": 3, "steps": 4}


def steps_of(tape: tt.Tape) -> list[tuple[Visit, Any]]:
    first: dict[int, Any] = {}
    for trace in tape.traces:
        first.setdefault(trace.run.number, trace)
    return [(visit, first[run.number].steps) for run, visit, _ in visits_of(tape)]


def whole(tape: tt.Tape) -> list[Visit]:
    return [visit for _, visit, ended in visits_of(tape) if ended]


# the order

CELLS = [Cell(kind, context, batch) for kind in ("decode", "prefill") for context in (16, 32, 64) for batch in (1, 2)]


def test_each_round_visits_each_cell_once_in_an_order_of_its_own() -> None:
    plan = Plan((16, 32, 64), (1, 2), repeat=4)
    visits = [visit for visit in schedule(CELLS, plan) if not visit.reference]
    rounds = [[visit.cell for visit in visits if visit.round == number] for number in range(4)]
    assert sorted(rounds[0]) == sorted(CELLS)
    assert all(len(set(cells)) == len(cells) for cells in rounds)
    assert [visit.round for visit in visits] == sorted(visit.round for visit in visits)
    assert len({tuple(cells) for cells in rounds}) == 4
    assert schedule(CELLS, plan) == schedule(CELLS, plan)
    assert schedule(CELLS, plan) != schedule(CELLS, Plan((16, 32, 64), (1, 2), repeat=4, seed=1))


def test_long_prefills_are_visited_less_often_and_never_once() -> None:
    cells = [Cell("prefill", 2**n, 1) for n in range(4, 11)] + [Cell("decode", 1024, 1)]
    counts = [repeats_of(cell, cells, 8) for cell in cells]
    assert counts == [8, 8, 8, 8, 4, 2, 2, 8]
    assert {repeats_of(cell, cells, 1) for cell in cells} == {1}


def test_the_reference_cell_is_visited_at_regular_intervals() -> None:
    visits = schedule(CELLS, Plan((16, 32, 64), (1, 2), repeat=5))
    places = [place for place, visit in enumerate(visits) if visit.reference]
    assert places[0] == 0 and places[-1] == len(visits) - 1
    assert set(np.diff(places)[:-1]) == {REFERENCE_EVERY + 1}
    assert {visit.cell for visit in visits if visit.reference} == {Cell("decode", 32, 1)}
    assert [visit.round for visit in visits if visit.reference] == list(range(len(places)))
    assert reference_cell([Cell("prefill", 8, 2), Cell("prefill", 4, 2)]) == Cell("prefill", 8, 2)


# on paper


def test_the_tape_says_what_was_visited_and_how_long_it_took() -> None:
    bench = PaperBench()
    tape = sweep(bench, **GRID)
    visits = schedule([Cell(**cell) for cell in tape.notes["sweep"]["cells"]], Plan((16, 32, 64), (1, 2), repeat=3))
    assert whole(tape) == visits == bench.visits
    assert tape.state == "complete" and not tape.verify()
    for visit, steps in steps_of(tape):
        cell, n = visit.cell, 5 if visit.cell.kind == "decode" else 1
        assert (steps["end_ns"] - steps["start_ns"]).tolist() == [law(cell)] * n
        assert steps["context"].tolist() == [cell.context + i for i in range(n)]
        assert steps["batch"].tolist() == [cell.batch] * n
    assert tape.notes["sweep"]["reference"] == {"kind": "decode", "context": 32, "batch": 1}
    assert tape.notes["sweep"]["plan"]["contexts"] == [16, 32, 64]
    assert [(one["kind"], one["context"], one["batch"]) for one in tape.notes["sweep"]["left_out"]] == [
        ("prefill", 64, 2)
    ]
    account = account_of(tape)
    assert account["n_visits"] == len(visits) and account["n_cells"] == account["n_visited"] == 11


def test_no_text_is_kept() -> None:
    tape = sweep(tt.LocalSource(causal("llama")), context=16, batch=1, repeat=1, steps=2)
    assert tape.traces[0].prompt_ids is None and tape.traces[0].prompt_text is None
    assert not tape.pieces
    assert tape.columns("token")["id"].mask.all()


def test_the_time_left_is_exact_once_the_law_is_known() -> None:
    seen: list[Progress] = []
    sweep(PaperBench(), observer=seen.append, **GRID)
    assert [one.n_done for one in seen] == list(range(1, len(seen) + 1))
    assert {one.n_all for one in seen} == {len(seen)}
    for place in range(len(seen) // 2, len(seen)):
        todo = [one.visit.cell for one in seen[place + 1 :]]
        left = sum((5 if cell.kind == "decode" else 1) * law(cell) for cell in todo)
        assert seen[place].left_s == pytest.approx(left / 1e9, rel=1e-6)
    assert all(one.step_ns == law(one.visit.cell) for one in seen)


def test_one_kind_alone() -> None:
    tape = sweep(PaperBench(), **GRID, kinds=["prefill"])
    assert {visit.cell.kind for visit in whole(tape)} == {"prefill"}
    with pytest.raises(UsageError, match="nothing to measure"):
        sweep(PaperBench(), **GRID, kinds=[])


@pytest.mark.parametrize(
    ("asked", "advice"),
    [
        ({"context": 16}, "one context alone"),
        ({"context": "16,32"}, "two contexts"),
        ({"batch": 1}, "batch 1 alone"),
        ({"steps": 3}, "too few to find the warm-up"),
        ({"repeat": 1}, "visited once"),
    ],
)
def test_what_a_law_will_not_tell_is_said(asked: dict[str, Any], advice: str) -> None:
    wide = {"context": "16..64", "batch": "1,2", "repeat": 2, "steps": 6}
    assert sweep(PaperBench(), **wide).notes["sweep"]["advice"] == []
    assert any(advice in one for one in sweep(PaperBench(), **{**wide, **asked}).notes["sweep"]["advice"])


def test_positions_and_memory_leave_cells_out() -> None:
    heavy = Footprint(kv_bytes=1000, state_bytes=0, logits_bytes=0, hidden_bytes=0, score_bytes=0)
    asked: dict[str, Any] = {"context": "16..128", "batch": "1,8", "repeat": 1, "steps": 1, "kinds": ["decode"]}
    tape = sweep(PaperBench(positions=64, free=500_000, footprint=heavy), **asked)
    left_out = {(one["context"], one["batch"]): one["reason"] for one in tape.notes["sweep"]["left_out"]}
    # 90 % of 500 kB hold 300 positions at 1.5 kB each
    assert left_out == {(64, 8): "memory", (128, 1): "positions", (128, 8): "positions"}
    told = sweep(PaperBench(positions=64, free=0, footprint=heavy), memory_bytes=10**9, **asked)
    assert {one["reason"] for one in told.notes["sweep"]["left_out"]} == {"positions"}


def test_a_grid_of_which_nothing_is_possible_is_refused() -> None:
    with pytest.raises(UsageError) as error:
        sweep(PaperBench(positions=64), context="128..512", batch=1)
    assert "64 positions" in error.value.why and error.value.fix == "--context 4..64"
    with pytest.raises(UsageError, match="no cell"):
        sweep(PaperBench(free=10, footprint=Footprint(1, 1, 1, 1, 1)), context=16)


@pytest.mark.parametrize(
    "asked", [{"batch": 0}, {"context": "64..16"}, {"repeat": 0}, {"steps": 0}, {"budget_s": 0.0}, {"kinds": ["both"]}]
)
def test_nonsense_is_refused_before_a_tape_is_made(asked: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        sweep(PaperBench(), path=tmp_path / "a.tape", **{**GRID, **asked})
    assert not list(tmp_path.iterdir())


def test_what_is_no_model_in_this_process_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be swept"):
        sweep(tt.ScriptedSource([tt.Line(1, "a")]), context=16)


def test_a_cell_that_runs_out_of_memory_is_told_and_the_rest_goes_on() -> None:
    def fails(visit: Visit, step: int) -> None:
        if visit.cell == Cell("decode", 64, 2) and step == 2:
            raise OutOfMemory("too large", why="9 GB of 8 GB", fix="less")
        if visit.cell == Cell("prefill", 32, 2):
            raise MemoryError

    seen: list[Progress] = []
    tape = sweep(PaperBench(fails=fails), observer=seen.append, **GRID)
    impossible = {(one["kind"], one["context"], one["batch"]): one["why"] for one in tape.notes["sweep"]["impossible"]}
    assert impossible == {("decode", 64, 2): "9 GB of 8 GB", ("prefill", 32, 2): "out of memory"}
    assert tape.state == "complete" and not tape.verify()
    assert [run.number for run in tape.runs] == list(range(len(tape.runs)))
    visits = whole(tape)
    assert len(visits) == len(tape.runs) == seen[-1].n_done == seen[-1].n_all
    assert {visit.cell for visit in visits} == {Cell(**one) for one in tape.notes["sweep"]["cells"]} - {
        Cell("decode", 64, 2),
        Cell("prefill", 32, 2),
    }
    assert sum(one.step_ns is None for one in seen) == 2


def test_another_error_goes_on_to_the_caller(tmp_path: Path) -> None:
    def fails(visit: Visit, step: int) -> None:
        if step == 3:
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        sweep(PaperBench(fails=fails), path=tmp_path / "a.tape", **GRID)


# broken off


def interrupted(path: Path, after: int, **more: Any) -> None:
    """Ctrl-C in the middle of a visit, so many visits in."""
    bench: PaperBench

    def fails(visit: Visit, step: int) -> None:
        if len(bench.visits) > after:
            raise KeyboardInterrupt

    bench = PaperBench(fails=fails)
    with pytest.raises(KeyboardInterrupt):
        sweep(bench, path=path, **{**GRID, **more})


@pytest.mark.parametrize("after", [0, 1, 7, 20])
def test_the_same_call_goes_on_where_it_was_broken_off(after: int, tmp_path: Path) -> None:
    path = tmp_path / "a.tape"
    interrupted(path, after)
    with tt.open(path) as tape:
        assert tape.state == "partial" and len(whole(tape)) == after
        assert not tape.verify()
    bench = PaperBench()
    tape = sweep(bench, path=path, **GRID)
    wanted = schedule([Cell(**cell) for cell in tape.notes["sweep"]["cells"]], Plan((16, 32, 64), (1, 2), repeat=3))
    assert whole(tape) == wanted and len(tape.runs) == len(wanted), "each visit once, in the order planned"
    assert bench.visits == wanted[after:]
    assert tape.state == "complete" and not tape.verify()
    starts = tape.columns("step")["start_ns"]
    assert (np.diff(starts) >= 0).all(), "one time axis"


def test_several_times(tmp_path: Path) -> None:
    for _ in range(3):
        interrupted(tmp_path / "a.tape", 6)
    tape = sweep(PaperBench(), path=tmp_path / "a.tape", resume=True, **GRID)
    assert set(Counter(whole(tape)).values()) == {1} and not tape.verify()


def test_what_is_complete_is_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "a.tape"
    n = len(sweep(PaperBench(), path=path, **GRID).runs)
    with pytest.raises(TapeExists, match="complete"):
        sweep(PaperBench(), path=path, **GRID)
    bench = PaperBench()
    assert len(sweep(bench, path=path, resume=True, **GRID).runs) == n and not bench.visits
    assert len(sweep(PaperBench(), path=path, overwrite=True, **{**GRID, "repeat": 1}).runs) < n


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"repeat": 4}, "repeat is 4 now, 3 there"),
        ({"batch": "1,4"}, r"batches is \[1, 4\] now, \[1, 2\] there"),
        ({"seed": 1}, "seed is 1 now, 0 there"),
        ({"budget_s": 5.0}, "budget_s is 5.0 now, None there"),
    ],
)
def test_another_plan_is_refused_with_what_differs(more: dict[str, Any], said: str, tmp_path: Path) -> None:
    interrupted(tmp_path / "a.tape", 3)
    with pytest.raises(TapeExists, match=said):
        sweep(PaperBench(), path=tmp_path / "a.tape", **{**GRID, **more})


def test_another_setting_is_refused_with_what_differs(tmp_path: Path) -> None:
    interrupted(tmp_path / "a.tape", 3)
    with pytest.raises(UsageError, match="model is 'other' now, 'paper' there"):
        sweep(PaperBench(facts={"model": "other"}), path=tmp_path / "a.tape", **GRID)


def test_what_is_no_sweep_is_left_alone(tmp_path: Path) -> None:
    tape = tmp_path / "a.tape"
    tt.record(tt.ScriptedSource([tt.Line(1, "a")]), "x", path=tape).close()
    with pytest.raises(TapeExists, match="no sweep"):
        sweep(PaperBench(), path=tape, **GRID)
    other = tmp_path / "b.tape"
    other.write_text("mine")
    with pytest.raises(TapeExists, match="no tape"):
        sweep(PaperBench(), path=other, **GRID)
    with pytest.raises(UsageError, match="resume"):
        sweep(PaperBench(), path=tmp_path / "c.tape", resume=True, **GRID)
    with pytest.raises(UsageError, match="resume"):
        sweep(PaperBench(), resume=True, **GRID)


def test_a_sweep_under_way_is_left_alone(tmp_path: Path) -> None:
    asked = {**GRID, "context": 16, "repeat": 1, "path": tmp_path / "a.tape"}
    refused = []

    def again(progress: Progress) -> None:
        with pytest.raises(TapeBusy):
            sweep(PaperBench(), **asked)
        refused.append(progress.n_done)

    sweep(PaperBench(), observer=again, **asked).close()
    assert refused


def test_what_was_impossible_is_not_tried_again(tmp_path: Path) -> None:
    bench: PaperBench

    def fails(visit: Visit, step: int) -> None:
        if visit.cell == Cell("decode", 16, 2):
            raise MemoryError
        if len(bench.visits) > 15:
            raise KeyboardInterrupt

    bench = PaperBench(fails=fails)
    with pytest.raises(KeyboardInterrupt):
        sweep(bench, path=tmp_path / "a.tape", **GRID)
    after = PaperBench()
    tape = sweep(after, path=tmp_path / "a.tape", **GRID)
    assert Cell("decode", 16, 2) not in {visit.cell for visit in after.visits}
    assert set(Counter(whole(tape)).values()) == {1}


def test_going_on_with_less_memory(tmp_path: Path) -> None:
    """What the system ended the process for is left out by telling a smaller memory."""
    heavy = Footprint(kv_bytes=1000, state_bytes=0, logits_bytes=0, hidden_bytes=0, score_bytes=0)
    bench: PaperBench

    def fails(visit: Visit, step: int) -> None:
        if visit.cell == Cell("decode", 64, 2):
            raise KeyboardInterrupt

    bench = PaperBench(fails=fails, footprint=heavy)
    with pytest.raises(KeyboardInterrupt):
        sweep(bench, path=tmp_path / "a.tape", **GRID)
    tape = sweep(PaperBench(footprint=heavy), path=tmp_path / "a.tape", memory_bytes=150_000, **GRID)
    assert tape.state == "complete" and not tape.verify()
    left_out = [(one["kind"], one["context"], one["batch"]) for one in tape.notes["sweep"]["left_out"]]
    assert left_out == [("prefill", 64, 2), ("decode", 64, 2)]
    visits = whole(tape)
    assert set(Counter(visits).values()) == {1}
    assert {visit.cell for visit in visits} == {Cell(**one) for one in tape.notes["sweep"]["cells"]}


# a budget


@pytest.mark.parametrize("budget_s", [0.2, 1.0])
def test_a_budget_is_spent_and_not_exceeded(budget_s: float) -> None:
    bench = PaperBench()
    tape = sweep(bench, context="16..1024", batch="1,2,4", steps=4, budget_s=budget_s)
    spent_s = bench.clock.now_ns / 1e9
    assert 0.6 * budget_s < spent_s <= budget_s
    visits = whole(tape)
    assert set(Counter(visits).values()) == {1} and not tape.verify()
    places = [place for place, visit in enumerate(visits) if visit.reference]
    assert places[0] == 0 and max(np.diff(places)) <= REFERENCE_EVERY + 1


def test_a_larger_budget_narrows_the_law() -> None:
    noise = np.random.default_rng(0)

    def noisy(cell: Cell) -> int:
        return round(law(cell) * float(np.exp(0.03 * noise.normal())))

    errors = []
    for budget_s in (0.6, 3.0):
        tape = sweep(PaperBench(noisy), context="16..1024", batch="1,2,4", steps=4, budget_s=budget_s)
        found = {one["kind"]: one for one in tape.notes["sweep"]["outlook"]}
        errors.append(found)
        assert found["decode"]["n_visited"] >= 5 and found["decode"]["n_cells"] == 21
    for kind in ("decode", "prefill"):
        assert 0 < errors[1][kind]["error"] < errors[0][kind]["error"] < 0.03


def test_the_first_visits_are_made_however_small_the_budget() -> None:
    tape = sweep(PaperBench(), **{**GRID, "budget_s": 1e-6})
    assert [visit.reference for visit in whole(tape)] == [True]


def test_a_budget_goes_on_with_what_is_left_of_it(tmp_path: Path) -> None:
    interrupted(tmp_path / "a.tape", 12, budget_s=1.0)
    with tt.open(tmp_path / "a.tape") as tape:
        spent_s = sum(int((s["end_ns"] - s["start_ns"]).data.sum()) for _, s in steps_of(tape)) / 1e9
    bench = PaperBench()
    tape = sweep(bench, path=tmp_path / "a.tape", **GRID, budget_s=1.0)
    assert set(Counter(whole(tape)).values()) == {1}
    assert bench.clock.now_ns / 1e9 <= 1.0 - spent_s + 0.05


# real models

KV = {"bloom": 2 * 2 * 32 * 4, "llama": 2 * 2 * 2 * 8 * 4, "gpt2": 2 * 2 * 32 * 4}
"""Bytes of a position: keys and values of two layers in float32."""


@pytest.mark.parametrize("family", KV)
def test_a_filled_cache_is_as_long_as_one_that_was_read(family: str) -> None:
    source = tt.LocalSource(causal(family))
    before = source.causal.model.generation_config
    tape = sweep(source, context="16,40", batch="1,3", repeat=1, steps=3)
    assert source.causal.model.generation_config is before
    assert not tape.verify()
    for visit, steps in steps_of(tape):
        cell = visit.cell
        assert steps["batch"].tolist() == [cell.batch] * len(steps["batch"])
        if cell.kind == "prefill":
            assert (steps["context"].tolist(), steps["n_in"].tolist()) == ([cell.context], [cell.context * cell.batch])
        else:
            assert steps["context"].tolist() == [cell.context + i for i in range(4)]
            assert steps["n_in"].tolist() == [cell.batch] * 4, "one token a sequence, the first step too"
            assert steps["kind"].tolist() == [0, 1, 1, 1]
        assert steps["cache_bytes"][-1] == KV[family] * cell.batch * (steps["context"][-1])
    assert {trace.finish_reason for trace in tape.traces} == {"length"}


def test_the_pattern_is_repeated_over_positions_and_sequences() -> None:
    bench = LocalBench(tt.LocalSource(causal("bloom")))
    with bench.ready():
        bench._fill(5)
        made = bench._cache(12, 2)
        pattern = bench._pattern
    assert made is not None and made.get_seq_length() == 12
    for mine, theirs in zip(made.layers, pattern.layers, strict=True):
        for name in ("keys", "values"):
            got, given = getattr(mine, name), getattr(theirs, name)
            assert got.shape[0] == 2 and got.is_contiguous()
            for position in range(12):
                assert torch.equal(got[1, :, position], given[0, :, position % 5])
            smallest = given[given != 0].abs().min()
            assert smallest > torch.finfo(given.dtype).tiny, "no denormal numbers"


@pytest.mark.parametrize("context", [10, 16, 40])
def test_a_sliding_window_holds_what_it_would_after_reading(context: int) -> None:
    source = tt.LocalSource(causal("mistral"))
    tape = sweep(source, context=context, batch=2, repeat=1, steps=2, kinds=["decode"])
    read = tt.record(source, [list(range(1, context + 1))] * 2, max_new_tokens=3, eos_token_id=263, probe="timing")
    for _, steps in steps_of(tape):
        assert steps["context"].tolist() == [context, context + 1, context + 2]
        assert steps["n_in"].tolist() == [2, 2, 2]
        assert steps["cache_bytes"][-1] == read.traces[0].steps["cache_bytes"][-1]


@pytest.mark.parametrize("family", ["mamba", "rwkv"])
def test_a_state_that_cannot_be_filled_is_read(family: str) -> None:
    tape = sweep(tt.LocalSource(causal(family)), context=12, batch=2, repeat=1, steps=2, kinds=["decode"])
    for _, steps in steps_of(tape):
        assert steps["n_in"].tolist() == [24, 2, 2], "the first step is a prefill"
    assert not any(run.options["sweep"]["filled"] for run in tape.runs)


def test_a_context_at_the_last_position_leaves_room_for_its_steps() -> None:
    tape = sweep(tt.LocalSource(causal("gpt2")), context=128, batch=1, repeat=1, steps=4)
    contexts = {visit.cell.kind: steps["context"].tolist() for visit, steps in steps_of(tape)}
    assert contexts["prefill"] == [127], "one token follows"
    assert contexts["decode"][-1] <= 128 and len(contexts["decode"]) == 5


def test_the_footprint_is_that_of_the_model() -> None:
    for family, attends in (("bloom", "eager"), ("llama", "sdpa")):
        bench = LocalBench(tt.LocalSource(causal(family)))
        with bench.ready():
            found = bench.footprint()
        assert found.kv_bytes == KV[family] and found.state_bytes == 0
        assert found.logits_bytes == 4 * 264
        assert causal(family).model.config._attn_implementation == attends
        assert found.score_bytes == (4 * 4 if attends == "eager" else 4)
    mamba = LocalBench(tt.LocalSource(causal("mamba")))
    with mamba.ready():
        assert mamba.footprint().kv_bytes == 0 and mamba.footprint().state_bytes > 0


def test_end_of_text_does_not_end_a_visit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causal("llama").model.generation_config, "eos_token_id", list(range(264)))
    tape = sweep(tt.LocalSource(causal("llama")), context=16, batch=1, repeat=1, steps=6, kinds=["decode"])
    assert {len(steps["index"]) for _, steps in steps_of(tape)} == {7}


KILLED = """
import sys
from tokentape.experiment.sweep import sweep
import tokentape as tt
sweep(tt.local("demo"), context="16..64", batch="1,2", repeat=12, steps=8, path=sys.argv[1]).close()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_sweep_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.tape"
    plan: dict[str, Any] = {"context": "16..64", "batch": "1,2", "repeat": 12, "steps": 8}
    child = subprocess.Popen([sys.executable, "-c", KILLED, path], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    n = 0
    while n < 5 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
        if path.exists():
            with tt.open(path) as tape:
                n = len(tape.runs)
    child.kill()
    child.wait()
    with tt.open(path) as tape:
        assert tape.state == "partial" and not tape.verify()
        kept = whole(tape)
    assert len(kept) >= 4
    torch.set_num_threads(1)
    tape = sweep(tt.local("demo"), path=path, **plan)
    wanted = schedule([Cell(**cell) for cell in tape.notes["sweep"]["cells"]], Plan((16, 32, 64), (1, 2), repeat=12))
    assert whole(tape) == wanted and len(tape.runs) == len(wanted)
    assert whole(tape)[: len(kept)] == kept
    assert tape.state == "complete" and not tape.verify()
