"""A model in two processes (gloo, by torchrun): the ids of one process, one tape, and whatever ends a rank ends all with one word.

Small models: random weights of Llama's and Qwen 3's architectures, whose heads two ranks can share, and the trained ones of the
material.
"""

from __future__ import annotations

import json
import os
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
from tokentape.errors import ModelError, TokentapeError, UsageError
from tokentape.models.parallel import Ranks, ranks_here, sharded_options
from tokentape.sources.ranks import RANKS, ranks_note

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
WAIT_S = 240
"""For two ranks that start on a busy machine; nothing here measures time."""


@pytest.fixture(autouse=True)
def _accelerate() -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed: pip install 'tokentape[parallel]'")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An architecture alone."""
    path = tmp_path_factory.mktemp("llama") / "config.json"
    path.write_text(json.dumps(architecture()))
    return path


def architecture(**more: Any) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 258,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "dtype": "float32",
        **more,
    }


def record(model: Path, tape: Path, *more: str, ranks: bool, ok: bool = True) -> subprocess.CompletedProcess[str]:
    command = ["-m", "tokentape", "record", str(model), *more, "-o", str(tape)]
    command = [*TORCHRUN, *command, "--tp-plan", "auto"] if ranks else [sys.executable, *command, "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, env=ENVIRONMENT)
    assert not ok or done.returncode == 0, done.stderr
    return done


def both(model: Path, folder: Path, *more: str) -> tuple[Tape, Tape, str]:
    """The tape of one process and that of two, and what the two said on stdout."""
    record(model, folder / "one.tape", *more, "-q", ranks=False)
    done = record(model, folder / "two.tape", *more, "-q", ranks=True)
    return open_tape(folder / "one.tape"), open_tape(folder / "two.tape"), done.stdout


def assert_same(one: Tape, two: Tape) -> None:
    assert two.state == "complete" and not list(tokentape.verify(two.path or ""))
    assert len(two.traces) == len(one.traces)
    for mine, theirs in zip(two.traces, one.traces, strict=True):
        assert mine.tokens["id"].tolist() == theirs.tokens["id"].tolist()
        assert mine.text == theirs.text and mine.finish_reason == theirs.finish_reason
        # sums in another order: rounding of float32, no more
        assert np.abs(mine.tokens["logprob"].data - theirs.tokens["logprob"].data).max() < 1e-4
    # the whole model is hashed and counted, not this rank's part of it
    assert set(two.setting.differences(one.setting)) <= {"tensor_parallel", "torch_threads"}
    assert two.setting.facts["tensor_parallel"] == 2
    note = two.notes[RANKS]
    n_steps = len(two.columns("step")["start_ns"])
    own = two.columns("step")["forward_ns"].data
    assert note["size"] == len(note["forward_ns"]) == 2 and note["forward_ns"][0] == own.sum()
    assert len(note["slowest"]) == len(note["slowest_ns"]) == n_steps
    assert (np.array(note["slowest_ns"]) >= own).all(), "the slowest rank is no faster than rank 0"


@pytest.mark.slow
def test_two_ranks_say_what_one_process_says(llama: Path, tmp_path: Path) -> None:
    more = ["--random-weights", "0", "--prompt-ids", "3,5,8,13", "-n", "24", "--ignore-eos", "--greedy"]
    one, two, said = both(llama, tmp_path, *more)
    with one, two:
        assert_same(one, two)
        ids = " ".join(map(str, two.traces[0].tokens["id"].tolist()))
        assert said == f"{ids}\n", "rank 0 alone speaks, once"
        assert [path.name for path in sorted(tmp_path.glob("*.tape"))] == ["one.tape", "two.tape"]


@pytest.mark.slow
def test_what_is_drawn_is_drawn_once_for_all(tmp_path: Path) -> None:
    """Random prompt and sampling without a seed: ranks that drew for themselves would read and say different things."""
    qwen = tmp_path / "config.json"
    qwen.write_text(
        json.dumps({**architecture(model_type="qwen3", architectures=["Qwen3ForCausalLM"]), "head_dim": 16})
    )
    drawn = ["--random-weights", "1", "--prompt-tokens", "5", "--do-sample", "-n", "16", "--ignore-eos"]
    record(qwen, tmp_path / "two.tape", *drawn, "-q", ranks=True)
    with open_tape(tmp_path / "two.tape") as two:
        (trace,) = two.traces
        assert trace.prompt_ids is not None
        again = ["--random-weights", "1", "--prompt-ids", ",".join(map(str, trace.prompt_ids)), "--do-sample"]
        again += ["--seed", str(two.runs[0].seed), "-n", "16", "--ignore-eos", "-q"]
        record(qwen, tmp_path / "one.tape", *again, ranks=False)
        with open_tape(tmp_path / "one.tape") as one:
            assert_same(one, two)


@pytest.mark.slow
@pytest.mark.material
@pytest.mark.parametrize("name", ["stories260K", "TinyStories-656K"])
def test_trained_models_tell_the_same_story(name: str, material: Path, tmp_path: Path) -> None:
    more = ["Once upon a time", "-n", "60", "--greedy"]
    one, two, said = both(material / "models" / name, tmp_path, *more)
    with one, two:
        assert_same(one, two)
        assert said.rstrip("\n") == (two.traces[0].shown or "").rstrip("\n")


@contextmanager
def under_way(llama: Path, tape: Path) -> Iterator[subprocess.Popen[str]]:
    """Two ranks that have recorded some steps and have many before them."""
    more = ["--random-weights", "0", "--prompt-ids", "1,2", "-n", "500", "--ignore-eos", "-o", str(tape)]
    command = [*TORCHRUN, "-m", "tokentape", "record", str(llama), *more, "--tp-plan", "auto"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True
    )
    with process:
        try:
            until = time.monotonic() + WAIT_S
            while _steps(tape) < 5:
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.05)
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.communicate(timeout=60)
                except subprocess.TimeoutExpired:
                    process.kill()


