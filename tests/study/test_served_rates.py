"""The rates of an open loop, on paper: asked, due and ended over one window, so that none of them is another's by accident."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokentape.data.exchange import Exchange
from tokentape.study.answers import Answer
from tokentape.study.served_rates import Rates, due_of, rates_of

MS, S = 1_000_000, 1_000_000_000


def load_of(due, ends, *, n_unsent=0, state="complete", **plan):
    """A tape, as far as rates ask for it, of requests due at ``due`` and over at ``ends`` (None: failed); and its answers."""
    exchanges = {
        i: Exchange(run=i, scheduled_ns=at, ended_ns=end) for i, (at, end) in enumerate(zip(due, ends, strict=True))
    }
    found = [
        Answer(i, i, at, (), "failed" if end is None else "ended", closed_ns=end)
        for i, (at, end) in enumerate(zip(due, ends, strict=True))
    ]
    tape = SimpleNamespace(exchanges=exchanges, notes={"load": plan, "n_unsent": n_unsent}, state=state)
    return tape, found


def rates(due, ends, **known):
    return rates_of(*load_of(due, ends, **known))


def queue(due, service_ns, servers=1):
    """When each request is over, of a queue in the order of arrival."""
    free, ends = [0] * servers, []
    for at in due:
        free.sort()
        free[0] = max(free[0], at) + service_ns
        ends.append(free[0])
    return ends


def poisson(rate, seconds, seed=0):
    gaps = np.random.default_rng(seed).exponential(S / rate, int(rate * seconds * 2 + 50))
    return [int(at) for at in np.cumsum(gaps) if at < seconds * S]


def test_where_everything_was_answered_as_much_ended_as_was_due():
    due = [0, 2 * S, 4 * S]
    found = rates(due, [at + 1900 * MS for at in due], rate=1.0, duration_ns=6 * S, kind="poisson")
    assert found == Rates(1.0, 0.5, 0.5, 3, 3, 6 * S, 6 * S)
    for seed in range(20):
        due = poisson(4, 10, seed)
        found = rates(due, [at + 1300 * MS for at in due], rate=4.0, duration_ns=10 * S, kind="poisson")
        assert found.due_per_s == found.ended_per_s == len(due) / 10


def test_one_long_answer_makes_nobody_slow():
    due = poisson(4, 10)
    ends = [at + 1 * S for at in due]
    ends[len(ends) // 2] += 60 * S
    ends[-1] += 60 * S
    found = rates(due, ends, duration_ns=10 * S, kind="poisson")
    assert found.ended_per_s == found.due_per_s


@pytest.mark.parametrize("rate", [15, 20, 40])
def test_of_a_server_asked_for_more_than_it_can_do_it_is_what_it_can_do(rate):
    for seed in range(10):
        due = poisson(rate, 20, seed)
        found = rates(due, queue(due, 400 * MS, servers=4), duration_ns=20 * S, kind="poisson")
        assert found.ended_per_s == pytest.approx(10, rel=0.08)
        assert found.due_per_s == len(due) / 20


def test_what_was_never_sent_was_due():
    due = poisson(20, 1.5)
    found = rates(due, queue(due, 200 * MS), n_unsent=70, duration_ns=5 * S, kind="poisson", rate=20.0)
    assert found.due_per_s == (len(due) + 70) / 5
    assert found.ended_per_s == pytest.approx(5, rel=0.15)  # 30 or so in six seconds


def test_without_a_duration_the_schedule_is_as_long_as_its_requests_need():
    due = [i * S // 4 for i in range(40)]
    for known in ({}, {"requests": 40, "duration_ns": 60 * S}, {"kind": "trace", "duration_ns": 60 * S}):
        found = rates(due, [at + S for at in due], **known)
        assert found.due_per_s == found.ended_per_s == pytest.approx(4)
    stopped = rates(due, [at + S for at in due], duration_ns=60 * S, state="partial")
    assert stopped.due_per_s == pytest.approx(4)  # Ctrl-C: nobody knows what would have come


def test_failed_requests_were_due_and_did_not_end():
    due = [i * S for i in range(20)]
    found = rates(due, [None if i % 4 == 0 else at + S for i, at in enumerate(due)], duration_ns=20 * S)
    assert (found.n_due, found.n_ended, found.due_per_s, found.ended_per_s) == (20, 15, 1.0, 0.75)


def test_a_request_that_was_sent_again_is_one_and_was_due_once():
    tape, found = load_of([0, S, 2 * S, 3 * S], [S, None, 3 * S, 4 * S])
    tape.exchanges[9] = Exchange(run=9, scheduled_ns=5 * S, ended_ns=6 * S, attempt=2, retry_of=1)
    found.append(Answer(4, 9, 5 * S, (), "ended", closed_ns=6 * S))
    told = rates_of(tape, found)
    assert (told.n_due, told.n_ended) == (4, 4)
    assert [(one.run, one.start_ns) for one in due_of(found, tape.exchanges)] == [
        (0, 0),
        (2, 2 * S),
        (3, 3 * S),
        (9, S),
    ]


def test_there_are_none_where_nothing_was_due():
    assert rates_of(*load_of([None] * 3, [S] * 3)) is None
    assert rates_of(*load_of([0], [S])) is None
    assert rates_of(*load_of([S, 2 * S], [2 * S, 3 * S], loop="closed")) is None  # turns of a conversation
    assert rates_of(*load_of([0], [S], duration_ns=4 * S)).due_per_s == 0.25


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10 * S), st.one_of(st.none(), st.integers(0, 100 * S))), min_size=1, max_size=60),
    st.integers(0, 50),
    st.booleans(),
)
def test_never_more_ended_than_were_due(pairs, n_unsent, timed):
    due = sorted(at for at, _ in pairs)
    ends = [None if took is None else at + took for at, (_, took) in zip(due, pairs, strict=True)]
    found = rates(due, ends, n_unsent=n_unsent, **({"duration_ns": 11 * S} if timed else {}))
    assert found is None or 0 <= found.ended_per_s <= found.due_per_s
    assert found is None or found.n_ended == sum(end is not None for end in ends)
