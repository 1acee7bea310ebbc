"""Starts recorders to be killed: reads ``path seed`` lines, forks a child for each, prints its process id.

Each child records an endless script and writes down, outside of the tape, when each of its steps ended.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import tokentape as tt
from tokentape.clock import HostClock
from tokentape.recorder.run import record
from tokentape.recorder.tick import Said, Tick
from tokentape.sources.scripted import Line, ScriptedSource


class Endless(ScriptedSource):
    """Steps of 0 to 3 ms for ever, with 0, 1 or 4 tokens; notes each before it is handed over."""

    def __init__(self, path: Path, seed: int) -> None:
        super().__init__([], clock=HostClock())
        self._random = random.Random(seed)
        self._log = os.open(path.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def _ticks(self, n_rows: int) -> Iterator[Tick]:
        choose = self._random
        while True:
            n = choose.choice([0, 1, 1, 1, 4])
            said = [Said(0, i, f" word{i}".encode(), -1.5, 2.0, 1, None, ((i, -1.5), (9, -2.0))) for i in range(n)]
            self.script = [Line(choose.choice([0, 500_000, 1_000_000, 3_000_000]), said)]
            for tick in super()._ticks(n_rows):
                os.write(self._log, time.perf_counter_ns().to_bytes(8, "little"))
                yield tick


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    tt.open  # noqa: B018  everything is imported before the first fork
    for line in sys.stdin:
        path, seed = line.split()
        child = os.fork()
        if child == 0:
            record(Endless(Path(path), int(seed)), "once upon a time", path=path)
        print(child, flush=True)


if __name__ == "__main__":
    main()
