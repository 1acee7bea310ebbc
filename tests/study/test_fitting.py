"""Fitted cells: intervals hold what they promise, on noise whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tokentape.study.law.discrepancy import Discrepancy, Kernel
from tokentape.study.law.fitting import Cells, Fitted, fit_cells
from tokentape.study.law.terms import CONSTANT, SQUARE, TOKENS, Form, Loads

CONTEXTS = np.array([64, 96, 128, 192, 256, 384, 512, 768, 1024.0])


def truth(loads: Loads) -> np.ndarray:
    """A law, and beside it a smooth miss of 2 % that no form has a term for."""
    law = 2e6 + 3e4 * loads.batch + 40.0 * loads.batch * loads.context
    return np.asarray(law * np.exp(0.02 * np.sin(1.7 * np.log2(loads.context) + loads.batch)))


def cells(seed: int, visits: int = 4, noise: float = 0.02, drop: float = 0.0) -> tuple[Cells, Loads]:
    """Cells that were measured, and loads that were not."""
    random = np.random.default_rng(seed)
    pairs = [(c, b) for c in CONTEXTS for b in (1.0, 2.0, 4.0)]
    loads = Loads.of("decode", [c for c, _ in pairs], [b for _, b in pairs])
    keep = random.uniform(size=len(loads)) >= drop
    seen = loads.take(keep)
    logs = tuple(np.log(truth(seen)[i]) + noise * random.standard_normal(visits) for i in range(len(seen)))
    ns = np.exp([np.median(values) for values in logs])
    return Cells(seen, ns, np.zeros(len(seen), np.int64), logs), loads.take(~keep)


@pytest.mark.slow
def test_intervals_hold_visits_to_cells_that_were_not_measured() -> None:
    """Of 90 % intervals between 85 and 95 % hold: each seed hides a quarter of the grid, and draws visits to it."""
    held, errors = [], []
    for seed in range(20):
        seen, hidden = cells(seed, drop=0.25)
        fitted = fit_cells(seen, max_folds=10)
        estimate = fitted.estimate(hidden, np.zeros(len(hidden), np.int64))
        random = np.random.default_rng(1000 + seed)
        visits = np.log(truth(hidden)) + 0.02 * random.standard_normal(len(hidden))
        held += list(np.abs(visits - np.log(estimate.ns)) <= fitted.quantile(0.9) * estimate.deviation)
        errors += list(np.abs(estimate.ns / truth(hidden) - 1))
    assert len(held) > 100
    assert 0.85 <= np.mean(held) <= 0.95
    assert np.median(errors) < 0.015


def test_farther_away_there_is_more_doubt() -> None:
    fitted = fit_cells(cells(0)[0], max_folds=4)
    far = Loads.of("decode", [512.0, 1024.0, 2048.0, 8192.0], [2.0] * 4)
    deviation = fitted.estimate(far, np.zeros(4, np.int64)).deviation
    assert np.all(np.diff(deviation) > 0)


def test_a_setting_that_was_not_measured_is_in_more_doubt() -> None:
    fitted = fit_cells(cells(0)[0], max_folds=4)
    loads = Loads.of("decode", [256.0], [2.0])
    known = fitted.estimate(loads, np.zeros(1, np.int64)).deviation
    strange = fitted.estimate(loads, strange=0.1).deviation
    assert strange[0] > max(0.08, 2 * known[0])


def test_the_variance_of_visits_is_around_their_cells() -> None:
    random = np.random.default_rng(0)
    n = 200
    loads = Loads.of("decode", [64.0] * n, [1.0] * n)
    logs = [i + 0.02 * random.standard_normal(5) for i in range(n)]
    for i in range(0, n, 4):
        logs[i][0] += 1.0  # every fourth cell has a visit that another program fell into
    found = Cells(loads, np.ones(n), np.zeros(n, np.int64), tuple(logs))
    assert found.visit_variance == pytest.approx(0.02**2, rel=0.4)
    assert found.noise[0] == pytest.approx(found.visit_variance / 5)
    alone = Cells(loads.take(np.arange(n) < 1), np.ones(1), np.zeros(1, np.int64), (np.array([1.0]),))
    assert alone.visit_variance == 0.0


def test_one_visit_each_leaves_the_noise_to_the_nugget() -> None:
    seen = cells(3, visits=1)[0]
    assert seen.visit_variance == 0.0
    fitted = fit_cells(seen, max_folds=6)
    assert 0.005 < fitted.kernel.nugget < 0.05
    assert fitted.check is not None and fitted.check.n == len(seen)


def test_what_short_prefills_cannot_tell_stays_in_doubt() -> None:
    """A coefficient on its bound: attention's square came out as 0 in prefills of 256 tokens at most."""
    pairs = [(c, b) for c in (64.0, 128.0, 256.0) for b in (1.0, 2.0)]
    loads = Loads.of("prefill", [c for c, _ in pairs], [b for _, b in pairs])
    groups = np.zeros(len(loads), np.int64)
    far = Loads.of("prefill", [256.0, 4096.0], [1.0, 1.0])
    deviations = []
    for terms, coefficients in (((CONSTANT, TOKENS), [1e8, 6e6]), ((CONSTANT, TOKENS, SQUARE), [1e8, 6e6, 0.0])):
        form = Form(terms)
        plain = form.matrix(loads) @ coefficients
        logs = tuple(np.log(ns) + np.array([-0.01, 0.0, 0.01]) for ns in plain)
        seen = Cells(loads, plain, groups, logs)
        slopes = form.matrix(loads) / plain[:, None]
        kernel = Kernel(shared=0.02, length=1.5, own=0.0, level=0.0, nugget=0.01)
        discrepancy = Discrepancy(kernel, loads.where, groups, np.zeros(len(loads)), seen.noise, slopes)
        fitted = Fitted(seen, (form,), (np.array(coefficients),), (discrepancy,))
        deviations.append(fitted.estimate(far, groups[:2]).deviation)
    without, bound = deviations
    assert bound[0] == pytest.approx(without[0], rel=0.2)
    assert bound[1] > 3 * without[1]


