"""``tokentape simulate`` as it is used, and misused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "torch_dtype": "bfloat16",
}  # fmt: skip
STEPS = "step=8ms,sequence=20us,position=40ps,token=20us"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA))
    return path


def test_what_a_server_would_do(tape: Callable[..., Any], config: Path) -> None:
    done = tape(
        "simulate", config, "--on", "h100", "--efficiency", 0.6, "--rate", 4, "--requests", 300, "--slo", "ttft=500ms"
    )
    assert done.code == 0 and done.err == ""
    for said in ("chunked prefill, up to 256 sequences", "llama on H100-SXM", "300 (", "token gap", "Little", "TTFT <= 500 ms",
                 "300 of 300 (100.0%)", "tokens of key-value memory", "waiting"):  # fmt: skip
        assert said in done.out


def test_json(tape: Callable[..., Any]) -> None:
    told = json.loads(
        tape("simulate", STEPS, "--rate", 20, "--requests", 200, "--policy", "prefill-first", "--json").out
    )
    assert (told["command"], told["schema_version"]) == ("simulate", 1)
    found = told["simulation"]
    assert found["n_requests"] == 200 and found["scheduler"]["policy"] == "prefill-first"
    assert found["ttft"]["n"] == 200 and len(found["series"]["running"]) == 120
    assert found["goodput"] is None and found["server"]["coefficients"]["token_ns"] == 20_000


def test_times_below_a_millisecond_keep_three_digits(tape: Callable[..., Any]) -> None:
    quick = ("simulate", "step=3123ns,sequence=1ns,position=0ns,token=1ns", "--rate", 20, "--requests", 40)
    gap = json.loads(tape(*quick, "--json").out)["simulation"]["token_gap"]["mean"]
    (line,) = [line for line in tape(*quick).out.splitlines() if line.startswith("token gap")]
    shown = next(word for word in line.split() if word.startswith("0.00"))
    assert 3000 < gap < 4000
    # as exact as three digits are, and no more of them
    assert abs(float(shown) * 1e6 - gap) < 6 and len(shown) == len("0.00312")


def test_several_rates_are_a_table(tape: Callable[..., Any]) -> None:
    arguments = (
        "simulate",
        STEPS,
        "--rate",
        "5,10,400",
        "--requests",
        300,
        "--max-seqs",
        16,
        "--slo",
        "ttft=200ms,gap=20ms",
    )
    lines = tape(*arguments).out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["5.00", "10.0", "400"]
    assert "yes" in lines[1] and "falls behind" in lines[3]
    told = json.loads(tape(*arguments, "--json").out)["simulations"]
    assert [one["arrival_rate"] for one in told] == [5, 10, 400]
    assert [one["load"]["keeps_up"] for one in told] == [True, True, False]


def test_the_largest_rate(tape: Callable[..., Any]) -> None:
    arguments = ("simulate", STEPS, "--requests", 300, "--max-seqs", 16, "--slo", "ttft=200ms,gap=20ms", "--find-rate")
    assert "largest rate at which 90% of the requests meet the objectives" in tape(*arguments).out
    limit = json.loads(tape(*arguments, "--json").out)["limit"]
    assert limit["rate"] < limit["above"]
    by_rate = {row["rate"]: row["kept"] for row in limit["tried"]}
    assert by_rate[limit["rate"]] and not by_rate[limit["above"]]


def test_recorded_traffic_for_a_while(tape: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    rows = [f"2023-11-16 18:15:{i:02}.5000000,{100 + i},{5 + i % 7}" for i in range(60)]
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows) + "\n")
    told = json.loads(tape("simulate", STEPS, "--arrivals", f"azure:{file}", "--duration", "10m", "--json").out)
    assert told["simulation"]["origin"] == "azure"
    assert told["simulation"]["n_requests"] == pytest.approx(600, abs=3)


def test_in_chinese(tape: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENTAPE_LANG", "zh")
    done = tape("simulate", STEPS, "--rate", 300, "--requests", 300, "--max-seqs", 4, "--slo", "gap=20ms")
    assert "分块预填充，最多 4 个序列" in done.out and "服务器处理不及" in done.out
    done = tape("simulate", STEPS, "--rate", 3, "--policy", "fifo")
    assert "没有名为 'fifo' 的调度策略" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((STEPS,), 2, "poisson arrivals without a rate"),
        (("config.json", "--rate", 2), 2, "a model without a machine"),
        ((STEPS, "--rate", 0), 2, "a rate of 0 requests/s"),
        ((STEPS, "--rate", "fast"), 2, "--rate fast"),
        ((STEPS, "--rate", 2, "--policy", "chunk"), 2, "no policy 'chunk'"),
        ((STEPS, "--rate", 2, "--find-rate"), 2, "--find-rate without --slo"),
        ((STEPS, "--rate", 2, "--slo", "ttf=1s"), 2, "no objective 'ttf'"),
        ((STEPS, "--arrivals", "azure:none.csv"), 2, "none.csv cannot be read"),
        ((STEPS, "--arrivals", "trace"), 2, "no arrivals 'trace'"),
        (("step=8", "--rate", 2), 2, "no coefficient 'step=8'"),
        (("none.tape", "--rate", 2), 2, "there is no file none.tape"),
        ((STEPS, "--rate", 2, "--kv-tokens", 3), 2, "3 tokens of key-value memory"),
    ],
)
def test_bad_questions(tape: Callable[..., Any], arguments: tuple[Any, ...], code: int, said: str) -> None:
    done = tape("simulate", *arguments)
    assert done.code == code
    assert said in done.err and "why:" in done.err and "fix:" in done.err
    assert done.out == ""


def test_it_needs_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom tokentape.cli.program import run\n"
        f"code = run(['simulate', '{STEPS}', '--rate', '5', '--requests', '50'])\n"
        "assert code == 0 and 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
