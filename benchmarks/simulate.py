"""Does the simulator say what a real server does? ``transformers serve`` under three loads, and a day of Azure's trace on a clock.

    python benchmarks/simulate.py serve --transformers ENV/bin/transformers [--rounds 12] [--batching MODEL] [--keep FILE]
    python benchmarks/simulate.py again FILE
    python benchmarks/simulate.py mock [--slots 4]
    python benchmarks/simulate.py day TRACE.csv

``serve`` starts ``transformers serve`` with the shipped model on loopback, on a core of its own. Each round is short: three open
loops at shares of what the server can do, in turn, and before, between and after them a few requests one after another and in
groups that are held in flight. Rounds are interleaved, so that a slow minute of the machine falls on all of them. Afterwards the
same arrivals are served by the simulator, with three sets of step times:

* *apart*: calibrated on the requests just before and just after that load, which came alone or in small groups;
* *elsewhere*: calibrated on the other two loads of its round;
* *within*: calibrated on what the clients saw under that load itself: how long it queued is then all that is left to tell.

Percentiles stand beside those measured, with their ratio; *halves* is the ratio of the measured ones of odd and of even rounds,
which no simulation can undercut. ``again`` does the comparison of a run that was kept.

``--batching MODEL`` serves another model with ``--continuous-batching``; its policy is ``chunked``.

``mock`` does the same with the mock server, whose steps are known: every request takes a gap to its first token and one for each
other, and so many of them are served at once. Its requests do not wait for one another's prompts, so that its first tokens take as
long as a gap; what is left is half a gap, by which a batch is later than a slot.

``day`` repeats the hour of the trace to a day and simulates Llama-3.1-8B on one H100.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tokentape.load.loading import load
from tokentape.sources.endpoint.source import EndpointSource
from tokentape.study.simulate.arrivals import Arrivals
from tokentape.study.simulate.calibration import Calibration, Seen, calibrate, seen_of
from tokentape.study.simulate.scheduler import Scheduler
from tokentape.study.simulate.simulation import simulate
from tokentape.study.simulate.traffic import read_azure
from tokentape.study.slo import parse_slo

DEMO = Path(__file__).parents[1] / "src/tokentape/models/demo"
WORDS = "the fox sat on a mat and the hen saw it run to the old barn by the pond".split()
SHARES = (0.35, 0.6, 0.8)
N_OUTPUT = (8, 48)
QUANTILES = (50, 90, 99)
LEAST = {50: 11, 90: 64, 99: 662}


# the server, and what is asked of it


class Client:
    """Records loads onto tapes and gives what they saw: bytes are stamped as the kernel received them."""

    def __init__(self, url: str, seed: int) -> None:
        self.source, self.random = EndpointSource(url), random.Random(seed)

    def jobs(self, n: int) -> Path:
        """``n`` prompts of random length with as random a limit, as a workload."""
        rows = []
        for _ in range(n):
            words = [self.random.choice(WORDS) for _ in range(int(min(400, self.random.lognormvariate(3.5, 0.9)) + 2))]
            rows.append(json.dumps({"prompt": " ".join(words), "max_tokens": self.random.randint(*N_OUTPUT)}))
        path = Path(self.folder.name) / "jobs.jsonl"
        path.write_text("\n".join(rows))
        return path

    def record(self, n: int, **plan: Any) -> list[Seen]:
        path = Path(self.folder.name) / "load.tape"
        seed = self.random.randrange(1 << 30)
        with load(self.source, self.jobs(n), path=path, overwrite=True, requests=n, seed=seed, **plan) as tape:
            found = seen_of(tape)
            if len(found) < n:
                print(f"{n - len(found)} of {n} requests did not tell the times of their tokens", file=sys.stderr)
        return found

    def __enter__(self) -> Client:
        self.folder = tempfile.TemporaryDirectory()
        return self

    def __exit__(self, *_: object) -> None:
        self.folder.cleanup()


@contextlib.contextmanager
def served(transformers: str, model: str, extra: Sequence[str], log: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [transformers, "serve", model, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    command += ["--dtype", "float32", *extra]
    with log.open("wb") as out:
        # as nice as this process
        process = subprocess.Popen(["taskset", "-c", "0", *command], env=environment, stdout=out, stderr=out)
        try:
            until = time.monotonic() + 120
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if time.monotonic() > until or process.poll() is not None:
                        raise SystemExit(f"the server did not start; see {log}") from None
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


# the comparison


def figures(ttft: Sequence[float], gaps: Sequence[float]) -> dict[str, float]:
    told = {}
    for name, values in (("ttft", ttft), ("gap", gaps)):
        for q in QUANTILES:
            if len(values) >= LEAST[q]:
                told[f"{name} p{q}"] = float(np.percentile(values, q)) / 1e6
    return told


def measured(rounds: Sequence[Sequence[Seen]]) -> dict[str, float]:
    requests = [seen for each in rounds for seen in each]
    gaps = [b - a for seen in requests for a, b in zip(seen.tokens_ns, seen.tokens_ns[1:], strict=False)]
    return figures([seen.tokens_ns[0] - seen.start_ns for seen in requests], gaps)


def simulated(
    rounds: Sequence[Sequence[Seen]], servers: Sequence[Calibration], scheduler: Scheduler, n_seeds: int
) -> dict[str, float]:
    ttft: list[float] = []
    gaps: list[float] = []
    for number, (each, server) in enumerate(zip(rounds, servers, strict=True)):
        ordered = sorted(each, key=lambda seen: seen.start_ns)
        at = np.array([seen.start_ns for seen in ordered])
        lengths = np.array([(seen.n_prompt, len(seen.tokens_ns)) for seen in ordered], np.int64)
        arrivals = Arrivals(at - at[0], lengths[:, 0], lengths[:, 1])
        for seed in range(n_seeds):
            outcome = simulate(server, arrivals, scheduler, seed=1000 * number + seed).outcome
            ttft += (outcome.first_ns - arrivals.at_ns).tolist()
            g = outcome.gaps
            gaps += [f for f, n, w in zip(g.first_ns, g.count, g.weight, strict=True) for _ in range(int(n * w))]
    return figures(ttft, gaps)


@dataclass
class Round:
    """One load of each share, and what was recorded before, between and after them."""

    loads: dict[float, list[Seen]] = field(default_factory=dict)
    still: list[list[Seen]] = field(default_factory=list)

    def around(self, share: float) -> list[Seen]:
        place = list(self.loads).index(share)
        return in_a_row(self.still[place : place + 2])

    def others(self, share: float) -> list[Seen]:
        return in_a_row([load for other, load in self.loads.items() if other != share])


def still(client: Client, n: int, groups: Sequence[int]) -> list[Seen]:
    """``n`` requests, as many of each number in flight; where several are served at once, only those alone tell of prompts."""
    return in_a_row([client.record(max(8, n // len(groups)), concurrency=at_once) for at_once in groups])


def serve(options: argparse.Namespace) -> int:
    os.sched_setaffinity(0, {1})
    os.nice(options.nice)
    model = options.batching or str(DEMO)
    extra = ["--continuous-batching"] if options.batching else []
    groups = (1, 2, 4, 8) if options.batching else (1, 2)
    rounds: list[Round] = []
    turn = random.Random(options.seed)
    served_by = served(options.transformers, model, extra, Path(options.log))
    with served_by as url, Client(url, options.seed) as client:
        warm = client.record(20, concurrency=1)[10:]  # the first ones are slow
        spent = [seen.tokens_ns[-1] - seen.start_ns for seen in warm]
        for number in range(options.rounds):
            one = Round(still=[still(client, options.requests // 2, groups)])
            for share in turn.sample(SHARES, len(SHARES)):
                # what the server can do follows from how long it is busy with one
                most = options.speedup * 1e9 / float(np.mean(spent))
                one.loads[share] = client.record(options.requests, rate=share * most)
                one.still.append(still(client, options.requests // 2, groups))
                alone = one.still[-1][:8]
                spent = [*spent, *(seen.tokens_ns[-1] - seen.start_ns for seen in alone)][-120:]
            rounds.append(one)
            print(f"round {number + 1} of {options.rounds}: {most:.2f} requests/s are full load", file=sys.stderr)
    if options.keep:
        kept = [{"loads": list(one.loads.items()), "still": one.still} for one in rounds]
        Path(options.keep).write_text(json.dumps({"rounds": kept, "batching": bool(options.batching)}, default=asdict))
    return compare(rounds, bool(options.batching), options.seeds)


def again(options: argparse.Namespace) -> int:
    kept = json.loads(Path(options.file).read_text())

    def seen(rows: list[dict[str, Any]]) -> list[Seen]:
        return [Seen(one["start_ns"], one["n_prompt"], tuple(one["tokens_ns"])) for one in rows]

    rounds = [
        Round({share: seen(rows) for share, rows in row["loads"]}, [seen(rows) for rows in row["still"]])
        for row in kept["rounds"]
    ]
    return compare(rounds, kept["batching"], options.seeds)


def in_a_row(tapes: Sequence[Sequence[Seen]]) -> list[Seen]:
    """What several tapes saw, as if they had been recorded one after another: each begins at its own zero."""
    found: list[Seen] = []
    offset = 0
    for tape in tapes:
        found += [Seen(s.start_ns + offset, s.n_prompt, tuple(at + offset for at in s.tokens_ns)) for s in tape]
        offset = max((s.tokens_ns[-1] for s in found), default=0) + 1_000_000_000
    return found


def compare(rounds: list[Round], batching: bool, n_seeds: int) -> int:
    scheduler = Scheduler("chunked", max_seqs=64) if batching else Scheduler("one-at-a-time")
    sources: dict[str, Callable[[Round, float], list[Seen]]] = {
        "apart": Round.around,
        "elsewhere": Round.others,
        "within": lambda one, share: one.loads[share],
    }
    if batching:  # what a prompt costs is known of those alone, and under load few are
        sources = {"apart": Round.around}
    first = calibrate(rounds[0].around(SHARES[0]))
    print("calibrated apart, first round:", json.dumps(first.as_dict(), default=float))
    worst = dict.fromkeys(sources, 0.0)
    for share in SHARES:
        loads = [one.loads[share] for one in rounds]
        real, halves = measured(loads), (measured(loads[::2]), measured(loads[1::2]))
        told = {
            how: simulated(loads, [calibrate(of(one, share)) for one in rounds], scheduler, n_seeds)
            for how, of in sources.items()
        }
        print(f"\nload {share:.0%}: {sum(map(len, loads))} requests")
        for name, ms in real.items():
            line = f"  {name:9} measured {ms:9.2f} ms"
            for how, figures in told.items():
                ratio = figures[name] / max(ms, 1e-6)
                worst[how] = max(worst[how], abs(ratio - 1))
                line += f"  {how} {figures[name]:9.2f} ms ({ratio:.3f})"
            if halves[0].get(name) and halves[1].get(name):
                line += f"  halves {halves[0][name] / halves[1][name]:.3f}"
            print(line)
    print("\nfurthest off:", ", ".join(f"{how} {value:.1%}" for how, value in worst.items()))
    return 0


def mock(options: argparse.Namespace) -> int:
    from tokentape.mock.script import Script
    from tokentape.mock.serving import MockServer

    gap_ms = 10.0
    script = Script.steady(64, ttft_us=gap_ms * 1000, gap_us=gap_ms * 1000, plain=True)
    most = options.slots / (sum(N_OUTPUT) / 2 * gap_ms / 1000)
    scheduler = Scheduler("chunked", max_seqs=options.slots)
    with (
        MockServer(script, dialect="transformers", process=True, slots=options.slots) as server,
        Client(server.url, options.seed) as client,
    ):
        found = calibrate(client.record(40, concurrency=1))
        print("calibrated apart:", json.dumps(found.as_dict(), default=float))
        for share in SHARES:
            seen = client.record(options.requests, rate=share * most)
            real, told = measured([seen]), simulated([seen], [found], scheduler, 5)
            print(f"\nload {share:.0%}: {len(seen)} requests, {options.slots} at once")
            for name, ms in real.items():
                print(f"  {name:9} measured {ms:9.2f} ms  simulated {told[name]:9.2f} ms ({told[name] / ms:.3f})")
    return 0


def day(options: argparse.Namespace) -> int:
    config = {
        "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "torch_dtype": "bfloat16",
        "max_position_embeddings": 131072, "tie_word_embeddings": False,
    }  # fmt: skip
    for policy in ("chunked", "prefill-first", "decode-first"):
        began, cpu = time.perf_counter(), time.process_time()
        arrivals = read_azure(options.trace).repeated()
        found = simulate(
            config, arrivals, Scheduler(policy), hardware="h100", efficiency=0.6, slo=parse_slo("ttft=500ms,gap=50ms")
        )
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        good = found.goodput.share if found.goodput else None
        print(
            f"{policy:13} {len(arrivals):,} requests, {found.n_tokens:,} tokens, {found.n_steps:,} steps: {wall:.1f} s wall, "
            f"{cpu:.1f} s of CPU; Little {found.little.ratio:.5f}; TTFT p99 {_p(found.ttft)} ms, gap p99 "
            f"{_p(found.token_gap)} ms, good {good:.4f}, mean running {found.load.mean_running:.1f}"
        )
    return 0


def _p(spread: object) -> str:
    value = spread.percentiles[-1].value  # type: ignore[attr-defined]
    return "n/a" if value is None else f"{value / 1e6:.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(help="mock, where none is given")
    one = verbs.add_parser("serve")
    one.add_argument("--transformers", default=os.environ.get("TOKENTAPE_SERVE", "build/serve-venv/bin/transformers"))
    one.add_argument("--rounds", type=int, default=12)
    one.add_argument("--requests", type=int, default=16)
    one.add_argument("--seeds", type=int, default=5)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--speedup", type=float, default=1.0)
    one.add_argument("--batching", metavar="MODEL")
    one.add_argument("--keep", metavar="FILE")
    one.add_argument("--log", default=os.path.join(tempfile.gettempdir(), "transformers-serve.log"))
    one.add_argument("--nice", type=int, default=0)
    one.set_defaults(of=serve)
    more = verbs.add_parser("again")
    more.add_argument("file")
    more.add_argument("--seeds", type=int, default=5)
    more.set_defaults(of=again)
    paper = verbs.add_parser("mock")
    paper.add_argument("--slots", type=int, default=4)
    paper.add_argument("--requests", type=int, default=200)
    paper.add_argument("--seed", type=int, default=0)
    paper.set_defaults(of=mock)
    two = verbs.add_parser("day")
    two.add_argument("trace")
    two.set_defaults(of=day)
    options = parser.parse_args(sys.argv[1:] or ["mock"])
    return int(options.of(options))


if __name__ == "__main__":
    sys.exit(main())
