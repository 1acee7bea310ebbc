"""The reduction of a distribution against the plain computation in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokentape.models.distribution import CHUNK, Reducer, rows

SIZES = [1, 2, 7, 300, CHUNK * 64 - 1, CHUNK * 64, CHUNK * 64 + 1, CHUNK * 70 + 77]


def _plain(logits: torch.Tensor, ids: torch.Tensor, k: int) -> list[tuple]:
    wide = logits.double().log_softmax(-1)
    found = []
    for row, token in zip(wide, ids.tolist(), strict=True):
        top = row.topk(min(k, row.shape[0]))
        entropy = float(-(row.exp() * row)[row > -torch.inf].sum())
        found.append((float(row[token]), entropy, 1 + int((row > row[token]).sum()), top.values.tolist()))
    return found


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from(SIZES),
    n_rows=st.integers(1, 3),
    k=st.sampled_from([0, 1, 5, 20]),
    scale=st.sampled_from([0.01, 1.0, 8.0, 60.0]),
    shift=st.sampled_from([0.0, -300.0, 300.0]),
)
def test_agrees_with_float64(seed: int, size: int, n_rows: int, k: int, scale: float, shift: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n_rows, size, generator=generator) * scale + shift
    ids = torch.randint(size, (n_rows,), generator=generator)
    reducer = Reducer(k)
    before = logits.clone()
    for _ in range(2):  # the second time from the buffers of the first
        found = rows([reducer(logits, ids, None)])[0]
    assert torch.equal(logits, before), "the logits are the caller's"
    for (logprob, entropy, rank, rules, candidates), plain in zip(found, _plain(logits, ids, k), strict=True):
        assert logprob == pytest.approx(plain[0], abs=1e-6)
        assert entropy == pytest.approx(plain[1], abs=2e-5)
        assert rank == plain[2]
        assert rules is None
        assert [value for _, value in candidates] == pytest.approx(plain[3], abs=1e-6)
        assert len({i for i, _ in candidates}) == min(k, size)


def test_candidates_are_the_largest_wherever_they_lie() -> None:
    size = CHUNK * 70 + 77
    logits = torch.zeros(1, size)
    places = [size - 1, 0, CHUNK, CHUNK + 1, CHUNK * 70]  # the last chunk is short
    logits[0, places] = torch.tensor([9.0, 8.0, 7.0, 6.0, 5.0])
    reducer = Reducer(5)
    (row,) = rows([reducer(logits, torch.tensor([0]), None)])[0]
    assert [token for token, _ in row[4]] == places


def test_after_the_rules() -> None:
    logits, ids = torch.randn(2, 300), torch.tensor([3, 4])
    scores = (logits / 0.7).masked_fill(logits < 0, -torch.inf)
    scores[:, 3:5] = logits[:, 3:5]
    reducer = Reducer(2)
    expected = scores.double().log_softmax(-1)
    for row, found in enumerate(rows([reducer(logits, ids, scores)])[0]):
        assert found[3] == pytest.approx(float(expected[row, ids[row]]), abs=1e-6)


def test_masked_logits_of_the_model_itself() -> None:
    logits = torch.full((1, 300), -torch.inf)
    logits[0, 7] = 3.0
    reducer = Reducer(3)
    (found,) = rows([reducer(logits, torch.tensor([7]), None)])[0]
    assert found == (0.0, 0.0, 1, None, ((7, 0.0),))


def test_no_figure_is_made_of_a_broken_logit() -> None:
    logits = torch.zeros(1, 300)
    logits[0, 5] = math.nan
    reducer = Reducer(3)
    (found,) = rows([reducer(logits, torch.tensor([0]), None)])[0]
    assert found[:4] == (None, None, None, None)
