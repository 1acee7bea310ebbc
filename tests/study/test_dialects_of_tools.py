"""Dialects against the tools: the same events through our tables, through formulas written down anew, and through their own code.

The formulas are read off ``vllm/benchmarks/serve.py`` (0.33), ``aiperf/metrics/types`` (0.13) and GuideLLM's
``benchmark/schemas/metrics.py`` and ``schemas/base`` (0.8.1). The tools' own code runs in the environments
that ``make vllm-bench-env``, ``make aiperf-env`` and ``make guidellm-env`` make, or in the Pythons that ``TOKENTAPE_VLLM_PYTHON``,
``TOKENTAPE_AIPERF_PYTHON`` and ``TOKENTAPE_GUIDELLM_PYTHON`` name.
"""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.tools.environments import python_with
from tokentape.data import Run, Setting, TraceHead
from tokentape.data.exchange import Exchange
from tokentape.data.tape import Tape
from tokentape.recorder.many import ManyRuns
from tokentape.recorder.tick import LiveRun, Said, Tick
from tokentape.study.metrics import Slo, metrics
from tokentape.study.readings import Reading

TOOLS = Path(__file__).parent / "tools"
MS = 1_000_000
SLO = Slo(ttft_ns=30 * MS, gap_ns=6 * MS, e2e_ns=90 * MS)
OUTCOMES = {"ended": "stop", "failed": "error", "cut short": "interrupted"}


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """One request on paper, in nanoseconds: messages of 0 to 4 tokens, the first few of them reasoning."""
    at = start = draw(st.integers(0, 400 * MS))
    n_reasoning, messages = draw(st.integers(0, 2)), []
    for number in range(draw(st.integers(0, 9))):
        at += draw(st.integers(MS // 5, 20 * MS))
        k = draw(st.integers(0, 4))
        messages.append((at, k, 1 if number < n_reasoning else 0))
    outcome = draw(st.sampled_from(["ended"] * 6 + ["failed", "cut short"]))
    return {"start": start, "messages": messages, "end": at + draw(st.integers(0, 3 * MS)), "outcome": outcome}


SCHEDULES = st.lists(requests(), min_size=1, max_size=12).filter(
    lambda some: any(one["outcome"] == "ended" and any(k for _, k, _ in one["messages"]) for one in some)
)


def recorded(schedule: list[dict[str, Any]]) -> Tape:
    """The schedule as a tape."""
    many = ManyRuns(None, Setting({"model": "m"}), 0)
    for key, one in enumerate(schedule):
        reason = OUTCOMES[one["outcome"]]
        many.begin(key, LiveRun(Run((TraceHead(0, 7, None, None),)), one["start"], iter(()), lambda: ()))  # type: ignore[arg-type]
        before = one["start"]
        for at, k, channel in one["messages"]:
            said = tuple(Said(0, 1, b"x", channel=channel) for _ in range(k))
            many.add(key, [Tick("chunk", 1, before, at, said=said)])
            before = at
        n = sum(k for _, k, _ in one["messages"])
        many.end(key, (reason,), Exchange(label="exact", n_prompt=7, n_completion=n, ended_ns=one["end"]))
    return many.close()


def events(schedule: list[dict[str, Any]]) -> dict[str, Any]:
    """The same as plain numbers, in seconds and nanoseconds."""
    found = []
    for one in schedule:
        chunks = [at for at, k, _ in one["messages"] if k]
        output = next((at for at, k, channel in one["messages"] if k and channel == 0), None)
        found.append(
            {
                "start": one["start"] / 1e9,
                "start_ns": one["start"],
                "messages": [at / 1e9 for at, _, _ in one["messages"]],
                "chunks": [at / 1e9 for at in chunks],
                "chunks_ns": chunks,
                "output": None if output is None else output / 1e9,
                "output_ns": output,
                "end": one["end"] / 1e9,
                "n": sum(k for _, k, _ in one["messages"]),
                "n_prompt": 7,
                "outcome": one["outcome"],
                "ended": one["outcome"] == "ended",
            }
        )
    duration = max(one["end"] for one in found) - min(one["start"] for one in found)
    slo = {"ttft": 30e-3, "gap": 6e-3, "e2e": 90e-3}
    return {"requests": found, "duration": duration, "slo": slo}


def spread(values: list[float], weights: list[float] | None = None) -> dict[str, float]:
    """The mean and the deviation of a population, of values that count more than once too."""
    if not values:
        return {"n": 0}
    mean = float(np.average(values, weights=weights))
    std = math.sqrt(float(np.average((np.array(values) - mean) ** 2, weights=weights)))
    return {"n": round(sum(weights)) if weights else len(values), "mean": mean, "std": std}


def vllm_anew(known: dict[str, Any]) -> dict[str, dict[str, float]]:
    done = [one for one in known["requests"] if one["ended"] and one["messages"]]
    many = [one for one in done if one["n"] > 1]
    return {
        "ttft": spread([one["messages"][0] - one["start"] for one in done]),
        "tpot": spread([(one["messages"][-1] - one["messages"][0]) / (one["n"] - 1) for one in many]),
        "itl": spread([after - before for one in done for before, after in pairwise(one["messages"])]),
        "e2el": spread([one["messages"][-1] - one["start"] for one in done]),
        "request_throughput": {"mean": len(done) / known["duration"]},
        "output_throughput": {"mean": sum(one["n"] for one in done) / known["duration"]},
    }


def aiperf_anew(known: dict[str, Any]) -> dict[str, dict[str, float]]:
    done = [one for one in known["requests"] if one["ended"] and one["chunks"]]
    many = [one for one in done if one["n"] > 1]
    seconds = max(one["chunks"][-1] for one in done) - min(one["start"] for one in done)
    said = [one for one in done if one["output"] is not None]
    return {
        "time_to_first_token": spread([one["chunks"][0] - one["start"] for one in done]),
        "time_to_second_token": spread([one["chunks"][1] - one["chunks"][0] for one in done if len(one["chunks"]) > 1]),
        "time_to_first_output_token": spread([one["output"] - one["start"] for one in said]),
        "inter_token_latency": spread([(one["chunks"][-1] - one["chunks"][0]) / (one["n"] - 1) for one in many]),
        "inter_chunk_latency": spread([after - before for one in done for before, after in pairwise(one["chunks"])]),
        "request_latency": spread([one["chunks"][-1] - one["start"] for one in done]),
        "output_token_throughput": {"mean": sum(one["n"] for one in done) / seconds},
        "request_throughput": {"mean": len(done) / seconds},
    }


def guidellm_anew(known: dict[str, Any]) -> dict[str, dict[str, float]]:
    done = [one for one in known["requests"] if one["ended"]]
    per = [(((one["chunks"] or [one["end"]])[-1] - one["start"]) / one["n"], one["n"]) for one in done if one["n"]]
    gaps = [((one["chunks"][-1] - one["chunks"][0]) / (one["n"] - 1), one["n"] - 1) for one in done if one["n"] > 1]
    return {
        "time_to_first_token_ms": spread([one["chunks"][0] - one["start"] for one in done if one["chunks"]]),
        "time_to_first_output_token_ms": spread(
            [one["output"] - one["start"] for one in done if one["output"] is not None]
        ),
        "time_per_output_token_ms": spread([value for value, _ in per], [n for _, n in per]),
        "inter_token_latency_ms": spread([value for value, _ in gaps], [n for _, n in gaps]),
        "request_latency": spread([one["end"] - one["start"] for one in done]),
        "output_tokens_per_second": {"mean": sum(one["n"] for one in done) / known["duration"]},
        "requests_per_second": {"mean": len(done) / known["duration"]},
    }


ANEW = {"vllm": vllm_anew, "aiperf": aiperf_anew, "guidellm": guidellm_anew}


def agree(found: Reading, theirs: dict[str, dict[str, float]], unit: float, *, rate: float = 1e-9) -> None:
    """Every figure of ours is in theirs and equal; of an empty sample a tool may print 0 where we have none."""
    assert {one.name for one in found.figures} >= set(theirs)
    for one in found.figures:
        told = theirs.get(one.name)
        if one.n is None:
            assert told is not None and one.mean == pytest.approx(told["mean"], rel=rate), one.name
            continue
        if one.n == 0:
            assert told is None or not told.get("mean"), one.name
            continue
        assert told is not None and told.get("n", one.n) == one.n, one.name
        assert one.mean is not None and one.mean * unit == pytest.approx(told["mean"], rel=1e-8, abs=unit), one.name
        assert one.std is not None and one.std * unit == pytest.approx(told["std"], rel=1e-5, abs=20 * unit), one.name
        for q, ns in one.percentiles:
            if found.method == "cumulative" and (Fraction(str(q)) / 100 * one.n).denominator == 1:
                continue  # a share that lies on a value's edge, where GuideLLM's sum of doubles decides
            names = (f"{q:g}", "p" + f"{q:g}".replace(".", "").zfill(3 if q < 1 else 2))
            for name in names:
                if name in told:
                    assert ns * unit == pytest.approx(told[name], rel=1e-8, abs=20 * unit), (one.name, q)


@pytest.mark.parametrize("name", list(ANEW))
@settings(max_examples=30, deadline=None)
@given(schedule=SCHEDULES)
def test_formulas_written_down_anew(name: str, schedule: list[dict[str, Any]]) -> None:
    with recorded(schedule) as tape:
        agree(metrics(tape, dialect=name), ANEW[name](events(schedule)), 1e-9)


def own_code(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The tool's own code, in its own Python."""
    python = python_with(name)

    def run(known: dict[str, Any]) -> dict[str, Any]:
        command = [python, str(TOOLS / f"{name}_figures.py")]
        done = subprocess.run(
            command, input=json.dumps(known), capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


def drawn(seed: int, n: int) -> list[dict[str, Any]]:
    """A schedule of many requests, the same for the same seed."""
    draw, found = np.random.default_rng(seed), []
    for _ in range(n):
        at = start = int(draw.integers(0, 2000 * MS))
        n_reasoning, messages = int(draw.integers(0, 3)), []
        for number in range(int(draw.integers(0, 14))):
            at += int(draw.integers(MS // 5, 20 * MS))
            messages.append((at, int(draw.choice([0, 1, 1, 1, 2, 3])), 1 if number < n_reasoning else 0))
        outcome = str(draw.choice(["ended"] * 8 + ["failed", "cut short"]))
        found.append(
            {"start": start, "messages": messages, "end": at + int(draw.integers(1, 3 * MS)), "outcome": outcome}
        )
    return found


@pytest.mark.tools
@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", list(ANEW))
def test_the_tools_own_code(name: str, seed: int) -> None:
    run, schedule = own_code(name), drawn(seed, 120)
    theirs = run(events(schedule))
    with recorded(schedule) as tape:
        found = metrics(tape, dialect=name, slo=SLO)
    # GuideLLM makes rates of time between events, and joins those less than 0.1 ms apart
    agree(found, theirs["figures"], 1.0 if name == "aiperf" else 1e-9, rate=1e-3 if name == "guidellm" else 1e-9)
    assert found.n_counted == theirs["n_counted"]
    assert found.goodput is not None
    assert found.goodput["requests_per_s"] == pytest.approx(
        theirs["good_per_s"], rel=1e-3 if name == "guidellm" else 1e-9
    )
