"""The page of an endpoint's tape: the part Requests with one request and with many, by mouse, by keyboard, in both languages."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from browser.test_accessible import serious
from browser.visits import PARTS, url_of, visit
from served_tapes import MS, Served, loaded_tape, passed, served_tape, words
from tokentape import open as open_tape
from tokentape.cli.program import run
from tokentape.study.served import flights
from tokentape.words.catalogue import phrase


def page_of(tape: Path) -> Path:
    page = tape.with_suffix(".html")
    assert run(["view", str(tape), "--html", str(page)]) == 0
    return page


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page_of(served_tape(tmp_path_factory.mktemp("served") / "served.tape"))


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page_of(loaded_tape(tmp_path_factory.mktemp("load") / "load.tape", 400))


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_part_is_drawn(browser: Browser, served: Path, theme: str, lang: str) -> None:
    with visit(browser, url_of(served, f"theme={theme}&lang={lang}"), bypass_csp=True) as seen:
        for name in (*PARTS, "requests"):
            seen.show(name)
            assert seen.page.locator(f"#part-{name} [role=alert]").count() == 0, name
        panel = seen.page.locator("#part-requests")
        assert seen.page.locator("#tab-requests").inner_text() == phrase("page_ui.part_requests", lang)
        assert panel.locator("canvas").count() == 2 and "page_" not in panel.inner_text()
        assert ("15 requests over" if lang == "en" else "15 个请求") in panel.inner_text()
        assert serious(seen) == [] and seen.requests == [] and seen.errors == []


def test_a_tape_without_a_server_has_no_such_tab(browser: Browser, report: Path) -> None:
    with visit(browser, url_of(report, "part=requests")) as seen:
        assert seen.page.locator("#tab-overview").get_attribute("aria-selected") == "true"
        assert seen.page.locator("[role=tab]").count() == len(PARTS)


def test_requests_come_first_and_what_there_is_nothing_of_last(browser: Browser, served: Path) -> None:
    with visit(browser, url_of(served)) as seen:
        tabs = [one.get_attribute("id") for one in seen.page.locator("[role=tab]").all()]
        assert tabs[:3] == ["tab-overview", "tab-requests", "tab-tokens"]
        assert tabs[-4:] == ["tab-attention", "tab-layers", "tab-cost", "tab-compare"]
        seen.page.keyboard.press("2")  # as the tabs stand
        seen.page.wait_for_function("location.hash.includes('part=requests')")
        seen.show("time")
        assert "Prefill" not in seen.page.locator("#part-time").inner_text()
        assert "Time before each message" in seen.page.locator("#part-time").inner_text()
        seen.assert_clean()


def test_a_request_by_keyboard(browser: Browser, served: Path) -> None:
    with visit(browser, url_of(served, "part=requests")) as seen:
        page = seen.page
        page.locator("#part-requests .plot").first.focus()
        told = page.locator("#part-requests figure.chart [aria-live]").first
        for key in ("Home", "ArrowRight", "ArrowRight", "ArrowRight"):
            page.keyboard.press(key)
        page.wait_for_function("(one) => one.textContent.includes('http_error')", arg=told.element_handle())
        assert "trace 3" in told.inner_text() and "7.00 ms" in told.inner_text()
        page.keyboard.press("Enter")
        page.wait_for_function("location.hash.includes('trace=3')")  # the sequence is shown
        page.keyboard.press("t")
        table = page.locator("#part-requests figure.chart table").first
        table.wait_for()
        assert table.locator("tbody tr").count() == 15
        assert "TTFT since due" in table.inner_text()
        seen.assert_clean()


def test_a_metric_of_the_server_on_the_same_axis(browser: Browser, served: Path) -> None:
    with visit(browser, url_of(served, "part=requests")) as seen:
        choice = seen.page.locator("#part-requests select")
        choice.select_option(label="vllm:kv_cache_usage_perc")
        seen.page.wait_for_function("location.hash.includes('x.requests.course')")
        assert "vllm:kv_cache_usage_perc: 0 to 0.5" in seen.page.locator("#part-requests").inner_text()
        address = seen.page.url
        seen.assert_clean()
    with visit(browser, address) as again:
        assert "vllm:kv_cache_usage_perc: 0 to 0.5" in again.page.locator("#part-requests").inner_text()


def test_many_requests_are_all_in_the_chart(browser: Browser, load: Path, tmp_path: Path) -> None:
    with visit(browser, url_of(load, "part=requests"), accept_downloads=True) as seen:
        figure = seen.page.locator("#part-requests figure.chart").first
        with seen.page.expect_download() as coming:
            figure.get_by_role("button", name="CSV").click()
        coming.value.save_as(tmp_path / "t.csv")
        seen.show("overview")
        assert "requests/s" in seen.page.locator("#part-overview .verdict").inner_text()
        assert seen.page.locator(".overview .findings button").count() >= 2
    with (tmp_path / "t.csv").open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    with open_tape(load.with_suffix(".tape")) as tape:
        found = flights(tape)
    assert len(rows) == 400 and sum(row["fault"] == "http_error" for row in rows) == sum(bool(f.fault) for f in found)
    name = next(one for one in rows[0] if one.startswith("TTFT") and "due" not in one)
    assert [int(row[name]) if row[name] else None for row in rows] == [one.ttft_ns for one in found]


def test_one_request(browser: Browser, tmp_path: Path) -> None:
    one = Served("a", ((9 * MS, words(" a", "")), (3 * MS, words(" b"))), passed(0, MS, 13 * MS, label="counted"))
    page = page_of(served_tape(tmp_path / "one.tape", kinds=[one], scrapes=()))
    with visit(browser, url_of(page, "part=requests")) as seen:
        assert "1 request over" in seen.page.locator("#part-requests").inner_text()
        for name in PARTS:
            seen.show(name)
            assert seen.page.locator(f"#part-{name} [role=alert]").count() == 0, name
        seen.assert_clean()
