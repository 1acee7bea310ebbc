"""The choice of cells against brute force, and what visits cost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_bench import law

from tokentape.experiment.design import (
    CostLaw,
    average_variance,
    best_next,
    choose,
    outlook,
    prior_of,
    relative_terms,
    terms_of,
    weight,
)
from tokentape.experiment.grid import Cell, cells_of

CELLS = cells_of([64, 256, 1024], [1, 2, 8], ["decode"])[0]
SECONDS = np.array([law(cell) / 1e9 for cell in CELLS])
ROWS = relative_terms(CELLS, SECONDS)
PRIOR = prior_of(0.03)


def information_of(counts: np.ndarray) -> np.ndarray:
    """As it is defined: a sum over cells, one after another."""
    found = PRIOR.copy()
    for row, n in zip(ROWS, counts, strict=True):
        found += n / (1 + n) * np.outer(row, row)
    return found


def variance_by_inverse(information: np.ndarray) -> float:
    inverse = np.linalg.inv(information)
    return float(np.mean([row @ inverse @ row for row in ROWS]))


def known(noise: float = 0.0, seed: int = 0, cells: list[Cell] = CELLS, times: int = 1) -> tuple[CostLaw, CostLaw]:
    steps, visits = CostLaw(), CostLaw()
    rng = np.random.default_rng(seed)
    for cell in cells * times:
        seconds = law(cell) / 1e9 * float(np.exp(noise * rng.normal()))
        steps.learn(cell, seconds)
        visits.learn(cell, 17 * seconds)
    return steps, visits


def test_the_terms_of_the_generic_law() -> None:
    assert terms_of(Cell("decode", 10, 3)).tolist() == [1, 3, 30]
    assert terms_of(Cell("prefill", 10, 3)).tolist() == [1, 30, 300]


def test_the_terms_of_the_law_explain_a_time_that_follows_it() -> None:
    """Relative terms times some coefficients are 1 everywhere, the time over itself."""
    fit = np.linalg.lstsq(ROWS[:, :3], np.ones(len(CELLS)), rcond=None)[0]
    assert ROWS[:, :3] @ fit == pytest.approx(1)
    assert np.abs(ROWS).max(axis=0) == pytest.approx(1)


def test_the_average_variance_is_that_of_the_inverse() -> None:
    information = information_of(np.arange(len(CELLS)))
    assert average_variance(ROWS, information) == pytest.approx(variance_by_inverse(information), rel=1e-6)


def test_weights_add_up_to_what_a_cell_can_tell_at_most() -> None:
    assert [weight(n) for n in range(3)] == [0, 1 / 2, 2 / 3]
    assert sum(weight(n + 1) - weight(n) for n in range(1000)) == pytest.approx(1, abs=1e-3)


@given(st.lists(st.integers(0, 5), min_size=9, max_size=9), st.lists(st.floats(0.1, 10), min_size=9, max_size=9))
def test_the_next_cell_is_the_one_that_brute_force_finds(counts: list[int], costs: list[float]) -> None:
    n = np.array(counts)
    information = information_of(n)
    gains = weight(n + 1) - weight(n)
    place, worth = best_next(ROWS, information, gains, np.array(costs))
    before = variance_by_inverse(information)
    lowered = [before - variance_by_inverse(information_of(n + np.eye(9, dtype=int)[i])) for i in range(9)]
    by_hand = np.array(lowered) / costs
    assert worth == pytest.approx(by_hand.max(), rel=1e-3)
    assert by_hand[place] == pytest.approx(by_hand.max(), rel=1e-3)


def test_what_does_not_fit_into_the_time_is_not_chosen() -> None:
    costs = np.full(9, np.inf)
    costs[4] = 1.0
    assert best_next(ROWS, PRIOR, np.ones(9), costs)[0] == 4


def test_six_cells_chosen_one_by_one_are_nearly_the_best_six() -> None:
    counts = np.zeros(9, int)
    for _ in range(6):
        information = information_of(counts)
        counts[best_next(ROWS, information, weight(counts + 1) - weight(counts), np.ones(9))[0]] += 1
    exhaustive = min(
        variance_by_inverse(information_of(np.bincount(chosen, minlength=9)))
        for chosen in itertools.combinations_with_replacement(range(9), 6)
    )
    at_random = [
        variance_by_inverse(information_of(np.bincount(np.random.default_rng(i).integers(0, 9, 6), minlength=9)))
        for i in range(50)
    ]
    mine = variance_by_inverse(information_of(counts))
    assert exhaustive <= mine <= 1.15 * exhaustive
    assert mine < min(at_random)


def test_no_cell_is_visited_over_and_over() -> None:
    steps, visits = known(cells=CELLS[:3])
    chosen = choose(CELLS, steps, visits, 1e9, 40)
    assert len(chosen) == 40
    assert set(chosen) >= {CELLS[0], CELLS[-1], CELLS[2]}, "the corners"
    assert len(set(chosen)) >= 7, "a cell has an error of its own, which repetition does not average out"


def test_a_kind_that_was_never_visited_comes_first_by_its_smallest_cell() -> None:
    cells = cells_of([64, 256], [1, 2])[0]
    assert choose(cells, CostLaw(), CostLaw(), 1.0, 8) == [Cell("decode", 64, 1), Cell("prefill", 64, 1)]


def test_what_is_chosen_fits_into_the_time() -> None:
    steps, visits = known()
    for left in (0.0, 0.1, 0.5, 2.0):
        chosen = choose(CELLS, steps, visits, left, 1000)
        assert sum(17 * law(cell) / 1e9 for cell in chosen) <= left
        assert bool(chosen) == (left > 0)


def test_costs_follow_the_law() -> None:
    steps, _ = known(cells=[CELLS[0], CELLS[4], CELLS[8], CELLS[2]])
    for cell in CELLS:
        assert steps.seconds(cell) == pytest.approx(law(cell) / 1e9, rel=1e-6)
    assert steps.seconds(Cell("prefill", 1, 1)) is None
    # nothing is known of prefills, so they count as the others do
    total = steps.seconds_of([CELLS[0], CELLS[8], Cell("prefill", 1, 1)])
    assert total == pytest.approx(1.5 * (law(CELLS[0]) + law(CELLS[8])) / 1e9, rel=1e-6)
    assert CostLaw().seconds_of([CELLS[0]]) is None
    assert CostLaw().seconds_of([]) == 0


@given(
    st.tuples(*[st.floats(0, 1)] * 3),
    st.sampled_from(["decode", "prefill"]),
    st.lists(st.tuples(st.integers(1, 4096), st.integers(1, 32)), min_size=2, max_size=6),
)
def test_a_cost_is_bounded_before_it_is_known(
    coefficients: tuple[float, ...], kind: str, loads: list[tuple[int, int]]
) -> None:
    """Whatever non-negative law holds: no visit takes longer than was thought possible."""

    def seconds(cell: Cell) -> float:
        return float(np.array(coefficients) @ terms_of(cell)) + 1e-6

    *seen, other = [Cell(kind, *load) for load in loads]
    costs = CostLaw()
    for cell in seen[:2]:
        costs.learn(cell, seconds(cell))
    assert seconds(other) <= (costs.at_most(other) or 0) * (1 + 1e-9)


def test_the_noise_is_found_whatever_a_few_disturbed_visits_say() -> None:
    steps, _ = known(noise=0.02, times=20)
    assert steps.noise("decode") == pytest.approx(0.02, rel=0.3)
    for cell in CELLS[:5]:
        steps.learn(cell, 50 * law(cell) / 1e9)
    assert steps.noise("decode") == pytest.approx(0.02, rel=0.5)
    assert CostLaw().noise("decode") is None
    assert known(cells=CELLS[:3])[0].noise("decode") is None


def test_the_outlook_counts_cells_and_narrows_with_visits() -> None:
    few = outlook(CELLS, *known(noise=0.02, cells=CELLS[:5]))
    many = outlook(CELLS, *known(noise=0.02, times=4))
    assert [(one.kind, one.n_visited, one.n_cells) for one in few] == [("decode", 5, 9)]
    assert many[0].n_visited == 9
    assert few[0].error is not None and many[0].error is not None
    assert 0.002 < many[0].error < 0.02
    assert outlook(CELLS, *known(cells=CELLS[:2]))[0].error is None
