"""The loop of a client process, on paper: every moment is exact."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load.flights_on_paper import MS, Heard, PaperLauncher, World, talk
from tokentape.load.engine import Engine
from tokentape.load.errands import Errands


def loop(world, feed, *, cap=None, closed=False, until_ns=None, retries=0, answers=None, n_steps=100_000, **more):
    errands = Errands(iter(feed), cap=cap, closed=closed, until_ns=until_ns)
    launcher, heard = PaperLauncher(world, answers), Heard()
    engine = Engine(errands, launcher, heard, world, origin=0, retries=retries, cap=cap, **more)
    for _ in range(n_steps):
        if not engine.step():
            break
    else:
        raise AssertionError("the loop does not end")
    return engine, launcher, heard


def sent(launcher):
    return [at for at, _ in launcher.launched]


def test_requests_go_out_at_the_moment_they_are_due():
    due = [0, 7 * MS, 7 * MS, 40 * MS + 1, 1000 * MS]
    engine, launcher, heard = loop(World(), [(at, talk(i)) for i, at in enumerate(due)])
    assert sent(launcher) == due
    assert [heard.ends[i][1].scheduled_ns for i in range(5)] == due
    assert engine.counts.done == 5 and engine.counts.failed == engine.counts.under_way == 0
    assert engine.lateness.dispatch.most == 0
    assert [[s.data for t in heard.ticks[i] for s in t.said] for i in range(5)] == [[b"a", b"b"]] * 5


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 300 * MS), min_size=1, max_size=40), st.integers(0, 3 * MS), st.integers(0, MS))
def test_a_slow_client_says_how_late_it_was(due, launch_ns, cost_ns):
    due.sort()
    world = World(launch_ns=launch_ns, cost_ns=cost_ns)
    engine, launcher, heard = loop(world, [(at, talk(i)) for i, at in enumerate(due)])
    delays = [at - planned for at, planned in zip(sent(launcher), due, strict=True)]
    assert min(delays) >= 0
    assert engine.lateness.dispatch.most == max(delays)
    assert engine.lateness.dispatch.total == sum(delays)
    assert [heard.ends[i][1].scheduled_ns for i in range(len(due))] == due  # whatever it was that came of it
    assert engine.lateness.waited_for_room.n == 0


def test_a_client_that_was_held_up_is_late_by_as_much():
    world = World()
    world.stops.append((30 * MS, 500 * MS))
    engine, launcher, _ = loop(world, [(at * MS, talk(at)) for at in range(0, 200, 10)])
    assert engine.lateness.dispatch.most == 490 * MS
    assert 480 * MS <= engine.lateness.loop.most <= 500 * MS  # what its loop was late by, though it had nothing to read
    assert sent(launcher)[:4] == [0, 10 * MS, 20 * MS, 30 * MS]
    assert set(sent(launcher)[4:]) == {530 * MS}
    assert engine.lateness.read.most > 400 * MS  # what came meanwhile was read late too


def test_a_cap_makes_requests_wait_and_that_is_no_lateness():
    # each takes 15 ms; two at once; all are due at once
    engine, launcher, heard = loop(World(), [(0, talk(i)) for i in range(6)], cap=2)
    assert sent(launcher) == [0, 0, 15 * MS, 15 * MS, 30 * MS, 30 * MS]
    assert [heard.ends[i][1].scheduled_ns for i in range(6)] == [0] * 6  # what was omitted is visible
    assert engine.lateness.dispatch.most == 0
    assert engine.lateness.waited_for_room.n == 4 and engine.lateness.waited_for_room.most == 30 * MS


def test_a_closed_loop_keeps_its_users_busy():
    feed = [(None, talk(i)) for i in range(7)]
    engine, launcher, heard = loop(World(), feed, cap=3, closed=True)
    assert sent(launcher) == [0, 0, 0, 15 * MS, 15 * MS, 15 * MS, 30 * MS]
    assert all(end[1].scheduled_ns is None for end in heard.ends.values())
    assert engine.lateness.dispatch.n == 0


def test_a_closed_loop_ends_with_its_time_and_what_is_under_way_is_kept():
    feed = ((None, talk(i)) for i in range(10**9))
    engine, launcher, _ = loop(World(), feed, cap=1, closed=True, until_ns=40 * MS)
    assert sent(launcher) == [0, 15 * MS, 30 * MS]
    assert engine.counts.done == 3


@pytest.mark.parametrize("closed", [True, False])
def test_the_next_turn_follows_the_answer(closed):
    feed = [(None if closed else 0, talk(0, turns=3, think_ns=100 * MS)), (None if closed else 5 * MS, talk(1))]
    _, launcher, heard = loop(World(), feed, cap=1 if closed else None, closed=closed)
    mine = [(at, errand) for at, errand in launcher.launched if errand.conversation.number == 0]
    assert [at for at, _ in mine] == [0, 115 * MS, 230 * MS]
    assert [errand.answers for _, errand in mine] == [(), ("ab",), ("ab", "ab")]
    turns = [(one.conversation, one.turn) for _, one in heard.ends.values() if one.conversation]
    assert sorted(turns) == [("c0", 0), ("c0", 1), ("c0", 2)]
    if closed:  # who thinks keeps his place
        assert [at for at, errand in launcher.launched if errand.conversation.number == 1] == [245 * MS]


def test_a_conversation_ends_with_a_turn_that_failed():
    _, launcher, _ = loop(World(), [(0, talk(0, turns=3))], answers=lambda n, _: {"fault": "reset"} if n == 1 else {})
    assert len(launcher.launched) == 2


def test_a_retried_request_is_two_requests():
    def answers(n, _):
        return {"fault": "http_error", "status": 503} if n < 2 else {}

    engine, launcher, heard = loop(World(), [(5 * MS, talk(0))], answers=answers, retries=2)
    assert sent(launcher) == [5 * MS, 120 * MS, 335 * MS]  # 15 ms each, then 100 and 200 ms of pause
    # due is what the first one was: a time since then holds what failed, and the pauses
    assert [(one.attempt, one.retry_of, one.scheduled_ns) for _, one in heard.ends.values()] == [
        (1, None, 5 * MS),
        (2, 0, 5 * MS),
        (3, 1, 5 * MS),
    ]
    assert heard.ticks[2][0].end - heard.ends[2][1].scheduled_ns == 340 * MS
    assert (engine.counts.done, engine.counts.failed) == (1, 2)
    assert engine.lateness.dispatch.most == 0 and engine.lateness.waited_for_room.n == 0  # a pause is no lateness


def test_a_request_that_follows_no_schedule_is_not_due_when_it_is_sent_again():
    answers = lambda n, _: {"fault": "http_error", "status": 503} if n < 1 else {}  # noqa: E731
    _, launcher, heard = loop(World(), [(None, talk(0))], cap=1, closed=True, answers=answers, retries=1)
    assert sent(launcher) == [0, 115 * MS]
    assert [one.scheduled_ns for _, one in heard.ends.values()] == [None, None]


@pytest.mark.parametrize(("status", "tries"), [(400, 1), (401, 1), (404, 1), (422, 1), (429, 3), (500, 3), (503, 3)])
def test_only_what_may_go_better_is_tried_again(status, tries):
    answers = lambda n, _: {"fault": "http_error", "status": status}  # noqa: E731
    _, launcher, _ = loop(World(), [(0, talk(0))], answers=answers, retries=2)
    assert len(launcher.launched) == tries


def test_a_limit_of_time_ends_a_request():
    answers = lambda n, _: {"script": (), "limit_ns": 100 * MS}  # noqa: E731
    _, _, heard = loop(World(), [(0, talk(0))], answers=answers)
    assert heard.ends[0][1].fault == "timeout"
    assert 100 * MS <= heard.ends[0][1].ended_ns <= 120 * MS


def test_a_server_that_is_gone_is_noticed_and_not_overrun():
    answers = lambda n, _: {"fault": "refused", "script": ((1, ""),)} if n >= 5 else {}  # noqa: E731
    world = World()
    errands = Errands(((None, talk(i)) for i in range(10**9)), cap=4, closed=True, until_ns=None)
    launcher, heard = PaperLauncher(world, answers), Heard()
    engine = Engine(errands, launcher, heard, world, origin=0, cap=4)
    while not engine.counts.gone:
        assert engine.step()
    assert world.now_ns < 6_000 * MS
    assert len(launcher.launched) < 60
    assert engine.counts.done == 5


def test_stopping_breaks_off_what_is_under_way():
    world = World()
    errands = Errands(iter([(0, talk(0)), (1, talk(1)), (10**12, talk(2))]), cap=None, closed=False, until_ns=None)
    launcher, heard = PaperLauncher(world), Heard()
    engine = Engine(errands, launcher, heard, world, origin=0)
    for _ in range(3):
        engine.step()
    engine.stop("interrupted")
    assert not engine.step()
    assert [reasons for reasons, _ in heard.ends.values()] == [["interrupted"]] * 2
    assert not world.watched and launcher.landings == [0, 1]


def test_the_next_request_is_made_ready_while_there_is_time():
    _, launcher, _ = loop(World(), [(0, talk(0)), (50 * MS, talk(1)), (50 * MS + 1, talk(2))])
    assert [one.conversation.number for one in launcher.prepared] == [1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 100 * MS), st.integers(1, 4)), min_size=1, max_size=25),
    st.one_of(st.none(), st.integers(1, 5)),
    st.integers(0, 2),
    st.randoms(use_true_random=False),
)
def test_nothing_is_lost_and_the_cap_is_kept(plan, cap, retries, random):
    faults = [None, None, None, "reset", "http_error", "timeout"]
    plan.sort()
    feed = [(at, talk(i, turns=n)) for i, (at, n) in enumerate(plan)]

    def answers(n, _):
        return {"fault": random.choice(faults), "script": ((random.randrange(1, 30 * MS), "x"),)}

    world = World()
    engine, launcher, heard = loop(world, feed, cap=cap, retries=retries, answers=answers)
    assert sorted(heard.ends) == sorted(heard.begun_) == list(range(len(launcher.launched)))
    assert {errand.conversation.number for _, errand in launcher.launched} == set(range(len(plan)))
    assert engine.counts.sent == engine.counts.done + engine.counts.failed
    moments = [(f.start_ns, 1) for f in world.flights] + [(f.start_ns + f.script[-1][0], -1) for f in world.flights]
    under_way = most = 0
    for _, change in sorted(moments):
        under_way += change
        most = max(most, under_way)
    assert cap is None or most <= cap


def test_nothing_begins_after_the_time_though_it_waited_for_room():
    # each takes 15 ms, one at a time, and one is due every 5 ms for 60 ms
    engine, launcher, heard = loop(World(), [(i * 5 * MS, talk(i)) for i in range(12)], cap=1, until_ns=40 * MS)
    assert sent(launcher) == [0, 15 * MS, 30 * MS]
    assert engine.counts.unsent == 5  # of the eight that were due before 40 ms
    assert engine.counts.done == 3 and len(heard.ends) == 3


def test_what_is_due_before_the_end_and_has_room_is_sent_however_late_the_client_is():
    world = World()
    world.stops.append((5 * MS, 100 * MS))
    engine, launcher, _ = loop(world, [(i * 10 * MS, talk(i)) for i in range(5)], until_ns=45 * MS)
    assert len(launcher.launched) == 5 and engine.counts.unsent == 0


def test_gaps_within_one_read_are_the_fault_of_a_client_that_did_not_look():
    script = tuple((at * MS, "x") for at in range(10, 110, 10))
    world = World()
    world.stops.append((30 * MS, 50 * MS))
    engine, _, _ = loop(world, [(0, talk(0))], answers=lambda n, _: {"script": script})
    own = engine.lateness
    assert (own.gaps, own.shared_gaps, own.missed_gaps) == (9, 4, 4)


def test_gaps_within_one_read_may_be_the_doing_of_the_server():
    script = tuple((at * MS, "x") for at in (10, 10, 20, 20, 30, 30))
    engine, _, _ = loop(World(), [(0, talk(0))], answers=lambda n, _: {"script": script})
    own = engine.lateness
    assert (own.gaps, own.shared_gaps, own.missed_gaps) == (5, 3, 0)
