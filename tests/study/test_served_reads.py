"""Messages that shared a read: counted, and no gap told between them; counts of tokens that cannot be true are not told."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from served_tapes import MS, ORIGIN, Served, passed, served_tape, ticks, usage, words
from tokentape.data import open_tape
from tokentape.load.account import account_of
from tokentape.load.standing import Standing
from tokentape.study.metrics import metrics, summary
from tokentape.study.served import flights
from tokentape.study.served_reads import (
    arrival_gaps_ns,
    arrivals,
    message_times_ns,
    n_shared_reads,
    n_sharing,
    token_gaps,
    told_gaps_ns,
)
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
        assert (found.n_messages, found.n_sharing, found.n_shared_reads) == (5, 3, 1)
        assert arrivals(trace.steps).tolist() == [0, 1, 1, 1, 2]
        assert told_gaps_ns(trace) == [6 * MS, None, 4 * MS, None]
        assert arrival_gaps_ns([trace]) == [6 * MS, 4 * MS] and run_gaps_ns([trace]) == [6 * MS, 0, 4 * MS, 0]
        assert message_times_ns(trace.steps) == [20 * MS, 6 * MS, 4 * MS]
        own = metrics(tape)
        assert (own.token_gap.n, own.token_gap.n_untold, own.chunk_gap.n, own.step_time.n) == (0, 4, 2, 3)
        assert own.token_gap.mean == summary(tape).mean_gap_ns == own.mean_gap.mean == 2.5 * MS  # 10 ms for four
        assert (found.gaps[0].n, found.n_gaps_untold, found.gap_ends_ns) == (0, 4, ())
        assert found.chunk_gaps[0].n == 2
        assert summary(tape).gaps[0].n == 0 and summary(tape).n_same_step == 0


def test_the_end_of_the_answer_in_the_read_of_the_last_token_has_its_stamp(tmp_path):
    chunks = ((20 * MS, words(" a")), (6 * MS, words(" b")), (7 * MS, words(" c")))
    apart = replace(TOGETHER, chunks=chunks, exchange=replace(TOGETHER.exchange, ended_ns=34 * MS))
    ended = replace(apart, exchange=replace(TOGETHER.exchange, ended_ns=33 * MS))
    last = replace(apart, chunks=(*chunks, (0, ())))  # a message that says why it ended, and no token
    for served, gaps, sharing in ((apart, [6, 7], (0, 0)), (ended, [6], (1, 1)), (last, [6], (2, 1))):
        with one(tmp_path, served) as tape:
            found = served_summary(tape)
            assert token_gaps([tape.traces[0]]).told == [ns * MS for ns in gaps]
            assert metrics(tape).token_gap.mean == 6.5 * MS
            assert (found.n_sharing, found.n_shared_reads) == sharing
            assert found.n_gaps_untold == 2 - len(gaps)
        (tmp_path / "a.tape").unlink()


SCRIPT = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8
)  # milliseconds since the message before, and tokens; none of them: in its read


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(SCRIPT, st.integers(0, 2)), min_size=1, max_size=4))
def test_gaps_of_every_kind_of_read_as_by_brute_force(tmp_path_factory, scripts):
    kinds, told, waits, n_all, total, untold = [], [], [], 0, 0, 0
    for script, tail in scripts:
        chunks = tuple((after * MS, words(*[" a"] * n)) for after, n in script)
        at = sum(after for after, _ in script)
        kinds.append(
            replace(
                TOGETHER,
                chunks=chunks,
                exchange=replace(TOGETHER.exchange, ended_ns=(at + tail) * MS, n_completion=None),
            )
        )
        reads: dict[int, list[int]] = {}  # the tokens of each message of each read, by the moment
        now = 0
        for after, n in script:
            now += after
            reads.setdefault(now, []).append(n)
        with_tokens = [moment for moment, sizes in reads.items() if sum(sizes)]
        n = sum(n for _, n in script)
        measured = [b - a for a, b in pairwise(with_tokens) if reads[b] == [1] and not (b == now and not tail)]
        told += measured
        waits += [b - a for a, b in pairwise(with_tokens)]
        untold += max(0, n - 1) - len(measured)
        if len(with_tokens) > 1:
            n_all, total = n_all + n - 1, total + with_tokens[-1] - with_tokens[0]
    path = served_tape(tmp_path_factory.mktemp("reads") / "a.tape", kinds=kinds, scrapes=())
    with open_tape(path) as tape:
        own, card, load = metrics(tape), served_summary(tape), account_of(tape)
        live = Standing(0)
        for key, kind in enumerate(kinds):
            live.begun(key, ORIGIN)
            for tick in ticks(kind, 0):
                live.ticked(key, [tick])
    assert (own.token_gap.n, own.token_gap.n_untold) == (len(told), untold)
    assert (card.gaps[0].n, card.n_gaps_untold, card.chunk_gaps[0].n) == (len(told), untold, len(waits))
    assert (load["token_gap"]["n"], load["token_gap"]["n_untold"]) == (len(told), untold)
    assert own.chunk_gap.n == load["chunk_gap"]["n"] == live.gap.n == len(waits)
    assert live.gap.total == sum(waits) * MS
    assert card.gap_ends_ns == ((min(told) * MS, max(told) * MS) if told else ())
    if untold:
        assert own.token_gap.mean == load["token_gap"]["mean"] == (total * MS / n_all if n_all else None)


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
    lost = sum(before is not None and before == after for before, after in pairwise(reads))
    assert n_sharing({"read_ns": masked}) - n_shared_reads({"read_ns": masked}) == lost


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
