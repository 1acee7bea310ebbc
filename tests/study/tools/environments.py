"""Where the Pythons are that have the benchmark tools of others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

__all__ = ["python_with"]

REPOSITORY = Path(__file__).resolve().parents[3]
TARGETS = {"guidellm": "guidellm", "aiperf": "aiperf", "vllm": "vllm-bench"}


def python_with(tool: str) -> str:
    """The Python that has the tool: the one its variable names, or that of the environment that `make` makes for it.

    Without either the test is skipped, or fails where the tools are required.
    """
    target, variable = TARGETS[tool], f"TOKENTAPE_{tool.upper()}_PYTHON"
    if named := os.environ.get(variable):
        return named
    folder = REPOSITORY / "build" / f"{target}-venv"
    if (folder / ".tokentape").exists():  # an environment that is only half made has no such file
        return str(folder / "bin" / "python")
    why = f"no {folder.relative_to(REPOSITORY)}: make {target}-env, or name in {variable} a Python that has the tool"
    if os.environ.get("TOKENTAPE_BENCH_TOOLS") == "required":
        pytest.fail(f"{why} (TOKENTAPE_BENCH_TOOLS is required)")
    pytest.skip(why)
