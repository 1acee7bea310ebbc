"""How fast a tape opens: a million tokens into columns, one long trace, a hundred thousand short ones.

Writes tapes of realistic values into a temporary folder, then opens each in fresh processes and reports the median of
several. Memory is the peak resident memory of the process that opened the tape, interpreter and numpy included.

    python benchmarks/tape.py            a table
    python benchmarks/tape.py --json     one JSON document
    python benchmarks/tape.py --small    a hundredth of it, to see that it runs
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tokentape.data import Run, Setting, TapeWriter, TraceHead, candidates_json

REPEATS = 5
K = 5
VOCABULARY = 250_880


def _rows(rng, run, trace, n):
    """Steps and tokens of one trace, with the columns a local model on a GPU fills."""
    end = np.cumsum(rng.gamma(20.0, 1e6, n)).astype(np.int64)
    start = np.concatenate([[0], end[:-1]])
    entropy = rng.gamma(2.0, 1.0, n)
    logprob = -rng.exponential(1.5, n)
    others = np.sort(-rng.exponential(3.0, (n, K)).astype(np.float32), axis=1)[:, ::-1]
    ids = rng.integers(0, VOCABULARY, (n, K))
    words = ["the", " cat", " sat", "猫", ",", " on", "\n", " 🐈", "ing", " of"]
    steps, tokens = [], []
    for i, (s, e, h, p, q, c) in enumerate(
        zip(
            start.tolist(), end.tolist(), entropy.tolist(), logprob.tolist(), others.tolist(), ids.tolist(), strict=True
        )
    ):
        measured = (e - s - 40_000, e - s - 90_000, 900_000, i % 7, 0, 0, 98_304 * (i + 9), 10**9 + i, None)
        steps.append((run, i, int(i > 0), 1, i + 9, 1 if i else 9, 1, s, e, *measured))
        row = (trace, i + 9, i, c[0], p, h, 1 + i % 4, p * 0.9, 0, 0)
        tokens.append((*row, words[i % 10], None, candidates_json(zip(c, q, strict=True))))
    return steps, tokens


def write(path, n_traces, length):
    """A finished tape of ``n_traces`` runs of one trace each."""
    rng = np.random.default_rng(7)
    began = time.perf_counter()
    writing = 0.0
    writer = TapeWriter.create(path, Setting({"model": "synthetic"}), notes={"origin_unix_ns": 0})
    for _ in range(n_traces):
        begun = writer.begin(
            Run((TraceHead(0, 9, tuple(range(9)), "Once upon a time"),), {"max_new_tokens": length}, 0, 0)
        )
        steps, tokens = _rows(rng, begun.number, begun.trace_numbers[0], length)
        start = time.perf_counter()
        writer.append(steps, tokens)
        writing += time.perf_counter() - start
        writer.end(begun.number, ["length"])
    start = time.perf_counter()
    writer.close().close()  # packs
    now = time.perf_counter()
    return {"seconds": now - began, "append_seconds": writing, "pack_seconds": now - start}


CHILD = """
import json, resource, sys, time
what, path = sys.argv[1:]
import numpy, tokentape.data
from tokentape.data import open_tape
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began, cpu = time.perf_counter(), time.process_time()
tape = open_tape(path)
opened = time.perf_counter() - began
if what == "columns":
    held = [tape.columns("token"), tape.columns("step"), tape.candidates]
    n = held[0].n_rows
elif what == "trace":
    trace = tape.traces[len(tape.traces) // 2]
    held = [dict(trace.tokens), dict(trace.steps), trace.candidates, trace.token_bytes, trace.text]
    n = trace.tokens.n_rows
else:
    n = len(tape.traces)
took, cpu = time.perf_counter() - began, time.process_time() - cpu
print(json.dumps({"seconds": took, "cpu_seconds": cpu, "open_seconds": opened, "n": n,
                  "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "rss_before_bytes": before * 1024}))
"""


def measure(what, path):
    """Median and worst of several fresh processes."""
    runs = []
    for _ in range(REPEATS):
        out = subprocess.run([sys.executable, "-c", CHILD, what, str(path)], check=True, capture_output=True, text=True)
        runs.append(json.loads(out.stdout))
    seconds = [run["seconds"] for run in runs]
    return {
        "n": runs[0]["n"],
        "median_seconds": statistics.median(seconds),
        "worst_seconds": max(seconds),
        "cpu_seconds": statistics.median(run["cpu_seconds"] for run in runs),
        "rss_bytes": max(run["rss_bytes"] for run in runs),
        "repeats": REPEATS,
    }


def machine():
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "sqlite": sqlite3.sqlite_version,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--small", action="store_true", help="a hundredth of the rows")
    parser.add_argument("--keep", type=Path, help="folder to leave the tapes in")
    options = parser.parse_args()
    scale = 100 if options.small else 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        figures = {"machine": machine(), "tapes": {}}
        for name, n_traces, length in (("long", -(-244 // scale), 4099), ("short", 100_000 // scale, 10)):
            path = folder / f"{name}.tape"
            print(f"writing {name}: {n_traces:,} traces of {length:,} tokens", file=sys.stderr)
            if not path.exists():
                written = write(path, n_traces, length)
            else:
                written = None
            size = path.stat().st_size
            figures["tapes"][name] = {
                "n_traces": n_traces,
                "n_tokens": n_traces * length,
                "bytes": size,
                "bytes_per_token": size / (n_traces * length),
                "write": written,
                "columns": measure("columns", path),
                "trace": measure("trace", path),
                "open": measure("open", path),
            }
    if options.json:
        json.dump(figures, sys.stdout, indent=2)
        print()
        return
    print(" ".join(f"{key}={value}" for key, value in figures["machine"].items()))
    for name, tape in figures["tapes"].items():
        print(
            f"{name}: {tape['n_tokens']:,} tokens and as many steps in {tape['n_traces']:,} traces, {K} candidates each"
        )
        print(
            f"  file       {tape['bytes'] / 1e6:9.1f} MB   {tape['bytes_per_token']:.0f} bytes per token with its step"
        )
        if tape["write"]:
            w = tape["write"]
            print(
                f"  written in {w['seconds']:9.1f} s    append {w['append_seconds']:.1f} s, pack {w['pack_seconds']:.1f} s"
            )
        for what in ("columns", "trace", "open"):
            m = tape[what]
            took = f"{m['median_seconds'] * 1e3:9.1f} ms   worst of {m['repeats']}: {m['worst_seconds'] * 1e3:.1f} ms"
            print(
                f"  {what:10} {took}, CPU {m['cpu_seconds'] * 1e3:.1f} ms, n={m['n']:,}, {m['rss_bytes'] / 1e6:.0f} MB resident"
            )


if __name__ == "__main__":
    main()
