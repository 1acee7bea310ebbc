"""Tokens that try to be markup, to act, or to hide: on the page they are text and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

import tokentape
from browser.visits import PARTS, url_of, visit
from tokentape import Line
from tokentape.cli.program import run
from tokentape.recorder.tick import Said

TOKENS = [
    b"</script><script>window.__owned = 1</script>",
    b'"><img src=x onerror="window.__owned = 2">',
    b"<svg onload=window.__owned=3>",
    b"<!--",
    b"]]>",
    b"javascript:window.__owned=4",
    "\u202edesrever\u202c \u2066isolate".encode(),
    b"a\x00b\x07\x1b[2J",
    b"\xed\xa0\x80",
    b"\xf0\x9f",
    b"\x90\x88",
    b" \xe4\xbd",
    b"\xa0",
    "👩\u200d👩\u200d👧".encode(),
    "\u2028\u2029".encode(),
    b"x" * 100_000,
    "好".encode() * 40_000,
    b"",
    b"\xff\xfe",
    b"{{constructor.constructor('window.__owned=5')()}}",
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    script = [Line(2_000_000, [Said(0, None, data, -0.5 - i, 1.0, 1 + i)]) for i, data in enumerate(TOKENS)]
    prompt = "</title><script>window.__owned = 6</script>\u202e"
    path = folder / "<script>&\u202e.tape"
    tokentape.record(tokentape.ScriptedSource(script), prompt, path=path).close()
    return path


@pytest.fixture(scope="module")
def page(hostile: Path) -> Path:
    path = hostile.with_name("hostile.html")
    assert run(["view", str(hostile), "--html", str(path)]) == 0
    return path


def test_nothing_of_a_token_acts(browser: Browser, page: Path) -> None:
    with visit(browser, url_of(page)) as seen:
        for name in PARTS:
            seen.show(name)
        seen.show("tokens")
        for _ in range(len(TOKENS) + 2):
            seen.page.keyboard.press("]")
            assert len(seen.page.locator(".inspector").inner_text()) < 20_000
        assert seen.page.evaluate("window.__owned") is None
        assert seen.page.locator("#tokentape img, #tokentape iframe, #tokentape script").count() == 0
        assert seen.page.evaluate("document.scripts.length") == 2
        text = seen.page.locator(".ribbon").inner_text()
        assert "</script><script>window.__owned = 1</script>" in text
        assert not any(mark in text for mark in "\u202e\u2066\x00\x07\x1b")
        seen.assert_clean()


def test_a_character_that_spans_tokens_is_drawn_once(browser: Browser, page: Path) -> None:
    with visit(browser, url_of(page)) as seen:
        joined = seen.page.locator(".ribbon .join")
        glyphs = [one.strip() for one in joined.locator(".glyph").all_inner_texts()]
        assert glyphs == ["\U0001f408", "你"]
        assert [joined.nth(i).locator("[role=option]").count() for i in range(2)] == [2, 2]


def test_charts_leave_with_hostile_names_as_text(browser: Browser, page: Path, tmp_path: Path) -> None:
    from xml.etree import ElementTree

    with visit(browser, url_of(page, "part=distribution"), accept_downloads=True) as seen:
        figure = seen.page.locator("#part-distribution figure.chart").first
        with seen.page.expect_download() as coming:
            figure.get_by_role("button", name="SVG").click()
        coming.value.save_as(tmp_path / "chart.svg")
    tree = ElementTree.parse(tmp_path / "chart.svg")
    assert {one.tag.rpartition("}")[2] for one in tree.iter()} <= {
        "svg", "title", "desc", "rect", "g", "text", "path", "circle", "clipPath", "line",
    }  # fmt: skip
