"""Relative least squares and the choice of a form, against brute force and against laws that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokentape.study.law import terms
from tokentape.study.law.regression import choose, fit_relative
from tokentape.study.law.terms import Form, Loads, forms_of

CONTEXTS = (64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0)
BATCHES = (1.0, 2.0, 4.0, 8.0)


def grid(contexts: tuple[float, ...] = CONTEXTS, batches: tuple[float, ...] = BATCHES) -> Loads:
    pairs = [(c, b) for c in contexts for b in batches]
    return Loads.of("decode", [c for c, _ in pairs], [b for _, b in pairs])


@given(st.floats(1e3, 1e8), st.floats(0, 1e6), st.floats(0, 1e3))
@settings(max_examples=50, deadline=None)
def test_exact_times_give_the_coefficients_back(constant: float, sequences: float, key_value: float) -> None:
    loads = grid()
    matrix = Form((terms.CONSTANT, terms.SEQUENCES, terms.KEY_VALUE)).matrix(loads)
    wanted = np.array([constant, sequences, key_value])
    found = fit_relative(matrix, matrix @ wanted)
    assert np.allclose(matrix @ found, matrix @ wanted, rtol=1e-6)


def test_it_is_the_best_of_all_that_are_not_negative() -> None:
    """Against a search by another algorithm, on data where the unconstrained optimum is negative."""
    from scipy.optimize import lsq_linear

    random = np.random.default_rng(3)
    loads = grid()
    matrix = Form((terms.CONSTANT, terms.SEQUENCES, terms.KEY_VALUE)).matrix(loads)
    ns = 1e6 * (1 + 0.01 * random.standard_normal(len(loads))) - 2.0 * loads.batch * loads.context
    found = fit_relative(matrix, ns)
    twin = lsq_linear(matrix / ns[:, None], np.ones(len(ns)), bounds=(0, np.inf), tol=1e-14).x
    assert found.min() >= 0 and found[2] == 0.0
    assert np.sum((matrix @ found / ns - 1) ** 2) <= 1.001 * np.sum((matrix @ twin / ns - 1) ** 2)


def test_one_gross_measurement_moves_little() -> None:
    loads = grid()
    matrix = Form((terms.CONSTANT, terms.KEY_VALUE)).matrix(loads)
    wanted = np.array([2e6, 50.0])
    random = np.random.default_rng(0)
    ns = matrix @ wanted * np.exp(0.01 * random.standard_normal(len(loads)))
    ns[7] *= 17.0
    assert np.allclose(fit_relative(matrix, ns), wanted, rtol=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_a_knee_is_found_where_it_is_and_not_where_there_is_none(seed: int) -> None:
    random = np.random.default_rng(seed)
    loads = grid()
    noise = np.exp(0.01 * random.standard_normal(len(loads)))
    bent = (2e6 + 50.0 * loads.batch * loads.context + 1e6 * np.maximum(0, loads.batch - 4)) * noise
    straight = (2e6 + 50.0 * loads.batch * loads.context) * noise
    forms = forms_of(loads)
    assert "beyond 4" in choose(forms, loads, bent)[0].form.name
    assert choose(forms, loads, straight)[0].form.name == "constant + key-value"
