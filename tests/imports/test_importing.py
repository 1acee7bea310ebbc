"""Results of other tools as tapes: the same numbers that each tool printed, and null where a file says nothing.

The files in ``results/`` are what the tools wrote, run against a server of ours that sent chunks of 1 to 3 tokens (some requests
with 503): vLLM 0.33 (its benchmark alone), AIPerf 0.13.0, GuideLLM 0.8.1, inference-perf 0.7.0, llama.cpp's llama-bench. Left
out of them is what no reader asks for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tokentape.data.tape import open_tape, verify
from tokentape.imports.importing import TOOLS, import_results
from tokentape.study.answers import answers
from tokentape.study.metrics import Slo, metrics
from tokentape.study.readings import Figure, Reading

RESULTS = Path(__file__).parent / "results"
FILES = {
    "vllm": "vllm.json",
    "aiperf": "aiperf.jsonl",
    "guidellm": "guidellm.json",
    "inference-perf": "inference-perf.json",
    "llama-bench": "llama-bench.json",
}
MS = 1_000_000
NS = 1e-9


def told(name: str) -> Any:
    return json.loads((RESULTS / name).read_text("utf-8"))


def reading(name: str, slo: Slo | None = None, part: int | None = None) -> Reading:
    with import_results(RESULTS / FILES[name], part=part) as tape:
        return metrics(tape, dialect=name, slo=slo)


def figure(found: Reading, name: str) -> Figure:
    (one,) = [one for one in found.figures if one.name == name]
    return one


def same(ns: float | None, seconds: float) -> None:
    """Equal but for the nanosecond that a moment is kept to, and what doubles lose of it."""
    assert ns is not None and ns * NS == pytest.approx(seconds, rel=1e-9, abs=1e-9)


# the summaries


def test_vllm_prints_the_same() -> None:
    found, printed = reading("vllm", Slo(50 * MS, 6 * MS, 120 * MS)), told("vllm.json")
    for name in ("ttft", "tpot", "itl", "e2el"):
        one = figure(found, name)
        same(one.mean, printed[f"mean_{name}_ms"] / 1e3)
        same(one.std, printed[f"std_{name}_ms"] / 1e3)
        same(dict(one.percentiles)[50], printed[f"median_{name}_ms"] / 1e3)
        same(dict(one.percentiles)[99], printed[f"p99_{name}_ms"] / 1e3)
    assert (found.n_counted, found.n_requests) == (printed["completed"], printed["completed"] + printed["failed"])
    for name in ("request_throughput", "output_throughput"):
        assert figure(found, name).mean == pytest.approx(printed[name], rel=1e-8)
    assert found.goodput is not None
    assert found.goodput["requests_per_s"] == pytest.approx(printed["request_goodput"], rel=1e-8)


def test_aiperf_prints_the_same() -> None:
    found, printed = reading("aiperf"), told("aiperf.json")
    names = ["time_to_first_token", "time_to_second_token", "time_to_first_output_token", "inter_token_latency"]
    for name in [*names, "inter_chunk_latency", "request_latency"]:
        one, theirs = figure(found, name), printed[name]
        assert one.n == theirs["count"]
        for ns, ms in ((one.mean, "avg"), (one.std, "std"), (one.min, "min"), (one.max, "max")):
            same(ns, theirs[ms] / 1e3)
        for q, ns in one.percentiles:
            same(ns, theirs[f"p{q}"] / 1e3)
    # its run's beginning and end stand in the summary to the microsecond
    for name in ("output_token_throughput", "request_throughput"):
        assert figure(found, name).mean == pytest.approx(printed[name]["avg"], rel=3e-6)
    assert found.n_counted == printed["request_count"]["avg"]
    assert found.n_requests - found.n_counted == printed["error_request_count"]["avg"]


def test_guidellm_prints_the_same() -> None:
    found, printed = reading("guidellm"), told("guidellm.json")["benchmarks"][0]["metrics"]
    for one in found.figures:
        theirs = printed[one.name]["successful"]
        if one.n is None:
            assert one.mean == pytest.approx(theirs["mean"], rel=1e-6), one.name
            continue
        unit = 1e3 if one.name.endswith("_ms") else 1.0
        assert one.n == theirs["count"]
        # its moments are doubles of seconds since 1970: 0.24 us apart
        wanted = {"mean": one.mean, "std_dev": one.std, "min": one.min, "max": one.max}
        for key, ns in wanted.items():
            assert ns is not None and ns * NS == pytest.approx(theirs[key] / unit, rel=1e-6, abs=5e-7), one.name
        for q, ns in one.percentiles:
            key = "p" + f"{q:g}".replace(".", "").rjust(2 if q < 0.5 or q >= 1 else 3, "0")
            key = {"p01": "p001" if q == 0.1 else "p01"}.get(key, key)
            assert ns * NS == pytest.approx(theirs["percentiles"][key] / unit, rel=1e-6, abs=5e-7), (one.name, q)
    assert (found.n_counted, found.n_requests) == (printed["request_totals"]["successful"], 30)


def test_inference_perf_prints_the_same() -> None:
    found, printed = reading("inference-perf"), told("inference-perf-summary.json")["successes"]
    for one in found.figures:
        if one.n is None:
            assert one.mean == pytest.approx(printed["throughput"][one.name], rel=1e-9)
            continue
        theirs = printed["latency"][one.name]
        for ns, key in ((one.mean, "mean"), (one.min, "min"), (one.max, "max")):
            same(ns, theirs[key])
        for q, ns in one.percentiles:
            same(ns, theirs["median" if q == 50 else f"p{q:g}"])
    assert found.n_counted == printed["count"]


@pytest.mark.parametrize("file", ["llama-bench.json", "llama-bench.jsonl"])
@pytest.mark.parametrize("part", range(3))
def test_llama_bench_prints_the_same(file: str, part: int) -> None:
    lines = (RESULTS / file).read_text("utf-8")
    row = json.loads(lines)[part] if file.endswith(".json") else json.loads(lines.splitlines()[part])
    with import_results(RESULTS / file, part=part) as tape:
        found = metrics(tape, dialect="llama-bench")
    one = figure(found, "avg_ns")
    assert one.n == len(row["samples_ns"])
    # its averages of times are of integers, and its deviation loses digits in a difference of large sums
    assert one.mean == pytest.approx(row["avg_ns"], abs=1) and one.std == pytest.approx(row["stddev_ns"], rel=1e-4)
    assert figure(found, "avg_ts").mean == pytest.approx(row["avg_ts"], abs=1e-6)
    assert figure(found, "stddev_ts").mean == pytest.approx(row["stddev_ts"], abs=1e-6)


# what is on the tape


@pytest.mark.parametrize("name", list(FILES))
def test_tape_is_whole_and_says_where_it_is_from(name: str, tmp_path: Path) -> None:
    place = tmp_path / "imported.tape"
    import_results(RESULTS / FILES[name], place).close()
    assert not verify(place)
    with open_tape(place) as tape:
        assert tape.state == "complete" and tape.setting.facts["tool"] == name
        noted = tape.notes["imported"]
        assert noted["tool"] == name and noted["file"] == FILES[name]
        assert len(tape.traces) == len(tape.exchanges) == len(tape.runs)
        assert all(one.run.start_ns is not None for one in tape.traces)
        assert {one.label for one in tape.exchanges.values()} <= {None, "counted", "coarse", "ends"}
        assert all(trace.exchange.stamps is None for trace in tape.traces if trace.exchange)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["imported.tape"]


def test_what_a_file_lacks_has_no_figure() -> None:
    with import_results(RESULTS / "guidellm.json") as tape:
        other = {name: metrics(tape, dialect=name) for name in ("vllm", "sglang", "aiperf", "inference-perf")}
        own = metrics(tape)
        # what lies between the first and the last message is not known, and so no gap of messages
        assert other["vllm"].figure("itl").mean is None and other["aiperf"].figure("icl").mean is None  # type: ignore[union-attr]
        assert other["sglang"].figure("itl").mean is None and other["inference-perf"].figure("itl").mean is None  # type: ignore[union-attr]
        assert own.token_gap.n == 0 and own.chunk_gap.n == 1, "one answer had two messages, and so both are known"
        assert other["aiperf"].figure("itl").mean is not None, "(cm - c1) / (N - 1) needs the two ends alone"  # type: ignore[union-attr]
        assert own.n_tokens == 256 and own.ttft.n == 27
    with import_results(RESULTS / "vllm.json") as tape:
        own, vllm, sglang = metrics(tape), metrics(tape, dialect="vllm"), metrics(tape, dialect="sglang")
        assert vllm.figure("itl").n == 94 and sglang.figure("itl").mean is None, "no message says its tokens"  # type: ignore[union-attr]
        assert own.token_gap.n == 0 and own.chunk_gap.n == 94 and own.n_tokens == 187
        assert tape.traces[1].text is None, "which part of the text came when is not in the file"
    with import_results(RESULTS / "llama-bench.json") as tape:
        assert all(not len(trace.steps["index"]) for trace in tape.traces), "only the whole was timed"
        assert metrics(tape).window_ns is None and metrics(tape).requests_per_s is None, "nor when a test began"


def test_inference_perf_has_the_text_and_the_tokens_of_each_message() -> None:
    with import_results(RESULTS / "inference-perf.json") as tape:
        assert {one.label for one in tape.exchanges.values()} == {"counted"}
        assert tape.traces[0].text == " fox" * 9
        one = answers(tape)[0]
        assert one.sizes == [1, 2, 1, 3, 1, 1] and one.n_tokens == 9
        assert tape.runs[0].options["max_tokens"] == 9


def test_older_vllm_does_not_say_when_requests_began(tmp_path: Path) -> None:
    given = told("vllm.json")
    del given["start_times"], given["queue_times"]
    (file := tmp_path / "older.json").write_text(json.dumps(given), "utf-8")
    with import_results(file) as tape:
        found, own = metrics(tape, dialect="vllm"), metrics(tape)
        same(figure(found, "ttft").mean, given["mean_ttft_ms"] / 1e3)
        assert figure(found, "request_throughput").mean == pytest.approx(given["request_throughput"], rel=1e-8)
        assert own.window_ns is None and own.tokens_per_s is None
        assert metrics(tape, dialect="inference-perf").figure("requests/s").mean is None  # type: ignore[union-attr]
        assert "starts" in tape.notes["imported"]["lacks"]


def test_aiperf_without_gaps_has_the_ends(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (RESULTS / "aiperf.jsonl").read_text("utf-8").splitlines()]
    for line in lines:
        line["metrics"].pop("inter_chunk_latency", None)
    (file := tmp_path / "records.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    with import_results(file) as tape:
        found, printed = metrics(tape, dialect="aiperf"), told("aiperf.json")
        assert found.figure("icl").mean is None and found.figure("ttst").mean is None  # type: ignore[union-attr]
        same(figure(found, "inter_token_latency").mean, printed["inter_token_latency"]["avg"] / 1e3)
        same(figure(found, "request_latency").mean, printed["request_latency"]["avg"] / 1e3)
        assert tape.notes["imported"]["duration_ns"] is None, "no summary is beside it"


def test_reasoning_before_the_answer(tmp_path: Path) -> None:
    report = told("guidellm.json")
    (first, *_) = report["benchmarks"][0]["requests"]["successful"]
    moments = first["info"]["timings"]
    moments["first_output_token_iteration"] = moments["first_token_iteration"] + 0.002
    (file := tmp_path / "report.json").write_text(json.dumps(report), "utf-8")
    with import_results(file) as tape:
        (one,) = [one for one in answers(tape) if one.output_ns != (one.chunks[0].at_ns if one.chunks else None)]
        assert one.output_ns - one.chunks[0].at_ns == pytest.approx(2 * MS, abs=500)  # type: ignore[operator]


def test_benchmarks_of_a_sweep_are_parts(tmp_path: Path) -> None:
    report = told("guidellm.json")
    report["benchmarks"] *= 2
    (file := tmp_path / "sweep.json").write_text(json.dumps(report), "utf-8")
    with pytest.raises(Exception, match="has 2 benchmarks") as caught:
        import_results(file)
    assert "0 constant 20.0; 1 constant 20.0" in caught.value.why and caught.value.fix == "--part 0"  # type: ignore[attr-defined]
    with import_results(file, part=1) as tape:
        assert len(tape.traces) == 30


def test_tests_of_one_configuration_are_one_tape(tmp_path: Path) -> None:
    rows = told("llama-bench.json")
    with import_results(RESULTS / "llama-bench.json") as tape:
        assert [trace.run.options["n_prompt"] for trace in tape.traces] == [32] * 5 + [64] * 5 + [0] * 5
    rows[1]["n_threads"] = 2
    (file := tmp_path / "threads.json").write_text(json.dumps(rows), "utf-8")
    with pytest.raises(Exception, match="has 3 benchmarks"):
        import_results(file)


def test_every_tool_has_a_file_and_a_dialect() -> None:
    from tokentape.study.dialects import DIALECTS

    assert set(FILES) == set(TOOLS) <= set(DIALECTS)
