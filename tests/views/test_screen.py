"""Widths, encodings, colours; numbers as people read them."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len

from tokentape.views.screen import Screen, columns, fit, pad
from tokentape.views.sparkline import sparkline
from tokentape.views.text import folded
from tokentape.views.units import bytes_text, count, duration, rate


class Terminal(io.StringIO):
    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_that_want_it() -> None:
    assert Screen.of(Terminal(), {"TERM": "xterm"}).color
    assert not Screen.of(Terminal(), {"TERM": "dumb"}).color
    assert not Screen.of(Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}).color
    assert Screen.of(Terminal(), {"TERM": "xterm", "NO_COLOR": ""}).color, "empty counts as absent"
    assert not Screen.of(io.StringIO(), {"TERM": "xterm"}).color
    assert Screen(color=False).paint("x", "red") == "x"


def test_characters_that_the_encoding_lacks_are_escaped() -> None:
    assert Screen(encoding="ascii").safe("⟨E4⟩ 你…") == "<E4> \\u4f60..."
    assert Screen(encoding="latin-1").safe("é你") == "é\\u4f60"
    assert Screen(encoding="utf-8").safe("你") == "你"


def test_double_width_text_fills_and_fits_cells() -> None:
    assert pad("你好", 6) == "你好  "
    assert pad("你好", 6, ">") == "  你好"
    assert fit("你好世界", 5) == "你好…"
    assert cell_len(fit("你好世界" * 9, 20)) <= 20
    assert fit("abc", 3) == "abc"


def test_table_keeps_its_columns_under_wide_characters() -> None:
    lines = columns(Screen(), ["token", "ms"], [["你好", "1"], ["😀", "22"], ["abcdefg", "333"]], "<>")
    assert {cell_len(line) for line in lines} == {12}


def test_table_is_cut_to_the_screen() -> None:
    lines = columns(Screen(width=40), ["a", "b"], [["x" * 80, "1"]], "<>", stretch=0)
    assert max(cell_len(line) for line in lines) <= 40


def test_sparkline_reaches_from_zero_to_the_largest() -> None:
    assert sparkline([0, 50, 100], Screen(), 10) == "▁▅█"
    assert sparkline([0, None, 7], Screen(), 10) == "▁ █"
    assert sparkline([0, 50, 100], Screen(encoding="ascii"), 10) == "_=#"
    assert sparkline([0, 0], Screen(), 10) == "▁▁"
    assert sparkline([None, None], Screen(), 10) == "  "
    assert sparkline([], Screen(), 10) == ""


def test_sparkline_loses_no_spike() -> None:
    drawn = sparkline([1.0] * 500 + [100.0] + [1.0] * 500, Screen(), 40)
    assert len(drawn) == 40 and drawn.count("█") == 1


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (None, "n/a"),
        (0, "0 ns"),
        (7, "7.00 ns"),
        (1500, "1.50 us"),
        (999_600, "1.00 ms"),
        (12_345_678, "12.3 ms"),
        (1_234_000_000, "1.23 s"),
        (125_000_000_000, "2 min 5 s"),
    ],
)
def test_duration(ns: float | None, text: str) -> None:
    assert duration(ns) == text


def test_other_units() -> None:
    assert (bytes_text(None), bytes_text(0), bytes_text(1023), bytes_text(98_304)) == (
        "n/a",
        "0 B",
        "1023 B",
        "96.0 KiB",
    )
    assert (rate(None), rate(12.34), rate(1234.5)) == ("n/a", "12.3 tokens/s", "1,234 tokens/s")
    assert (count(1, "token"), count(1200, "token")) == ("1 token", "1,200 tokens")


def test_chinese_is_for_streams_that_can_hold_it() -> None:
    environ = {"TOKENTAPE_LANG": "zh"}
    assert Screen.of(io.TextIOWrapper(io.BytesIO(), "utf-8"), environ).lang == "zh"
    assert Screen.of(io.TextIOWrapper(io.BytesIO(), "gb18030"), environ).lang == "zh"
    assert Screen.of(io.TextIOWrapper(io.BytesIO(), "latin-1"), environ).lang == "en"


@pytest.mark.parametrize("width", [8, 13, 20, 41])
def test_chinese_lines_break_neither_in_a_number_nor_before_a_mark(width: int) -> None:
    line = "每词元平均 1.117 nat（1.611 比特），困惑度 3.05；缓存峰值 64.0 KiB，进程 398 MiB。"
    lines = folded(line, width)
    assert "".join(lines).replace(" ", "") == line.replace(" ", "")
    assert all(cell_len(one) <= width for one in lines)
    assert not any(one[0] in "，。；）" for one in lines) or width < 10
    for number in ("1.117", "1.611", "3.05", "64.0", "398"):
        assert any(number in one for one in lines), number


def test_an_interval_without_an_end_is_told() -> None:
    assert duration(float("inf")) == "inf"
    assert duration(float("-inf")) == "-inf"
