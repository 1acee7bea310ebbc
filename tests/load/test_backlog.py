"""Whether a server fell behind, on queues of one server made by hand."""

import random

import pytest

from tokentape.load.backlog import Passed, backlog_of

MS = 1_000_000


def queue(rate, serve_ms, n, seed=0, cap_due_ms=None):
    """One server that takes each request after another, for ``serve_ms`` on average."""
    draw, at, free, found = random.Random(seed), 0.0, 0.0, []
    for _ in range(n):
        at += draw.expovariate(rate) * 1000
        free = max(at, free) + draw.expovariate(1 / serve_ms)
        found.append(Passed(round(at * MS), round(free * MS), round((free - at) * MS)))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_a_server_asked_for_more_than_it_can_falls_behind(seed):
    found = backlog_of(queue(rate=20, serve_ms=100, n=200, seed=seed))
    assert found["behind"] is True
    assert found["in_system"] == sorted(found["in_system"])
    assert found["ended_per_s"] < 0.7 * found["due_per_s"]


def test_a_server_that_keeps_up_is_not_said_to_fall_behind():
    said = [backlog_of(queue(rate=20, serve_ms=25, n=200, seed=seed))["behind"] for seed in range(200)]
    assert not any(said)


def test_requests_that_were_never_sent_are_left_too():
    passed = [Passed(i * 100 * MS, (i + 1) * 150 * MS, (50 + i * 50) * MS) for i in range(40)]
    assert backlog_of(passed)["behind"]
    assert backlog_of(passed, 7)["in_system"][-1] == backlog_of(passed)["in_system"][-1] + 7


@pytest.mark.parametrize(("n_unsent", "behind"), [(0, False), (4, False), (9, False), (11, True)])
def test_many_that_were_never_sent_are_a_server_behind(n_unsent, behind):
    steady = [Passed(i * 100 * MS, i * 100 * MS + 50 * MS, 20 * MS) for i in range(190)]
    assert backlog_of(steady, n_unsent)["behind"] is behind


def test_where_all_fail_at_once_nobody_falls_behind():
    assert not backlog_of([Passed(i * MS, i * MS + 1, None) for i in range(100)])["behind"]


def test_of_few_requests_nothing_is_told():
    assert backlog_of(queue(20, 100, 19)) is None
    assert backlog_of([Passed(0, 5, 5)] * 50) is None
