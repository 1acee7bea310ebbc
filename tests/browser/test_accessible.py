"""The page by keyboard alone, and as a screen reader finds it."""

from __future__ import annotations

from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import Browser

from browser.visits import PARTS, Visit, url_of, visit

AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"


def serious(seen: Visit) -> list[str]:
    """What axe holds against the page as it is now, of what it calls serious or worse."""
    seen.page.evaluate(AXE.read_text("utf-8"))
    found = seen.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {node['html'][:200]} {node.get('failureSummary', '')[:200]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PARTS)
def test_axe_finds_nothing_serious(browser: Browser, report: Path, name: str, theme: str) -> None:
    # the policy lets no script in but the page's own; axe comes in as a tool of the developer
    with visit(browser, url_of(report, f"part={name}&theme={theme}&at=14"), bypass_csp=True) as seen:
        seen.page.locator(f"#part-{name}").wait_for()
        seen.page.wait_for_timeout(200)
        assert serious(seen) == []


def test_axe_finds_nothing_serious_where_two_tapes_are_compared(browser: Browser, comparison: Path) -> None:
    with visit(browser, url_of(comparison), bypass_csp=True) as seen:
        seen.page.locator("#part-compare").wait_for()
        assert serious(seen) == []


def test_all_parts_by_their_numbers(browser: Browser, report: Path) -> None:
    with visit(browser, url_of(report)) as seen:
        for number, name in enumerate(PARTS, 1):
            seen.page.keyboard.press(str(number))
            seen.page.locator(f"#part-{name}").wait_for()
        seen.assert_clean()


def test_tab_reaches_everything_and_is_trapped_nowhere(browser: Browser, report: Path) -> None:
    """Each part is walked through by Tab alone until the walk comes round; what can be pressed has been under the focus."""
    with visit(browser, url_of(report)) as seen:
        page = seen.page
        for name in PARTS:
            seen.show(name)
            page.wait_for_timeout(150)
            page.evaluate("document.activeElement.blur(); document.body.tabIndex = -1; document.body.focus()")
            wanted = page.evaluate(
                """() => { const all = [...document.querySelectorAll("button, a[href], select, input, [tabindex='0']")];
                const seen = (e) => e.checkVisibility({visibilityProperty: true}) && !e.disabled && e.tabIndex >= 0
                  && !e.closest("dialog:not([open])");
                window.__wanted = all.filter(seen); return window.__wanted.length; }"""
            )
            page.evaluate("window.__met = new Set()")
            for _ in range(wanted + 40):
                page.keyboard.press("Tab")
                page.evaluate("window.__met.add(document.activeElement)")
            missed = page.evaluate(
                "window.__wanted.filter((e) => !window.__met.has(e)).map((e) => e.outerHTML.slice(0, 160))"
            )
            assert missed == [], name


def test_the_tokens_by_arrows_are_told(browser: Browser, report: Path) -> None:
    with visit(browser, url_of(report, "at=10")) as seen:
        page = seen.page
        page.locator(".ribbon [role=listbox]").focus()
        page.keyboard.press("ArrowRight")
        page.locator("#k11[aria-selected=true]").wait_for()
        page.wait_for_function("document.querySelector('.ribbon [aria-live]').textContent.trim().length > 5")
        page.keyboard.press("Shift+ArrowRight")
        page.wait_for_function("location.hash.includes('range=')")
        page.keyboard.press("Escape")
        page.wait_for_function("!location.hash.includes('range=')")


def test_a_chart_by_keyboard(browser: Browser, report: Path) -> None:
    with visit(browser, url_of(report, "part=time")) as seen:
        page = seen.page
        plot = page.locator("#part-time .plot").first
        plot.focus()
        for key in ("Home", "ArrowRight", "ArrowRight"):
            page.keyboard.press(key)
        live = page.locator("#part-time figure.chart [aria-live]").first
        page.wait_for_function("(one) => /\\d/.test(one.textContent)", arg=live.element_handle())
        page.keyboard.press("t")
        table = page.locator("#part-time figure.chart table").first
        table.wait_for()
        assert table.locator("tbody tr").count() > 10
        page.keyboard.press("t")
        plot.wait_for(state="visible")
        seen.assert_clean()


def test_a_chart_leaves_as_a_picture_and_as_numbers(browser: Browser, report: Path, tmp_path: Path) -> None:
    with visit(browser, url_of(report, "part=time"), accept_downloads=True) as seen:
        figure = seen.page.locator("#part-time figure.chart").first
        for name, begins in (("PNG", b"\x89PNG"), ("SVG", b"<"), ("CSV", None)):
            with seen.page.expect_download() as coming:
                figure.get_by_role("button", name=name).click()
            path = tmp_path / coming.value.suggested_filename
            coming.value.save_as(path)
            data = path.read_bytes()
            assert begins is None or data.startswith(begins)
            assert len(data) > 200
        assert [one for one in seen.requests if not one.startswith("blob:")] == []
        assert seen.errors == []
        assert seen.violations == []
