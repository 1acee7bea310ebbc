"""Tapes on paper for the page, and a page's parts as an HTML parser finds them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import numpy as np

import tokentape
from tokentape import Line, ScriptedSource
from tokentape.data.tape import Tape
from tokentape.recorder.tick import Said
from tokentape.words.catalogue import LANGS, Message, phrase

MS = 1_000_000


def said(data: bytes, logprob: float | None = -0.5, **more: Any) -> Said:
    return Said(0, None, data, logprob, 1.0, 1, **more)


def spoken(tokens: Sequence[bytes], prompt: str = "The cat", **more: Any) -> Tape:
    """A tape of one sequence, a token a step, every step 2 ms."""
    return tokentape.record(ScriptedSource([Line(2 * MS, [said(data, **more)]) for data in tokens]), prompt)


IN_PROCESS = SimpleNamespace(facts={"engine": "transformers"})
"""As much of a Setting as tells that the model can be had again."""


def replayable(number: int = 0, n_prompt: int = 3, **more: Any) -> Any:
    """As much of a trace as says whether it can be played back: it can, unless ``more`` says otherwise."""
    known = {
        "number": number,
        "row": 0,
        "n_prompt": n_prompt,
        "prompt_ids": np.arange(n_prompt),
        "tokens": {"id": np.ma.arange(2), "logprob": np.ma.array([-0.5, -1.0])},
        "steps": {"dropped": np.ma.masked_all(2, np.int64)},
        "run": SimpleNamespace(options={}),
    }
    return SimpleNamespace(**{**known, **more})


class Parts(HTMLParser):
    """The elements of a page with their attributes, and what stands in each script and style."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.contents: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside.append(dict(attrs).get("id") or tag)

    def handle_endtag(self, tag: str) -> None:
        self.inside.pop()

    def handle_data(self, data: str) -> None:
        if self.inside and data:
            self.contents[self.inside[-1]] = self.contents.get(self.inside[-1], "") + data


def parsed(page: str) -> Parts:
    parts = Parts()
    parts.feed(page)
    parts.close()
    return parts


def data_of(page: str) -> Any:
    return json.loads(parsed(page).contents["tokentape-data"])


def messages(part: Any) -> Iterator[Message]:
    """Every message in a part, those that fill places of others included."""
    if isinstance(part, dict):
        if "key" in part and set(part) <= {"key", "args"}:
            yield Message.of(part)
        for inner in part.values():
            yield from messages(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from messages(inner)


def words_of(part: Any) -> list[str]:
    """Every message of a part, said in both languages: none may lack a phrase or an argument."""
    return [phrase(message.key, lang, **message.args) for message in messages(part) for lang in LANGS]
