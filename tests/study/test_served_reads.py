"""Messages that shared a read: counted, and no gap told between them; counts of tokens that cannot be true are not told."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from served_tapes import MS, Served, passed, served_tape, usage, words
from tokentape.data import open_tape
from tokentape.study.metrics import metrics, summary
from tokentape.study.served import flights
from tokentape.study.served_reads import arrival_gaps_ns, arrivals, message_times_ns, n_sharing, told_gaps_ns
from tokentape.study.served_summary import served_summary
from tokentape.study.times import run_gaps_ns

TOGETHER = Served(
    "together",  # five messages in three reads, of 1, 2 and 2 tokens; one message more tells no token
    ((20 * MS, words(" a")), (6 * MS, words(" b")), (0, words(" c")), (0, ()), (4 * MS, words(" d", " e"))),
    passed(0, 9 * MS, 31 * MS, label="exact", finish="stop", **usage(5, 5)),
)


def one(tmp_path, served):
    return open_tape(served_tape(tmp_path / "a.tape", kinds=[served], scrapes=()))


def test_messages_of_one_read_are_counted_and_have_no_gap(tmp_path):
    with one(tmp_path, TOGETHER) as tape:
        trace, found = tape.traces[0], served_summary(tape)
        assert (found.n_messages, found.n_sharing) == (5, 3)
        assert arrivals(trace.steps).tolist() == [0, 1, 1, 1, 2]
        assert told_gaps_ns(trace) == [6 * MS, None, 4 * MS, None]
        assert arrival_gaps_ns([trace]) == [6 * MS, 4 * MS] and run_gaps_ns([trace]) == [6 * MS, 0, 4 * MS, 0]
        assert message_times_ns(trace.steps) == [20 * MS, 6 * MS, 4 * MS]
        own = metrics(tape)
        assert (own.token_gap.n, own.token_gap.min, own.chunk_gap.n, own.step_time.n) == (2, 4 * MS, 2, 3)
        assert found.gaps[0].n == 2 and found.gap_ends_ns == (4 * MS, 6 * MS)
        assert summary(tape).gaps[0].n == 2 and summary(tape).n_same_step == 0


def test_all_in_one_read_has_neither_gap_nor_rate(tmp_path):
    chunks = ((20 * MS, words(" a")), *((0, words(" b")) for _ in range(4)))
    with one(tmp_path, replace(TOGETHER, chunks=chunks)) as tape:
        own = metrics(tape)
        assert own.token_gap.n == own.mean_gap.n == 0 and own.n_tokens == 5
        assert own.decode_tokens_per_s is None


def test_reads_of_two_runs_are_two(tmp_path):
    with open_tape(served_tape(tmp_path / "a.tape", kinds=[TOGETHER, TOGETHER], scrapes=())) as tape:
        steps = tape.columns("step")
        columns = {"run": steps["run"], "read_ns": np.ma.array(np.full(len(steps["run"]), 7))}
        assert len(set(arrivals(columns).tolist())) == 2  # though a clock might give both one moment
        assert served_summary(tape).n_sharing == 6


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(0, 3)), max_size=12))
def test_arrivals_as_by_brute_force(reads):
    masked = np.ma.array([read or 0 for read in reads], mask=[read is None for read in reads], dtype=np.int64)
    found = arrivals({"read_ns": masked}).tolist()
    assert len(found) == len(reads)
    for (before, after), (a, b) in zip(pairwise(reads), pairwise(found), strict=True):
        assert (a == b) == (before is not None and before == after) and b - a in (0, 1)
    alone = [
        i
        for i, read in enumerate(reads)
        if read is None or (reads[i - 1 : i] != [read] and reads[i + 1 : i + 2] != [read])
    ]
    assert n_sharing({"read_ns": masked}) == len(reads) - len(alone)


@pytest.mark.parametrize("n", [9 * 10**18, -4, 100])
def test_a_count_that_cannot_be_true_is_not_told(tmp_path, n):
    """16 tokens were asked for."""
    lying = replace(TOGETHER, exchange=replace(TOGETHER.exchange, label="coarse", n_completion=n))
    with one(tmp_path, lying) as tape:
        assert flights(tape)[0].n_tokens is None
        found, own = served_summary(tape), metrics(tape)
        assert found.n_tokens is None and found.tokens_per_s is None
        assert own.n_tokens is None and own.tokens_per_s is None and own.normalised_latency.n == 0
        assert summary(tape).n_tokens is None and summary(tape).overall_tokens_per_s is None


def test_what_did_not_end_or_told_nothing_has_no_count(tmp_path):
    kinds = [
        replace(TOGETHER, cut=True, reasons=("interrupted",)),
        replace(TOGETHER, exchange=replace(TOGETHER.exchange, label="coarse", n_completion=None, fault="cut_short")),
        Served("empty", (), passed(0, 9 * MS, 10 * MS, finish="stop")),
    ]
    with open_tape(served_tape(tmp_path / "a.tape", kinds=kinds, scrapes=())) as tape:
        assert [flight.n_tokens for flight in flights(tape)] == [None, None, None]
        assert served_summary(tape).n_tokens is None and metrics(tape).n_tokens is None


def test_the_plain_form_has_names_for_keys(tmp_path):
    with open_tape(served_tape(tmp_path / "a.tape")) as tape:
        found = served_summary(tape).as_dict()
    assert found["stamps"] == {"kernel": 12, "read": 1} and found["faults"]["refused"] == 1
    assert found["statuses"] == {503: 1}
