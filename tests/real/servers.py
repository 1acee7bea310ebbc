"""Servers of others, started for a test on this machine's loopback and certainly ended after it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

__all__ = ["DEMO", "REPOSITORY", "Server", "llama_server", "needed", "started", "to_gguf", "transformers_server"]

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO = REPOSITORY / "src" / "tokentape" / "models" / "demo"
SERVE = REPOSITORY / "build" / "serve-venv" / "bin"
LLAMA = REPOSITORY / "build" / "llama-venv" / "bin"

TRIES = 3
"""A port that is free now may be another's a moment later."""


@dataclass(frozen=True)
class Server:
    """One that answers. ``url`` is its root, ``model`` the name that a request gives, ``log`` what it printed."""

    url: str
    model: str
    log: Path

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, str]:
        """Status and text of one answer."""
        connection = http.client.HTTPConnection("127.0.0.1", int(self.url.rpartition(":")[2]), timeout=60)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request("GET" if data is None else "POST", path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def events(self, path: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The messages of a stream that went well, without what ends it."""
        status, text = self.ask(path, {**body, "stream": True})
        assert status == 200, text
        lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]


def needed(program: Path, target: str) -> Path:
    """The program of an environment; without it the test is skipped, or fails where real servers are required."""
    if program.exists():
        return program
    why = f"no {program.relative_to(REPOSITORY)}: make {target}"
    if os.environ.get("TOKENTAPE_REAL_SERVERS") == "required":
        pytest.fail(f"{why} (TOKENTAPE_REAL_SERVERS is required)")
    pytest.skip(why)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _answers(url: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", int(url.rpartition(":")[2]), timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _ended(process: subprocess.Popen[bytes]) -> None:
    """End it by asking, then by force; both name this one process."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def started(
    words: Sequence[str | Path], model: str, folder: Path, *, cwd: Path | None = None, seconds: float = 180
) -> Iterator[Server]:
    """Run ``words --host 127.0.0.1 --port PORT`` until the block ends; `/health` says when it is ready.

    ``setpriv``, where there is one, lets the server die with this process however that ends.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hub-home"),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    # `transformers serve` lists its cache folder for /v1/models, and answers 500 where there is none.
    (folder / "hub-home" / "hub").mkdir(parents=True, exist_ok=True)
    guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    log = folder / "server.log"
    for _ in range(TRIES):
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*guard, *map(str, words), "--host", "127.0.0.1", "--port", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=cwd,
            )
        try:
            deadline = time.monotonic() + seconds
            while process.poll() is None and time.monotonic() < deadline:
                if _answers(url):
                    yield Server(url, model, log)
                    return
                time.sleep(0.05)
            hangs = process.poll() is None
        finally:
            _ended(process)
        if hangs:
            break
    raise RuntimeError(f"{words[0]} did not come up:\n{tail(log)}")


def tail(log: Path, n_lines: int = 60) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-n_lines:])


@contextmanager
def transformers_server(model: Path, folder: Path) -> Iterator[Server]:
    """`transformers serve` of a model's folder, by the folder's name."""
    program = needed(SERVE / "transformers", "serve-env")
    with started([program, "serve", model.name, "--device", "cpu"], model.name, folder, cwd=model.parent) as server:
        yield server


def to_gguf(model: Path, out: Path) -> Path:
    """The file of a folder's BLOOM, written in llama.cpp's environment."""
    program = needed(LLAMA / "python", "llama-env")
    tool = REPOSITORY / "tools" / "gguf_of_demo.py"
    subprocess.run([program, tool, out, "--folder", model], check=True, stdin=subprocess.DEVNULL)
    return out


@contextmanager
def llama_server(model: Path, folder: Path) -> Iterator[Server]:
    """llama.cpp's server of a BLOOM's folder, converted first; keys and values in float32, as they are here."""
    program = needed(LLAMA / "llama-server", "llama-env")
    file = to_gguf(model, folder / "model.gguf")
    template = folder / "as-they-are.jinja"
    template.write_text(AS_THEY_ARE, encoding="utf-8")
    cache = ["--cache-type-k", "f32", "--cache-type-v", "f32", "--flash-attn", "off"]
    chat = ["--jinja", "--chat-template-file", template]
    size = ["--ctx-size", "4096", "--parallel", "4", "--threads", "1"]
    words = [program, "--model", file, "--alias", model.name, *size, *cache, *chat, "--metrics", "--offline"]
    with started(words, model.name, folder) as server:
        yield server


AS_THEY_ARE = "{% for message in messages %}{{ message.content }}{% endfor %}"
"""A chat template that adds nothing: a chat of one message asks what a completion asks."""
