"""The part Time: against the script that the steps follow, and against counts by hand."""

from __future__ import annotations

import json
import socket
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tokentape
from data import tapes
from tokentape import Line, ScriptedSource
from tokentape.data.request import Run, TraceHead
from tokentape.data.store import TapeWriter
from tokentape.data.tape import Tape
from tokentape.recorder.tick import Said
from tokentape.study.cost.counting import workload
from tokentape.study.cost.hardware import Hardware
from tokentape.study.percentiles import samples_needed
from tokentape.views.page import time_law
from tokentape.views.page.time import _prefill, time_part
from tokentape.views.page.time_late import late_steps
from tokentape.views.units import duration
from tokentape.words.catalogue import LANGS, Message, said
from views.page.pages import messages

MS = 1_000_000
CONFIG = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 1000, "max_position_embeddings": 4096,
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def taped(times_ns: list[int], *, prompt: int = 8, prefill_ns: int = 40 * MS, pause_ns: int = 0, **facts: Any) -> Tape:
    """A prefill of ``prefill_ns``, then a step for each of ``times_ns``, each with one token and one more position."""
    lines = [Line(prefill_ns, [Said(0, 1, b"a")], context=prompt)]
    lines += [Line(ns, [Said(0, 1, b"a")], pause_ns=pause_ns, context=prompt + 1 + i) for i, ns in enumerate(times_ns)]
    source = ScriptedSource(lines, facts={"model": "paper", "engine": "scripted", **facts})
    return tokentape.record(source, " a" * (prompt - 1), probe="timing")


def lawful(n: int = 300, base: int = 2 * MS, slope: int = 5000) -> list[int]:
    """Steps that follow ``base + slope * context`` exactly."""
    return [base + slope * (9 + i) for i in range(n)]


@pytest.mark.parametrize("n", [0, 1, 5, 300])
def test_a_part_is_plain_json_and_says_what_it_says_in_both_languages(n):
    part = time_part(taped(lawful(n)), 0)
    assert json.loads(json.dumps(part, allow_nan=False)) == part
    for message in messages(part):
        for lang in LANGS:
            assert said(message, lang)


def test_the_caption_names_the_middle_and_the_slowest_step_and_no_prefill():
    times = [3 * MS, 2 * MS, 9 * MS, 2 * MS, 4 * MS]
    part = time_part(taped(times), 0)
    args = part["caption"]["args"]
    assert args["n"] == 5
    assert args["median"] == duration(statistics.median(times))
    even = time_part(taped([2 * MS + (i * 7919) % 1009 * 1000 for i in range(40)]), 0)
    median = even["caption"]["args"]["first"]["args"]["median"]
    assert median == even["percentiles"][0]["text"], "one median, not two"
    assert (args["step"], args["most"]) == (3, duration(9 * MS))  # the prefill is step 0
    assert part["prefill"]["figures"][0]["value"] == 40 * MS
    assert all(figure["value"] in (None, *times) for figure in part["percentiles"])


def test_percentiles_come_with_their_n_or_say_how_many_are_missing():
    part = time_part(taped([2 * MS + (i * 7919) % 1009 for i in range(40)]), 0)
    p50, *_, p99 = part["percentiles"]
    assert p50["badge"] == "measured" and p50["note"]["args"]["n"] == 40
    assert p99["text"] is None and p99["value"] is None and p99["badge"] == "unavailable"
    worth = p99["note"]["args"]["worth"]
    assert p99["note"]["args"]["missing"] >= samples_needed(99) - 40 >= 1 and worth <= 40


def test_the_law_of_lawful_steps_is_found_and_told_at_its_knots():
    part = time_part(taped(lawful()), 0)
    law = part["law"]
    by_step = {i + 1: ns for i, ns in enumerate(lawful())}
    assert 2 < len(law["knots"]) <= time_law.KNOTS and (law["knots"][0], law["knots"][-1]) == (1, 300)
    for step, ns, low, high in zip(law["knots"], law["ns"], law["low"], law["high"], strict=True):
        assert ns == pytest.approx(by_step[step], rel=0.01)
        assert low <= ns <= high
    assert law["index"] == 1 and len(law["ratio"]) == 300
    assert law["ratio"] == pytest.approx([1.0] * 300, rel=0.01)
    slopes = [
        one for one in law["coefficients"] if one["value"] and one["name"]["key"].endswith(("key-value", "positions"))
    ]
    assert sum(one["value"] for one in slopes) == pytest.approx(5000, rel=0.05)


