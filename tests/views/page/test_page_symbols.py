"""Whatever a model says is drawn: characters whole, bytes that make none visible, large tokens by their head."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape.data.trace import Piece
from tokentape.views.page.symbols import HEX_BYTES, drawn_alone, n_prompt_places, names, open_tokens, symbols_part
from views.page.pages import spoken

SPLIT = "a你é😀b"


def trace_of(
    data: list[bytes | None],
    ids: list[int | None] | None = None,
    prompt_ids: list[int] | None = None,
    prompt_text: str | None = None,
) -> Any:
    column = np.ma.MaskedArray(
        [0 if i is None else i for i in ids or [0] * len(data)], [i is None for i in ids or [None] * len(data)]
    )
    first = len(prompt_ids or [])
    return SimpleNamespace(
        prompt_ids=None if prompt_ids is None else np.array(prompt_ids, np.int64),
        prompt_text=prompt_text,
        tokens={"id": column, "position": np.arange(first, first + len(data))},
        token_bytes=data,
    )


def part_of(data: list[bytes | None], pieces: dict[int, Piece] | None = None, **more: Any) -> Any:
    return symbols_part(trace_of(data, **more), SimpleNamespace(pieces=pieces or {}))  # type: ignore[arg-type]


def is_open_by_trying(tokens: list[bytes]) -> list[bool]:
    """A token is open if a character of the whole text, decoded slowly, has bytes of it and of a later token."""
    raw = b"".join(tokens)
    whole: list[tuple[int, int]] = []
    start = 0
    while start < len(raw):
        for size in (1, 2, 3, 4):
            try:
                one = raw[start : start + size].decode()
            except UnicodeDecodeError:
                continue
            if len(one) == 1 and len(one.encode()) == size:
                whole.append((start, start + size))
                start += size
                break
        else:
            start += 1
    ends = list(itertools.accumulate(map(len, tokens)))
    return [any(first < end < last for first, last in whole) for end in ends]


@pytest.mark.parametrize("size", range(1, 6))
def test_text_split_at_every_byte(size: int) -> None:
    raw = SPLIT.encode()
    tokens = [raw[i : i + size] for i in range(0, len(raw), size)]
    part = part_of(list(tokens))
    assert "".join(part["text"]) == SPLIT, "every character once, and nothing else"
    assert [bool(flag) for flag in part["open"]] == is_open_by_trying(tokens)
    assert bytes.fromhex("".join(part["hex"])) == raw


@given(st.lists(st.binary(max_size=5) | st.text(max_size=2).map(lambda text: text.encode()), max_size=8), st.data())
def test_open_tokens_are_those_that_trying_finds(tokens: list[bytes], data: st.DataObject) -> None:
    raw = b"".join(tokens)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    again = [raw[a:b] for a, b in itertools.pairwise([0, *cuts, len(raw)])]
    assert open_tokens(again) == is_open_by_trying(again)
    assert open_tokens(tokens) == is_open_by_trying(tokens)


@given(st.lists(st.binary(max_size=4), max_size=6))
def test_no_byte_is_lost(tokens: list[bytes]) -> None:
    """What is drawn, read back, is the bytes: characters as they are, the others as they are spelt."""
    drawn = "".join(part_of(list(tokens))["text"])
    raw = b"".join(tokens)
    seen = sum(len(hexed.split()) for hexed in _spelt(drawn))
    lost = len(raw) - len(raw.decode("utf-8", "ignore").encode())
    assert seen == lost


def _spelt(drawn: str) -> list[str]:
    return [part.split("⟩")[0] for part in drawn.split("⟨")[1:]]


def test_bytes_that_never_make_a_character_stay_where_they_are() -> None:
    part = part_of([b"\xe4\xbd", b"abc", b"\xa0", b"\xf0\x9f"])
    assert part["text"] == ["⟨E4 BD⟩", "abc", "⟨A0⟩", "⟨F0 9F⟩"]
    assert part["open"] == [0, 0, 0, 0]


def test_a_group_is_called_by_its_character() -> None:
    part = part_of([b" \xe4", b"\xbd", b"\xa0!", b"x"])
    assert part["text"] == [" ", "", "你!", "x"] and part["open"] == [1, 1, 0, 0]
    assert [names(part, place) for place in range(4)] == [" 你!", " 你!", " 你!", "x"]


def test_prompt_and_continuation_are_one_text() -> None:
    pieces = {5: Piece(5, "x", b"\xe4\xbd", False), 2: Piece(2, "</s>", b"", True)}
    part = part_of([b"\xa0", b""], pieces, ids=[7, 2], prompt_ids=[2, 5, 99])
    assert part["text"] == ["</s>", "⟨E4 BD⟩", "#99", "⟨A0⟩", "</s>"], "an unknown token stands between"
    assert part["special"] == [1, 0, 0, 0, 1]
    part = part_of([b"\xa0"], pieces, ids=[7], prompt_ids=[2, 5])
    assert part["text"] == ["</s>", "", "你"] and part["open"] == [0, 1, 0]
    assert part["position"] == [0, 1, 2] and part["ids"] == [2, 5, 7]


def test_a_special_token_ends_what_is_unfinished() -> None:
    pieces = {2: Piece(2, "</s>", b"", True)}
    part = part_of([b"\xe4", b"", b"\xbd\xa0"], pieces, ids=[7, 2, 8])
    assert part["text"] == ["⟨E4⟩", "</s>", "⟨BD A0⟩"] and part["open"] == [0, 0, 0]


def test_a_prompt_without_ids_stands_in_one_place() -> None:
    trace = trace_of([b"x"], prompt_text="Two words\n")
    part = symbols_part(trace, SimpleNamespace(pieces={}))  # type: ignore[arg-type]
    assert part["text"] == ["Two words\\n", "x"] and part["ids"] == [None, None]
    assert n_prompt_places(trace) == 1 and n_prompt_places(trace_of([b"x"])) == 0


def test_without_text_an_id_is_all_there_is() -> None:
    part = part_of([None, None], ids=[11, None])
    assert part["text"] == ["#11", ""] and part["hex"] == [None, None]


@pytest.mark.parametrize("character", ["a", "é", "你", "😀"])
def test_a_very_large_token_is_cut_and_says_so(character: str) -> None:
    raw = character.encode() * 100_000
    part = part_of([raw, b"y"])
    drawn, mark = part["text"][0].split("⟨… ")
    assert set(drawn) == {character} and 500 < len(drawn.encode()) <= 512
    assert mark.endswith(("KiB⟩",)) and part["text"][1] == "y"
    assert part["hex"][0].startswith(raw[:HEX_BYTES].hex() + "… (") and len(part["hex"][0]) < 2 * HEX_BYTES + 20


def test_a_head_that_was_cut_does_not_join_what_follows() -> None:
    part = part_of([b"\x80" * 2000 + b"\xe4\xbd", b"\xa0"])
    assert part["open"] == [1, 0] and part["text"][1] == "你"


def test_entries_are_drawn_alone() -> None:
    pieces = {1: Piece(1, "Ġ", b" ", False), 2: Piece(2, "</s>", b"", True), 3: Piece(3, "x", b"\xe4", False)}
    assert drawn_alone(pieces, [3, 2, 1, 4, 1]) == {"1": " ", "2": "</s>", "3": "⟨E4⟩"}


def test_of_a_real_tape() -> None:
    tape = spoken([b" sat", b"\xe4\xbd", b"\xa0"], prompt="The")
    part = symbols_part(tape.traces[0], tape)
    text = "".join(part["text"])
    assert text == "The sat你" and part["open"][-2:] == [1, 0]
