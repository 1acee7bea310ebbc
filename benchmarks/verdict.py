"""How often the verdict of ``compare`` is right: kinds of noise x true shift -> share of FASTER, SLOWER, SAME, UNCLEAR.

``python benchmarks/verdict.py [--n 500] [--live 20] [--turns steps|runs] [--json]``

Each comparison is the real one (:func:`tokentape.experiment.pairs.measure`, units, pairs, looks), at a size of 3 % and the default
confidence, in at most ten pairs, with no budget. Its times are read one after another from a series: synthetic (autocorrelated,
heavy-tailed, drifting, with spikes, switching between two speeds), or recorded of one machine (``recorded_noise.npz``: the steps
of the demo model, on two shared cores, alone and beside other work). ``--live`` makes comparisons
on this machine, of the demo model with itself, the shift multiplied onto what is measured of B.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tokentape.experiment.pairs import measure
from tokentape.study.verdict import FASTER, SAME, SLOWER, UNCLEAR, Question

SHIFTS = (0.0, 0.01, 0.03)
STEPS = 16
LENGTH = 200_000
WORDS = (FASTER, SLOWER, SAME, UNCLEAR)
Rng = np.random.Generator
Noise = Callable[[Rng], np.ndarray]
"""A series of logarithms of times, one a step."""


@dataclass(frozen=True)
class Row:
    noise: str
    shift: float
    n: int
    shares: dict[str, float]
    mean_pairs: float
    mean_steps: float


def autocorrelated(rng: Rng, phi: float, sd: float) -> np.ndarray:
    from scipy.signal import lfilter

    pushes = rng.normal(0, sd * math.sqrt(1 - phi**2), LENGTH)
    pushes[0] = rng.normal(0, sd)
    return lfilter([1.0], [1.0, -phi], pushes)


def switching(rng: Rng) -> np.ndarray:
    """Two speeds, one half the other, each for 400 steps on average."""
    lengths = rng.exponential(400, LENGTH // 100).astype(int) + 1
    speeds = np.repeat(np.arange(len(lengths)) % 2 * math.log(2), lengths)[:LENGTH]
    return speeds + rng.normal(0, 0.03, len(speeds))


def recorded(name: str) -> Noise:
    """Stretches of 800 steps as they followed each other, drawn at random (block bootstrap: Künsch, Ann. Stat. 17, 1989)."""
    with np.load(Path(__file__).with_name("recorded_noise.npz")) as file:
        steps = np.log(file[name].astype(float)).reshape(-1)

    def noise(rng: Rng) -> np.ndarray:
        begins = rng.integers(len(steps) - 800, size=LENGTH // 800)
        return steps[begins[:, None] + np.arange(800)].reshape(-1)

    return noise


def kinds() -> dict[str, Noise]:
    return {
        "recorded, alone": recorded("quiet"),
        "recorded, beside other work": recorded("busy"),
        "AR(1) 0.9, 5 %": lambda rng: autocorrelated(rng, 0.9, 0.05),
        "AR(1) 0.999, 10 %": lambda rng: autocorrelated(rng, 0.999, 0.10),
        "t with 2 degrees, 3 %": lambda rng: np.clip(0.03 * rng.standard_t(2, LENGTH), -1, 3),
        "drift of 30 % + AR(1)": lambda rng: np.linspace(0, 0.3, LENGTH) + autocorrelated(rng, 0.9, 0.03),
        "spikes in 3 % of steps": lambda rng: (
            rng.normal(0, 0.02, LENGTH) + (rng.random(LENGTH) < 0.03) * rng.exponential(1, LENGTH)
        ),
        "switching x2": switching,
    }


class NoisySide:
    """Takes its times off the series that it shares with the other side, and adds its shift."""

    def __init__(self, times: Iterator[float], shift: float) -> None:
        self._times = times
        self._factor = 1 + shift
        self.n_steps = 0

    def run(self) -> Iterator[float]:
        for _ in range(STEPS):
            self.n_steps += 1
            yield self._factor * next(self._times)


def row(name: str, noise: Noise, shift: float, n: int, turns: str, question: Question) -> Row:
    words: Counter[str] = Counter()
    pairs = steps = 0
    for seed in range(n):
        rng = np.random.default_rng([seed, *name.encode()])
        times = itertools.cycle((1e6 * np.exp(noise(rng))).tolist())
        a, b = NoisySide(times, 0.0), NoisySide(times, shift)
        found = measure(a, b, question, turns=turns, seed=seed, now_ns=lambda: 0)
        if found.ended == "interrupted":
            raise KeyboardInterrupt
        words[found.verdict.word] += 1
        pairs += len(found.contrasts)
        steps += a.n_steps + b.n_steps
    return Row(name, shift, n, {word: words[word] / n for word in WORDS}, pairs / n, steps / n)


def live(n: int, shift: float, question: Question) -> Row:
    """The demo model against itself, on this machine, as ``tokentape compare --run demo --run demo`` does it."""
    import tempfile

    import tokentape as tt
    from tokentape.data.request import Request
    from tokentape.experiment.sides import RecordedSide, Recording

    class Slower:
        def __init__(self, side: RecordedSide) -> None:
            self._side = side

        def run(self) -> Iterator[float]:
            run = self._side.run()
            try:
                yield from ((1 + shift) * ns for ns in run)
            finally:
                run.close()

    source = tt.local("demo")
    request = Request((tuple(source.encode("The cat sat on the")),), {"max_new_tokens": 64, "min_new_tokens": 64})
    words: Counter[str] = Counter()
    pairs = steps = 0
    for seed in range(n):
        with tempfile.TemporaryDirectory() as folder:
            a, b = (RecordedSide(source, Recording(request, Path(folder) / f"{x}.tape"), by_steps=True) for x in "AB")
            found = measure(a, Slower(b), question, turns="steps", seed=seed)
            for side in (a, b):
                side.close().close()
        if found.ended == "interrupted":
            raise KeyboardInterrupt
        words[found.verdict.word] += 1
        pairs += len(found.contrasts)
        steps += 2 * sum(unit[2] for unit in found.units)
    return Row("this machine, live", shift, n, {word: words[word] / n for word in WORDS}, pairs / n, steps / n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=500, help="comparisons a row")
    parser.add_argument("--live", type=int, default=20, help="comparisons a row on this machine; 0 for none")
    parser.add_argument("--turns", choices=["steps", "runs", "both"], default="both")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    question = Question()
    start = time.perf_counter()
    machine = (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    if not given.json:
        asked = (
            f"size {question.threshold:.0%}, confidence {question.confidence:.0%}, at most {question.max_pairs} pairs"
        )
        print(f"{machine}; {asked}")
    rows: dict[str, list[Row]] = {}
    for turns in ["steps", "runs"] if given.turns == "both" else [given.turns]:
        found = (
            row(name, noise, shift, given.n, turns, question) for name, noise in kinds().items() for shift in SHIFTS
        )
        rows[turns] = told(f"turns by {turns}", found, quiet=given.json)
    if given.live:
        found = (live(given.live, shift, question) for shift in SHIFTS)
        rows["live"] = told("turns by steps, live", found, quiet=given.json)
    if given.json:
        print(
            json.dumps({"machine": machine, **{k: [asdict(r) for r in found] for k, found in rows.items()}}, indent=1)
        )
    else:
        print(f"\n{time.perf_counter() - start:.0f} s")


def told(title: str, rows: Iterable[Row], *, quiet: bool) -> list[Row]:
    """The rows, printed as they come."""
    heads = "".join(f"{word:>9}" for word in WORDS)
    if not quiet:
        print(f"\n{title}\n{'noise':<30}{'shift':>6}{'n':>6}{heads}{'pairs':>7}{'steps':>9}", flush=True)
    found = []
    for r in rows:
        found.append(r)
        if not quiet:
            shares = "".join(f"{100 * r.shares[word]:>8.1f}%" for word in WORDS)
            line = f"{r.noise:<30}{r.shift:>6.0%}{r.n:>6}{shares}{r.mean_pairs:>7.1f}{r.mean_steps:>9,.0f}"
            print(line, flush=True)
    return found


if __name__ == "__main__":
    main()