def test_what_context_costs_is_said_for_the_batch_of_the_run():
    lines = [Line(40 * MS, [Said(row, 1, b"a") for row in range(3)], context=8)]
    lines += [
        Line(ns, [Said(row, 1, b"a") for row in range(3)], context=9 + i) for i, ns in enumerate(lawful(slope=6000))
    ]
    tape = tokentape.record(ScriptedSource(lines), [" a" * 7] * 3, probe="timing")
    args = time_part(tape, 0)["law"]["sentence"]["args"]
    assert args["batch"] == 3
    # a step of all three sequences grows by 6,000 ns a position, whichever term has it
    assert args["value"] in {duration(value) for value in np.arange(5.9e6, 6.11e6, 1e4)}


def test_few_steps_have_no_law_and_the_page_says_what_they_lack():
    part = time_part(taped(lawful(6), model="o'paper; rm"), 0)
    assert part["law"]["missing"]["args"] | {"n": 6, "low": 9, "high": 14} == part["law"]["missing"]["args"]
    assert part["law"]["run"] == "tokentape sweep 'o'\"'\"'paper; rm' --context 64..1024"


@pytest.mark.parametrize(("n", "per"), [(20, 10), (40, 100), (300, 1000)])
def test_what_context_costs_is_told_for_about_as_many_tokens_as_were_measured(n, per):
    sentence = time_part(taped(lawful(n, slope=40_000)), 0)["law"]["sentence"]
    args = sentence["args"]
    assert sentence["key"].startswith("page_time.law_context")
    assert args["per"] == per and 9 <= args["first"] <= 10 and 0.9 * n < args["last"] <= 8 + n
    assert args["value"] in {duration(per * slope) for slope in range(39_200, 40_801, 10)}


def test_where_no_step_came_after_the_prompt_nothing_is_said_of_steps():
    part = time_part(taped([], config=CONFIG), 0)
    assert part["caption"]["key"] == "page_time.caption_prefill_only"
    assert part["late_caption"]["key"] == "page_time.late_no_steps"
    assert part["floor"]["missing"]["key"] == "page_time.no_floor", "the configuration is there: it lacks steps"
    one = time_part(taped([2 * MS]), 0)
    assert said(Message.of(one["caption"])) == "One step after the prompt: step 1 took 2.00 ms on the host's clock."


def test_a_prefill_is_told_of_one_prompt_of_several_and_of_given_text():
    def told(batch: int, n_in: int | None = 7, passes: int = 1, *, given: bool = False) -> str:
        ns, kind = np.full(passes, 40.0 * MS), np.zeros(passes, np.int64)
        columns = {"n_in": np.ma.masked_invalid([np.nan if n_in is None else n_in] * passes), "batch": [batch] * passes}
        part = _prefill(columns, kind, ns, "host", given=given)
        return said(Message.of(part["caption"]))

    assert told(1).startswith("The prompt's 7 tokens were read in 40.0 ms")
    assert told(1, 1).startswith("The prompt's 1 token was read in 40.0 ms")
    assert told(3, None).startswith("The first tokens were known after 40.0 ms")
    assert told(3, 21).startswith(
        "The prompts of 3 sequences were read together, 21 tokens with their padding, in 40.0 ms"
    )
    assert told(1, given=True) == "7 given tokens were read in 40.0 ms on the host's clock, 175 tokens/s."
    assert told(1, passes=4, given=True) == (
        "7 given tokens were read in 40.0 ms on the host's clock, 175 tokens/s: the first of 4 such passes."
    )


