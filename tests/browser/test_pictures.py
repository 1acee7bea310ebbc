"""A picture of each part, in the light and in the dark, in both languages: `make screenshots` puts them into the docs."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser

from browser.visits import PARTS, url_of, visit

WINDOW = {"width": 1180, "height": 820}

WHERE = {"tokens": "at=29", "time": "at=29", "distribution": "at=31", "attention": "at=47", "layers": "at=31"}
"""What is selected on the pictures."""


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PARTS)
def test_a_picture_shows_something(
    browser: Browser, report: Path, comparison: Path, name: str, theme: str, lang: str
) -> None:
    page = comparison if name == "compare" else report
    address = url_of(
        page, "&".join([f"part={name}", f"theme={theme}", f"lang={lang}", *filter(None, [WHERE.get(name)])])
    )
    with visit(browser, address, viewport=WINDOW) as seen:
        seen.page.locator(f"#part-{name}").wait_for()
        seen.page.wait_for_timeout(400)
        picture = Image.open(io.BytesIO(seen.page.screenshot())).convert("RGB")
        seen.assert_clean()
    ground = picture.getpixel((4, WINDOW["height"] - 4))
    light = sum(ground) > 3 * 128
    assert light == (theme == "light")
    shares = sorted((n for n, _ in picture.getcolors(1 << 24) or []), reverse=True)
    assert shares[0] < 0.97 * WINDOW["width"] * WINDOW["height"], "one colour alone"
    if folder := os.environ.get("TOKENTAPE_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        # a palette of 200 colours keeps them a third of the size
        picture.quantize(200, dither=Image.Dither.NONE).save(Path(folder) / f"{name}-{theme}-{lang}.png", optimize=True)