def _steps(path: Path) -> int:
    try:
        with open_tape(path) as tape:
            return tape.columns("step").n_rows
    except TokentapeError:
        return 0


def _rank(process: subprocess.Popen[str], rank: int) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    wanted = f"RANK={rank}".encode()
    return next(int(pid) for pid in children if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the ranks in /proc")
@pytest.mark.parametrize("how", ["ctrl-c", "rank 1 is killed"])
def test_what_ends_a_rank_ends_all_and_keeps_the_tape(how: str, llama: Path, tmp_path: Path) -> None:
    path = tmp_path / "ended.tape"
    with under_way(llama, path) as process:
        if how == "ctrl-c":
            process.send_signal(signal.SIGINT)
        else:
            os.kill(_rank(process, 1), signal.SIGKILL)
        _, err = process.communicate(timeout=120)
    ours = [line for line in err.splitlines() if line.startswith(("error:", "why:", "fix:"))]
    if how == "ctrl-c":
        assert ours == [] and "interrupted" in err
    else:
        assert len(ours) == 3 and ours[0] == "error: another rank ended, and left no word"
    assert not list(tokentape.verify(path))
    with open_tape(path) as tape:
        assert tape.state == "partial" and 5 <= tape.columns("step").n_rows < 500


@pytest.mark.slow
def test_what_every_rank_meets_is_told_once(tmp_path: Path) -> None:
    done = record(Path("demo"), tmp_path / "no.tape", "The fox", ranks=True, ok=False)
    ours = [line for line in done.stderr.splitlines() if line.startswith(("error:", "why:", "fix:"))]
    assert done.returncode != 0 and len(ours) == 3
    assert ours[0] == "error: transformers has no tensor-parallel plan for demo" and "Llama" in ours[1]
    assert done.stdout == "" and not (tmp_path / "no.tape").exists()


def config_of(**more: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**{k: v for k, v in architecture(**more).items() if k not in ("model_type", "architectures")})


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)


def test_a_head_stays_whole(rank: None) -> None:
    import torch

    cpu = torch.device("cpu")
    if torch.cuda.is_available():
        pytest.skip("transformers would take the GPU")
    with pytest.raises(ModelError, match="cannot be shared among 2 ranks") as raised:
        sharded_options(config_of(num_key_value_heads=1), "small", "auto", cpu)
    assert "num_key_value_heads is 1" in raised.value.why and "without --tp-plan" in raised.value.fix
    with pytest.raises(UsageError, match="no such plan: 'colwise'"):
        sharded_options(config_of(), "small", "colwise", cpu)
    assert set(sharded_options(config_of(), "small", "auto", cpu)) == {"distributed_config"}


def test_a_process_by_itself_is_refused(monkeypatch: pytest.MonkeyPatch, rank: None) -> None:
    assert ranks_here() == Ranks(0, 2, 0)
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(UsageError, match="with one process"):
        ranks_here()
    monkeypatch.delenv("RANK")
    with pytest.raises(UsageError, match="in a process by itself") as raised:
        ranks_here()
    assert raised.value.fix.startswith("torchrun --nproc-per-node 2 -m tokentape record")


def test_the_note_names_the_slowest_rank_of_each_step() -> None:
    note = ranks_note(["a", "b"], [[5, 1, 7], [4, 9, 7, 1]])
    assert note == {
        "size": 2,
        "hosts": ["a", "b"],
        "forward_ns": [13, 20],
        "slowest": [0, 1, 0],
        "slowest_ns": [5, 9, 7],
    }
    assert ranks_note(["a", "b"], [[], []])["slowest_ns"] == []


@pytest.mark.parametrize(
    ("forward_ns", "says"),
    [
        ([100, 112], "2; rank 1 is the slowest: +12.0% in the forward pass"),
        ([112, 100, 90], "3; none is slower"),
        ([0, 0], None),
    ],
)
def test_the_card_has_a_line_of_the_ranks(forward_ns: list[int], says: str | None, tmp_path: Path) -> None:
    from tokentape.data.setting import Setting
    from tokentape.data.store import TapeWriter
    from tokentape.views.ranks_text import rank_lines
    from tokentape.views.screen import Screen

    writer = TapeWriter.create(tmp_path / "noted.tape", Setting({}))
    writer.note(RANKS, {"forward_ns": forward_ns})
    with writer.close() as tape, (tmp_path / "screen.txt").open("w") as out:
        found = rank_lines(tape, Screen.of(out))
    assert found == [] if says is None else found[0][0] == "ranks" and found[0][1].startswith(says)
