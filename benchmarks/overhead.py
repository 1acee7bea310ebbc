"""What recording costs: blocks of steps with and without it, interleaved in one run.

``python benchmarks/overhead.py [--json]``

Two figures. The *timing* tier, in microseconds a step, on the shipped model, where a step is short. The *distribution* tier, as
a share of a step, at the shape of BLOOM-560m (random weights, fp32), where the vocabulary of 250,880 makes it dear.

A shared machine changes its speed by a factor of two within a second, but hardly from one step to the next, so every step is held
against the one beside it, inside one generation:

* *in the loop*: two steps are recorded, two are not, and so on. What recording adds to the step that is recorded, and what it
  leaves to the step after it (cold caches), are told apart by the four neighbourhoods, and added;
* *by pauses*: several times a second a block is written, a reading is taken, the recorder's thread wakes up. In a generation that
  is recorded throughout, a step with such a pause is held against a neighbour without; the excess is shared out over all steps.
  Each kind of pause has a mean of its own, since the dearest would be most of what trimming takes from all of them together.

At the BLOOM-560m shape a step is as long as the time between pauses: there they are left where they fall, in the recorded steps,
which are half of all and so bear twice their share; and a step of two gigabytes leaves no cache for the next. So the figure is
what is added to the step, and nothing else.

Differences of neighbours are symmetric where recording costs nothing, so their trimmed mean is not biased by the long tail that
stalls give to a step. The figure is the sum of the parts, its interval a bootstrap. The difference between steps of which
neither is recorded is the noise floor beside it. What the loop does in any case (five clock readings and one small object a
step, about 2 us) is in both kinds of step.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tokentape as tt
from tokentape.data.request import Request
from tokentape.recorder.probes import tier
from tokentape.recorder.recorder import Recorder
from tokentape.recorder.tick import LiveRun

CONFIDENCE = 0.95
EDGES = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
BLOOM_560M = {
    "model_type": "bloom",
    "architectures": ["BloomForCausalLM"],
    "hidden_size": 1024,
    "n_layer": 24,
    "n_head": 16,
    "vocab_size": 250_880,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}


@dataclass(frozen=True)
class Figure:
    """One tier on one model: cost a step in microseconds and as a share of the step, with bootstrap intervals."""

    tier: str
    model: str
    torch_threads: int
    n_steps: int
    n_pauses: int
    step_us: float
    in_the_loop_us: float
    by_pauses_us: float
    cost_us: float
    cost_us_lower: float
    cost_us_upper: float
    share: float
    share_lower: float
    share_upper: float
    noise_us: float
    noise_us_lower: float
    noise_us_upper: float


def trimmed_mean(values: np.ndarray, cut: float = 0.2) -> np.ndarray:
    """Mean over the last axis without the ``cut`` smallest and largest: a stall of the machine is no cost of recording."""
    k = int(values.shape[-1] * cut)
    ordered = np.partition(values, (k, values.shape[-1] - k - 1), axis=-1)
    return ordered[..., k : values.shape[-1] - k].mean(-1)


def bootstrap(values: np.ndarray, n: int = 2_000) -> np.ndarray:
    """``[1 + n]``: the trimmed mean of ``values``, and after it those of ``n`` resamples."""
    rng = np.random.default_rng(0)
    return np.array([trimmed_mean(values), *(trimmed_mean(rng.choice(values, len(values))) for _ in range(n))])


class Watched(Recorder):
    """A recorder that notes when it paused, by the host clock.

    A reading that a slow step or a collection gave rise to is counted, but its step is slow for another reason.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.pauses: dict[str, list[int]] = {"block": [], "reading": [], "wake": []}
        self.n_readings_unscheduled = 0

    def add(self, tick: Any) -> None:
        before, now = self._read_at, time.perf_counter_ns()
        super().add(tick)
        if self._read_at == before:
            return
        if 0 < before <= now:
            self.pauses["reading"].append(time.perf_counter_ns())
        else:
            self.n_readings_unscheduled += 1

    def flush(self) -> None:
        super().flush()
        self.pauses["block"].append(time.perf_counter_ns())

    def _closes_within(self, seconds: float) -> bool:
        closes = super()._closes_within(seconds)
        self.pauses["wake"].append(time.perf_counter_ns())
        return closes