def test_between_cells_is_where_each_quarter_of_the_plane_has_one() -> None:
    seen = cells(0)[0]
    asked = Loads.of("decode", [300.0, 300.0, 64.0, 60.0, 1030.0, 300.0, 300.0], [2.0, 3.0, 1.0, 2.0, 2.0, 5.0, 1.0])
    own = np.zeros(len(asked), np.int64)
    assert seen.surround(asked, own).tolist() == [True, True, True, False, False, False, True]
    assert not seen.surround(asked, own - 1).any()
    without = seen.take((seen.loads.context > 64) | (seen.loads.batch > 1))
    assert without.surround(asked, own).tolist() == [True, True, False, False, False, False, True]


@pytest.mark.slow
def test_edges_that_scatter_widen_intervals_outside_and_not_between() -> None:
    """The smallest and largest passes of each batch do not repeat as well as the others: an allocator's limits."""
    random = np.random.default_rng(1)
    pairs = [(c, b) for c in np.geomspace(16, 256, 13) for b in (1.0, 2.0, 4.0, 8.0) if c * b >= 128]
    loads = Loads.of("prefill", [c for c, _ in pairs], [b for _, b in pairs])
    truth = np.log(1e6 + 2e4 * loads.tokens + 20 * loads.batch * loads.context**2)
    ends = np.array(
        [c in (max(same), min(same)) for c, b in pairs for same in [[c for c, other in pairs if other == b]]]
    )
    scatter = np.where(ends, 0.1, 0.02)
    logs = tuple(log + sd * random.standard_normal(4) for log, sd in zip(truth, scatter, strict=True))
    fitted = fit_cells(Cells(loads, np.exp([np.median(x) for x in logs]), np.zeros(len(loads), np.int64), logs))
    assert fitted.stretch_outside > 1.3 * fitted.stretch
    asked = Loads.of("prefill", [100.0, 300.0], [4.0, 4.0])
    group = np.zeros(2, np.int64)
    plain = replace(fitted, stretch=1.0, stretch_outside=1.0).estimate(asked, group).deviation
    factors = fitted.estimate(asked, group).deviation / plain
    assert factors == pytest.approx([fitted.stretch, fitted.stretch_outside])
