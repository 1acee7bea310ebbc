"""Scoring with and without Ray: the same figures bit for bit, how long each takes, and what it costs when a worker dies.

    python benchmarks/ray_score.py [--documents 2000] [--workers 2] [--model demo] [--rounds 3] [--json]

Both sides run the command in processes of their own, each with one thread of torch a worker, and take turns, ABBA.
Time is that of the whole command, the start of Ray and the loading of the models included; `scoring_s` is from the first batch's
begin to the last batch's end, as the tape has it. On a machine with as many cores as workers the parent competes with them.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from tokentape.data.tape import open_tape

WORDS = "the cat dog sat on mat park Tom Mary went to and looked house ball red blue".split()


def corpus(path: Path, n_documents: int) -> Path:
    drawn = random.Random(11)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(n_documents):
            file.write(json.dumps({"text": " ".join(drawn.choice(WORDS) for _ in range(drawn.randint(5, 60)))}) + "\n")
    return path


def scored(model: str, texts: Path, tape: Path, *more: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tokentape", "score", model, "-f", str(texts), "-o", str(tape), "--overwrite"]
    began = time.perf_counter()
    done = subprocess.run([*command, "--threads", "1", "-q", "--rows", "1", *more], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    took = time.perf_counter() - began
    with open_tape(tape) as found:
        steps = found.columns("step")
        return {"command_s": took, "scoring_s": float(steps["end_ns"].max() - steps["start_ns"].min()) / 1e9}


def figures(tape: Path) -> np.ndarray[Any, Any]:
    with open_tape(tape) as found:
        return np.concatenate([trace.tokens["logprob"].data for trace in found.traces])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    spread = ["--ray", "--ray-workers", str(given.workers)]
    with tempfile.TemporaryDirectory() as folder:
        texts = corpus(Path(folder) / "texts.jsonl", given.documents)
        sides = {"one": (Path(folder) / "one.tape", []), "ray": (Path(folder) / "ray.tape", spread)}
        times: dict[str, list[dict[str, float]]] = {"one": [], "ray": []}
        for number in range(given.rounds):
            for name in ("one", "ray") if number % 2 == 0 else ("ray", "one"):
                times[name].append(scored(given.model, texts, sides[name][0], *sides[name][1]))
        same = bool(np.array_equal(figures(sides["one"][0]), figures(sides["ray"][0])))
        tokens = len(figures(sides["one"][0]))
    middle = {
        name: {what: median(one[what] for one in of) for what in ("command_s", "scoring_s")}
        for name, of in times.items()
    }
    told = {"documents": given.documents, "tokens": tokens, "identical": same, **middle}
    told["speedup_scoring"] = median(
        a["scoring_s"] / b["scoring_s"] for a, b in zip(times["one"], times["ray"], strict=True)
    )
    print(json.dumps(told, indent=None if given.json else 2))


if __name__ == "__main__":
    main()
