"""A recorder killed at any moment: everything it had said was committed is there, and the tape is sound."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tokentape.data import open_tape

HERE = Path(__file__).parent
KILLS = 200
REPORTS = 3 * 61 + 2

# One process forks a child for each tape: importing numpy 200 times would be most of the test.
NURSERY = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import tokentape.data
from tapes import SETTING, step, token, write_run
from tokentape.data import TapeWriter

def grow(path, report):
    def say(*words):
        os.write(report, (" ".join(map(str, words)) + "\\n").encode())
    writer = TapeWriter.create(path, SETTING, overwrite=True)
    say("made")
    for _ in range(3):
        begun = write_run(writer, n_steps=60, pause=lambda i: say("step", i))
        say("end", begun.number)
    writer.close().close()
    say("closed")

for line in sys.stdin:
    after, delay, path = line.rstrip("\\n").split(" ", 2)
    reading, report = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            grow(path, report)
        finally:
            os._exit(0)
    os.close(report)
    said = b""
    while chunk := os.read(reading, 65536) if said.count(b"\\n") < int(after) else b"":
        said += chunk
    time.sleep(float(delay))
    os.kill(child, 9)
    os.waitpid(child, 0)
    while chunk := os.read(reading, 65536):
        said += chunk
    os.close(reading)
    with open(path + ".said", "wb") as file:
        file.write(said)
    print("gone", flush=True)
"""


def committed(said: Path) -> tuple[list[int], bool, bool]:
    """Steps of each run that the child reported, whether the file was there, whether it was closed."""
    runs = [0]
    lines = said.read_text().splitlines()
    for line in lines:
        word, _, number = line.partition(" ")
        if word == "step":
            runs[-1] = int(number) + 1
        elif word == "end":
            runs.append(0)
    return runs, "made" in lines, "closed" in lines


def kill_some(folder: Path, seed: int, n: int) -> dict[str, int]:
    chance = random.Random(seed)
    seen = {"absent": 0, "partial": 0, "complete": 0}
    nursery = subprocess.Popen(
        [sys.executable, "-c", NURSERY, str(HERE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        for i in range(n):
            path = folder / f"{seed}-{i}.tape"
            # A moment in the child's own time, so that a busy machine does not move all of them to one place.
            after, delay = chance.randrange(-10, REPORTS + 1), chance.random() * 0.004
            nursery.stdin.write(f"{after} {delay} {path}\n")
            nursery.stdin.flush()
            assert nursery.stdout.readline() == "gone\n"
            seen[check(path)] += 1
    finally:
        nursery.communicate()
    return seen


def check(path: Path) -> str:
    runs, made, closed = committed(Path(f"{path}.said"))
    if not path.exists():
        assert not made, "the tape had been made, and is gone"
        return "absent"
    with open_tape(path) as tape:
        assert tape.verify() == []
        assert tape.state == "complete" if closed else tape.state in ("partial", "complete")
        for number, n_steps in enumerate(runs):
            if not n_steps:
                continue
            first, second = (trace for trace in tape.traces if trace.run.number == number)
            assert first.steps.n_rows >= n_steps
            assert first.tokens.n_rows >= n_steps
            assert second.tokens.n_rows + second.overshoot.n_rows >= n_steps
            assert first.tokens["id"].tolist() == list(range(first.tokens.n_rows))
        ended = len(runs) - 1
        assert all(run.finished for run in tape.runs[:ended])
        return tape.state


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the children are forked")
def test_killed_at_200_moments(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(lambda seed: kill_some(tmp_path, seed, KILLS // 2), (1, 2)))
    seen = {state: sum(half[state] for half in halves) for state in halves[0]}
    assert sum(seen.values()) == KILLS
    assert seen["partial"] > KILLS / 2, seen  # the kills fell where they should


def test_a_killed_overwriting_leaves_the_old_tape_or_the_new(tmp_path):
    """At no moment of overwriting is there no tape at the path."""
    code = """
import os, sys
sys.path.insert(0, sys.argv[2])
from tapes import SETTING
from tokentape.data import Setting, TapeWriter
stop = int(sys.argv[3])
calls = 0
def trace(event, args):
    global calls
    if event in ("os.rename", "os.remove", "os.link", "sqlite3.connect", "open"):
        calls += 1
        if calls == stop:
            os.kill(os.getpid(), 9)
sys.addaudithook(trace)
TapeWriter.create(sys.argv[1], Setting({"model": "new"}), overwrite=True).close().close()
print("lived")
"""
    from tapes import write_tape

    for stop in range(1, 40):
        path = tmp_path / f"{stop}.tape"
        write_tape(path, n_runs=1)
        done = subprocess.run(
            [sys.executable, "-c", code, str(path), str(HERE), str(stop)], capture_output=True, text=True, check=False
        )
        with open_tape(path) as tape:
            assert tape.verify() == []
            assert (tape.setting.facts["model"], len(tape)) in (("demo", 2), ("new", 0))
        if "lived" in done.stdout:
            break
    else:
        raise AssertionError("it never lived")
    assert stop > 3
