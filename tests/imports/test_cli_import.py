"""``tokentape import`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tokentape.cli.program import run
from tokentape.data.tape import open_tape

RESULTS = Path(__file__).parent / "results"


def test_import_writes_beside_and_says_what_is_next(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (file := tmp_path / "report.json").write_bytes((RESULTS / "guidellm.json").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert run(["import", "report.json"]) == 0
    done = capfd.readouterr()
    assert done.out.strip() == "report.tape"
    assert "30 requests of guidellm" in done.err and "the messages between the first and the last" in done.err
    assert "tokentape show report.tape --dialect guidellm" in done.err
    assert run(["show", "report.tape", "--dialect", "guidellm"]) == 0
    assert "27 of 30 requests counted" in capfd.readouterr().out
    assert run(["import", str(file)]) == 2 and "already exists" in capfd.readouterr().err


def test_import_as_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "v.tape"
    assert run(["import", str(RESULTS / "vllm.json"), "-o", str(place), "--from", "vllm", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["tool"], found["n_requests"], found["tape"]) == ("vllm", 20, str(place))
    assert "message_tokens" in found["lacks"]
    open_tape(place).close()


def test_import_in_chinese(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.setenv(name, "zh_CN.UTF-8")
    assert run(["import", str(RESULTS / "llama-bench.json"), "-o", str(tmp_path / "b.tape")]) == 0
    assert "llama-bench 的 15 个请求" in capfd.readouterr().err
    (bad := tmp_path / "bad.json").write_text("{}", "utf-8")
    assert run(["import", str(bad)]) == 2
    told = capfd.readouterr().err
    assert "不含任何已知工具的结果" in told and "has results" not in told


def test_every_lack_has_its_words() -> None:
    from tokentape.imports.importing import import_results
    from tokentape.views.screen import Screen

    for name in ("vllm.json", "aiperf.jsonl", "guidellm.json", "inference-perf.json", "llama-bench.json"):
        with import_results(RESULTS / name) as tape:
            for lack in tape.notes["imported"]["lacks"]:
                assert Screen().say(f"import.lacks.{lack}")
