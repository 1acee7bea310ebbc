"""Ids of which no vocabulary came with the tape: named where their text stands on it, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from served_tapes import MS, ORIGIN, SETTING, passed
from tokentape.data import Run, TraceHead, open_tape
from tokentape.data.trace import Piece
from tokentape.recorder.many import ManyRuns
from tokentape.recorder.tick import LiveRun, Said, Tick
from tokentape.views.learned import with_learned
from tokentape.views.page.document import page_document
from tokentape.views.screen import Screen
from tokentape.views.text import show

PROMPT = "It is a fox.\nA 长 one"


def served(path: Path, chunks: list[list[tuple[int, bytes]]], label: str = "exact") -> Path:
    """An answer whose messages hold these tokens; each has id 5 as another candidate, then 11."""
    with ManyRuns(path, SETTING, ORIGIN, notes={"origin_unix_ns": 10**18}) as many:
        live = LiveRun(Run((TraceHead(0, 3, (7001, 7002, 7003), PROMPT),), {}), ORIGIN, iter(()), lambda: ("stop",))
        many.begin(0, live)
        ticks = []
        for i, tokens in enumerate(chunks):
            told = tuple(
                Said(0, token_id, data, -1.0, candidates=((token_id, -1.0), (5, -2.0), (11, -3.0)))
                for token_id, data in tokens
            )
            ticks.append(Tick("chunk", 1, ORIGIN + i * MS, ORIGIN + (i + 1) * MS, said=told))
        many.add(0, ticks)
        many.end(0, ("stop",), passed(0, MS, 90 * MS, label=label, finish="stop"))
        many.close().close()
    return path


def named(path: Path) -> tuple[dict[int, bytes], str, dict[str, str]]:
    with open_tape(path) as tape:
        known = {number: piece.bytes for number, piece in with_learned(tape.pieces, tape.traces).items()}
        return known, show(tape, Screen(width=200, encoding="utf-8")), page_document(tape)["tape"]["pieces"]


def test_what_was_chosen_is_known_where_it_is_a_candidate(tmp_path):
    known, text, drawn = named(served(tmp_path / "a.tape", [[(5, b" fox")], [(6, b" ran")]]))
    assert known == {5: b" fox", 6: b" ran"}
    assert "' ran' 37%  ' fox' 14%  #11 5%" in text
    assert drawn == {"5": " fox", "6": " ran"}


def test_text_that_need_not_be_a_token_s_own_names_nothing(tmp_path):
    held = [[(1, b"")], [(2, "长".encode())], [(3, b" ok")]]  # the bytes of 1 come with 2
    assert named(served(tmp_path / "held.tape", held))[0] == {3: b" ok"}
    together = [
        [(1, b" a b"), (2, b"")],
        [(3, b" c")],
        [(4, b" d"), (5, b" e")],
    ]  # the text of a message with its first
    assert named(served(tmp_path / "together.tape", together))[0] == {4: b" d", 5: b" e"}
    parts = [[(1, b"\xe9")], [(2, b"\x95\xbf")], [(3, b"\xef\xbf\xbd")]]  # no character, or one that stands for none
    assert named(served(tmp_path / "parts.tape", parts))[0] == {}
    twice = [[(1, b"a")], [(2, b" b")], [(1, b" a")]]  # with a space and without
    assert named(served(tmp_path / "twice.tape", twice))[0] == {2: b" b"}
    assert named(served(tmp_path / "counted.tape", [[(5, b" fox")]], "counted"))[0] == {}


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 4), st.sampled_from([b"", b"a", b" b"])), min_size=1, max_size=3), max_size=6
    )
)
def test_a_name_is_never_that_of_two_texts_and_a_vocabulary_is_never_overruled(chunks):
    tokens = [(i, token_id, data) for i, chunk in enumerate(chunks) for token_id, data in chunk]
    ids = np.ma.array([token_id for _, token_id, _ in tokens], dtype=np.int64)
    trace = SimpleNamespace(
        exchange=SimpleNamespace(label="exact"),
        steps={"index": np.ma.array(range(len(chunks)), dtype=np.int64)},
        tokens={"id": ids, "step": np.ma.array([i for i, *_ in tokens], dtype=np.int64)},
        token_bytes=[data for *_, data in tokens],
    )
    own = {0: Piece(0, None, b"own", False)}
    found = with_learned(own, [trace])
    assert found[0] == own[0]
    for number, piece in found.items():
        if number:
            assert piece.bytes in {data for _, token_id, data in tokens if token_id == number}
            assert piece.bytes != b""


def test_a_prompt_whose_ids_nobody_named_is_shown_by_its_text(tmp_path):
    with open_tape(served(tmp_path / "a.tape", [[(5, b" fox")]])) as tape:
        trace = page_document(tape)["tape"]["traces"][0]
    symbols = trace["symbols"]
    assert trace["n_prompt"] == 3 and symbols["ids"] == [7001, 7002, 7003, 5]
    assert symbols["text"] == ["", "", "It is a fox.\\nA 长 one", " fox"]
    assert symbols["open"] == [1, 1, 0, 0] and symbols["hex"][:2] == [None, None]
    assert not any("#" in text for text in symbols["text"])
