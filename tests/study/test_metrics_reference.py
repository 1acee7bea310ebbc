"""The page of the metrics says what the code does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tokentape.study.dialects import DIALECTS
from tokentape.study.series import SERIES

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "metrics.md"


def test_the_page_is_what_the_tool_makes() -> None:
    command = [sys.executable, str(ROOT / "tools" / "metrics_reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_page_names_every_series_and_every_formula() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"| `{name}` | {one.axis} |" in page for name, one in SERIES.items())
    for one in DIALECTS.values():
        assert f"### `{one.name}`" in page
        assert all(f"| `{formula.name}` | `{formula.formula}` |" in page for formula in one.formulas)


def test_the_table_shows_one_tape_in_every_dialect() -> None:
    page = PAGE.read_text(encoding="utf-8")
    # by hand in test_dialects: the same request of 6 tokens in five messages, and what becomes of the failed ones
    assert "| requests counted | 3 | 3 | 3 | 3 | 5 | 3 | 3 | 4 |" in page
    assert "| TTFT, mean | 9.400 | 9.333 | 12.667 | 12.667 | 9.400 | 12.667 | 15.000 | 10.500 |" in page
    assert "| good requests | 2 | 2 | n/a | 1 | 1 | 1 | 1 | n/a |" in page
