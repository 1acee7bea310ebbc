"""Servers for a whole session: of the demo model, and of the same model with other weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from real.servers import AS_THEY_ARE, DEMO, Server, llama_server, tail, transformers_server


@pytest.fixture(scope="session")
def chatting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the demo model with a chat template; it ships without one, and a server then answers 500 to a chat."""
    folder = tmp_path_factory.mktemp("chatting") / "demo"
    shutil.copytree(DEMO, folder)
    (folder / "chat_template.jinja").write_text(AS_THEY_ARE, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def perturbed(chatting: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same architecture, tokenizer and name, other weights: each matrix off by a fiftieth of its own spread."""
    folder = tmp_path_factory.mktemp("perturbed") / "demo"
    shutil.copytree(chatting, folder)
    weights = load_file(folder / "model.safetensors")
    generator = np.random.default_rng(3)
    for name, matrix in weights.items():
        if matrix.ndim == 2:
            noise = generator.normal(0, 0.02 * matrix.std(), matrix.shape)
            weights[name] = (matrix + noise).astype(matrix.dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def transformers_serve(chatting: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with transformers_server(chatting, tmp_path_factory.mktemp("transformers")) as server:
        yield server


@pytest.fixture(scope="session")
def llama_cpp(chatting: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with llama_server(chatting, tmp_path_factory.mktemp("llama")) as server:
        yield server


@pytest.fixture(scope="session")
def transformers_of_others(perturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with transformers_server(perturbed, tmp_path_factory.mktemp("transformers-others")) as server:
        yield server


@pytest.fixture(scope="session")
def llama_of_others(perturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with llama_server(perturbed, tmp_path_factory.mktemp("llama-others")) as server:
        yield server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """What the servers of a failed test printed stands below the failure."""
    report = yield
    if report.when == "call" and report.failed and isinstance(item, pytest.Function):
        for name, value in item.funcargs.items():
            if isinstance(value, Server):
                report.sections.append((f"log of {name}", tail(value.log)))
    return report
