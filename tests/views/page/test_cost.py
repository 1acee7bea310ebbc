"""The part Cost: marks, figures and predictions against the counts of `study`, by hand and by `predict`."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokentape
from study.paper import Take, paper
from tokentape import Line
from tokentape.data.tape import Tape
from tokentape.recorder.tick import Said
from tokentape.study.cost.counting import workload
from tokentape.study.cost.hardware import CATALOGUE, Hardware, find_hardware
from tokentape.study.cost.memory import memory_needed
from tokentape.study.cost.prediction import predict
from tokentape.study.cost.roofline import roof
from tokentape.views.page.cost import cost_part
from tokentape.views.page.cost_steps import MOST_MARKS, works_of_runs
from tokentape.views.page.roofs import machine_of, rate_text, roof_line
from tokentape.words.catalogue import Message, said
from views.page.pages import words_of

MS = 1_000_000
CONFIG = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 1000, "max_position_embeddings": 4096,
}  # fmt: skip
FACTS = {"model": "paper", "engine": "scripted", "config": CONFIG, "dtype": "bfloat16", "hostname": "elsewhere"}
WORK = workload({**CONFIG, "dtype": "bfloat16"}, pairs="seen")
MACHINE = Hardware(
    "this machine (cpu)", {"bfloat16": 2.0}, 16, 100.0, None, None, "measured", layer_floor_ns=500.0,
    one_row_gb_s={"bfloat16": 50.0}, measured="2026-11-26 12:00", details={"threads": 2},
)  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def measured_here(tmp_path: Path, machine: Hardware = MACHINE) -> None:
    (tmp_path / "tokentape").mkdir()
    (tmp_path / "tokentape" / "machine.json").write_text(json.dumps(machine.as_dict()))


def taped(n: int = 12, prompt: int = 5, ms: Any = lambda i: 2.0 + i % 3, batch: int = 1, **facts: Any) -> Tape:
    """A tape whose i-th step after the prompt takes ``ms(i)`` and attends ``prompt + i`` positions."""
    lines = [
        Line(round((20.0 if i == 0 else ms(i)) * MS), [Said(row, 1, b"a") for row in range(batch)], context=prompt + i)
        for i in range(n)
    ]
    source = tokentape.ScriptedSource(lines, facts={**FACTS, **facts})
    prompts: Any = [" a" * (prompt - 1)] * batch
    return tokentape.record(source, prompts if batch > 1 else prompts[0])


def figures(part: Any) -> dict[str, Any]:
    """By what they are called in English; of two of one name the last."""
    return {said(Message.of(figure["label"])): figure for figure in part["figures"]}


def test_marks_are_counted_work_over_measured_time() -> None:
    part = cost_part(taped())
    (run,) = part["runs"]
    assert run["step"] == list(range(12)) and run["decode"] == [0] + [1] * 11
    for i in range(12):
        work = WORK.prefill(5, 1) if i == 0 else WORK.decode(5 + i, 1)
        flops = work.flops + work.attention_flops
        moved = work.weight_bytes + work.kv_bytes + work.kv_write_bytes
        ns = 20 * MS if i == 0 else (2 + i % 3) * MS
        assert run["ns"][i] == ns
        assert run["intensity"][i] == pytest.approx(flops / moved, rel=1e-3)
        assert run["flops_per_s"][i] == pytest.approx(flops / ns * 1e9, rel=1e-3)
        assert run["bytes_per_s"][i] == pytest.approx(moved / ns * 1e9, rel=1e-3)
    assert run["share"] == run["reach"] == [None] * 12
    assert part["roofs"]["run"] == "tokentape doctor --measure" and part["span"][0] < min(run["intensity"])


def test_a_machine_measured_here_gives_its_roof(tmp_path: Path) -> None:
    measured_here(tmp_path)
    tape = taped(hostname=socket.gethostname())
    part = cost_part(tape)
    (run,) = part["runs"]
    for i in (0, 1, 11):
        work, rows = (WORK.prefill(5, 1), 5) if i == 0 else (WORK.decode(5 + i, 1), 1)
        least = roof(work, MACHINE, "bfloat16", rows=rows).ns
        assert run["share"][i] == pytest.approx(least / run["ns"][i], rel=1e-3)
        assert run["reach"][i] == pytest.approx((work.flops + work.attention_flops) / least * 1e9, rel=1e-3)
    plain, row = part["roofs"]
    assert (plain["badge"], plain["one_row"], row["one_row"]) == ("measured", 0, 1)
    assert plain["line"][2:4] == [20, 2e12] and row["line"][2:4] == [40, 2e12]
    told = figures(part)
    assert told["memory bandwidth of the machine"]["text"] == "100 GB/s"
    assert told["memory bandwidth of the machine"]["badge"] == "measured"
    assert told["decode step: share of the roof"]["badge"] == "modelled"
    assert part["caption"]["key"] == "page_cost.caption_roof"


def test_threads_that_differ_are_told(tmp_path: Path) -> None:
    measured_here(tmp_path)
    here = socket.gethostname()
    assert machine_of({"hostname": here, "torch_threads": 1}).note.args == {
        "when": "2026-11-26 12:00",
        "n": 2,
        "used": 1,
    }
    assert machine_of({"hostname": here, "torch_threads": 2}).note.key == "page_cost.machine_measured"


def test_whose_machine_it_is(tmp_path: Path) -> None:
    measured_here(tmp_path)
    here = {"hostname": socket.gethostname()}
    assert machine_of({"hostname": "elsewhere"}).badge == "unavailable"
    assert machine_of({"hostname": "elsewhere", "processor": "AMD EPYC"}).hardware is None, (
        "which of them it is, is not told"
    )
    sheet = machine_of({**here, "gpu": "NVIDIA H100 80GB HBM3+NVIDIA H100 80GB HBM3"})
    assert (sheet.badge, sheet.hardware and sheet.hardware.name) == ("modelled", "H100-SXM"), (
        "what was measured is a processor"
    )
    (tmp_path / "tokentape" / "machine.json").write_text("{}")
    assert machine_of(here).note.key == "page_cost.machine_damaged"


@pytest.mark.parametrize(
    ("told", "name"),
    [("NVIDIA A100-SXM4-40GB", "A100-40GB-SXM"), ("NVIDIA A100-SXM4-80GB", "A100-80GB-SXM"), ("NVIDIA H100 PCIe", "H100-PCIe"),
     ("NVIDIA A100-PCIE-40GB", "A100-40GB-PCIe"), ("NVIDIA A100 80GB PCIe", "A100-80GB-PCIe"), ("Tesla T4", "T4"),
     ("Tesla V100-SXM2-32GB", "V100-SXM2-32GB"), ("NVIDIA GeForce RTX 4090", "RTX-4090"), ("AMD Instinct MI300X", "MI300X"),
     ("NVIDIA H200", "H200"), ("NVIDIA L4", "L4"), ("NVIDIA A10G", None), ("/etc/hostname", None), ("", None)],
)  # fmt: skip
def test_gpus_are_known_by_the_names_that_drivers_give(told: str, name: str | None) -> None:
    found = machine_of({"gpu": told}).hardware
    assert (None if found is None else found.name) == name


def test_predictions_are_those_of_predict() -> None:
    part = cost_part(taped(n=9, prompt=7, batch=2))
    table = part["accelerators"]
    assert (table["context"], table["batch"], table["new_tokens"]) == (7, 2, 9)
    assert table["name"] == [machine.name for machine in CATALOGUE]
    config = {**CONFIG, "dtype": "bfloat16"}
    for i, machine in enumerate(CATALOGUE):
        if table["decode_ns"][i] is None:
            continue
        p = predict(config, hardware=machine.name, context=7, batch=2, new_tokens=9)
        for name in ("prefill_ns", "decode_ns", "tokens_per_s", "request_ns"):
            assert table[name][i] == pytest.approx(p[name], rel=1e-3), (machine.name, name)
        for name in ("prefill_bound", "decode_bound", "largest_batch", "largest_context"):
            assert table[name][i] == p[name], (machine.name, name)
        assert table["fits"][i] == (None if p["fits"] is None else int(p["fits"]))
        assert table["peak_bytes"] == round(p["peak_bytes"])


def test_a_machine_without_the_dtype_has_gaps_and_no_zeros() -> None:
    table = cost_part(taped(dtype="float32"))["accelerators"]
    at = table["name"].index("TPU-v6e")
    for name in ("prefill_ns", "decode_ns", "tokens_per_s", "request_ns", "decode_bound", "dtype", "roof"):
        assert table[name][at] is None
    assert table["memory_bytes"][at] == 32e9 and table["fits"][at] == 1


def test_memory_of_a_real_model_is_what_was_counted() -> None:
    tape = tokentape.record(tokentape.local("demo"), "Once upon a time", max_new_tokens=5)
    part = cost_part(tape)
    (run,) = part["memory"]["runs"]
    assert len(run["step"]) > 1 and run["cache"] == run["modelled"] and None not in run["cache"]
    assert run["device"] == [None] * len(run["step"]), "no device: a gap, not a zero"
    of_tokens = [f for f in part["figures"] if f["label"]["key"] == "page_cost.cache_per_token"]
    assert [(f["badge"], f["value"]) for f in of_tokens] == [("modelled", 4096), ("measured", 4096)]
    assert part["memory"]["caption"]["key"] == "page_cost.grown_exact"


def test_what_was_not_read_is_unavailable() -> None:
    told = figures(cost_part(taped()))
    needed = memory_needed(workload({**CONFIG, "dtype": "bfloat16"}), 5, 1, 12)
    assert told["memory needed for the longest request"]["value"] == pytest.approx(needed.peak_bytes, abs=1)
    assert told["cache, at most"] == {**told["cache, at most"], "text": None, "value": None, "badge": "unavailable"}
    assert told["weights"]["value"] == pytest.approx(WORK.weight_bytes, rel=1e-5)
    assert (told["cache for each token"]["badge"], told["cache for each token"]["value"]) == ("unavailable", None)


def test_a_step_of_the_caption_is_the_one_that_the_part_time_calls_the_middle() -> None:
    part = cost_part(taped(40, prompt=500, ms=lambda i: 9.0 - i / 10))  # later steps do more in less time
    times = sorted(9.0 - i / 10 for i in range(1, 40))
    assert figures(part)["decode step: time"]["value"] == pytest.approx(times[19] * MS)
    assert "It took 7.00 ms" in said(Message.of(part["caption"]))


def test_given_text_asks_nothing_of_other_machines() -> None:
    lines = [Line(20 * MS, [Said(0, 1, b"a")] * 9, context=10)]
    part = cost_part(paper(Take(lines, "given"), **FACTS))
    assert part["accelerators"]["missing"]["key"] == "page_cost.no_request_given"
    assert "memory needed for the longest request" not in figures(part)


def test_behind_a_window_the_cache_is_held_against_the_positions_that_it_holds() -> None:
    source = tokentape.local("demo")
    part = cost_part(tokentape.record(source, "Once", max_new_tokens=40, window=8, sinks=2, eos_token_id=None))
    told = figures(part)["cache for each token"]
    assert told["badge"] == "measured" and told["value"] == pytest.approx(4096, rel=0.01), (
        "not spread over what it let go"
    )
    assert part["memory"]["caption"]["key"] == "page_cost.grown_near"
    assert said(Message.of(part["accelerators"]["asked"])).endswith("without the window of 8.")
    assert figures(part)["memory needed for the longest request"]["note"]["key"] == "page_cost.peak_why_window"


def test_a_tape_without_a_configuration_says_what_to_run() -> None:
    part = cost_part(taped(config=None))
    assert set(part) == {"missing", "run"} and "record" in part["run"]
    unknown = cost_part(taped(config={"model_type": "abacus"}))
    assert "abacus" in said(Message.of(unknown["missing"]))
    assert words_of(part) and words_of(unknown)


def test_steps_of_unknown_context_are_counted_as_left_out() -> None:
    lines = [Line(5 * MS, "a", context=4), Line(MS, "b", context=None), Line(MS, "c", context=6)]
    tape = tokentape.record(tokentape.ScriptedSource(lines, facts=FACTS), "one two")
    part = cost_part(tape)
    assert part["runs"][0]["step"] == [0, 2] and part["left_out"]["args"] == {"n": 1}
    blind = tokentape.record(tokentape.ScriptedSource([Line(MS, "a")], facts=FACTS), "one two")
    part = cost_part(blind)
    assert part["runs"] == [] and part["caption"]["key"] == "page_cost.caption_none"
    json.dumps(part, allow_nan=False)


def test_long_runs_are_gathered_into_medians_and_lose_no_step() -> None:
    n = MOST_MARKS + 700
    tape = taped(n, ms=lambda i: 900.0 if i % 50 == 0 else 3.0)
    (run,) = works_of_runs(tape, WORK, None)
    assert len(run.ns) <= MOST_MARKS + 1 and int(run.n.sum()) == n
    assert run.n[0] == 1 and not run.decode[0], "the prefill stands alone"
    assert run.step.tolist() == [0, *(1 + np.cumsum(run.n[1:-1]))] or run.step[1] == 1
    assert (np.diff(run.step) == run.n[:-1]).all()
    contexts = 5 + np.arange(n)
    for k in (1, 17, len(run.n) - 1):
        first, size = int(run.step[k]), int(run.n[k])
        assert run.context[k] == pytest.approx(contexts[first : first + size].mean())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 10**10), st.integers(1, 5000) | st.none()), min_size=1, max_size=30),
    st.sampled_from(["float32", "bfloat16", "float16"]),
)
def test_any_tape_becomes_json_whose_messages_can_be_said(steps: list[tuple[int, int | None]], dtype: str) -> None:
    lines = [Line(ns, "a", context=context) for ns, context in steps]
    tape = tokentape.record(tokentape.ScriptedSource(lines, facts={**FACTS, "dtype": dtype}), "x y z")
    part = cost_part(tape)
    json.dumps(part, allow_nan=False)
    assert all(words_of(part))
    placed = sum(sum(run["n"]) for run in part["runs"])
    left = 0 if part["left_out"] is None else part["left_out"]["args"]["n"]
    assert placed + left == len(steps)


def test_roof_line_by_hand() -> None:
    line = roof_line(MACHINE, "bfloat16", 2, (0.5, 1000.0))
    assert line == [0.5, 1e11, 20, 4e12, 1000, 4e12]
    assert (
        rate_text(3.35e12, "B/s") == "3.35 TB/s" and rate_text(999.9, "B/s") == "1 kB/s" and rate_text(None, "") is None
    )
    assert find_hardware("h100").bandwidth_gb_s == 3350
