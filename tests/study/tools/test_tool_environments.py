"""Which Python a test of another's tool takes, and what it says where there is none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from study.tools import environments
from study.tools.environments import TARGETS, python_with

REPOSITORY = environments.REPOSITORY


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository without environments, and no variable that names one."""
    monkeypatch.setattr(environments, "REPOSITORY", tmp_path)
    for name in ("TOKENTAPE_BENCH_TOOLS", *(f"TOKENTAPE_{tool.upper()}_PYTHON" for tool in TARGETS)):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize("tool", TARGETS)
def test_without_one_it_is_skipped_with_a_target_that_makes_it(bare: Path, tool: str) -> None:
    with pytest.raises(pytest.skip.Exception) as said:
        python_with(tool)
    found = re.search(r"no (build/\S+): make (\S+),", str(said.value))
    assert found is not None
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    variable = re.search(rf"^{found[2]}: \$\((\w+)\)/\.tokentape ", makefile, re.MULTILINE)
    assert variable is not None and f"\n{variable[1]} := {found[1]}\n" in makefile


def test_where_the_tools_are_required_it_fails(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENTAPE_BENCH_TOOLS", "required")
    with pytest.raises(pytest.fail.Exception, match="make guidellm-env"):
        python_with("guidellm")


def test_a_finished_environment_is_found_and_a_variable_goes_before_it(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bare / "build" / "vllm-bench-venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    with pytest.raises(pytest.skip.Exception):
        python_with("vllm")
    (folder / ".tokentape").touch()
    assert python_with("vllm") == str(folder / "bin" / "python")
    monkeypatch.setenv("TOKENTAPE_VLLM_PYTHON", "/another/python")
    assert python_with("vllm") == "/another/python"