def generation(source: Any, tier_name: str, prompt: list[int], n_new: int, folder: str) -> tuple[LiveRun, Watched]:
    """A generation that is about to start, and its recorder."""
    probes = tier(tier_name)
    needs: frozenset[str] = frozenset().union(*(probe.needs for probe in probes))
    live = source.start(Request((tuple(prompt),), {"max_new_tokens": n_new, "min_new_tokens": n_new}), needs)
    recorder = Watched(Path(folder) / "overhead.tape", source.setting(), probes, source.clock, overwrite=True)
    return live, recorder


def cost_in_the_loop(
    source: Any, tier_name: str, prompt: list[int], n_steps: int, folder: str, long: bool
) -> tuple[np.ndarray, ...]:
    """Microseconds: what recording adds to a step, what it leaves to the next one, the noise floor, and plain steps."""
    live, recorder = generation(source, tier_name, prompt, n_steps + 1, folder)
    took = np.zeros(n_steps)
    with recorder:
        recorder.begin(live, own_thread=long)
        recorder.add(next(live.ticks))  # the prefill
        for i in range(n_steps):
            start = time.perf_counter_ns()
            tick = next(live.ticks)
            if i % 4 < 2:
                tick.release()
            else:
                recorder.add(tick)
            took[i] = (time.perf_counter_ns() - start) / 1e3
        recorder.end(["length"])
    # off after on, off after off, on after off, on after on
    steps = took[: n_steps // 4 * 4].reshape(-1, 4)
    after_on, off, on, on_after_on = steps.T
    added = np.concatenate([on - off, on_after_on[:-1] - after_on[1:]])
    left = np.concatenate([after_on - off, on_after_on - on])
    noise = np.diff(off)[::2] * np.where(np.arange(len(off) // 2) % 2, 1, -1)[: len(np.diff(off)[::2])]
    return added, left, noise, off


@dataclass
class Pauses:
    """Of one kind: by pause, microseconds that its step took longer than one beside it; and how many there were."""

    excess: list[float]
    n: int = 0


def cost_of_pauses(
    source: Any, tier_name: str, prompt: list[int], n_new: int, folder: str, found: dict[str, Pauses]
) -> int:
    """Add what the pauses of one generation cost to ``found``, by kind; returns its number of steps."""
    live, recorder = generation(source, tier_name, prompt, n_new, folder)
    ends = []
    with recorder:
        recorder.begin(live)
        for tick in live.ticks:
            recorder.add(tick)
            ends.append(time.perf_counter_ns())
        recorder.end(["length"])
    marks = np.array(ends)
    took = np.diff(marks) / 1e3
    at = {kind: np.searchsorted(marks, moments) - 1 for kind, moments in recorder.pauses.items()}
    paused = set(np.concatenate(list(at.values())).tolist())
    seen: set[int] = set()
    for kind, steps in at.items():
        pauses = found.setdefault(kind, Pauses([]))
        for n, i in enumerate(steps[(steps >= 4) & (steps < len(took) - 4)].tolist()):
            side = (1, 2, -1, -2) if n % 2 else (-1, -2, 1, 2)
            beside = next((i + step for step in side if i + step not in paused), None)
            if i in seen or beside is None:  # two pauses in one step are counted with the first kind
                continue
            seen.add(i)
            pauses.n += 1
            pauses.excess.append(took[i] - took[beside])
    found["reading"].n += recorder.n_readings_unscheduled
    return len(took)


def measure(tier_name: str, name: str, source: Any, prompt: list[int], n_runs: int, n_steps: int, long: bool) -> Figure:
    """``n_runs`` generations of ``n_steps`` steps for each part."""
    loops, n_recorded = [], 0
    pauses: dict[str, Pauses] = {}
    with tempfile.TemporaryDirectory() as folder:
        cost_in_the_loop(source, tier_name, prompt, 8, folder, long)  # what first uses cost is not in the figure
        for run in range(n_runs):
            loops.append(cost_in_the_loop(source, tier_name, prompt, n_steps, folder, long))
            if not long and run % 2:
                n_recorded += cost_of_pauses(source, tier_name, prompt, n_steps, folder, pauses)
            print(f"{tier_name} tier: {run + 1} of {n_runs}", file=sys.stderr)
    added, left, noise, plain = (np.concatenate(part) for part in zip(*loops, strict=True))
    step_us = float(np.median(plain))
    in_loop = bootstrap(added) if long else bootstrap(added) + bootstrap(left)
    by_pauses = np.zeros(len(in_loop))
    for kind in pauses.values():
        by_pauses += bootstrap(np.array(kind.excess)) * (kind.n / n_recorded)
    total = in_loop + by_pauses
    figures = [float(total[0]), *(float(edge) for edge in np.quantile(total[1:], EDGES))]
    floor = bootstrap(noise)
    return Figure(
        tier_name,
        name,
        torch.get_num_threads(),
        len(plain) * 4,
        sum(len(kind.excess) for kind in pauses.values()),
        step_us,
        float(in_loop[0]),
        float(by_pauses[0]),
        *figures,
        *(figure / step_us for figure in figures),
        float(floor[0]),
        *(float(edge) for edge in np.quantile(floor[1:], EDGES)),
    )


def machine() -> dict[str, Any]:
    """The machine and the libraries, in words."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--runs", type=int, default=60, help="generations of 1,000 steps of the shipped model")
    parser.add_argument("--large-runs", type=int, default=40, help="generations of 100 steps at the BLOOM-560m shape")
    parser.add_argument(
        "--threads",
        type=int,
        help="torch threads; the shipped model has one, which is as fast as two, the other torch's choice",
    )
    parser.add_argument("--only", choices=["timing", "distribution"])
    given = parser.parse_args()
    all_threads = given.threads or torch.get_num_threads()
    torch.set_num_threads(given.threads or 1)
    found = {"schema_version": 1, "confidence": CONFIDENCE, "machine": machine()}
    figures = []
    if given.only != "distribution":
        demo = tt.local("demo")
        figures.append(measure("timing", "demo", demo, demo.encode("The cat sat on the"), given.runs, 1000, False))
        found["timing_us_upper"] = figures[-1].cost_us_upper
    if given.only != "timing":
        torch.set_num_threads(all_threads)
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "config.json"
            config.write_text(json.dumps(BLOOM_560M))
            large = tt.local(str(config), random_weights=0, dtype="float32")
        ids = list(range(100, 116))
        figures.append(measure("distribution", "BLOOM-560m shape", large, ids, given.large_runs, 100, True))
        found["distribution_share_upper"] = figures[-1].share_upper
    found["figures"] = [asdict(figure) for figure in figures]
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print(" ".join(f"{name}={value}" for name, value in found["machine"].items()))
    for f in figures:
        print(
            f"{f.tier} tier on {f.model}: {f.in_the_loop_us:.1f} + {f.by_pauses_us:.1f} = {f.cost_us:.1f} us a step "
            f"[{f.cost_us_lower:.1f}, {f.cost_us_upper:.1f}], "
            f"{f.share:.3%} of a step of {f.step_us / 1e3:.2f} ms [{f.share_lower:.3%}, {f.share_upper:.3%}]; "
            f"{f.torch_threads} torch threads, n={f.n_steps} steps, {f.n_pauses} pauses; noise floor {f.noise_us:.1f} us "
            f"[{f.noise_us_lower:.1f}, {f.noise_us_upper:.1f}]"
        )


if __name__ == "__main__":
    main()
