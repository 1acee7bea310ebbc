"""What the first moment costs, and what every command has in common."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tokentape import __version__
from tokentape.cli.program import VERBS

HEAVY = ["torch", "transformers", "numpy", "sqlite3", "rich"]


def command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tokentape", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environ},
        check=False,
    )


def imported(*arguments: str) -> set[str]:
    """Top-level modules in memory when the command is done."""
    program = f"import sys; sys.argv = ['tokentape', *{list(arguments)!r}]\n"
    program += "from tokentape.cli import main\ntry: main()\n"
    program += "except SystemExit: print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    return set(done.stderr.split())


def test_version_imports_next_to_nothing() -> None:
    assert imported("--version") & {*HEAVY, "click", "json", "dataclasses"} == set()


def test_help_imports_click_and_no_more() -> None:
    found = imported("--help")
    assert "click" in found and found & set(HEAVY) == set()


@pytest.mark.parametrize("verb", list(VERBS))
def test_help_of_a_verb_imports_no_model(verb: str) -> None:
    assert imported(verb, "--help") & {"torch", "transformers", "sqlite3"} == set()


def test_reading_a_tape_imports_no_torch(tmp_path: Path) -> None:
    assert imported("ls", str(tmp_path)) & {"torch", "transformers"} == set()


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(flag: str) -> None:
    done = command(flag)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"tokentape {__version__}\n", "")


def test_version_as_json() -> None:
    assert json.loads(command("--version", "--json").stdout) == {
        "schema_version": 1,
        "command": "version",
        "version": __version__,
    }


def test_no_arguments_and_help_list_every_command() -> None:
    for arguments in ([], ["--help"], ["-h"]):
        done = command(*arguments)
        assert done.returncode == 0 and done.stderr == ""
        assert all(f"  {verb} " in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_command_knows_json_and_help(verb: str) -> None:
    done = command(verb, "--help")
    assert done.returncode == 0 and "--json" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_asks_the_program(shell: str) -> None:
    done = command("completion", shell)
    assert done.returncode == 0 and done.stderr == ""
    assert f"_TOKENTAPE_COMPLETE={shell}_complete" in done.stdout


def test_program_answers_the_completion_script() -> None:
    words = {"COMP_WORDS": "tokentape rec", "COMP_CWORD": "1", "_TOKENTAPE_COMPLETE": "bash_complete"}
    assert "record" in command(**words).stdout
    words = {"COMP_WORDS": "tokentape show --ro", "COMP_CWORD": "2", "_TOKENTAPE_COMPLETE": "bash_complete"}
    assert "--rows" in command(**words).stdout


def test_pipe_that_closes_early_is_no_error(tmp_path: Path) -> None:
    program = f"{sys.executable} -m tokentape schema | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"


def test_output_survives_an_ascii_terminal() -> None:
    done = command("schema", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0 and done.stderr == ""
