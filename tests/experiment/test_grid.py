"""Axes as they are written, and the cells that a model or a memory cannot hold."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape.errors import UsageError
from tokentape.experiment.grid import Cell, Footprint, cells_of, fitting, read_axis

AXES = {
    "64": (64,),
    "1,2,4,8": (1, 2, 4, 8),
    "64..512": (64, 128, 256, 512),
    "64..500": (64, 128, 256, 500),
    "7..7": (7,),
    "64..4096/4": (64, 256, 1024, 4096),
    "10..20/2": (10, 20),
    "100, 64..128": (64, 100, 128),
    "4,2,4": (2, 4),
    "1..3/9": (1, 2, 3),
}


@pytest.mark.parametrize("text", AXES)
def test_an_axis_as_it_is_written(text: str) -> None:
    assert read_axis(text, "context") == AXES[text]


def test_numbers_are_taken_as_they_are() -> None:
    assert read_axis(5, "batch") == (5,)
    assert read_axis([4, 1, 4], "batch") == (1, 4)


@pytest.mark.parametrize(
    "text", ["", "a", "64..", "..64", "512..64", "0..64", "0", "1.5", "64..128/1", "64-128", "-4", "1..4/2000", "4k"]
)
def test_what_cannot_be_read_says_how_to_write_it(text: str) -> None:
    with pytest.raises(UsageError) as error:
        read_axis(text, "context")
    assert "--context" in error.value.what and error.value.fix.startswith("--context")


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(UsageError):
        read_axis([1, None], "batch")  # type: ignore[list-item]
    with pytest.raises(UsageError, match="names no value"):
        read_axis([], "batch")


@given(st.integers(1, 10_000), st.integers(0, 100_000))
def test_a_range_doubles_from_end_to_end(first: int, more: int) -> None:
    found = read_axis(f"{first}..{first + more}", "context")
    assert (found[0], found[-1]) == (first, first + more)
    assert all(b == 2 * a for a, b in itertools.pairwise(found[:-1]))
    assert len(found) == 1 or found[-2] < found[-1] <= 2 * found[-2]


def test_a_prefill_reads_no_more_than_the_longest_context_unless_told() -> None:
    kept, left_out = cells_of([64, 128], [1, 2])
    assert [cell for cell in kept if cell.kind == "decode"] == [Cell("decode", c, b) for c in (64, 128) for b in (1, 2)]
    assert {cell for cell in kept if cell.kind == "prefill"} == {
        Cell("prefill", c, b) for c, b in [(64, 1), (64, 2), (128, 1)]
    }
    assert [(one.cell, one.reason) for one in left_out] == [(Cell("prefill", 128, 2), "tokens")]
    assert "256" in left_out[0].why and "128" in left_out[0].why
    assert not cells_of([64, 128], [1, 2], most_tokens=256)[1]
    assert cells_of([64], [1], ["decode"])[0] == [Cell("decode", 64, 1)]


FOOTPRINT = Footprint(kv_bytes=100, state_bytes=10, logits_bytes=1000, hidden_bytes=7, score_bytes=16)


def test_the_bytes_of_a_cell() -> None:
    # by hand: 1.5 caches, 4 logits, 6 activations of each token read, 6 scores of each token read with each there is
    assert FOOTPRINT.bytes_of(Cell("decode", 50, 2)) == 2 * (1.5 * (50 * 100 + 10) + 4 * 1000 + 6 * 7 + 6 * 16 * 50)
    assert FOOTPRINT.bytes_of(Cell("decode", 50, 1), 10) == 1.5 * (60 * 100 + 10) + 4 * 1000 + 6 * 7 + 6 * 16 * 60
    assert FOOTPRINT.bytes_of(Cell("prefill", 50, 1)) == 1.5 * 5010 + 4000 + 50 * 6 * 7 + 6 * 16 * 50 * 50


def test_what_does_not_fit_is_left_out_with_its_numbers() -> None:
    cells = [Cell("decode", 64, 1), Cell("decode", 4096, 1), Cell("prefill", 64, 4)]
    kept, left_out = fitting(cells, FOOTPRINT, 2048, 100_000, 0)
    assert kept == [cells[0]]
    assert [(one.cell, one.reason) for one in left_out] == [(cells[1], "positions"), (cells[2], "memory")]
    assert "2,048 positions" in left_out[0].why
    assert f"{FOOTPRINT.bytes_of(cells[2]) / 1e9:.2f} GB" in left_out[1].why
    assert fitting(cells, FOOTPRINT, None, None, 0) == (cells, [])


def test_tokens_that_follow_count_for_decode_alone() -> None:
    cells = [Cell("decode", 64, 1), Cell("prefill", 64, 1)]
    limit = max(FOOTPRINT.bytes_of(cell) for cell in cells)
    assert fitting([cells[1]], FOOTPRINT, None, limit, 10_000)[0] == [cells[1]]
    assert fitting([cells[0]], FOOTPRINT, None, limit, 10_000)[0] == []
