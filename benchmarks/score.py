"""Scoring beside lm-evaluation-harness: the same figures, how long each takes, how much memory.

    python benchmarks/score.py parity --peer PEER_PYTHON [--write]
    python benchmarks/score.py speed --peer PEER_PYTHON [--layers 24] [--tokens 1024] [--documents 4] [--rounds 5] [--json]

`peers/README.md` says how to make the peer's environment; `peers/run_lm_eval.py` is what runs in it.

*parity* asks the harness for every case of `tests/tasks/fixtures/lm_eval.json` again, and compares; `--write` keeps its answers
there.

*speed* scores documents of random ids on the architecture of BLOOM-560m (vocabulary 250,880) with random weights, float32. Each
side runs in a process of its own, which loads the model and then scores once; the two take turns, ABBA. A ratio is that of one
round's neighbours, the figure their median with its interval by order statistics. Time is that of scoring alone: tokentape's with
its tape in memory, the harness's in `_loglikelihood_tokens`, which both of its ways to score end in. Memory is the most that was
resident while scoring, in all and beyond what was resident before; both are given. `--pairs` scores the last 8 tokens of each
document behind the others as a context, as with a multiple-choice question, instead of all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "tasks"))
sys.path.insert(0, str(ROOT / "benchmarks" / "peers"))

MATERIAL = Path(os.environ.get("TOKENTAPE_MATERIAL", ROOT.parent / "shared" / "material"))
RUNNER = ROOT / "benchmarks" / "peers" / "run_lm_eval.py"
SCORED = 8
"""Tokens of each document that `--pairs` scores."""


def asked(python: str, script: Path, job: dict[str, Any], *words: str) -> dict[str, Any]:
    """What a script answers to a job, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / name for name in ("job.json", "answer.json")]
        places[0].write_text(json.dumps(job))
        done = subprocess.run([python, str(script), *words, *map(str, places)], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{script.name}: {done.stderr.strip()[-2000:]}")
        answer: dict[str, Any] = json.loads(places[1].read_text())
        return answer


# parity


def parity(given: argparse.Namespace) -> None:
    import score_cases

    import tokentape as tt
    from tokentape.study.scores import scores
    from tokentape.tasks.score import score
    from tokentape.tasks.score_documents import Document

    whole = json.loads(score_cases.FIXTURE.read_text(encoding="utf-8"))
    for case in whole["cases"]:
        answer = asked(given.peer, RUNNER, score_cases.job_of(case, MATERIAL))
        theirs = answer["tasks"][0]["values"]
        texts = score_cases.given_of(case, MATERIAL)
        rolling = case["kind"] == "rolling"
        documents = [Document(one) if rolling else Document(one[1], one[0]) for one in texts]
        source = tt.local(str(score_cases.folder_of(case, MATERIAL)), bos=case["add_bos_token"])
        found = scores(score(source, documents, window=case["max_length"]))
        apart = [abs((one.total.logprob or 0.0) - value) for one, value in zip(found, theirs, strict=True)]
        a_token = max(gap / one.total.n_tokens for gap, one in zip(apart, found, strict=True))
        n = sum(one.total.n_tokens for one in found)
        print(
            f"{case['name']}: {len(theirs)} texts, {n:,} tokens: largest difference {max(apart):.1e} nats a text, "
            f"{a_token:.1e} a token"
        )
        case["values"] = [round(value, 6) for value in theirs]
        whole["versions"] = answer["versions"]
    if given.write:
        score_cases.FIXTURE.write_text(
            json.dumps(whole, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8"
        )


# speed


def ours(given: argparse.Namespace) -> None:
    """One run of tokentape, in this process: a job as the peer's, an answer as the peer's."""
    job = json.loads(Path(given.job).read_text())
    os.environ["OMP_NUM_THREADS"] = str(job["threads"])
    import time

    import torch
    from run_lm_eval import forget_peak, resident

    import tokentape as tt
    from tokentape.study.scores import scores
    from tokentape.tasks.score import score
    from tokentape.tasks.score_documents import Document

    torch.set_num_threads(job["threads"])
    source = tt.local(job["config"], random_weights=job["seed"], dtype="float32")
    source.setting()  # what the tape says of the model is known when it is loaded
    documents = [Document(tuple(text), tuple(context)) for context, text in job["tasks"][0]["pairs"]]
    forget_peak()
    loaded, start, cpu = resident("VmRSS"), time.perf_counter(), time.process_time()
    tape = score(source, documents, distribution=job.get("distribution", False))
    spent = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    values = [one.total.logprob for one in scores(tape)]
    answer = {"values": values, **spent, "peak_bytes": resident("VmHWM"), "loaded_bytes": loaded}
    Path(given.answer).write_text(json.dumps({"tasks": [answer]}))


def speed(given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        job = job_of(given, Path(folder))
        rounds = []
        for number in range(given.rounds):
            sides = "AB" if number % 2 == 0 else "BA"
            found = {side: one_run(side, job, given) for side in sides}
            rounds.append(found)
            print(
                f"round {number + 1} of {given.rounds}: {found['A']['seconds']:.2f} s, {found['B']['seconds']:.2f} s",
                file=sys.stderr,
            )
    apart = max(abs(x - y) for x, y in zip(rounds[0]["A"]["values"], rounds[0]["B"]["values"], strict=True))
    known = {
        "times_faster": [one["B"]["seconds"] / one["A"]["seconds"] for one in rounds],
        "times_less_cpu": [one["B"]["cpu_seconds"] / one["A"]["cpu_seconds"] for one in rounds],
        "peak_share": [one["A"]["peak_bytes"] / one["B"]["peak_bytes"] for one in rounds],
        "peak_share_beyond_loaded": [beyond(one["A"]) / beyond(one["B"]) for one in rounds],
    }
    record = {
        "schema_version": 1,
        "machine": machine(given.threads),
        "job": {
            name: getattr(given, name) for name in ("layers", "hidden", "tokens", "documents", "pairs", "batch_size")
        },
        "largest_difference_nats": apart,
        "rounds": [{side: {k: v for k, v in one[side].items() if k != "values"} for side in one} for one in rounds],
        **{name: {"median": median(values), "low": min(values), "high": max(values)} for name, values in known.items()},
    }
    if given.json:
        print(json.dumps(record, indent=1))
        return
    print(" ".join(f"{name}={value}" for name, value in record["machine"].items()))
    for side, name in (("A", "tokentape"), ("B", "lm-evaluation-harness")):
        seconds, peak = (median(one[side][key] for one in rounds) for key in ("seconds", "peak_bytes"))
        loaded = median(one[side]["loaded_bytes"] for one in rounds)
        print(
            f"{name}: {seconds:.2f} s, peak {peak / 1e9:.2f} GB, {(peak - loaded) / 1e9:.2f} GB beyond what was loaded"
        )
    chance = 1 - 2 ** (1 - len(rounds))
    for name, values in known.items():
        low, high = min(values), max(values)
        print(
            f"{name}: {median(values):.3f} ({low:.3f} to {high:.3f}, {100 * chance:.0f} % for the median, n = {len(values)} rounds)"
        )
    print(
        f"largest difference {apart:.1e} nats a document of {given.tokens if not given.pairs else SCORED} scored tokens"
    )


def beyond(run: dict[str, Any]) -> float:
    return float(run["peak_bytes"] - run["loaded_bytes"])


def job_of(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    config = json.loads(given.config.read_text())
    config |= {
        "n_layer": given.layers,
        "hidden_size": given.hidden,
        "n_head": max(1, given.hidden // 64),
        "torch_dtype": "float32",
    }
    place = folder / "config.json"
    place.write_text(json.dumps(config))
    draw = random.Random(0)
    texts = [[draw.randrange(4, config["vocab_size"]) for _ in range(given.tokens)] for _ in range(given.documents)]
    pairs = [(text[:-SCORED], text[-SCORED:]) if given.pairs else ([1], text) for text in texts]
    return {
        "config": str(place),
        "seed": 0,
        "tokenizer": str(ROOT / "src" / "tokentape" / "models" / "demo"),
        "threads": given.threads,
        "batch_size": given.batch_size,
        "distribution": given.distribution,
        "tasks": [{"kind": "tokens", "pairs": pairs}],
    }


def one_run(side: str, job: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    if side == "A":
        answer = asked(sys.executable, Path(__file__), job, "ours")
    else:
        answer = asked(given.peer, RUNNER, job)
    found: dict[str, Any] = answer["tasks"][0]
    return found


def machine(threads: int) -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "processor": processor or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers()
    one = commands.add_parser("parity")
    one.add_argument("--peer", required=True, help="Python of an environment with lm_eval")
    one.add_argument("--write", action="store_true", help="keep what the harness says as the fixture")
    one.set_defaults(run=parity)
    two = commands.add_parser("speed")
    two.add_argument("--peer", required=True, help="Python of an environment with lm_eval")
    two.add_argument("--config", type=Path, default=MATERIAL / "configs" / "bloom-560m" / "config.json")
    two.add_argument("--layers", type=int, default=24)
    two.add_argument("--hidden", type=int, default=1024)
    two.add_argument("--tokens", type=int, default=1024, help="of each document")
    two.add_argument("--documents", type=int, default=4)
    two.add_argument("--pairs", action="store_true", help=f"score the last {SCORED} tokens alone")
    two.add_argument("--distribution", action="store_true", help="tokentape keeps entropy, rank and candidates as well")
    two.add_argument("--batch-size", type=int, default=1, help="of the harness, whose default is 1")
    two.add_argument("--rounds", type=int, default=5)
    two.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    two.add_argument("--json", action="store_true")
    two.set_defaults(run=speed)
    three = commands.add_parser("ours", help="one run of tokentape, for `speed`")
    three.add_argument("job")
    three.add_argument("answer")
    three.set_defaults(run=ours)
    given = parser.parse_args()
    if "run" in given:
        given.run(given)
    else:  # and `make bench` goes on to the next
        print(
            "nothing measured: `parity` and `speed` need the Python of a peer, see benchmarks/peers/README.md",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
