"""Counting times in buckets: percentiles against numpy's, whatever was counted."""

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tokentape.load.lateness import Tally

TIMES = st.lists(st.integers(0, 10**12), min_size=1, max_size=300)


def tallied(values):
    one = Tally()
    for value in values:
        one.add(value)
    return one


@given(TIMES, st.sampled_from([1, 50, 90, 99, 100]))
def test_a_percentile_is_within_a_bucket_of_the_true_one(values, q):
    true = int(np.percentile(values, q, method="inverted_cdf"))
    assert abs(tallied(values).quantile(q) - true) <= max(1, true / 32)


@given(TIMES, TIMES)
def test_merging_is_counting_together(one, two):
    merged = tallied(one)
    merged.merge(pickle.loads(pickle.dumps(tallied(two))))
    together = tallied([*one, *two])
    assert (merged.counts, merged.n, merged.total, merged.most) == (
        together.counts, together.n, together.total, together.most,
    )  # fmt: skip


def test_nothing_is_none():
    assert Tally().as_dict() == {"p50": None, "p99": None, "max": None, "n": 0}


def test_a_time_below_zero_is_none_at_all():
    assert tallied([-5]).as_dict() == {"p50": 0, "p99": 0, "max": 0, "n": 1}
