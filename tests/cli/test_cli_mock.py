"""``tokentape mock``: the address on stdout, an example that works, Ctrl-C with figures, and refusals."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tokentape.cli.mock import microseconds
from tokentape.errors import UsageError
from tokentape.mock.faults import FAULTS
from tokentape.mock.log import Log


def heeding() -> None:
    """Ctrl-C is heard, even where the tests run in the background of a shell, which has what it starts ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def mock(*arguments: Any) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tokentape", "mock", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeding)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str], by: int = signal.SIGINT) -> tuple[int, str]:
    process.send_signal(by)
    _, err = process.communicate(timeout=30)
    return process.returncode, err


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert re.fullmatch(r"https?://127\.0\.0\.1:\d+", line), line
    return line


def test_it_serves_until_ctrl_c_and_tells_its_figures(tmp_path: Path) -> None:
    log = tmp_path / "sent.jsonl"
    options = (
        "--ttft",
        "2ms",
        "--gap",
        "500us",
        "--tokens",
        5,
        "--chunk",
        2,
        "--model",
        "m",
        "--seed",
        3,
        "--log",
        log,
    )
    with mock(*options) as process:
        url = url_of(process)
        assert process.stderr is not None
        told = [process.stderr.readline() for _ in range(4)]
        answer = httpx2.post(f"{url}/v1/completions", json={"model": "m", "prompt": "Hello", "stream": True})
        code, err = ended(process)
    assert answer.text.count("data: ") == 4 and code == 0
    assert f"tokentape record --endpoint {url}" in told[2] and "Ctrl-C" in told[3]
    assert "1 request, 1 answered to the end" in err
    assert re.search(r"late by \d+ us \(p50\), \d+ us \(p99\), \d+ us \(most\)", err)
    found = Log.from_lines(log.read_text(encoding="utf-8").splitlines())
    assert [sent.n_tokens for sent in found.sent if sent.kind == "text"] == [2, 2, 1]
    assert found.served[0].how == "done"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_that_it_shows_works() -> None:
    with mock("--ttft", "0us", "--gap", "0us", "--tokens", 3, "--plain") as process:
        url_of(process)
        assert process.stderr is not None
        process.stderr.readline()
        done = subprocess.run(process.stderr.readline(), shell=True, capture_output=True, text=True, timeout=20)
    assert done.stdout.endswith("data: [DONE]\n\n") and done.stdout.count("data: ") == 4


def test_json_and_a_term_signal(tmp_path: Path) -> None:
    with mock("--json", "--dialect", "llama.cpp") as process:
        assert process.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            text += process.stdout.readline()
        found = json.loads(text)
        assert found["command"] == "mock" and found["dialect"] == "llama.cpp"
        assert httpx2.get(f"{found['url']}/health").json() == {"status": "ok"}
        assert ended(process, signal.SIGTERM)[0] == 0


def test_scripts_of_a_file_faults_and_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps([{"beats": [{"after_us": 0, "tokens": ["one"]}]}, {"tokens": 2, "ttft_us": 0}]), "utf-8")
    monkeypatch.setenv("MOCK_KEY", "k-123")
    with mock("--script", path, "--fault", "no_done", "--fault", "bom", "--api-key-env", "MOCK_KEY") as process:
        url = f"{url_of(process)}/v1/completions"
        body = {"prompt": "a", "stream": True}
        assert httpx2.post(url, json=body).status_code == 401
        key = {"authorization": "Bearer k-123"}
        first, second = (httpx2.post(url, json=body, headers=key).text for _ in range(2))
        assert '"text":"one"' in first and first.startswith("\ufeff") and "[DONE]" not in first
        assert second.count("data: ") == 2
        code, err = ended(process)
    assert code == 0 and "k-123" not in err


def test_a_tls_server(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificate can be made")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run(
        [*command, "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost"],
        check=True,
        capture_output=True,
    )
    with mock("--tls-cert", cert, "--tls-key", key) as process:
        url = url_of(process)
        assert url.startswith("https://")
        assert httpx2.get(f"{url}/health", verify=False).status_code == 200


def test_faults_are_listed(tape: Callable[..., Any]) -> None:
    done = tape("mock", "--faults")
    assert done.code == 0
    assert [line.split(":")[0].split()[0] for line in done.out.splitlines()] == list(FAULTS)
    listed = json.loads(tape("mock", "--faults", "--json").out)["faults"]
    assert {fault["name"]: fault["parameters"] for fault in listed}["stall"] == dict(FAULTS["stall"].parameters)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--ttft", "50"), "--ttft 50 is no time"),
        (("--gap", "fast"), "--gap fast is no time"),
        (("--jitter", "wild:3ms"), "no jitter 'wild'"),
        (("--jitter", "normal"), "--jitter"),
        (("--fault", "stal"), "no fault 'stal'"),
        (("--fault", "stall:when=3"), "no parameter 'when'"),
        (("--script", "absent.json"), "cannot read the script"),
        (("--tls-cert", "x.pem"), "one half of"),
        (("--api-key-env", "NO_SUCH_KEY"), "NO_SUCH_KEY is not set"),
        (("--log", "absent/folder/x.jsonl"), "cannot write"),
        (("--host", "192.0.2.1"), "cannot listen on 192.0.2.1"),
        (("--dialect", "gpt"), "gpt"),
        (("--slots", "0"), "0"),
        (("--reasoning", "70"), "reasoning"),
        (("extra",), "extra"),
    ],
)
def test_bad_input_is_refused_with_a_reason(
    tape: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...], what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = tape("mock", *arguments)
    assert done.code == 2 and what in done.err and done.out == ""
    assert "why: " in done.err and "fix: " in done.err


def test_a_port_that_is_taken(tape: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = tape("mock", "--port", taken.getsockname()[1])
    assert done.code == 2 and "cannot listen" in done.err


def test_times_have_units() -> None:
    assert [microseconds(text, "--gap") for text in ("800us", "50ms", "2s", "1.5ms", ".5s", "3 ms")] == [
        800.0,
        50_000.0,
        2_000_000.0,
        1_500.0,
        500_000.0,
        3_000.0,
    ]
    for text in ("", "5", "ms", "5m", "-5ms", "nan", "1e3us"):
        with pytest.raises(UsageError):
            microseconds(text, "--gap")


def test_help_imports_nothing_heavy() -> None:
    program = """
import sys
from tokentape.cli.program import run
run(["mock", "--help"])
heavy = {"torch", "numpy", "scipy", "sqlite3", "h11", "rich", "tokentape.data", "tokentape.mock"}
print(*sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("Usage: tokentape mock") and done.stderr.split() == []


def test_a_server_needs_no_numpy() -> None:
    program = "import sys, tokentape.mock.serving; print(*sorted({'numpy', 'torch', 'sqlite3'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.split() == [], done.stdout + done.stderr
