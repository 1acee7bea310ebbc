"""Escaped bytes print, are one line, and turn back."""

from __future__ import annotations

import csv
import json

from hostile import HOSTILE, some_bytes
from hypothesis import example, given
from hypothesis import strategies as st

from tokentape.exports.csv import _json_cell, cell_text
from tokentape.exports.escaping import escaped, unescaped


@given(
    st.one_of(
        some_bytes, st.binary(max_size=40), st.text(max_size=20).map(lambda s: s.encode("utf-8", "surrogatepass"))
    )
)
@example(b"\\x41")
@example(b"\\\\n")
@example("\udc80".encode("utf-8", "surrogatepass"))
def test_what_is_escaped_turns_back(data: bytes) -> None:
    shown = escaped(data)
    shown.encode()
    assert shown.isprintable()  # no control, no direction mark, no surrogate
    assert unescaped(shown) == data


def test_plain_text_stays_as_it_is() -> None:
    assert escaped("The cat, 猫 🐈 é") == "The cat, 猫 🐈 é"
    assert escaped(b"a\xe4\n") == "a\\xE4\\n"


def test_no_cell_is_a_formula() -> None:
    for data in HOSTILE:
        cell = cell_text(data)
        inside = cell[1:-1].replace('""', '"')
        assert inside[:1] not in tuple("=+-@＝＋－＠"), data
        assert unescaped(inside.removeprefix("'")) == data


@given(st.text(alphabet=";=+-@＝ \"',a", max_size=12))
@example("x;=cmd|'/C calc'!A0;y")
def test_no_cell_is_a_formula_where_semicolons_part_cells(text: str) -> None:
    cell, told = cell_text(text), _json_cell(json.dumps({"stop": text}))
    for line in (f"0,{cell}", f"0,{told}"):
        for part in next(csv.reader([line], delimiter=";")):
            assert part.lstrip()[:1] not in tuple("=+-@＝＋－＠"), part
    assert unescaped(cell[1:-1].replace('""', '"').removeprefix("'")) == text.encode()
    assert json.loads(told[1:-1].replace('""', '"')) == {"stop": text}
