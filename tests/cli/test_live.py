"""The live line: drawn over itself on a terminal, silent in a pipe unless it takes long."""

from __future__ import annotations

import io
import sys
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from tokentape.cli import live
from tokentape.cli.live import LiveLine


class Terminal(io.StringIO):
    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


def progress(**facts: Any) -> Any:
    found = {"text": "Once upon", "n_tokens": 3, "elapsed_ns": 30_000_000, "gaps_ns": deque([9_000_000, 2_000_000])}
    return SimpleNamespace(**{**found, "surprise": deque([0.5, None, 2.0]), **facts})


def terminal_for(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """No fixture: pytest puts its own stderr back between the setup and the test."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    return stream


def test_terminal_shows_text_and_figures_and_is_left_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    with LiveLine("loading demo") as line:
        line.observe(progress(text="ab\x1b[2J\x07[bold]c"))
        line._live.refresh()
    drawn = terminal.getvalue()
    assert "\\x1b[2J\\x07[bold]c" in drawn and "\x07" not in drawn and "\x1b[2J" not in drawn
    assert "3 tokens  2.00 ms a step  100 tokens/s  surprise " in drawn
    assert drawn.rstrip().endswith("\x1b[2K"), "the last thing done is to wipe it"
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h") == 1, "the cursor is back"


def test_what_is_drawn_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal_for(monkeypatch)
    line = LiveLine("x")
    seen = progress()
    line.observe(seen)
    before = line._lines()
    seen.gaps_ns.append(10**12)
    seen.n_tokens = 99
    assert line._lines() == before


def test_elsewhere_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveLine("loading demo") as line:
        line.observe(progress())
    assert capsys.readouterr() == ("", "")


def test_dumb_terminal_gets_no_control_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    with LiveLine("loading demo") as line:
        line.observe(progress())
    assert terminal.getvalue() == ""


def test_long_recording_prints_a_plain_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    with LiveLine("loading demo") as line:
        for now[0] in (1.0, 9.0, 11.0, 12.0, 21.5):
            line.observe(progress())
    assert capsys.readouterr().err.splitlines() == ["3 tokens  2.00 ms a step  100 tokens/s"] * 2


def test_quiet_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    with LiveLine("x", quiet=True) as line:
        line.observe(progress())
    assert terminal.getvalue() == ""
