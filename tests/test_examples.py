"""The examples and the pages that users copy from: they run, and print what they say they print."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "README.zh-CN.md",
    ROOT / "docs" / "tutorial" / "first-tape.md",
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
]
DOCUMENTED = ["tokentape.clock", "tokentape.sources.scripted"]


def _run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_run(example: Path, tmp_path: Path) -> None:
    assert len(example.read_text().splitlines()) <= 30
    done = _run(example.read_text(), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_the_readme_prints_what_it_says(tmp_path: Path, page: str) -> None:
    """The first block of Python, and the block of text right after it."""
    text = (ROOT / page).read_text("utf-8")
    code, printed = re.search(r"```python\n(.*?)```\n+```text\n(.*?)```", text, re.DOTALL).groups()
    done = _run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_on_the_pages_exist(page: Path) -> None:
    """Every ``tokentape`` line parses: its verb and flags are known."""
    from tokentape.cli.program import VERBS, program

    for line in re.findall(r"^tokentape ([^\n#]+)", page.read_text(), re.MULTILINE):
        verb, *words = shlex.split(line)
        assert verb in VERBS, line
        command = program.get_command(None, verb)
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        flags = [word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)]
        assert set(flags) <= known | {"--help"}, line


def test_how_to_explain_prints_what_it_says(tmp_path: Path) -> None:
    """The two commands at its top, and the block of text right after them, without what it cost."""
    text = (ROOT / "docs" / "how-to" / "explain.md").read_text()
    printed = re.search(r"```text\n(.*?)```", text, re.DOTALL).group(1)
    record, explain = re.findall(r"^tokentape ([^\n#]+)", text, re.MULTILINE)[:2]
    run = "import sys; from tokentape.cli.program import run; sys.exit(run({!r}))"
    assert _run(run.format([*shlex.split(record), "--quiet"]), tmp_path).returncode == 0
    done = _run(run.format(shlex.split(explain)), tmp_path)
    assert done.stdout.startswith(printed), done.stderr


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstrings_are_true(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_how_to_test_with_a_script_is_true(tmp_path: Path) -> None:
    page = ROOT / "docs" / "how-to" / "test-with-a-script.md"
    done = _run(re.search(r"```python\n(.*?)```", page.read_text(), re.DOTALL).group(1), tmp_path)
    assert done.returncode == 0, done.stderr
