"""One secret, every way by which a tape goes out: the word, its bytes, its id and the hash of what was looked for stay behind."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import tokentape
import tokentape.views.page.file as file
from data.tapes import SETTING, explained
from tokentape.data import Run, Source, TapeWriter, TraceHead, add_explanations, open_tape
from tokentape.data.blocks import Draft, DraftTokens
from tokentape.data.control import Decision, RuleHead
from tokentape.exports.exporting import FORMATS, export
from tokentape.server.rows import moment_of
from tokentape.views.page.compare import compared_document
from tokentape.views.page.document import page_document
from tokentape.views.page.file import page_html

SECRET, ID, HASH = b" xyzzy", 7741, "feedfacefeedface"
TOKENS = [b"The", b" cat", SECRET, b" sat", b"."]
FOUND = re.compile(f"xyzzy|{SECRET.hex()}|{ID}|{HASH}")


def guarded_tape(path: Path, decision: Decision, instead: bytes | None = None) -> Path:
    """A tape whose guard decided about its third token; with ``instead`` another was drawn there, the secret being a candidate."""
    writer = TapeWriter.create(path, SETTING, notes={"origin_unix_ns": 10**18, "clock": "fake"})
    guard = RuleHead(0, "guard", {"phrases": 1, "sha256": HASH, "action": decision.action})
    run = writer.begin(Run((TraceHead(0, 1, (0,), "Once"),), {"max_new_tokens": 5}, start_ns=90, rules=(guard,)))
    draft = Draft()
    for i, secret in enumerate(TOKENS):
        data = instead if instead and i == 2 else secret
        ids = ID if data is SECRET else 10 + i if data is secret else 77
        names = ID if instead and i == 2 else None
        candidates = ((ID, -0.5), (10 + i, -1.5)) if i == 2 else ((10 + i, -0.1), (ID, -5.0))
        columns = (1 + i, i, ids, -0.5, 1.5, 1, -0.5, 0, 0, names, 100, 0.0, None)
        step = (i, int(i > 0), 1, None, None, 1, 100 + 20 * i, 110 + 20 * i, *[None] * 13)
        draft.add(1, step, DraftTokens(1, [0], columns, [data], [candidates]))
    writer.append_block(run.number, draft, decisions=[(0, decision)])
    writer.end(run.number, ["guard" if decision.action == "stop" else "length"])
    writer.add_pieces([(10 + i, None, data, False) for i, data in enumerate(TOKENS) if data is not SECRET])
    writer.add_pieces([(ID, "Ġxyzzy", SECRET, False), (77, None, b" tree", False), (0, None, b"Once", False)])
    writer.close("complete").close()
    labels = ("Once", *(data.decode() for data in TOKENS[:4]))
    add_explanations(
        path,
        [
            explained(
                targets=[5],
                target_ids=[14],
                sources=tuple(Source(i, i + 1, label, "token") for i, label in enumerate(labels)),
                relevance=np.ma.MaskedArray([[0.1, 0.2, 0.3, 0.9, 0.5]]),
                value=[2.0],
            )
        ],
    )
    return path


DECIDED: dict[str, tuple[Decision, bytes | None]] = {
    "redact": (Decision(3, 0, "redact", 7, 13, "phrase 1", "[...]"), None),
    "stop": (Decision(3, 0, "stop", 7, 7, "phrase 1", ""), None),
    "resample": (Decision(3, 0, "resample", 7, 7, "phrase 1", ""), b" tree"),
}


@pytest.fixture(scope="module")
def tapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("guarded")
    return {name: guarded_tape(folder / f"{name}.tape", *of) for name, of in DECIDED.items()}


@pytest.fixture(autouse=True)
def bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "bundle", lambda: ("", ""))


def assert_nothing_of_it(text: str) -> None:
    found = FOUND.search(text)
    assert found is None, text[max(0, found.start() - 100) : found.end() + 50]


def notebooks_have_of(value: Any) -> str:
    return "\n".join(value._repr_mimebundle_().values())


@pytest.mark.parametrize("name", DECIDED)
def test_the_secret_is_there_to_be_found(tapes: dict[str, Path], name: str) -> None:
    with open_tape(tapes[name]) as tape:
        whole = page_html(page_document(tape, withheld=True))
        assert FOUND.search(whole) and len(tape.explanations) == 1
        assert {found[0] for found in FOUND.finditer(whole)} >= {"xyzzy", HASH, str(ID)}


@pytest.mark.parametrize("name", DECIDED)
def test_it_is_in_no_page_no_stream_and_no_notebook(tapes: dict[str, Path], name: str) -> None:
    with open_tape(tapes[name]) as tape:
        assert_nothing_of_it(page_html(page_document(tape)))
        assert_nothing_of_it(json.dumps(moment_of(tape).rows_since(0)))
        for value in (tape, tape.traces[0], tape.explanations[0]):
            assert_nothing_of_it(notebooks_have_of(value))


@pytest.mark.parametrize("pair", list(itertools.permutations(DECIDED, 2)))
def test_it_is_in_no_comparison(tapes: dict[str, Path], pair: tuple[str, str]) -> None:
    a, b = (tapes[name] for name in pair)
    assert_nothing_of_it(page_html(compared_document(a, b, across="rules")))
    assert_nothing_of_it(notebooks_have_of(tokentape.compare(a, b, across="rules")))
    found = tokentape.compare(a, b, across="rules")
    gone = replace(found, a=replace(found.a, path="gone.tape"))
    for value in (gone, replace(found, a=replace(found.a, path=None))):  # of a tape that is not there, or was in memory
        assert_nothing_of_it(notebooks_have_of(value))


@pytest.mark.parametrize("name", DECIDED)
@pytest.mark.parametrize("to", FORMATS)
def test_it_is_in_no_export(tapes: dict[str, Path], name: str, to: Any, tmp_path: Path) -> None:
    for one in export(tapes[name], tmp_path / "out", to=to, text=True, tokens=to == "otlp").files:
        if to == "parquet":
            assert_nothing_of_it(repr(pq.read_table(one).to_pydict()) + repr(pq.read_schema(one).metadata))
        else:
            assert_nothing_of_it(one.read_text())
