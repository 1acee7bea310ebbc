"""What several floors' tests share: where the material lies, small models of many families, a byte tokenizer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# The models here are so small that a second thread only waits for the first, for seconds where the cores are busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def material() -> Path:
    """The folder of real models and data, which the repository does not contain."""
    default = Path(__file__).resolve().parents[2] / "shared" / "material"
    folder = Path(os.environ.get("TOKENTAPE_MATERIAL", default))
    if not folder.is_dir():
        pytest.skip(f"no test material at {folder}: set TOKENTAPE_MATERIAL")
    return folder
