"""A page in headless Chromium, and everything that must not happen on it, written down."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

__all__ = ["PARTS", "Visit", "chromium", "visit"]

PARTS = ("overview", "tokens", "time", "distribution", "attention", "layers", "cost", "compare", "provenance")

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--disable-quic", "--font-render-hinting=none",
]  # fmt: skip

WATCH = """
window.__violations = [];
addEventListener("securitypolicyviolation", (event) => window.__violations.push(
  `${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""


def chromium() -> str:
    """Where the browser is; the test is skipped where there is none, unless one is required."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("TOKENTAPE_BROWSER") or next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("TOKENTAPE_BROWSER_REQUIRED"):
            pytest.fail("no chromium on this machine, and TOKENTAPE_BROWSER_REQUIRED is set")
        pytest.skip("no chromium on this machine: apt install chromium, or name a browser with TOKENTAPE_BROWSER")
    return found


@dataclass
class Visit:
    """One page that was opened. ``requests`` are what it asked for beside itself."""

    page: Page
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def show(self, part: str) -> None:
        """Turn to a part, as a click on its tab does."""
        self.page.locator(f"#tab-{part}").click()
        self.page.locator(f"#part-{part}").wait_for()

    @property
    def violations(self) -> list[str]:
        return [one for frame in self.page.frames for one in frame.evaluate("window.__violations ?? []")]

    def assert_clean(self) -> None:
        """Nothing was asked for, nothing was refused, nothing went wrong."""
        assert self.requests == []
        assert self.errors == []
        assert self.violations == []


@contextmanager
def visit(browser: Browser, url: str, *, local: bool = False, **context: Any) -> Iterator[Visit]:
    """Open a page; offline unless it is ``local``, of a server on this machine."""
    context = {"viewport": {"width": 1280, "height": 900}, "offline": not local, **context}
    made = browser.new_context(**context)
    made.add_init_script(WATCH)
    page = made.new_page()
    page.set_default_timeout(20_000)
    seen = Visit(page)
    page.on(
        "request", lambda one: None if one.url.split("#")[0] == url.split("#")[0] else seen.requests.append(one.url)
    )
    page.on("console", lambda one: seen.errors.append(one.text) if one.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    try:
        page.goto(url)
        yield seen
    finally:
        made.close()


def url_of(path: Path, fragment: str = "") -> str:
    """The address of a file."""
    return path.as_uri() + (f"#{fragment}" if fragment else "")
