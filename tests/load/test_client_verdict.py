"""The client's verdict on itself: what it is told for, and what not."""

import pytest

from tokentape.load.lateness import Lateness, verdict

MS = 1_000_000


def measured(*, dispatch=(), read=(), **sums):
    one = Lateness(**{"wall_ns": 1000 * MS, "kernel_stamps": 1000, **sums})
    for ns in dispatch:
        one.dispatch.add(ns)
    for ns in read:
        one.read.add(ns)
    return one


def keys(found):
    return {one["key"] for one in found["said"]}


def judged(one, **more):
    return verdict([one], **{"ttft_ns": 50 * MS, "gap_ns": 10 * MS, "processes": 1, **more})


def test_a_percentile_of_too_few_is_none():
    few = judged(measured(dispatch=[20 * MS] * 661))
    assert few["dispatch_delay_ns"]["p99"] is None and few["dispatch_delay_ns"]["max"] == 20 * MS
    assert few["reasons"] == ["requests were sent 20 ms late at most (limit 5 ms)"]
    enough = judged(measured(dispatch=[20 * MS] * 662))
    assert enough["dispatch_delay_ns"]["p99"] is not None and keys(enough) == {"load.late_sent"}


@pytest.mark.parametrize("ttft", [None, 50 * MS])
def test_where_nothing_was_answered_the_client_limited_nothing(ttft):
    late = measured(dispatch=[9 * MS] * 40, busy_ns=900 * MS)
    found = judged(late, ttft_ns=ttft, gap_ns=None)
    assert found["bottleneck"] is (ttft is not None) and found["late"] is True


def test_late_relative_to_what_was_measured():
    assert not judged(measured(dispatch=[9 * MS] * 40), ttft_ns=500 * MS)["late"]
    assert judged(measured(dispatch=[9 * MS] * 40), ttft_ns=50 * MS)["bottleneck"]


@pytest.mark.parametrize(("missed", "late"), [(10, False), (11, True)])
def test_more_than_one_gap_in_a_hundred_lost_in_shared_reads(missed, late):
    found = judged(measured(gaps=1000, shared_gaps=500, missed_gaps=missed))
    assert found["bottleneck"] is late
    assert found["gaps"] == {"n": 1000, "shared": 500, "missed": missed}
    if late:
        assert found["reasons"] == ["it read several messages at once: 11 of 1000 gaps are not measured"]


def test_shared_reads_of_a_client_that_others_kept_from_its_processor():
    found = judged(measured(gaps=1000, shared_gaps=500, starved_ns=100 * MS))
    assert keys(found) == {"load.late_shared", "load.late_starved"} and found["bottleneck"]
