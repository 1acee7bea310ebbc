"""What the load costs and how exact it is, against the mock server in a process of its own.

python benchmarks/load.py                 all of it, about three minutes
python benchmarks/load.py azure           the Azure conversation trace at 50 requests/s for a minute: nothing lost, how late
python benchmarks/load.py streams         64 streams with known gaps: each gap against what the server really sent
python benchmarks/load.py arrivals        how late a request goes out, by rate
python benchmarks/load.py cost            time of the client's processor for each chunk

Prints one JSON document. Other programs on the machine make all of it worse: its load is printed too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tokentape.load.account import account_of
from tokentape.load.loading import load
from tokentape.load.workload_files import read_workload
from tokentape.load.workloads import Synthetic
from tokentape.mock.script import Script
from tokentape.mock.serving import MockServer

S = 1_000_000_000
TRAFFIC = Path(os.environ.get("TOKENTAPE_MATERIAL", Path(__file__).resolve().parents[2] / "shared" / "material"))
QUANTILES = (50, 99, 100)


def azure(folder: Path, seconds: int = 60, rate: float = 50.0) -> dict[str, Any]:
    """Recorded traffic, its times scaled to a rate; every request has to be on the tape, and answered whole."""
    traffic = read_workload(TRAFFIC / "traffic" / "AzureLLMInferenceTrace_conv.csv")
    script = Script.steady(2000, ttft_us=50_000, gap_us=5_000, chunk=8)
    with MockServer(script, process=True, keep_bytes=False) as server:
        url = server.url
        with load(url, traffic, rate=rate, duration_ns=seconds * S, path=folder / "azure.tape") as tape:
            passed = tape.exchanges
            delays = [run.start_ns - passed[run.number].scheduled_ns for run in tape.runs]
            whole = sum(one.n_completion == tape.runs[number].options["max_tokens"] for number, one in passed.items())
            served = sum(one.how == "done" for one in server.log.served if one.method == "POST")
            return {
                "requests_due": round(rate * seconds),
                "requests_on_tape": len(tape.runs),
                "served_by_the_mock": served - 3,  # less the first contact and the two of the calibration
                "faults": dict(Counter(str(one.fault) for one in passed.values())),
                "answered_in_full_length": whole,
                "prompts": account_of(tape)["prompt_tokens"],
                "start_after_due_us": _quantiles(delays),
                "offered_per_s": account_of(tape)["offered_per_s"],
                "client": _client(tape),
                "tape_bytes": (folder / "azure.tape").stat().st_size,
            }


def streams(folder: Path, n: int = 64, n_tokens: int = 200) -> dict[str, Any]:
    """Gaps of concurrent streams against the moments at which the server handed its sends to its socket."""
    script = Script.steady(n_tokens, ttft_us=200_000, gap_us=20_000, jitter="uniform", jitter_us=10_000)
    with MockServer(script, process=True, keep_bytes=False) as server:
        workload = Synthetic(16, n_tokens)
        with load(server.url, workload, concurrency=n, requests=n, path=folder / "streams.tape") as tape:
            log = server.log
            sent = _sent_by_moment(log, n_tokens)
            errors, gaps, theirs = [], [], []
            for trace in tape.traces:
                ends = np.asarray(trace.steps["end_ns"])[np.asarray(trace.steps["n_out"]) > 0]
                mine = np.diff(ends)
                # the mock's identifiers end with the number of the request in its log
                told = tape.exchanges[trace.run.number].request_id
                its_own = sent[int(told.rsplit("-", 1)[-1], 16)]
                errors += np.abs(its_own - mine).tolist()
                gaps += mine.tolist()
                theirs += its_own.tolist()
            return {
                "streams": n,
                "gaps": len(gaps),
                "gap_error_us": _quantiles(errors),
                "mean_gap_us": statistics.fmean(gaps) / 1000,
                "mean_gap_sent_us": statistics.fmean(theirs) / 1000,
                "client": _client(tape),
            }


def _sent_by_moment(log: Any, n_tokens: int) -> dict[int, np.ndarray]:
    """The gaps between sends with tokens, of each request of the load by its number."""
    by_request: dict[int, list[int]] = {}
    for one in log.sent:
        if one.n_tokens:
            by_request.setdefault(one.request, []).append(one.sent_ns)
    return {number: np.diff(moments) for number, moments in by_request.items() if len(moments) == n_tokens}


def arrivals(folder: Path) -> dict[str, Any]:
    """How long after it was due a request was handed to its socket."""
    found = {}
    with MockServer(Script.steady(2, ttft_us=2_000, gap_us=1_000), process=True, keep_bytes=False) as server:
        for rate in (10, 50, 200, 500):
            with load(
                server.url, Synthetic(16, 2), rate=rate, duration_ns=5 * S, path=folder / f"arrivals-{rate}.tape"
            ) as tape:
                delays = [run.start_ns - tape.exchanges[run.number].scheduled_ns for run in tape.runs]
                found[rate] = {"n": len(delays), "start_after_due_us": _quantiles(delays), "client": _client(tape)}
    return found


def cost(folder: Path) -> dict[str, Any]:
    """The client's CPU time over chunks, less that of an idle client."""
    with MockServer(Script.steady(400, ttft_us=10_000, gap_us=10_000), process=True, keep_bytes=False) as server:
        url = server.url
        with load(url, Synthetic(16, 400), concurrency=32, requests=64, path=folder / "cost.tape") as tape:
            chunks = sum(len(trace.steps["index"]) for trace in tape.traces)
            states = [one for one in tape.scrapes if one.source == "client 0"]
            cpu_ns = sum(one.values["cpu_share"] * (one.ended_ns - one.began_ns) for one in states)
            return {"chunks": chunks, "cpu_us_a_chunk": cpu_ns / chunks / 1000, "client": _client(tape)}


def _quantiles(values_ns: list[Any]) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(values_ns, q)) / 1000, 1) for q in QUANTILES}


def _client(tape: Any) -> dict[str, Any]:
    note = tape.notes["client"]
    names = ("bottleneck", "reasons", "cpu_share", "busy_share", "starved_share", "gaps", "stamps")
    return {
        **{name: note[name] for name in names},
        "dispatch_us": _us(note["dispatch_delay_ns"]),
        "read_us": _us(note["read_lag_ns"]),
    }


def _us(found: dict[str, Any]) -> dict[str, Any]:
    return {name: None if found[name] is None else found[name] / 1000 for name in ("p50", "p99", "max")}


PARTS = {"azure": azure, "streams": streams, "arrivals": arrivals, "cost": cost}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", help=", ".join(PARTS))
    chosen = parser.parse_args().part or list(PARTS)
    if unknown := sorted({*chosen} - {*PARTS}):
        parser.error(f"no {', '.join(unknown)}; there are {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = {"load_average": os.getloadavg(), "cpus": os.cpu_count()}
        for name in chosen:
            found[name] = PARTS[name](Path(folder))
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
