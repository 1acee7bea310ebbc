"""What recording costs: blocks of steps with and without it, interleaved in one run.

``python benchmarks/overhead.py [--json]``

Two figures. The *timing* tier, in microseconds a step, on the shipped model, where a step is short. The *distribution* tier, as
a share of a step, at the shape of BLOOM-560m (random weights, fp32), where the vocabulary of 250,880 makes it dear.

A shared machine changes its speed by a factor of two within a second, but hardly from one step to the next, so everything is
held against what stands beside it, inside one generation:

* *in the loop*: the steps go in blocks of four that are recorded and blocks that are not, in turn; each recorded block is held
  against the mean of its two neighbours;
* *by the writer*: the recorder's own thread takes the interpreter's lock several times a second; the steps that overlap it are held
  against those around them, and what they took longer is shared out over all steps.

Where a step is longer than the time between transactions, each recorded step is a block, and its transaction is
made in it, in the loop's own thread; the second part is then nothing.

The figure is the sum of the two (trimmed mean and mean), its interval a bootstrap. The difference between blocks of which
neither is recorded is the noise floor beside it. What the loop does in any case (five clock readings and one small object a
step, about 2 us) is in both kinds of block.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
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
    n_blocks: int
    steps_per_block: int
    n_transactions: int
    step_us: float
    in_the_loop_us: float
    by_the_writer_us: float
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
    ordered = np.sort(values, axis=-1)
    k = int(ordered.shape[-1] * cut)
    return ordered[..., k : ordered.shape[-1] - k].mean(-1)


def bootstrap(values: np.ndarray, figure: Callable[[np.ndarray], np.ndarray], n: int = 5_000) -> np.ndarray:
    """The figure of ``values``, and after it that of ``n`` resamples."""
    drawn = np.random.default_rng(0).choice(values, (n, len(values)))
    return np.concatenate([[figure(values)], figure(drawn)])


class Watched(Recorder):
    """A recorder that notes when it was writing."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.windows: list[tuple[int, int]] = []

    def flush(self) -> None:
        start = time.perf_counter_ns()
        super().flush()
        self.windows.append((start, time.perf_counter_ns()))


def generation(source: Any, tier_name: str, prompt: list[int], n_new: int, folder: str) -> tuple[LiveRun, Watched]:
    """A generation that is about to start, and its recorder."""
    probes = tier(tier_name)
    needs: frozenset[str] = frozenset().union(*(probe.needs for probe in probes))
    live = source.start(Request((tuple(prompt),), {"max_new_tokens": n_new, "min_new_tokens": n_new}), needs)
    recorder = Watched(Path(folder) / "overhead.tape", source.setting(), probes, source.clock, overwrite=True)
    return live, recorder


def cost_in_the_loop(
    source: Any, tier_name: str, prompt: list[int], shape: tuple[int, int], folder: str, inline: bool = False
) -> np.ndarray:
    """``[3, n]``: by recorded block, microseconds a step of what it took longer, of its neighbours, and of the noise floor."""
    n_blocks, n_steps = shape
    live, recorder = generation(source, tier_name, prompt, n_blocks * n_steps + 1, folder)
    took = np.zeros(n_blocks)
    with recorder:
        recorder.begin(live, own_thread=False)
        recorder.add(next(live.ticks))  # the prefill
        for block in range(n_blocks):
            start = time.perf_counter_ns()
            for _ in range(n_steps):
                tick = next(live.ticks)
                if block % 2:
                    recorder.add(tick)
                else:
                    tick.release()
            if block % 2 and inline:
                recorder.flush()
            took[block] = (time.perf_counter_ns() - start) / n_steps / 1e3
        recorder.end(["length"])
    around = (took[0:-2:2] + took[2::2]) / 2  # plain, recorded, plain, recorded, plain, ...
    plain = took[0::2]
    noise = plain[1:-1] - (plain[:-2] + plain[2:]) / 2
    n = len(noise)
    return np.array([(took[1:-1:2] - around)[:n], around[:n], noise])


