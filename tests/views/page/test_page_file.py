"""The page as a file: it holds its data to the letter, nothing that a model says becomes markup, and it asks for nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokentape
from tokentape import Line, ScriptedSource
from tokentape.errors import MissingExtra, TapeExists, UsageError
from tokentape.views.page import file
from tokentape.views.page.document import page_document
from tokentape.views.page.file import page_html, write_page
from tokentape.views.page.json_text import page_json
from views.page.pages import MS, data_of, parsed, spoken

HOSTILE = [
    b"</script><script>alert(1)</script>",
    b"<img src=x onerror=alert(1)>",
    b"<!--<script>",
    b"]]>",
    "\u202e\u2066bidi".encode(),
    b"\x00\x1b[31m\x7f",
    "\ud83d".encode("utf-8", "surrogatepass"),
    b"\xf0\x9f\x98",
    b"\x80",
    "\u2028\u2029\ufeff\x85".encode(),
    b"x" * 100_000,
    b"&lt;&quot;'\"",
]

PLAIN = ("function () {}", "body{color:red}")


@pytest.fixture(autouse=True)
def small_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "bundle", lambda: PLAIN)


EXPECTED = ["html", "head", "meta", "meta", "meta", "meta", "meta", "meta", "title", "style", "body", "div", "noscript"]


def elements(page: str) -> list[str]:
    return [tag for tag, _ in parsed(page).elements if tag not in ("blockquote", "h1", "p", "ul", "li")]


def check(document: dict[str, Any]) -> str:
    page = page_html(document)
    page.encode()
    assert data_of(page) == json.loads(json.dumps(document))
    assert elements(page) == [*EXPECTED, "script", "script"]
    assert not [
        name
        for _, attrs in parsed(page).elements
        for name in attrs
        if name.startswith("on") or name in ("src", "href", "style")
    ]
    return page


def test_hostile_tokens_are_text_and_nothing_else() -> None:
    page = check(page_document(spoken(HOSTILE, prompt="</title><svg onload=alert(1)>\x00&")))
    assert "alert(1)</script>" not in page and "<svg" not in page
    assert max(len(text) for text in data_of(page)["tape"]["traces"][0]["symbols"]["text"]) < 600, "large ones are cut"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=12), min_size=1, max_size=5), st.text(max_size=8))
def test_any_bytes_come_back_as_they_were_drawn(tokens: list[bytes], prompt: str) -> None:
    prompt = prompt.encode("utf-8", "ignore").decode() or "x"
    check(page_document(spoken(tokens, prompt=prompt)))


@given(
    st.recursive(
        st.text() | st.none() | st.integers(-(2**53), 2**53),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_inside_of_html_is_the_same_json(value: Any) -> None:
    text = page_json(value)
    assert json.loads(text) == value
    assert not re.search("[<>&\u2028\u2029\ud800-\udfff]", text)
    text.encode()


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError):
        page_json({"x": float("nan")})


def test_lone_surrogates_in_the_document_itself() -> None:
    document = page_document(spoken([b"a"]))
    check({**document, "title": "\ud800</title>"})


def test_the_policy_lets_run_what_is_inlined_and_nothing_else() -> None:
    page = check(page_document(spoken([b"a"])))
    policy = next(attrs["content"] for tag, attrs in parsed(page).elements if attrs.get("http-equiv"))
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    styles = re.findall(r"<style>(.*?)</style>", page, re.S)
    for found, rule in ((scripts, "script-src"), (styles, "style-src")):
        (text,) = found
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    assert set(rules) == {"default-src", "script-src", "style-src", "base-uri", "form-action"}


def test_a_page_that_is_served_may_ask_its_server() -> None:
    page = page_html(page_document(spoken([b"a"]), live={"events": "/e", "explain": None, "folder": None}))
    assert "connect-src 'self'" in page


def test_without_script_the_figures_are_read() -> None:
    tape = tokentape.record(ScriptedSource([Line(5 * MS, ["<b>"])]), "a & b")
    page = page_html(page_document(tape, lang="zh"))
    text = page[page.index("<noscript>") : page.index("</noscript>")]
    assert "5.00 ms" in text and "首词元延迟" in text and "a &amp; b&lt;b&gt;" in text
    assert '<html lang="zh-Hans">' in page


def test_the_shipped_page_refers_to_nothing_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    try:
        page = page_html(page_document(spoken([b"a"])))
    except MissingExtra:
        pytest.skip("the bundle was not built")
    shell = re.sub(r"<script type.*?</script>", "", page, flags=re.DOTALL)
    shell = re.sub(r"http://www\.w3\.org/\d{4}/[\w/]+", "", shell)  # names of vocabularies, which nobody fetches
    assert not re.search(r"""https?:|@import|url\((?!#)|<link|<base|["']//\w""", shell)


def test_a_checkout_without_the_bundle_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    file.bundle.cache_clear()
    monkeypatch.setattr(file.resources, "files", lambda package: tmp_path)
    with pytest.raises(MissingExtra) as caught:
        page_html(page_document(spoken([b"a"])))
    assert "make web" in caught.value.fix and "view.js" in caught.value.why
    file.bundle.cache_clear()


def test_a_bundle_that_would_end_its_element_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    file.bundle.cache_clear()
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "view.js").write_text("'</SCRIPT>'")
    (tmp_path / "static" / "view.css").write_text("")
    monkeypatch.setattr(file.resources, "files", lambda package: tmp_path)
    with pytest.raises(ValueError):
        file.bundle()
    file.bundle.cache_clear()


def test_writing(tmp_path: Path) -> None:
    document = page_document(spoken([b"a"]))
    place = tmp_path / "a.html"
    n_bytes = write_page(document, place)
    assert place.stat().st_size == n_bytes and place.read_text("utf-8") == page_html(document)
    with pytest.raises(TapeExists):
        write_page(document, place)
    write_page({**document, "title": "new"}, place, overwrite=True)
    assert "<title>new</title>" in place.read_text("utf-8")
    with pytest.raises(UsageError):
        write_page(document, tmp_path / "no" / "a.html")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"], "nothing is left beside it"


def test_a_page_takes_the_place_of_no_tape_and_of_nothing_that_is_no_file(tmp_path: Path) -> None:
    document = page_document(spoken([b"a"]))
    tape, pipe, long = tmp_path / "cat.tape", tmp_path / "pipe", tmp_path / ("n" * 250 + ".html")
    tape.write_bytes(b"a tape")
    if hasattr(os, "mkfifo"):
        os.mkfifo(pipe)
    else:
        pipe.mkdir()
    for place in (tape, pipe, tmp_path):
        with pytest.raises(TapeExists):
            write_page(document, place, overwrite=True)
    assert tape.read_bytes() == b"a tape" and not pipe.is_file()
    write_page(document, long)
    assert long.is_file()


def test_a_report_of_512_tokens_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "bundle", lambda: ("x" * 120 * 1024, "y" * 15 * 1024))
    likely = tuple((i, -0.123456789 - 1.1 * i) for i in range(5))
    tokens = [b" word%d" % (i % 300) for i in range(512)]
    page = page_html(page_document(spoken(tokens, logprob=-1.23456789, candidates=likely)))
    assert len(page.encode()) < 600_000
