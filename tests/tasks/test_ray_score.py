"""Scoring shared among two workers of a Ray that runs here: the same bits as one process, whoever dies, whenever it is stopped.

Each test runs the command in a process of its own, as people do: Ray's processes and their warnings stay out of this one.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tokentape
from tokentape.data.tape import Tape, open_tape
from tokentape.errors import TokentapeError

pytest.importorskip("ray", reason="Ray is not installed: pip install 'tokentape[ray]'")
pytestmark = pytest.mark.slow

WORDS = "the cat dog sat on mat park Tom Mary went to and looked house ball red blue".split()
WAIT_S = 240
"""For a Ray that starts on a busy machine; nothing here measures time."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 documents, of which some have a context."""
    drawn = random.Random(7)
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(2000):
            text = " ".join(drawn.choice(WORDS) for _ in range(drawn.randint(1, 9)))
            one = {"context": "Tom said:", "continuation": f" {text}"} if number % 5 == 0 else {"text": text}
            file.write(json.dumps(one) + "\n")
    return path


def arguments(corpus: Path, tape: Path, *more: str) -> list[str]:
    scoring = ["score", "demo", "-f", str(corpus), "-o", str(tape), "--batch-tokens", "128", "--threads", "1"]
    return [sys.executable, "-m", "tokentape", *scoring, "--device", "cpu", "-q", "--rows", "1", *more]


@pytest.fixture(scope="module")
def alone(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tape]:
    """The scores of one process."""
    path = tmp_path_factory.mktemp("alone") / "alone.tape"
    subprocess.run(arguments(corpus, path, "--distribution"), check=True, capture_output=True, timeout=WAIT_S)
    with open_tape(path) as tape:
        yield tape


def ids_of(trace: Any) -> list[int] | None:
    return None if trace.prompt_ids is None else list(trace.prompt_ids)


def assert_same(found: Tape, alone: Tape) -> None:
    """Bit for bit, run by run and document by document: no document lost, none twice."""
    assert found.state == "complete" and not list(tokentape.verify(found.path or ""))
    assert len(found.traces) == len(alone.traces) == 2000
    assert [run.options["score"] for run in found.runs] == [run.options["score"] for run in alone.runs]
    for mine, theirs in zip(found.traces, alone.traces, strict=True):
        assert ids_of(mine) == ids_of(theirs)
        assert (mine.text, mine.finish_reason) == (theirs.text, theirs.finish_reason)
        assert mine.token_bytes == theirs.token_bytes
        for name in ("position", "step", "id", "logprob", "entropy", "rank"):
            ours, other = mine.tokens[name], theirs.tokens[name]
            assert np.array_equal(ours.filled(-9), other.filled(-9)), (mine.number, name)
        assert np.array_equal(mine.candidates.ids, theirs.candidates.ids)
        assert np.array_equal(mine.candidates.logprob, theirs.candidates.logprob)
    assert found.pieces == alone.pieces
    assert found.setting.differences(alone.setting) == {}


def workers_below(ancestor: int) -> list[int]:
    """Processes of Ray Data's actors that descend from a process: nobody else's."""
    parents: dict[int, int] = {}
    named: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text(errors="replace")
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
            if command.startswith(b"ray::MapWorker"):
                named.append(int(entry.name))

    def below(pid: int) -> bool:
        while pid > 1 and pid != ancestor:
            pid = parents.get(pid, 0)
        return pid == ancestor

    return [pid for pid in named if below(pid)]


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A command under way, in a session of its own; it does not outlive the test."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.communicate(timeout=60)
                except subprocess.TimeoutExpired:
                    process.kill()


def wait_for_runs(path: Path, process: subprocess.Popen[str], at_least: int) -> int:
    """Waits until so many batches are on the tape; how many there are."""
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with open_tape(path) as tape:
                if len(tape.runs) >= at_least:
                    return len(tape.runs)
        except TokentapeError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"no {at_least} runs: exit {process.poll()}")


def test_two_workers_find_what_one_process_finds(corpus: Path, alone: Tape, tmp_path: Path) -> None:
    path = tmp_path / "two.tape"
    more = ["--distribution", "--ray", "--ray-workers", "2", "--json"]
    done = subprocess.run(arguments(corpus, path, *more), capture_output=True, text=True, timeout=2 * WAIT_S)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "nothing of Ray's on the screen"
    assert len(json.loads(done.stdout)["documents"]) == 2000, "and nothing of it in the document"
    with open_tape(path) as tape:
        assert_same(tape, alone)
        assert len({run.options["ray"]["pid"] for run in tape.runs}) == 2, "both did something"
        assert tape.columns("step")["cpu_ns"].mask.all(), "what this process's readings would say is not said"


def test_a_worker_killed_in_the_middle_loses_nothing(corpus: Path, alone: Tape, tmp_path: Path) -> None:
    path = tmp_path / "killed.tape"
    with started(arguments(corpus, path, "--distribution", "--ray", "--ray-workers", "2")) as process:
        n_before = wait_for_runs(path, process, 2)
        victim = workers_below(process.pid)[0]
        os.kill(victim, signal.SIGKILL)
        _, err = process.communicate(timeout=2 * WAIT_S)
        assert process.returncode == 0, err
    with open_tape(path) as tape:
        assert n_before < len(tape.runs), "it was killed before all was done"
        assert_same(tape, alone)
        pids = [run.options["ray"]["pid"] for run in tape.runs]
        assert len(set(pids)) >= 2 and pids[-1] != victim


def test_what_ctrl_c_left_is_gone_on_with(corpus: Path, alone: Tape, tmp_path: Path) -> None:
    path = tmp_path / "stopped.tape"
    command = arguments(corpus, path, "--distribution", "--ray", "--ray-workers", "2")
    with started(command) as process:
        wait_for_runs(path, process, 2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=WAIT_S)
        assert process.returncode == 130 and "--resume" in err, err
    with open_tape(path) as tape:
        kept = len(tape.runs)
        assert 2 <= kept < len(alone.runs) and tape.state == "partial"
    # by one process: the batches of what is left are others, and so may be the last bits
    done = subprocess.run(
        [*arguments(corpus, path, "--distribution"), "--resume"], capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.returncode == 0, done.stderr
    with open_tape(path) as tape:
        indexes = [one["index"] for run in tape.runs for one in run.options["score"]["documents"]]
        assert sorted(indexes) == list(range(2000)) and tape.state == "complete"


def test_more_workers_than_work_are_not_started_and_not_warned_of(tmp_path: Path) -> None:
    one = tmp_path / "one.txt"
    one.write_text("the cat sat", encoding="utf-8")
    command = arguments(one, tmp_path / "one.tape", "--ray", "--ray-workers", "2")
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * WAIT_S)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_a_model_that_is_not_there_is_refused_once(corpus: Path, tmp_path: Path) -> None:
    command = arguments(corpus, tmp_path / "no.tape", "--ray")
    command[command.index("demo")] = "./nothing"
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, cwd=tmp_path)
    told: Any = done.stderr
    assert done.returncode == 2 and told.startswith("error: there is no './nothing' here"), told
    assert told.count("\n") == 3 and not (tmp_path / "no.tape").exists()


def test_options_of_ray_need_ray(corpus: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        arguments(corpus, tmp_path / "no.tape", "--ray-workers", "2"), capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.returncode == 2 and "--ray-workers without --ray" in done.stderr
