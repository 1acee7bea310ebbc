"""How soon the page is there, and how soon it follows the pointer, in headless Chromium.

python benchmarks/page.py [-n 20] [--steps 4096 32768]

First paint is the browser's own first-contentful-paint, of a file that it has not seen, a new browser context each time. Hover is
the time that one move of the pointer takes in the page: its listeners, what they put off to the next frame, style and layout; over
200 places of the ribbon and of the chart of latency. Both are of one machine and one run; the machine and the n are printed. Needs
chromium, and the extras of development.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

import tokentape
from tokentape import Line
from tokentape.recorder.tick import Said
from tokentape.views.page.document import page_document
from tokentape.views.page.file import page_html

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]

COUNT_FRAMES = """
window.__spent = 0;
const raf = requestAnimationFrame.bind(window);
window.raf = raf;
window.requestAnimationFrame = (act) => raf((at) => {
  const began = performance.now();
  act(at);
  window.__spent += performance.now() - began;
});
"""

HOVER = """async ([selector, n]) => {
  const box = document.querySelector(selector).getBoundingClientRect(), times = [];
  const left = Math.max(0, box.left), top = Math.max(0, box.top);
  const width = Math.min(innerWidth, box.right) - left, height = Math.min(innerHeight, box.bottom) - top;
  const channel = new MessageChannel();
  const soon = () => new Promise((done) => { channel.port1.onmessage = done; channel.port2.postMessage(0); });
  for (let i = 0; i < n; i++) {
    const x = left + width * ((i * 0.618034) % 1), y = top + height * (0.15 + 0.7 * ((i * 0.414214) % 1));
    const target = document.elementFromPoint(x, y);
    window.__spent = 0;
    let began = performance.now();
    for (const type of ["pointerover", "mouseover", "pointermove", "mousemove"]) {
      target.dispatchEvent(new PointerEvent(type, {bubbles: true, clientX: x, clientY: y, pointerType: "mouse"}));
    }
    await soon();  // what was put off to the end of the task is in it
    let took = performance.now() - began;
    await new Promise((done) => raf(done));
    await soon();
    began = performance.now();
    document.body.getBoundingClientRect();  // style and layout
    times.push(took + window.__spent + performance.now() - began);
  }
  return times;
}"""


def tape_of(n: int, path: Path) -> None:
    """A tape on paper of ``n`` steps, with five candidates at each."""
    chance = random.Random(0)
    words = [f" word{i}".encode() for i in range(500)]
    lines = []
    for _ in range(n):
        best = sorted((-chance.expovariate(0.5) for _ in range(5)), reverse=True)
        candidates = [(chance.randrange(500), value) for value in best]
        token, logprob = candidates[0]
        lines.append(Line(round(2e6 * chance.lognormvariate(0, 0.2)), [Said(0, token, words[token], logprob, 1.5, 1)]))
    tokentape.record(tokentape.ScriptedSource(lines), "Once upon a time", path=path).close()


def page_of(tape: Path, page: Path) -> int:
    with tokentape.open(tape) as opened:
        page.write_text(page_html(page_document(opened)), "utf-8")
    return page.stat().st_size


def first_paint(browser: Browser, page: Path) -> float:
    """Milliseconds from the start of the navigation to the first content on the screen."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.goto(page.as_uri())
    opened.wait_for_selector(".ribbon [role=option]")
    found: float = opened.evaluate(
        """() => new Promise((done) => new PerformanceObserver((list) => {
          const one = list.getEntriesByName("first-contentful-paint")[0];
          if (one) done(one.startTime);
        }).observe({type: "paint", buffered: true}))"""
    )
    context.close()
    return found


def hovers(browser: Browser, page: Path, part: str, selector: str, n: int) -> list[float]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_init_script(COUNT_FRAMES)
    opened = context.new_page()
    opened.goto(f"{page.as_uri()}#part={part}")
    opened.wait_for_selector(selector)
    opened.wait_for_timeout(500)
    times: list[float] = opened.evaluate(HOVER, [selector, n])
    context.close()
    return times


def told(times: list[float], unit: str = "ms") -> str:
    ordered = sorted(times)
    p95 = ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)) - 1)]
    figures = {"p50": statistics.median(ordered), "p95": p95, "worst": ordered[-1]}
    return "  ".join([*(f"{name} {value:7.1f} {unit}" for name, value in figures.items()), f"n = {len(ordered)}"])


def machine() -> dict[str, Any]:
    return {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=20, help="pages opened (default 20)")
    parser.add_argument("--hovers", type=int, default=200)
    parser.add_argument("--steps", type=int, nargs="*", default=[4096, 32768])
    asked = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("no chromium on this machine", file=sys.stderr)
        return 4
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for name, value in (machine() | {"chromium": browser.version}).items():
            print(f"{name}: {value}")
        pages = {}
        for n in asked.steps:
            tape, page = Path(folder) / f"{n}.tape", Path(folder) / f"{n}.html"
            tape_of(n, tape)
            pages[n] = page
            print(f"{n:6,} steps: a page of {page_of(tape, page) / 1e6:.2f} MB")
        paints: dict[int, list[float]] = {n: [] for n in pages}
        for _ in range(asked.n):  # interleaved, so that noise of the machine meets each alike
            for n, page in pages.items():
                paints[n].append(first_paint(browser, page))
        for n, page in pages.items():
            print(f"{n:6,} steps, first paint      {told(paints[n])}")
            for what, part, selector in (
                ("ribbon", "overview", ".ribbon [role=listbox]"),
                ("latency", "time", "#part-time .chart-canvas"),
            ):
                print(f"{n:6,} steps, hover {what:<9}  {told(hovers(browser, page, part, selector, asked.hovers))}")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
