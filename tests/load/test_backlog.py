"""Whether a server fell behind, on queues of one server made by hand."""

import heapq
import random
from itertools import accumulate

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


def slots(draw, due, k, serve):
    """M/D/k: ``k`` slots, each request takes ``serve``, a third of it until its first token; times in seconds."""
    free, found = [0.0] * k, []
    for at in due:
        begin = max(at, heapq.heappop(free))
        heapq.heappush(free, begin + serve)
        found.append(Passed(round(at * 1e9), round((begin + serve) * 1e9), round((begin + serve / 3 - at) * 1e9)))
    return found


def told_behind(load, k, n, *, exactly, seed, tries=300):
    """The share of loads that are told to fall behind, of ``n`` requests at ``load`` of what ``k`` slots can do.

    ``exactly`` is for what really came: ``n`` in a time that is given, at random moments of it.
    """
    draw, told = random.Random(seed), 0
    for _ in range(tries):
        if exactly:
            due = sorted(draw.uniform(0, n) for _ in range(n))
        else:
            due = list(accumulate(draw.expovariate(1.0) for _ in range(n)))
        told += backlog_of(slots(draw, due, k, serve=load * k))["behind"]
    return told / tries


@pytest.mark.parametrize("n", [60, 150])
@pytest.mark.parametrize("k", [1, 4, 8])
@pytest.mark.parametrize("load", [0.5, 0.7, 0.8])
def test_of_servers_that_keep_up_fewer_than_one_in_twenty_is_told_to_fall_behind(load, k, n):
    assert told_behind(load, k, n, exactly=False, seed=f"{load} {k} {n}") < 0.05


@pytest.mark.parametrize("n", [60, 150])
@pytest.mark.parametrize("k", [1, 4, 8])
@pytest.mark.parametrize("load", [1.2, 1.5])
def test_of_servers_that_are_asked_for_too_much_fewer_than_one_in_twenty_is_missed(load, k, n):
    assert told_behind(load, k, n, exactly=True, seed=f"{load} {k} {n}") > 0.95


def test_a_small_overload_is_found_where_it_lasts():
    assert told_behind(1.05, 4, 60, exactly=True, seed=1) < 0.9  # nobody could tell
    assert told_behind(1.05, 4, 1000, exactly=True, seed=1, tries=20) > 0.9


def test_a_dip_acquits_nobody():
    """Asked for up to three times what it can do (5 a second), but for a quarter of the time: then fewer are there."""
    rates, due = (16, 4, 10, 10), [0.0]
    for rate in rates:
        due += [due[-1] + i / rate for i in range(1, round(2.5 * rate) + 1)]
    found = backlog_of(slots(None, due, k=4, serve=0.8))
    early, dip, *_, end = found["in_system"]
    assert dip < early < end
    assert found["behind"] is True


def test_the_growth_is_by_how_much_too_much_was_asked():
    found = backlog_of(slots(None, [i * 0.1 for i in range(200)], k=4, serve=0.6))  # 1.5 times what it can do
    assert found["growth"] == pytest.approx(0.5, rel=0.12)


def test_unlike_prompts_are_no_queue():
    draw = random.Random(5)
    told = 0
    for _ in range(200):
        waits = [draw.lognormvariate(0, 1) for _ in range(60)]
        told += backlog_of([Passed(i * MS, (i + 5000) * MS, round(wait * 5 * MS)) for i, wait in enumerate(waits)])[
            "behind"
        ]
    assert told <= 10


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