def cost_by_the_writer(source: Any, tier_name: str, prompt: list[int], n_new: int, folder: str) -> np.ndarray:
    """By transaction, microseconds a step that the loop's steps beside it took longer than those around them."""
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
    windows = [window for window in recorder.windows if marks[0] < window[0] and window[1] < marks[-1]]
    excess = []
    for start, end in windows:
        first, last = np.searchsorted(marks, start) - 1, np.searchsorted(marks, end)
        beside = np.concatenate([took[max(first - 4, 0) : first], took[last + 1 : last + 5]])
        if len(beside) >= 6:
            excess.append(took[first : last + 1].sum() - np.median(beside) * (last + 1 - first))
    return np.array(excess) * len(windows) / len(took)


def measure(tier_name: str, name: str, source: Any, prompt: list[int], shape: tuple[int, int, int]) -> Figure:
    """``shape``: how many generations, of how many blocks, of how many steps."""
    n_runs, n_blocks, n_steps = shape
    loops, writers = [], []
    with tempfile.TemporaryDirectory() as folder:
        cost_in_the_loop(source, tier_name, prompt, (8, n_steps), folder)  # what first uses cost is not in the figure
        for run in range(n_runs):
            loops.append(cost_in_the_loop(source, tier_name, prompt, (n_blocks, n_steps), folder, inline=n_steps == 1))
            if n_steps > 1:
                writers.append(cost_by_the_writer(source, tier_name, prompt, n_blocks * n_steps, folder))
            print(f"{tier_name} tier: {run + 1} of {n_runs}", file=sys.stderr)
    cost, plain, noise = np.concatenate(loops, axis=1)
    writer = np.concatenate(writers) if writers else np.zeros(1)
    step_us = float(np.median(plain))
    in_loop, by_writer = bootstrap(cost, trimmed_mean), bootstrap(writer, lambda values: values.mean(-1))
    total = in_loop + by_writer
    figures = [float(total[0]), *(float(edge) for edge in np.quantile(total[1:], EDGES))]
    floor = bootstrap(noise, trimmed_mean)
    return Figure(
        tier_name,
        name,
        len(cost),
        n_steps,
        len(writer) if writers else 0,
        step_us,
        float(in_loop[0]),
        float(by_writer[0]),
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
        "torch_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument(
        "--runs", type=int, default=24, help="generations of the shipped model, 201 blocks of 4 steps each"
    )
    parser.add_argument("--large-blocks", type=int, default=201, help="blocks of one step at the BLOOM-560m shape")
    parser.add_argument("--threads", type=int, help="torch threads")
    parser.add_argument("--only", choices=["timing", "distribution"])
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    found = {"schema_version": 1, "confidence": CONFIDENCE, "machine": machine()}
    figures = []
    if given.only != "distribution":
        demo = tt.local("demo")
        figures.append(measure("timing", "demo", demo, demo.encode("The cat sat on the"), (given.runs, 201, 4)))
        found["timing_us_upper"] = figures[-1].cost_us_upper
    if given.only != "timing":
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "config.json"
            config.write_text(json.dumps(BLOOM_560M))
            large = tt.local(str(config), random_weights=0, dtype="float32")
        shape = (1, given.large_blocks, 1)
        figures.append(measure("distribution", "BLOOM-560m shape", large, list(range(100, 116)), shape))
        found["distribution_share_upper"] = figures[-1].share_upper
    found["figures"] = [asdict(figure) for figure in figures]
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print(" ".join(f"{name}={value}" for name, value in found["machine"].items()))
    for f in figures:
        print(
            f"{f.tier} tier on {f.model}: {f.in_the_loop_us:.1f} + {f.by_the_writer_us:.1f} = {f.cost_us:.1f} us a step "
            f"[{f.cost_us_lower:.1f}, {f.cost_us_upper:.1f}], "
            f"{f.share:.3%} of a step of {f.step_us / 1e3:.2f} ms [{f.share_lower:.3%}, {f.share_upper:.3%}]; "
            f"n={f.n_blocks} blocks of {f.steps_per_block} steps, {f.n_transactions} transactions; noise floor {f.noise_us:.1f} us "
            f"[{f.noise_us_lower:.1f}, {f.noise_us_upper:.1f}]"
        )


if __name__ == "__main__":
    main()
