"""Goodput and fluidity against values by hand; the schedule is ``paper.FIVE`` (see test_dialects)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper import FIVE, MS, Take, paper, step

from tokentape.errors import UsageError
from tokentape.study.answers import Answer, Chunk, answers, window_ns
from tokentape.study.slo import Slo, fluidity, goodput, parse_slo

SLO = Slo(ttft_ns=10 * MS, gap_ns=4 * MS, e2e_ns=25 * MS)


def test_goodput_by_hand() -> None:
    found = answers(paper(*FIVE))
    assert window_ns(found) == 92 * MS
    good = goodput(found, SLO, window_ns(found))
    # A: first token at 20 > 10. B: 8, no gap. C failed. D cut short. E: 10, 10/3, 20
    assert (good.n_requests, good.n_good, good.n_late, good.n_failed, good.n_cut_short) == (5, 2, 1, 1, 1)
    assert (good.n_unknown, good.n_without_gap, good.share) == (0, 1, 0.4)
    assert good.requests_per_s == 2e9 / (92 * MS)


def test_every_objective_can_fail_alone() -> None:
    found = answers(paper(Take([step(10, 1), step(6, 1)])))
    for slo, n in (
        (Slo(10 * MS, 6 * MS, 16 * MS), 1),
        (Slo(10 * MS - 1, 6 * MS, 16 * MS), 0),
        (Slo(10 * MS, 6 * MS - 1, 16 * MS), 0),
        (Slo(10 * MS, 6 * MS, 16 * MS - 1), 0),
        (Slo(gap_ns=6 * MS), 1),
    ):
        assert goodput(found, slo, 16 * MS).n_good == n, slo


def test_mean_gap_is_compared_without_rounding() -> None:
    answer = Answer(0, 0, 0, (Chunk(0, 1), Chunk(10, 3)), "ended")  # 10 / 3
    assert goodput([answer], Slo(gap_ns=3), 10).n_good == 0
    assert goodput([answer], Slo(gap_ns=4), 10).n_good == 1


def test_unknown_start_is_a_miss_and_said() -> None:
    answer = Answer(0, 0, None, (Chunk(5, 1),), "ended")
    good = goodput([answer], SLO, window_ns([answer]))
    assert (good.n_good, good.n_unknown, good.requests_per_s) == (0, 1, None)
    assert goodput([answer], Slo(gap_ns=1), 5).n_good == 1, "the gap needs no start"


def test_of_requests_of_which_nothing_is_known_no_share_is_told() -> None:
    whole = Answer(0, 0, 0, (Chunk(10, 3),), "ended", streamed=False)
    good = goodput([whole, whole], Slo(ttft_ns=50), 10)
    assert (good.n_unknown, good.share, good.requests_per_s) == (2, None, None)
    one = goodput([whole, whole], Slo(ttft_ns=50), 10, n_unsent=1)
    assert (one.n_unknown, one.share, one.requests_per_s) == (2, 0, 0), "of the one that was never sent it is known"
    assert goodput([whole], Slo(e2e_ns=50), 10).share == 1


def test_fluidity_by_hand() -> None:
    # A, tokens at 20 26 26 26 35 35. The first is 10 late: its deadline and (20 - 10) // 4 = 2 more. 6 > 4: one more.
    # 0, 0: slack 8. 9 <= 4 + 8: slack 3. 0. So 4 missed of 8.
    # B at 8: met. E at 10 10 20 20: met, met with slack 4, 10 > 4 + 4: (10 - 4) // 4 = 1 missed, met: 1 of 4.
    found = fluidity(answers(paper(*FIVE)), SLO)
    assert found is not None
    assert (found.n_missed, found.n_deadlines) == (5, 13)
    assert found.index == 1 - 5 / 13
    assert found.by_trace == (0.5, 1.0, None, None, 0.75)


def test_fluidity_needs_both_deadlines() -> None:
    assert fluidity(answers(paper(*FIVE)), Slo(ttft_ns=MS)) is None


def answer_of(gaps: list[int]) -> Answer:
    moments = [sum(gaps[: i + 1]) for i in range(len(gaps))]
    return Answer(0, 0, 0, tuple(Chunk(at, 1) for at in moments), "ended")


@given(gaps=st.lists(st.integers(0, 10), min_size=1, max_size=40), early=st.integers(10, 30))
def test_on_time_is_1(gaps: list[int], early: int) -> None:
    found = fluidity([answer_of(gaps)], Slo(ttft_ns=early, gap_ns=10))
    assert found is not None and found.index == 1.0 and found.n_deadlines == len(gaps)


@given(gaps=st.lists(st.integers(1, 60), min_size=1, max_size=40), ttft=st.integers(1, 60), gap=st.integers(1, 60))
def test_fluidity_is_that_of_a_clock_that_counts_deadlines(gaps: list[int], ttft: int, gap: int) -> None:
    """The same by walking from deadline to deadline rather than by division."""
    missed = total = at = 0
    due = ttft
    for took in gaps:
        at += took
        if at <= due:
            total, due = total + 1, due + gap
            continue
        while due <= at:
            missed, total, due = missed + 1, total + 1, due + gap
        due = at + gap
    found = fluidity([answer_of(gaps)], Slo(ttft_ns=ttft, gap_ns=gap))
    assert found is not None and (found.n_missed, found.n_deadlines) == (missed, total)


def test_objectives_are_read_with_their_units() -> None:
    assert parse_slo("ttft=0.5s, tpot=50ms,e2e=10s") == Slo(500 * MS, 50 * MS, 10_000 * MS)
    assert parse_slo("gap=250us") == Slo(gap_ns=250_000)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ttft=3", "unit"),
        ("tft=3ms", "ttft, gap"),
        ("ttft=-3ms", "unit"),
        ("ttft=0ms", "above 0"),
        ("gap=1ms,tpot=2ms", "one limit"),
        ("", "there are"),
    ],
)
def test_bad_objectives_say_what_is_wanted(text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_slo(text)
    assert told in caught.value.why and "=" in caught.value.fix


def test_no_objective_is_refused() -> None:
    with pytest.raises(UsageError, match="without any limit"):
        Slo()
