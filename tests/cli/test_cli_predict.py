"""``tokentape predict`` and ``tokentape doctor --measure`` as they are used, and misused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tokentape.cli.predict as command_module
import tokentape.experiment.machine as machine_module
from tokentape.study.cost.hardware import Hardware

LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA))
    return path


def test_how_much_compute_it_needs(tape: Callable[..., Any], config: Path) -> None:
    done = tape("predict", config, "--on", "h100", "--context", "8k", "--batch", 4, "--new-tokens", 256)
    assert done.code == 0 and done.err == ""
    for said in ("8.03 B (8,030,261,248)", "128 KiB a token", "fits", "yes, into 74.5 GiB of H100-SXM", "largest batch",
                 "bound by compute", "bound by bandwidth", "at most", "700 W"):  # fmt: skip
        assert said in done.out


def test_counts_alone_and_some_machines(tape: Callable[..., Any], config: Path) -> None:
    done = tape("predict", config)
    assert done.code == 0
    assert "8.03 B" in done.out and "MI300X" in done.out and "--on NAME" in done.out


def test_json_has_every_figure_with_its_kind(tape: Callable[..., Any], config: Path) -> None:
    done = tape("predict", config.parent, "--on", "H200", "--context", "1k", "--json")
    told = json.loads(done.out)
    assert (told["command"], told["schema_version"], told["context"]) == ("predict", 1, 1024)
    assert {figure["kind"] for figure in told["figures"].values()} <= {"measured", "modelled", "unavailable"}
    assert told["figures"]["parameters"]["value"] == 8_030_261_248
    assert told["hardware"]["name"] == "H200"


def test_varied(tape: Callable[..., Any], config: Path) -> None:
    done = tape("predict", config, "--vary", "layers=16,32", "--on", "a100")
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["16", "32"] and "tokens/s" in lines[0]
    told = json.loads(tape("predict", config, "--vary", "context=1k..4k", "--json").out)
    assert [row["value"] for row in told["predictions"]] == [1024, 2048, 4096]
    assert "fits" not in tape("predict", config, "--vary", "batch=1,2").out.splitlines()[0]


def test_from_a_tape(tape: Callable[..., Any], tmp_path: Path) -> None:
    assert tape("record", "demo", "The fox", "--max-new-tokens", 2, "-o", tmp_path / "a.tape").code == 0
    done = tape("predict", tmp_path / "a.tape", "--context", 16)
    assert done.code == 0 and "995,968" in done.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--context", "0"], "context is 0"),
        (["--context", "many"], "--context is 'many'"),
        (["--batch", "0"], "batch is 0"),
        (["--on", "abacus"], "no machine 'abacus'"),
        (["--heads", "7"], "cannot be cut into 7 heads"),
        (["--kv-heads", "5"], "do not share 5"),
        (["--tensor-parallel", "3"], "3 devices cannot share"),
        (["--dtype", "int3"], "no dtype 'int3'"),
        (["--vary", "colour=3"], "cannot vary 'colour=3'"),
        (["--vary", "heads=8,7"], "cannot be cut into 7 heads"),
    ],
)
def test_impossible_questions_exit_2(tape: Callable[..., Any], config: Path, arguments: list[str], says: str) -> None:
    done = tape("predict", config, *arguments)
    assert done.code == 2 and done.out == ""
    assert says in done.err and "why:" in done.err and "fix:" in done.err


def test_a_law_is_asked(tape: Callable[..., Any], config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Law:
        def time_of(self, kind: str, workload: Any, context: float, batch: float) -> tuple[float, float, float]:
            return 2e6, 1e6, 3e6

    asked: list[Any] = []
    monkeypatch.setattr(command_module, "_law", lambda tapes: asked.append(tapes) or Law())
    done = tape("predict", config, "--law", "a.tape", "--law", "b.tape")
    assert asked == [("a.tape", "b.tape")]
    assert (
        "time, by a law" in done.out
        and "2.00 ms (1.00 ms to 3.00 ms)" in done.out
        and "500 tokens/s (333 to 1,000)" in done.out
    )


def test_without_torch_and_at_once(config: Path) -> None:
    program = (
        "import sys\nfrom tokentape.cli.program import run\n"
        f"code = run(['predict', {str(config)!r}, '--on', 'h100'])\n"
        "print(code, *sorted({'torch', 'transformers', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=os.environ)
    assert done.stdout.splitlines()[-1] == "0"


def test_doctor_measures_and_keeps(
    tape: Callable[..., Any], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert tape("predict", config, "--on", "this").code == 1, "not measured yet"
    details = {
        "read_gb_s": {"all_threads": 20.0},
        "many_rows_gflops": {"float32": 100.0},
        "one_row_gflops": {"float32": 8.0},
        "rows": 256,
    }
    made = Hardware(
        "this machine (cpu)", {"float32": 0.1}, 16, 20.0, None, None, "measured with paper", layer_floor_ns=1e5,
        one_row_gb_s={"float32": 16.0}, measured="2026-01-02 03:04", details=details,
    )  # fmt: skip
    monkeypatch.setattr(machine_module, "measure", lambda tell: (tell("reading memory"), made)[1])
    done = tape("doctor", "--measure", "--model", config)
    assert done.code == 0 and "measuring: reading memory" in done.err
    for said in (
        "20.0 GB/s with all threads",
        "100 GFLOP/s with 256 rows",
        "a decode step",
        "llama at 1,024 tokens",
        "--on this",
    ):
        assert said in done.out
    after = tape("predict", config, "--on", "this")
    assert after.code == 0 and "measured 2026-01-02 03:04" in after.out
    told = json.loads(tape("doctor", "--measure", "--json").out)
    assert told["machine"]["bandwidth_gb_s"] == 20.0 and told["schema_version"] == 1


def test_doctor_looks_for_the_model_before_it_measures(
    tape: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_module, "measure", lambda tell: pytest.fail("measured for nothing"))
    assert tape("doctor", "--measure", "--model", "nowhere").code == 2
