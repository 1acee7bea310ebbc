"""The report as a reader opens it: from a file, without a network, in both languages, in the light and in the dark."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from browser.visits import PARTS, url_of, visit
from tokentape import open as open_tape
from tokentape.words.catalogue import phrase


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_part_is_drawn_and_asks_for_nothing(browser: Browser, report: Path, theme: str, lang: str) -> None:
    with visit(browser, url_of(report, f"theme={theme}&lang={lang}")) as seen:
        for name in PARTS:
            seen.show(name)
            panel = seen.page.locator(f"#part-{name}")
            assert len(panel.inner_text().strip()) > 40, name
            assert panel.locator("[role=alert]").count() == 0, name
            for canvas in panel.locator("canvas").all():
                assert canvas.evaluate("(one) => one.width > 0 && one.height > 0"), name
        assert seen.page.locator("html").get_attribute("lang") == ("zh-Hans" if lang == "zh" else "en")
        assert seen.page.locator("#tab-time").inner_text() == phrase("page_ui.part_time", lang)
        seen.assert_clean()


def test_a_part_with_everything_recorded_is_not_empty(browser: Browser, report: Path) -> None:
    with visit(browser, url_of(report)) as seen:
        for name in PARTS:
            if name == "compare":
                continue
            seen.show(name)
            assert seen.page.locator(f"#part-{name} .body > .missing").count() == 0, name


def test_the_address_brings_back_what_was_selected(browser: Browser, report: Path) -> None:
    with visit(browser, url_of(report)) as seen:
        seen.show("tokens")
        seen.page.locator("#k20").click()
        address = seen.page.url
        told = seen.page.locator(".inspector").inner_text()
    assert "at=20" in address
    with visit(browser, address) as again:
        assert again.page.locator("#tab-tokens").get_attribute("aria-selected") == "true"
        assert again.page.locator("#k20").get_attribute("aria-selected") == "true"
        assert again.page.locator(".inspector").inner_text() == told
    with visit(browser, url_of(report, "part=nowhere&at=999999&range=9-3&trace=77&lang=tlh")) as wrong:
        assert wrong.page.locator("#tab-overview").get_attribute("aria-selected") == "true"
        wrong.assert_clean()


def test_the_ribbon_says_the_text_of_the_tape(browser: Browser, report: Path, story: Path) -> None:
    with open_tape(story) as tape, visit(browser, url_of(report)) as seen:
        trace = tape.traces[0]
        said = seen.page.locator(".ribbon [role=option]").all_inner_texts()
        ids = trace.tokens["id"].tolist()
        assert len(said) == trace.n_prompt + len(ids)
        # the end of a text is no part of it, though --ignore-eos goes on after it
        plainly = [one for one, i in zip(said[trace.n_prompt :], ids, strict=True) if not tape.pieces[i].special]
        words = "".join(plainly).replace("\n", "")
        plain = (trace.text or "").replace("\n", "")
        assert words.replace("\u21b5", "").replace("\\n", "").split() == plain.split()


def test_at_twice_the_size_nothing_hangs_over_the_edge(browser: Browser, report: Path) -> None:
    """200 % zoom of a window 1,280 pixels wide leaves 640."""
    window = {"viewport": {"width": 640, "height": 450}, "device_scale_factor": 2}
    with visit(browser, url_of(report), **window) as seen:
        for name in PARTS:
            seen.show(name)
            seen.page.wait_for_timeout(100)
            over = seen.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert over <= 0, f"{name} is {over} pixels too wide"
        seen.assert_clean()


def test_two_tapes_are_one_page(browser: Browser, comparison: Path) -> None:
    with visit(browser, url_of(comparison)) as seen:
        panel = seen.page.locator("#part-compare")
        panel.wait_for()
        assert len(panel.inner_text()) > 200
        assert panel.locator("[role=alert]").count() == 0
        seen.assert_clean()


def test_without_script_the_numbers_can_be_read(browser: Browser, report: Path, story: Path) -> None:
    with visit(browser, url_of(report), java_script_enabled=False) as seen, open_tape(story) as tape:
        text = seen.page.locator("noscript").inner_text() or seen.page.content()
        assert "60" in text
        assert str(tape.setting.facts["model"]) in text


def test_printing_shows_all_parts(browser: Browser, report: Path) -> None:
    with visit(browser, url_of(report)) as seen:
        seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        seen.page.emulate_media(media="print")
        for name in PARTS:
            seen.page.locator(f"#part-{name}").wait_for()
        seen.page.evaluate("dispatchEvent(new Event('afterprint'))")
        seen.page.wait_for_function("document.querySelectorAll('.part').length === 1")
        seen.assert_clean()


def test_a_broken_file_says_so(browser: Browser, report: Path, tmp_path: Path) -> None:
    whole = report.read_text("utf-8")
    place = whole.index('"schema"')
    broken = tmp_path / "broken.html"
    broken.write_text(whole[:place] + "nonsense" + whole[place:], "utf-8")
    with visit(browser, url_of(broken)) as seen:
        assert "tokentape" in seen.page.locator("[role=alert]").inner_text()
