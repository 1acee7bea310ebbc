"""The page about the mock is true: its code runs, its script is one, and every fault is on it."""

from __future__ import annotations

import doctest
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tokentape.mock.faults import FAULTS
from tokentape.mock.script_file import script_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "mock.md"


def block(kind: str) -> str:
    found = re.search(rf"```{kind}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def test_its_python_is_true(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", block("python")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_its_script_is_one() -> None:
    assert script_of(json.loads(block("json"))).n_tokens == 4


def test_every_fault_is_on_it_with_its_parameters() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) *\|$", PAGE.read_text("utf-8"), re.MULTILINE)
    listed = {name: (sentence, parameters) for name, sentence, parameters in rows if name in FAULTS}
    for name, kind in FAULTS.items():
        parameters = ", ".join(f"`{key}={value}`" for key, value in kind.parameters.items())
        assert listed[name] == (kind.sentence, parameters)


@pytest.mark.parametrize("name", ["script", "faults", "serving"])
def test_docstrings_are_true(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"tokentape.mock.{name}"))
    assert found.attempted and not found.failed