def test_steps_of_unknown_context_are_drawn_and_have_no_law():
    tape = tokentape.record(ScriptedSource([Line(2 * MS, [Said(0, 1, b"a")]) for _ in range(50)]), "a", probe="timing")
    part = time_part(tape, 0)
    assert part["law"]["missing"]["key"] == "page_time.no_law_unplaced"
    assert part["caption"]["args"]["n"] == 49


def test_the_law_is_fitted_once_for_a_tape_and_not_while_it_grows(monkeypatch):
    calls = []
    fit = time_law.fit
    monkeypatch.setattr(time_law, "fit", lambda tape: calls.append(1) or fit(tape))
    tape = taped(lawful(100))
    assert "missing" not in time_part(tape, 0)["law"]
    time_part(tape, 0)
    assert len(calls) == 1
    growing = taped(lawful(100))
    growing.state = "recording"
    assert time_part(growing, 0)["law"]["missing"]["key"] == "page_time.no_law_yet"
    assert len(calls) == 1


def test_late_steps_are_those_far_above_the_law_not_above_the_median():
    times = lawful(300, base=MS, slope=20_000)
    assert times[-1] > 1.5 * statistics.median(times), "ordinary at its context, and far above the median"
    times[20] *= 3
    part = time_part(taped(times), 0)
    assert [one["step"] for one in part["late"]] == [21]
    assert part["late"][0]["times"] == pytest.approx(3, rel=0.05)
    assert part["late_caption"]["args"] | {"n": 1, "of": 300, "unknown": 1} == part["late_caption"]["args"]


def test_where_some_steps_are_far_above_the_others_the_scale_is_logarithmic():
    assert time_part(taped([2 * MS] * 50), 0)["scale"] == "linear"
    assert time_part(taped([2 * MS] * 50 + [30 * MS]), 0)["scale"] == "log"


def columns(ms: list[float], **more: Any) -> dict[str, Any]:
    ends = np.cumsum([round(one * MS) for one in ms])

    def masked(values: list[Any] | None) -> Any:
        given = [None] * len(ms) if values is None else values
        return np.ma.MaskedArray([0 if v is None else round(v) for v in given], mask=[v is None for v in given])

    names = ("gc_ns", "gc_count", "switches", "cpu_ns")
    found = {name: masked(more.get(name)) for name in names}
    return {"start_ns": ends - [round(one * MS) for one in ms], "end_ns": ends, **found}


def late(ms: list[float], left_out: dict[int, int] | None = None, **more: Any) -> list[str | None]:
    ns = np.array(ms) * MS
    found = late_steps(columns(ms, **more), np.arange(len(ms)), ns, np.full(len(ms), 2.0 * MS), left_out or {})
    return [one.cause for one in found]


def test_the_cause_of_a_late_step_explains_half_of_its_excess():
    ms = [2.0, 2.0, 8.0, 2.0]
    none = [0, 0, 0, 0]
    assert late(ms) == [None]
    assert late(ms, gc_ns=[0, 0, 3 * MS, 0], gc_count=[0, 0, 1, 0]) == ["gc"]
    assert late(ms, gc_ns=[0, 0, 2.9 * MS, 0], gc_count=[0, 0, 1, 0]) == [None]
    busy = [2 * MS, 2 * MS, 3 * MS, 2 * MS]
    assert late(ms, cpu_ns=busy, switches=[0, 0, 4, 0]) == ["switches"]
    assert late(ms, cpu_ns=busy, switches=none) == [None], "waited, and nobody pushed it off"
    assert late(ms, cpu_ns=[2 * MS, 2 * MS, 7.9 * MS, 2 * MS], switches=[0, 0, 4, 0]) == [None], "it computed all along"
    assert late(ms, cpu_ns=[2 * MS, 2 * MS, 9 * MS, 2 * MS], switches=[0, 0, 4, 0]) == [None], (
        "a reading of several steps"
    )
    shared = [9 * MS, 9 * MS, 6 * MS, 9 * MS]
    assert late(ms, cpu_ns=shared, switches=[0, 0, 4, 0]) == [None], (
        "nor do such readings tell what steps wait in any case"
    )
    assert late(ms, cpu_ns=[None, None, 3 * MS, None], switches=[None, None, 4, None]) == ["switches"]
    assert late(ms, left_out={2: 0}) == ["warm-up"]
    assert late([2.0, 2.0, 2.9, 2.0]) == [], "less than one and a half times"


