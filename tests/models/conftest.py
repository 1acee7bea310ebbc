"""A whole small model folder, and copies of it to be spoilt."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import byte_level, llama_config
from transformers import LlamaForCausalLM


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model folder: configuration, weights, tokenizer. Not to be written to."""
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    LlamaForCausalLM(llama_config()).save_pretrained(folder)
    byte_level(["the cat sat on the mat"] * 4).save_pretrained(folder)
    return folder


@pytest.fixture
def spoilt(whole: Path, tmp_path: Path) -> Path:
    """A copy of the whole model folder, to be spoilt."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


@pytest.fixture
def rewrite() -> Callable[..., None]:
    """Changes entries of a JSON file; None takes one out."""

    def change(path: Path, **entries: Any) -> None:
        data = json.loads(path.read_text())
        data.update(entries)
        path.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))

    return change
