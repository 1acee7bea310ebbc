"""Requests judged from when they were due: what a user waited before anything was sent is part of the wait."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from paper import FIVE, paper

import tokentape
from served_tapes import MS, Served, loaded_tape, passed, served_tape, words
from tokentape.data import open_tape
from tokentape.errors import StudyError, UsageError
from tokentape.study.metrics import metrics
from tokentape.study.served import flights
from tokentape.study.slo import Slo


def late(by_ns: int | None) -> Served:
    """An answer whose first token came 20 ms after sending and its last 30 ms, of a request that was sent so late."""
    due = None if by_ns is None else -by_ns
    known = passed(0, MS, 40 * MS, label="exact", finish="stop", scheduled_ns=due)
    return Served("late", ((20 * MS, words(" a")), (10 * MS, words(" b"))), known)


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    """Requests that were sent 0, 10, 20, ... ms late, and one that had no moment of its own."""
    kinds = [late(n * 10 * MS) for n in range(8)] + [late(None)]
    return served_tape(tmp_path / "queue.tape", kinds=kinds, scrapes=())


def test_the_wait_before_sending_is_in_every_figure_that_begins_with_a_request(queue):
    with open_tape(queue) as tape:
        sent, due = metrics(tape), metrics(tape, since="due")
    assert (sent.since, sent.n_scheduled) == ("start", 8) and (due.since, due.n_scheduled) == ("due", 8)
    waits = [n * 10 for n in range(8)] + [0]
    assert (sent.ttft.min, sent.ttft.max, sent.ttft.mean) == (20 * MS, 20 * MS, 20 * MS)
    assert (due.ttft.min, due.ttft.max, due.ttft.n) == (20 * MS, 90 * MS, 9)
    assert due.ttft.mean == pytest.approx(sum(20 + wait for wait in waits) / 9 * MS)
    assert due.e2e.max == 100 * MS and due.normalised_latency.max == 50 * MS
    for name in ("token_gap", "chunk_gap", "step_time", "mean_gap", "window_ns", "tokens_per_s"):
        assert getattr(due, name) == getattr(sent, name), (
            name
        )  # how long it took between messages is no matter of sending


@pytest.mark.parametrize(("limit_ms", "n_good"), [(19, 0), (20, 2), (45, 4), (90, 9)])
def test_an_objective_is_met_by_those_that_came_in_time_since_they_were_due(queue, limit_ms, n_good):
    slo = Slo(ttft_ns=limit_ms * MS, gap_ns=50 * MS)
    with open_tape(queue) as tape:
        due, sent = metrics(tape, slo=slo), metrics(tape, slo=slo, since="start")
    assert due.since == "due"  # where nothing is said, objectives of an open loop count from there
    assert due.goodput.n_good == n_good and sent.goodput.n_good == (9 if limit_ms >= 20 else 0)
    assert due.fluidity.n_missed >= 9 - n_good  # each late first token misses its deadline at least


def test_of_thousands_of_requests_it_is_what_each_request_tells(tmp_path):
    with open_tape(loaded_tape(tmp_path / "load.tape", 200)) as tape:
        told = [one.ttft_scheduled_ns for one in flights(tape) if one.ttft_scheduled_ns is not None]
        found = metrics(tape, since="due").ttft
    assert (found.n, found.min, found.max) == (len(told), min(told), max(told))


def test_what_was_never_sent_is_a_request_that_met_nothing(queue, tmp_path):
    kinds = [late(n * 10 * MS) for n in range(8)]
    again = replace(kinds[2], exchange=replace(kinds[2].exchange, attempt=2, retry_of=7))
    failed = replace(kinds[7], chunks=(), reasons=("error",), exchange=replace(kinds[7].exchange, fault="reset"))
    tape = served_tape(tmp_path / "a.tape", kinds=[*kinds[:7], failed, again], notes={"n_unsent": 4}, scrapes=())
    slo = Slo(ttft_ns=45 * MS)
    with open_tape(tape) as found:
        due, sent = metrics(found, slo=slo).goodput, metrics(found, slo=slo, since="start").goodput
    # eight requests were sent, late by 0 to 70 ms, the last of them twice, and four were not; 20, 30 and 40 ms are in time
    assert (due.n_requests, due.n_good, due.n_late, due.n_unsent, due.n_failed) == (12, 3, 5, 4, 0)
    assert due.share == 3 / 12
    assert (sent.n_requests, sent.n_good, sent.n_unsent, sent.n_failed) == (9, 8, 0, 1)


def test_where_nothing_was_due_there_is_no_such_moment(tmp_path):
    tape = served_tape(tmp_path / "users.tape", kinds=[late(None)] * 3, scrapes=())
    with open_tape(tape) as closed, pytest.raises(StudyError, match=r"users\.tape") as refused:
        metrics(closed, since="due")
    assert "--rate" in refused.value.fix and "as soon as it could be" in refused.value.why
    with pytest.raises(StudyError, match="no request was due"):
        metrics(paper(*FIVE), since="due")
    with pytest.raises(UsageError, match="since='sent'"):
        metrics(paper(*FIVE), since="sent")


def test_another_tool_counts_from_its_own_moment(queue):
    with open_tape(queue) as tape, pytest.raises(UsageError, match="vllm from when requests were due"):
        tokentape.metrics(tape, dialect="vllm", since="due")
