"""The live page: how long a commit takes to reach it, and what following a tape costs the loop that records.

``python benchmarks/live.py [--json] [--commits N]``

The server is another process, as with ``record --live``; the client reads its events as a browser does. Two figures, in one run:

* *commit to event*: from the moment at which the transaction returned to the writer, to the moment at which the client had the
  event with its rows. Commits are 200 ms apart, as the recorder makes them, of 4 tokens each, onto tapes that have 0, 4,096 and
  32,768 tokens already. Percentiles with their n; a percentile that too few commits can tell is null.
* *in the loop*: steps of some milliseconds of arithmetic on one thread, recorded; in every second stretch a page is connected, in
  the others none is, so that the server looks at nothing. The ratio of the medians of neighbouring stretches, and beside it the
  ratio of neighbours that are alike, which is the noise.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from tokentape.data import Run, Setting, TapeWriter, TraceHead
from tokentape.data.blocks import Draft, DraftTokens
from tokentape.data.schema import STEP_COLUMNS
from tokentape.study.percentiles import percentile

SIZES = (0, 4096, 32_768)
PER_COMMIT = 4
APART_SECONDS = 0.2


def add_block(writer: TapeWriter, first: int, n: int) -> None:
    """``n`` steps of 10 ms with a token each, five candidates a token."""
    steps = range(first, first + n)
    known: dict[str, Any] = {
        "index": list(steps),
        "kind": [1 if i else 0 for i in steps],
        "batch": 1,
        "n_out": 1,
        "start_ns": [10_000_000 * i for i in steps],
        "end_ns": [10_000_000 * i + 9_000_000 for i in steps],
    }
    columns = [known.get(column.name) for column in STEP_COLUMNS]
    ids = [i % 2000 for i in steps]
    token = ([1 + i for i in steps], list(steps), ids, -0.5, 1.5, 1, None, 0, 0, None, None, None, None)
    candidates = [[(i, -0.5 - i) for i in range(5)]] * n
    draft = Draft()
    draft.add(n, columns, DraftTokens(n, 0, token, [b" tok%d" % i for i in ids], candidates))
    writer.append_block(0, draft)


@contextmanager
def served(path: Path) -> Iterator[httpx2.Client]:
    """A client that has entered the page of a tape, served by another process."""
    command = [sys.executable, "-m", "tokentape", "view", str(path), "--no-browser", "--no-explain"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        found = next(found for line in server.stderr if (found := re.search(r"(http://\S+)/\?token=(\S+)", line)))
        with httpx2.Client(base_url=found[1], headers={"authorization": f"Bearer {found[2]}"}, timeout=60) as client:
            yield client
    finally:
        server.terminate()
        server.wait()
        server.stderr.close()


def listen(client: httpx2.Client, at: dict[int, int], listening: threading.Event, stop: threading.Event) -> None:
    """Note for each number of steps when the client had them."""
    with client.stream("GET", "/events", params={"since": since(client)}) as response:
        listening.set()
        name = ""
        for line in response.iter_lines():
            if line.startswith("event:"):
                name = line[7:]
            elif line.startswith("data:") and name == "rows":
                now = time.perf_counter_ns()
                at[json.loads(line[6:])["run"]["from"]] = now
            if stop.is_set():
                return


def since(client: httpx2.Client) -> str:
    found = re.search(r'"since":"([^"]+)"', client.get("/").text)
    assert found is not None
    return found[1]


def commit_to_event(folder: Path, size: int, commits: int) -> dict[str, Any]:
    path = folder / f"{size}.tape"
    writer = TapeWriter.create(path, Setting({"model": "benchmark"}))
    writer.begin(Run((TraceHead(0, 1, (0,), "p"),), {}, start_ns=0))
    writer.add_pieces([(i, None, b" tok%d" % i, False) for i in range(2000)])
    n = 0
    while n < size:
        add_block(writer, n, 16)
        n += 16
    committed: dict[int, int] = {}
    at: dict[int, int] = {}
    with served(path) as client:
        listening, stop = threading.Event(), threading.Event()
        listener = threading.Thread(target=listen, args=(client, at, listening, stop))
        listener.start()
        listening.wait()
        time.sleep(2)  # what is computed of the whole tape comes first
        for _ in range(commits):
            add_block(writer, n, PER_COMMIT)
            committed[n] = time.perf_counter_ns()
            n += PER_COMMIT
            time.sleep(APART_SECONDS)
        time.sleep(2)
        stop.set()
        add_block(writer, n, PER_COMMIT)  # one more event, at which the listener looks up
        listener.join()
    writer.close().close()
    # where two commits came as one event, the second was seen with the first
    arrivals = sorted(at)
    delays = [at[max(a for a in arrivals if a <= first)] - moment for first, moment in committed.items()]
    return {
        "tokens_before": size,
        "n": len(delays),
        **{f"p{q}_ms": _ms(percentile(delays, q).value) for q in (50, 90, 95, 99)},
        "max_ms": _ms(max(delays)),
    }


def _ms(ns: float | None) -> float | None:
    return None if ns is None else round(ns / 1e6, 1)


def in_the_loop(folder: Path, stretches: int, steps: int) -> dict[str, Any] | None:
    """Medians of stretches of steps, a page connected in the second and third of each four; None without a client to do it."""
    curl = shutil.which("curl")
    if curl is None:
        return None
    matrix = np.random.default_rng(0).random((384, 384), np.float32)
    medians: list[float] = []
    path = folder / "loop.tape"
    with TapeWriter.create(path, Setting({"model": "benchmark"})) as writer:
        writer.begin(Run((TraceHead(0, 1, (0,), "p"),), {}, start_ns=0))
        writer.add_pieces([(i, None, b" tok%d" % i, False) for i in range(2000)])
        n = 0
        with served(path) as client:
            page = [curl, "-sN", "-H", f"authorization: {client.headers['authorization']}", f"{client.base_url}/events"]
            for stretch in range(stretches):
                reader = subprocess.Popen(page, stdout=subprocess.DEVNULL) if watched(stretch) else None
                took, waiting = [], 0
                due = time.perf_counter() + APART_SECONDS
                for _ in range(steps):
                    began = time.perf_counter_ns()
                    for _ in range(4):
                        matrix @ matrix
                    took.append(time.perf_counter_ns() - began)
                    waiting += 1
                    if time.perf_counter() > due:
                        add_block(writer, n, waiting)
                        n, waiting, due = n + waiting, 0, time.perf_counter() + APART_SECONDS
                medians.append(statistics.median(took))
                if reader is not None:
                    reader.terminate()
                    reader.wait()
        writer.end(0, ["length"])
    return ratios(medians)


def watched(stretch: int) -> bool:
    return stretch % 4 in (1, 2)


def ratios(medians: list[float]) -> dict[str, Any]:
    """Neighbours of which one was followed, and neighbours that are alike."""
    pairs = list(enumerate(pairwise(medians)))
    crossed = [b / a if watched(i + 1) else a / b for i, (a, b) in pairs if watched(i) != watched(i + 1)]
    alike = [b / a for i, (a, b) in pairs if watched(i) == watched(i + 1)]
    return {
        "step_ms": _ms(statistics.median(medians)),
        "followed_over_alone": round(statistics.median(crossed), 4),
        "n": len(crossed),
        "alike": round(statistics.median(alike), 4),
        "n_alike": len(alike),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--commits", type=int, default=300, help="commits for each size (default 300)")
    parser.add_argument("--stretches", type=int, default=48, help="stretches of 100 steps (default 48)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = folder
        delays = [commit_to_event(Path(folder), size, given.commits) for size in SIZES]
        loop = in_the_loop(Path(folder), given.stretches, 100)
    if given.json:
        print(json.dumps({"commit_to_event": delays, "in_the_loop": loop}, allow_nan=False, indent=1))
        return
    for row in delays:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    print(
        "in the loop:", "no curl here" if loop is None else "  ".join(f"{name} {value}" for name, value in loop.items())
    )


if __name__ == "__main__":
    main()
