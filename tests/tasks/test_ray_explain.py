"""Explaining every sequence of a tape, in one process and shared among two Ray workers: the same explanations, in the tape."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tokentape
from tokentape.data.explanation import Explanation
from tokentape.data.tape import open_tape

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(*arguments: str) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "tokentape", *arguments], capture_output=True, text=True, timeout=300, env=ENVIRONMENT
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recorded") / "four.tape"
    source = tokentape.local("demo", device="cpu")
    prompts = ["The cat", "Tom went to the park", "A dog", "Mary had"]
    tokentape.record(source, prompts, path=path, max_new_tokens=6, do_sample=False).close()
    return path


def copied(recorded: Path, folder: Path, name: str) -> Path:
    return Path(shutil.copy(recorded, folder / name))


def plain(one: Explanation) -> dict[str, Any]:
    """All that does not depend on when it was made."""
    return {
        "trace": one.trace,
        "targets": one.targets.tolist(),
        "relevance": one.relevance.tolist(),
        "value": np.asarray(one.value).tolist(),
        "sources": one.sources,
        "check": one.check,
        "passes": dict(one.passes),
        "made": dict(one.made),
    }


@pytest.mark.slow
def test_every_sequence_by_itself_is_what_each_alone_gives(recorded: Path, tmp_path: Path) -> None:
    path = copied(recorded, tmp_path, "here.tape")
    done = run("explain", str(path), "--every-trace", "--all", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["0", "1", "2", "3"]
    causal = tokentape.local("demo", device="cpu").causal
    with open_tape(path) as tape:
        assert [one.trace for one in tape.explanations] == [0, 1, 2, 3]
        for one in tape.explanations:
            alone = tokentape.explain(tape, causal, trace=one.trace)
            assert np.allclose(one.relevance.filled(0), alone.relevance.filled(0), atol=1e-5)
            assert one.targets.tolist() == alone.targets.tolist()


@pytest.mark.slow
def test_two_workers_explain_as_one_process_does(recorded: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'tokentape[ray]'")
    found: dict[str, Any] = {}
    for name, more in (("here", ["--every-trace"]), ("ray", ["--ray", "--ray-workers", "2"])):
        path = copied(recorded, tmp_path, f"{name}.tape")
        done = run("explain", str(path), *more, "--all", "--threads", "1", "--device", "cpu", "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert [one["number"] for one in told["explanations"]] == [0, 1, 2, 3] and not told["interrupted"]
        assert not list(tokentape.verify(path))
        with open_tape(path) as tape:
            found[name] = [plain(one) for one in tape.explanations]
    assert found["here"] == found["ray"]


@pytest.mark.slow
def test_a_refusal_in_a_worker_is_the_one_of_this_process(recorded: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'tokentape[ray]'")
    asked = ["--all", "--threads", "1", "--device", "cpu", "--against", "Timbuktu by night"]
    told = []
    for more in (["--every-trace"], ["--ray"]):
        path = copied(recorded, tmp_path, "refused.tape")
        done = run("explain", str(path), *more, *asked)
        told.append((done.returncode, done.stderr.splitlines()[-3:]))
        with open_tape(path) as tape:
            assert not tape.explanations
    assert told[0] == told[1] and told[0][0] == 2


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--every-trace", "--trace", "1"], "--every-trace together with --trace"),
        (["--every-trace", "--lens"], "--every-trace together with --lens"),
        (["--ray", "--attention"], "--ray together with --attention"),
        (["--ray-address", "host:1"], "--ray-address without --ray"),
        (["--every-trace", "--step", "99"], "no step 99"),
    ],
)
def test_what_cannot_be_asked_of_all_is_refused(recorded: Path, more: list[str], says: str) -> None:
    done = run("explain", str(recorded), *more)
    assert done.returncode == 2 and says in done.stderr, done.stderr
