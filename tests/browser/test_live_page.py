"""The page of a tape while it grows: every token comes, a server that comes back is found again, the end is the final page."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

import tokentape
from browser.test_same_numbers import served
from browser.visits import visit

N = 60

SLOW = f"""
import sys, time
import tokentape as tt

class Slow:
    def __call__(self, ids, scores):
        time.sleep(0.12)
        return scores

source = tt.local("demo")
source.causal.model.generation_config.eos_token_id = None
tt.record(source, "Once upon a time", max_new_tokens={N}, logits_processor=[Slow()], path=sys.argv[1]).close()
"""


def a_free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def shown(page: Page) -> int:
    return page.locator(".ribbon [role=option]").count()


def until(page: Page, found: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something holds; the page's policy lets nothing be evaluated on it."""
    last = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < last
        page.wait_for_timeout(50)


@pytest.mark.slow
def test_a_page_follows_a_recording_through_a_restart_to_its_end(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "growing.tape"
    recorder = subprocess.Popen([sys.executable, "-c", SLOW, str(path)])
    with ExitStack() as ends:
        ends.callback(recorder.wait)
        ends.callback(recorder.kill)
        while not path.exists() and recorder.poll() is None:
            time.sleep(0.05)
        port = str(a_free_port())
        with served(path, "--no-explain", "--port", port) as address:
            seen = ends.enter_context(visit(browser, address, local=True))
            until(seen.page, lambda: shown(seen.page) > 12)
            first = shown(seen.page)
            until(seen.page, lambda: shown(seen.page) > first + 3)
        # the server is gone; the page says so, and keeps what it has
        seen.page.locator(".chip.live[data-state=lost]").wait_for()
        kept = shown(seen.page)
        assert kept >= first + 3
        with served(path, "--no-explain", "--port", port):
            seen.page.locator(".chip.live[data-state=live]").wait_for()
            seen.page.locator("#tab-overview").click()
            overview = seen.page.locator("#part-overview")
            until(seen.page, lambda: f"demo wrote {N} tokens at" in overview.inner_text())
            with tokentape.open(path) as tape:
                trace = tape.traces[0]
                said = seen.page.locator(".ribbon [role=option]").all_inner_texts()
                assert len(said) == (trace.n_prompt or 0) + len(trace.tokens["id"])
            assert seen.page.locator(".head .state").count() == 0
            assert seen.violations == []
