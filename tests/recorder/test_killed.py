"""SIGKILL at random moments: every tape opens, verifies, and lacks at most the last 16 steps or quarter of a second."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tokentape as tt

N_KILLS = 200
AT_ONCE = 4

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path) -> None:
    nursery = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("nursery.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    choose = random.Random(0)
    found = {"without a file": 0, "partial": 0}
    lost = []
    for first in range(0, N_KILLS, AT_ONCE):
        children = {}
        for i in range(first, first + AT_ONCE):
            path = tmp_path / f"{i}.tape"
            nursery.stdin.write(f"{path} {i}\n")
            nursery.stdin.flush()
            # one in ten from its first moment on, when its file may be half founded; the others once they have one
            moment = time.monotonic() + choose.uniform(0, 0.1) if i % 10 == 0 else None
            children[int(nursery.stdout.readline())] = path, moment
        last = time.monotonic() + 60
        while children:
            assert time.monotonic() < last, children
            for child, (path, moment) in list(children.items()):
                if moment is None and path.exists():
                    children[child] = path, time.monotonic() + choose.uniform(0, 0.5)
                elif moment is not None and time.monotonic() >= moment:
                    killed_ns = time.perf_counter_ns()
                    os.kill(child, signal.SIGKILL)
                    _wait_until_gone(child)
                    del children[child]
                    lost.append(_check(path, killed_ns, found))
            time.sleep(0.001)
    nursery.communicate()
    assert nursery.returncode == 0
    assert found["partial"] >= N_KILLS * 0.9, found
    print(f"{found}; steps lost: median {np.median(lost)}, most {max(lost)}")


def _wait_until_gone(child: int) -> None:
    while Path(f"/proc/{child}").exists():
        time.sleep(0.001)


def _check(path: Path, killed_ns: int, found: dict[str, int]) -> int:
    log = path.with_suffix(".log")
    times = np.frombuffer(log.read_bytes(), dtype="<u8") if log.exists() else np.array([], dtype="<u8")
    if not path.exists():  # killed before it had begun
        found["without a file"] += 1
        assert len(times) <= 16
        return len(times)
    with tt.open(path) as tape:
        assert tape.state == "partial"
        assert not tape.verify(), path
        found["partial"] += 1
        n_steps = len(tape.traces[0].steps["index"]) if len(tape.traces) else 0
        n_tokens = len(tape.traces[0].token_ids) if len(tape.traces) else 0
        assert n_tokens == (int(tape.traces[0].steps["n_out"].sum()) if n_steps else 0)
    old_enough = int((times <= killed_ns - 250_000_000).sum())
    assert n_steps >= min(old_enough, max(len(times) - 16, 0)), (path, n_steps, old_enough, len(times))
    return len(times) - n_steps
