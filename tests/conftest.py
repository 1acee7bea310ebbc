"""What several floors' tests share: where the material lies, small models of many families, a byte tokenizer, a certificate."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

# The models here are so small that a second thread only waits for the first, for seconds where the cores are busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What is printed into a pipe is as wide as it is anywhere, whatever started the tests.
os.environ.pop("COLUMNS", None)
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


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for this machine that nobody trusts unasked, and its key: two files."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificate can be made")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
    return cert, key
