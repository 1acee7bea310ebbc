"""The client's verdict on itself: what it is told for, and what not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tokentape.load.backlog import Passed
from tokentape.load.judging import verdicts
from tokentape.load.lateness import Lateness, more_than, verdict

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


def test_one_late_request_of_three_hundred_says_nothing_of_the_others():
    one = judged(measured(dispatch=[88 * MS, *[MS // 2] * 299]))
    assert not one["late"] and one["dispatch_delay_ns"]["max"] == 88 * MS and one["dispatch_delay_ns"]["p99"] is None
    assert judged(measured(dispatch=[88 * MS] * 7 + [MS // 2] * 293))["late"]


@given(st.integers(1, 30_000), st.data())
def test_more_than_one_in_a_hundred_is_said_as_a_binomial_would(n, data):
    seen = data.draw(st.integers(0, min(n, n // 50 + 10)))
    by_chance = stats.binom.sf(seen - 1, n, 0.01)
    if abs(by_chance - 0.05) > 0.004:  # of many the normal one stands for it
        assert more_than(0.01, seen, n) is bool(by_chance < 0.05)


def test_few_that_were_late_are_no_bottleneck():
    """3 % of the requests were late: that is told, with by how much, and the load was what it was."""
    found = judged(measured(dispatch=[30 * MS] * 30 + [MS] * 970))
    assert found["late"] and not found["bottleneck"]
    assert found["off"] == [
        {"figure": "ttft_due", "ns": pytest.approx(30 * MS, rel=0.04), "share": pytest.approx(0.6, rel=0.04)}
    ]
    assert judged(measured(dispatch=[30 * MS] * 101 + [MS] * 899))["bottleneck"]


def test_reading_late_is_off_by_what_it_is_relative_to():
    """5.18 ms late, of gaps of 10 ms: stamped by the kernel nothing is off, stamped by the client half of each gap."""
    late = [round(5.18 * MS)] * 1000
    by_kernel = judged(measured(read=late))
    assert by_kernel["late"] and not by_kernel["bottleneck"] and by_kernel["off"] == []
    own = judged(measured(read=late, kernel_stamps=0, read_stamps=1000))
    assert [(one["figure"], round(one["share"], 1)) for one in own["off"]] == [("gap", 0.5), ("ttft", 0.1)]
    assert not own["bottleneck"]
    assert not judged(measured(read=late), gap_ns=40 * MS)["late"]


def overloaded(n=100):
    """One slot that is asked for half as much again as it can do: the wait grows by 50 ms with each request."""
    return [Passed(i * 100 * MS, (i + 1) * 150 * MS, 100 * MS + i * 50 * MS) for i in range(n)]


def test_the_two_verdicts_are_never_in_contradiction():
    late = measured(dispatch=[300 * MS] * 100, busy_ns=950 * MS)
    client, server = verdicts([late], overloaded(), ttft_ns=2000 * MS, gap_ns=10 * MS)
    assert server["behind"] and client["late"] and not client["bottleneck"]


def test_a_client_that_explains_what_the_waits_grew_leaves_nothing_to_be_said_of_the_server():
    late = measured(dispatch=[4000 * MS] * 100)
    client, server = verdicts([late], overloaded(), ttft_ns=2000 * MS, gap_ns=10 * MS)
    assert not server["behind"] and client["bottleneck"]


@given(st.floats(0, 6000), st.floats(0, 1), st.integers(20, 120))
def test_whatever_was_measured_only_one_was_at_fault(late_ms, busy, n):
    one = measured(dispatch=[round(late_ms * MS)] * n, busy_ns=round(busy * 1000 * MS))
    client, server = verdicts([one], overloaded(n), ttft_ns=500 * MS, gap_ns=10 * MS)
    assert not (client["bottleneck"] and server["behind"])


def test_a_process_that_died_is_no_bottleneck():
    found = judged(measured(dispatch=[MS] * 40), died=["client process 0 ended with -9"])
    assert not found["bottleneck"] and not found["late"] and found["died"] == found["reasons"]
