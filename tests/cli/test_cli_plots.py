"""``--plot`` of fit and predict, as it is used and misused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tokentape.study.law.laws as laws_module

PNG = b"\x89PNG\r\n"
LLAMA = {
    "model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
    "vocab_size": 1000, "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Measurements of one model, whose times are known."""
    rows = [
        f"llama,h100,{prompt},{batch},64,{5 + 0.05 * prompt * batch},{4 + batch + 0.001 * prompt * batch}"
        for prompt in (64, 128, 256, 512)
        for batch in (1, 2)
    ]
    path = tmp_path / "times.csv"
    path.write_text(
        "model,hardware,prompt_size,batch_size,token_size,prompt_time,token_time\n" + "\n".join(rows) + "\n"
    )
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA))
    return path


def test_fit_draws_beside_what_it_prints(tape: Callable[..., Any], table: Path) -> None:
    picture = table.with_name("law.png")
    done = tape("fit", table, "--plot", picture, "--json")
    assert done.code == 0 and picture.read_bytes().startswith(PNG)
    assert json.loads(done.out)["laws"][0]["decode"]["form"], "stdout holds the document alone"
    assert done.err == f"drawn: {picture}\n"


def test_fit_draws_the_roofline_where_the_model_is_known(tape: Callable[..., Any], table: Path, config: Path) -> None:
    picture = table.with_name("law.svg")
    refused = tape("fit", table, "--plot", picture, "--on", "h100")
    assert refused.code == 1 and "--config MODEL=config.json" in refused.err and not picture.exists()
    done = tape("fit", table, "--plot", picture, "--on", "h100", "--config", f"llama={config}")
    assert done.code == 0 and picture.read_bytes().startswith(b"<?xml")


def test_what_a_plot_needs_is_asked_before_the_fit(
    tape: Callable[..., Any], table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(laws_module, "fit_table", lambda *_: pytest.fail("fitted first"))
    for given, said in (
        (("--plot", "law.pdf"), "there are .png and .svg"),
        (("--plot", "none/law.png"), "there is no folder none"),
        (("--plot", "law.png", "--on", "abacus"), "no machine 'abacus'"),
        (("--on", "h100"), "a roofline is drawn, not printed"),
    ):
        done = tape("fit", table, *given)
        assert (done.code, done.out) == (2, "") and said in done.err


def test_without_matplotlib(tape: Callable[..., Any], config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    done = tape("predict", config, "--on", "h100", "--plot", config.with_name("a.png"))
    assert done.code == 4 and "pip install 'tokentape[plot]'" in done.err


def test_predict_draws_times_over_context_and_batch(tape: Callable[..., Any], config: Path) -> None:
    picture = config.with_name("cost.png")
    done = tape("predict", config, "--on", "l4", "--context", "2k", "--heads", 8, "--plot", picture)
    assert done.code == 0 and done.err == f"drawn: {picture}\n" and "bound by" in done.out
    assert picture.read_bytes().startswith(PNG)


def test_predict_draws_what_varies(tape: Callable[..., Any], config: Path) -> None:
    picture = config.with_name("growth.svg")
    done = tape("predict", config, "--vary", "layers=2,4,8", "--plot", picture, "--json")
    assert done.code == 0 and len(json.loads(done.out)["predictions"]) == 3
    assert b"by layers" in picture.read_bytes()


def test_predict_without_a_machine_has_no_times_to_draw(tape: Callable[..., Any], config: Path) -> None:
    done = tape("predict", config, "--plot", config.with_name("a.png"))
    assert done.code == 2 and "--on H100" in done.err and done.out == ""
