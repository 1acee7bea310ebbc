"""One tape on a file, in a notebook's frame and served: the same numbers in all three."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, FrameLocator, Page

import tokentape
from browser.visits import PARTS, Visit, url_of, visit


@contextmanager
def served(path: Path, *options: str) -> Iterator[str]:
    """The page of a path, served by a process of its own; its address with the ticket."""
    words = [sys.executable, "-m", "tokentape", "view", str(path), "--no-browser", *options]
    server = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        found = next(line.strip() for line in server.stderr if "http://" in line)
        # read on: a server whose complaints fill the pipe stands still
        said: list[str] = []
        reader = threading.Thread(target=said.extend, args=(server.stderr,), daemon=True)
        reader.start()
        yield found
    finally:
        server.terminate()
        try:
            server.wait(10)
        finally:
            server.kill()
            server.stderr.close()
    reader.join(10)
    assert not [line for line in said if "Traceback" in line], "".join(said)


def texts(seen: Page | FrameLocator, visitor: Visit) -> dict[str, str]:
    """What each part says."""
    found = {}
    for name in PARTS:
        seen.locator(f"#tab-{name}").click()
        panel = seen.locator(f"#part-{name}")
        panel.wait_for()
        visitor.page.wait_for_timeout(150)
        # a long table draws what there is room for; its beginning is the same everywhere
        found[name] = panel.inner_text()[:1000] if name == "tokens" else panel.inner_text()
    return found


def test_file_frame_and_server_say_the_same(browser: Browser, story: Path, report: Path, tmp_path: Path) -> None:
    size = {"viewport": {"width": 1280, "height": 1200}, "locale": "en-US"}
    with visit(browser, url_of(report), **size) as seen:
        filed = texts(seen.page, seen)

    with tokentape.open(story) as tape:
        frame = tape._repr_mimebundle_()["text/html"]
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><meta charset=utf-8><body>{frame}</body>", "utf-8")
    with visit(browser, url_of(notebook), **size) as seen:
        framed = texts(seen.page.frame_locator("iframe"), seen)
        seen.assert_clean()

    with served(story, "--no-explain") as address, visit(browser, address, local=True, **size) as seen:
        live = texts(seen.page, seen)
        assert seen.violations == []
        assert seen.errors == []

    for name in PARTS:
        if name != "compare":  # which command compares is told by where the page is
            assert framed[name] == filed[name], name
            assert live[name] == filed[name], name
