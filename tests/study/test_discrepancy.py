"""Universal kriging against the textbook's bordered system, and what has to be true of any correction."""

from __future__ import annotations

import numpy as np
import pytest

from tokentape.study.law.discrepancy import Discrepancy, Kernel, learn

KERNEL = Kernel(shared=0.05, length=1.5, own=0.02, level=0.03, nugget=0.01)


def case(n: int = 7, seed: int = 1) -> Discrepancy:
    random = np.random.default_rng(seed)
    at = random.uniform(0, 8, (n, 2))
    slopes = np.stack([np.full(n, 0.5), at[:, 0] / 10], axis=1)
    groups = np.arange(n) % 2
    return Discrepancy(KERNEL, at, groups, 0.05 * random.standard_normal(n), np.full(n, 1e-4), slopes)


def matern(a: np.ndarray, b: np.ndarray, length: float) -> float:
    apart = np.sqrt(3) * np.linalg.norm(a - b) / length
    return (1 + apart) * np.exp(-apart)


def covariance(a: np.ndarray, ga: int, b: np.ndarray, gb: int) -> float:
    near = matern(a, b, KERNEL.length)
    return KERNEL.shared**2 * near + (ga == gb) * (KERNEL.own**2 * near + KERNEL.level**2)


def test_variance_is_that_of_the_bordered_system() -> None:
    """Cressie, Statistics for Spatial Data, 1993, section 3.4.1: the kriging weights solve one linear system.

    Its lower right is 0 where nothing is known of the coefficients beforehand, and minus their precision where something is.
    """
    d = case()
    x, group, slope = np.array([4.2, 3.3]), 1, np.array([0.5, 0.42])
    n, k = d.slopes.shape
    border = np.zeros((n + k, n + k))
    right = np.zeros(n + k)
    for i in range(n):
        for j in range(n):
            border[i, j] = covariance(d.at[i], d.groups[i], d.at[j], d.groups[j])
        border[i, i] += d.noise[i] + KERNEL.nugget**2
        border[i, n:] = border[n:, i] = d.slopes[i]
        right[i] = covariance(d.at[i], d.groups[i], x, group)
    right[n:] = slope
    border[n:, n:] = -np.diag(d.slopes.max(axis=0) ** 2)
    weights = np.linalg.solve(border, right)
    wanted = covariance(x, group, x, group) - weights @ right
    _, found = d.correct(x[None], np.array([group]), slope[None])
    assert found[0] == pytest.approx(wanted + KERNEL.nugget**2, rel=1e-6)


def test_far_away_there_is_no_correction_but_doubt() -> None:
    d = case()
    mean, variance = d.correct(np.array([[200.0, 200.0]]), np.array([-1]), np.array([[0.5, 0.4]]))
    assert mean[0] == pytest.approx(0, abs=1e-9)
    assert variance[0] >= KERNEL.variance


def test_terms_that_cannot_be_told_apart_are_in_doubt_by_a_whole_step_and_no_more() -> None:
    d = case()
    twins = Discrepancy(KERNEL, d.at, d.groups, d.residuals, d.noise, np.ones((len(d.at), 2)))
    covariance = twins.covariance_of(twins.slopes)
    together, apart = np.array([1.0, 1.0]), np.array([1.0, -1.0])
    assert together @ covariance @ together < 0.05**2
    assert apart @ covariance @ apart == pytest.approx(2.0)


def test_where_it_was_measured_the_residual_comes_back() -> None:
    d = case()
    exact = Discrepancy(
        Kernel(0.05, 1.5, 0.02, 0.03, 1e-6), d.at, d.groups, d.residuals, np.full(len(d.at), 1e-12), d.slopes
    )
    mean, _ = exact.correct(d.at, d.groups, d.slopes)
    assert np.allclose(mean, d.residuals, atol=1e-5)


def test_a_smooth_miss_is_told_from_noise() -> None:
    random = np.random.default_rng(0)
    at = np.stack(np.meshgrid(np.linspace(6, 11, 8), np.linspace(0, 3, 4)), axis=-1).reshape(-1, 2)
    groups = np.zeros(len(at), np.int64)
    noise = np.full(len(at), 1e-6)
    smooth = learn(at, groups, 0.08 * np.sin(at[:, 0]), noise)
    rough = learn(at, groups, 0.08 * random.standard_normal(len(at)), noise)
    assert smooth.shared > 3 * smooth.nugget
    assert rough.nugget > 2 * rough.shared
