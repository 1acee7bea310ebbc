"""The plan of a load: which loop it is, where it ends, how processes share it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape.errors import UsageError
from tokentape.load.plan import Plan
from tokentape.load.workloads import Sized, Synthetic, prompts

S = 1_000_000_000
TRAFFIC = Sized([0, S, 3 * S, 4 * S], [10, 20, 30, 40], [1, 2, 3, 4], "azure")
LISTED = prompts(["a", "b", "c"])


def test_which_loop_it_is():
    assert Plan().is_closed(LISTED)
    assert Plan(concurrency=4).is_closed(TRAFFIC)
    assert not Plan().is_closed(TRAFFIC)
    assert Plan().schedule(TRAFFIC).kind == "trace"
    assert Plan(rate=2).schedule(LISTED).kind == "poisson"
    assert Plan(rate=2).schedule(TRAFFIC).kind == "trace"
    assert Plan(rate=2, arrivals="poisson").schedule(TRAFFIC).kind == "poisson"


def test_where_it_ends():
    assert list(Plan().schedule(TRAFFIC)) == [0, S, 3 * S, 4 * S]
    assert list(Plan(time_scale=0.5, duration_ns=S).schedule(TRAFFIC)) == [0, S // 2]
    assert len(list(Plan(rate=5).schedule(LISTED))) == 3
    assert len(list(Plan(rate=5, requests=7).schedule(LISTED))) == 7
    assert Plan(concurrency=2).n_conversations(LISTED) == 3
    assert Plan(concurrency=2, duration_ns=S).n_conversations(LISTED) is None
    many = Plan(rate=100, duration_ns=S)
    assert many.n_expected(Synthetic(5)) == len(list(many.schedule(Synthetic(5))))


@given(st.integers(1, 9), st.integers(1, 60), st.one_of(st.none(), st.integers(9, 40)), st.booleans())
def test_processes_share_the_load_without_rest(processes, requests, cap, closed):
    if closed and cap is None:
        cap = 9
    plan = Plan(rate=None if closed else 50, concurrency=cap, requests=requests, processes=processes)
    tasks = plan.tasks(lambda: None, LISTED, 0)
    parts = [[(due, one.number) for due, one in task.feed(7)] for task in tasks]
    whole = sorted(pair for part in parts for pair in part) if not closed else None
    assert sorted(number for part in parts for _, number in part) == list(range(requests))
    if not closed:
        assert whole == [(7 + due, number) for number, due in enumerate(plan.schedule(LISTED))]
    if cap is not None:
        assert sum(task.cap for task in tasks) == cap and min(task.cap for task in tasks) >= 1


@pytest.mark.parametrize(
    ("asked", "workload", "says"),
    [
        ({"rate": 0}, LISTED, "a rate of 0"),
        ({"rate": 0}, TRAFFIC, "a rate of 0"),
        ({"rate": 1}, Synthetic(8), "never end"),
        ({"concurrency": 2}, Synthetic(8), "never end"),
        ({"concurrency": 2, "ramp_ns": S}, LISTED, "--ramp without a rate"),
        ({"concurrency": 2, "burstiness": 0.5}, LISTED, "--burstiness without a rate"),
        ({"concurrency": 2, "time_scale": 0.5}, LISTED, "--time-scale without a rate"),
        ({"rate": 2, "time_scale": 0.5}, LISTED, "a time scale for poisson arrivals"),
        ({"rate": 2, "time_scale": 0.5}, TRAFFIC, "a time scale together with a rate"),
        ({"arrivals": "trace"}, LISTED, "arrivals as in a trace, without a trace"),
        ({"arrivals": "poisson"}, LISTED, "poisson arrivals without a rate"),
        ({"concurrency": 0}, LISTED, "--concurrency 0"),
        ({"requests": 0}, LISTED, "--requests 0"),
        ({"retries": -1}, LISTED, "--retries -1"),
        ({"processes": 0}, LISTED, "--processes 0"),
        ({"processes": 1000}, LISTED, "1000 client processes"),
        ({"processes": 3, "concurrency": 2}, LISTED, "3 client processes for 2"),
        ({"rate": 1, "duration_ns": 0}, LISTED, "a duration of 0"),
    ],
)
def test_what_is_no_plan_is_refused(asked, workload, says):
    with pytest.raises(UsageError) as error:
        Plan(**asked).tasks(lambda: None, workload, 0)
    assert says in error.value.what and error.value.fix


@pytest.mark.parametrize(
    ("plan", "workload", "says"),
    [
        (Plan(concurrency=2), Synthetic(5), "a load that would never end"),
        (Plan(rate=2), Synthetic(5), "a load that would never end"),
        (Plan(rate=2), prompts(["a"]), "--rate for one prompt"),
        (Plan(concurrency=2), prompts(["a"]), "--concurrency for one prompt"),
    ],
)
def test_what_would_never_end_or_hardly_begin_is_refused_at_once(plan, workload, says):
    with pytest.raises(UsageError, match=says):
        plan.described(workload)  # before anybody is asked, and before there is a file


def test_one_prompt_is_sent_as_often_as_was_said():
    one = prompts(["a"])
    assert Plan(concurrency=1).n_expected(one) == Plan().n_expected(one) == 1
    assert Plan(rate=2, requests=5).n_expected(one) == 5
    assert Plan(concurrency=2, requests=5).n_expected(one) == 5