def test_a_wait_that_every_step_has_is_no_cause():
    ms = [10.0, 10.0, 16.0, 10.0]
    ns = np.array(ms) * MS
    own = [MS, MS, 7 * MS, MS]  # 9 ms of each step pass waiting for a device
    found = late_steps(columns(ms, cpu_ns=own, switches=[1, 1, 1, 1]), np.arange(4), ns, np.full(4, 10.0 * MS), {})
    assert [one.cause for one in found] == [None]


def test_the_parts_of_the_time_add_up():
    times = [2 * MS, 3 * MS, 5 * MS]
    tape = taped(times, pause_ns=MS)
    split = time_part(tape, 0)["split"]
    by_name = {row["name"]["key"].rsplit("_", 1)[1]: row["ns"] for row in split["rows"]}
    assert sum(by_name.values()) == sum(times) + 3 * MS
    assert by_name["pause"] == 3 * MS
    assert by_name["forward"] == sum(times), "a script's step is its forward pass"
    assert sum(row["share"] for row in split["rows"]) == pytest.approx(1, abs=1e-3)
    assert "rules" not in by_name, "null where no rule ran, not zero"


def test_the_roofline_is_of_the_machine_that_was_measured_and_only_a_model(tmp_path):
    machine = Hardware(
        "this machine (cpu)", {"bfloat16": 2.0}, 16, 100.0, None, None, "measured", measured="2026-11-26 12:00"
    )
    (tmp_path / "tokentape").mkdir()
    (tmp_path / "tokentape" / "machine.json").write_text(json.dumps(machine.as_dict()))
    facts = {"config": CONFIG, "dtype": "bfloat16", "hostname": socket.gethostname()}
    floor = time_part(taped(lawful(40), **facts), 0)["floor"]
    assert floor["badge"] == "modelled"
    told = {lang: said(Message.of(floor["note"]), lang) for lang in LANGS}
    assert "this machine" not in told["en"], "a page may be read on another"
    assert told["zh"].startswith("录制所用的机器（cpu）的屋顶线")
    work = workload({**CONFIG, "dtype": "bfloat16"}, pairs="seen")
    for step, least in zip(floor["knots"], floor["ns"], strict=True):
        done = work.decode(8 + step, 1)
        moved = done.weight_bytes + done.kv_bytes + done.kv_write_bytes
        by_hand = max(moved / 100e9, (done.flops + done.attention_flops) / 2e12) * 1e9
        assert least == pytest.approx(by_hand, rel=1e-3)
    elsewhere = time_part(taped(lawful(40), **{**facts, "hostname": "elsewhere"}), 0)["floor"]
    assert "missing" in elsewhere, "another machine's peaks say nothing"
    unknown = time_part(taped(lawful(40), hostname=socket.gethostname()), 0)["floor"]
    assert unknown["missing"]["key"] == "page_time.no_config"


def test_runs_of_one_tape_have_their_own_steps(tmp_path):
    writer = TapeWriter.create(tmp_path / "two.tape", tapes.SETTING, notes={})
    for number, n_steps in enumerate((6, 4)):  # both begin at the same moment of the tape's clock
        writer.begin(Run((TraceHead(0, 3, (0, 1, 2), "x"),), {}, start_ns=90))
        for i in range(n_steps):
            known = {"context": 10 * (number + 1) + i, "n_in": 1 if i else 10 * (number + 1)}
            writer.append([tapes.step(number, i, 1, **known)], [tapes.token(number, 3 + i, i)])
        writer.end(number, ["length"])
    tape = writer.close("complete")
    assert [time_part(tape, run)["caption"]["args"]["n"] for run in (0, 1)] == [5, 3]
    timing = time_law.timing_of(tape)
    for run, (n, first) in enumerate(((5, 11), (3, 21))):
        steps = time_law.placed(timing, tape, run)
        assert steps.index.tolist() == list(range(1, n + 1))
        assert steps.context.tolist() == list(range(first, first + n))
