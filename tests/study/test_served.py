"""Times of requests to a server: each from what was stamped, by hand and by brute force; many in one go as one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from served_tapes import EVERY_NS, KINDS, MS, Served, loaded_tape, passed, served_tape, words
from tokentape.data import open_tape
from tokentape.data.exchange import Exchange, Scrape
from tokentape.study.answers import Answer, answers
from tokentape.study.percentiles import percentile
from tokentape.study.series import SERIES
from tokentape.study.served import (
    Course,
    Flight,
    courses_named,
    flight_of,
    flights,
    from_schedule,
    in_flight,
    is_served,
    most_in_flight,
    scraped,
)
from tokentape.study.served_summary import served_summary
from tokentape.study.slo import Slo, goodput
from tokentape.study.times import run_gaps_ns, runs_of


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served_tape(tmp_path_factory.mktemp("served") / "cat.tape")


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return loaded_tape(tmp_path_factory.mktemp("load") / "load.tape", 250)


def named(file: Path) -> dict[str, Flight]:
    with open_tape(file) as tape:
        return {kind.name: one for kind, one in zip(KINDS, flights(tape), strict=True)}


def test_the_times_of_each_request_are_those_that_were_stamped(file):
    found = named(file)
    exact = found["exact"]
    assert (exact.schedule_delay_ns, exact.connecting_ns, exact.ttfb_ns) == (2 * MS, 750_000, 8 * MS)
    # the first chunk, at 9 ms, has no token: first content is the second, at 29 ms
    assert (exact.ttft_ns, exact.ttft_scheduled_ns) == (29 * MS, 31 * MS)
    assert (exact.answer_time_ns, exact.answer_time_scheduled_ns, exact.e2e_ns) == (42 * MS, 44 * MS, 40 * MS)
    assert (exact.n_chunks, exact.n_tokens) == (4, 4)
    assert exact.last_ns - exact.sent_ns == 40 * MS  # the stream went on for 2 ms
    assert found["coarse"].connecting_ns is None and found["coarse"].n_tokens is None and found["coarse"].n_rows == 2
    assert found["counted"].n_tokens == 5
    failed = found["http_error"]
    assert (failed.ttft_ns, failed.answer_time_ns, failed.fault, failed.label) == (None, 7 * MS, "http_error", None)
    assert found["refused"].connecting_ns is None and found["refused"].ttfb_ns is None
    choices = found["choices"]
    assert len(choices.traces) == 2 and choices.n_tokens == 4 and choices.n_rows == 4
    assert found["interrupted"].answer_time_ns is None and found["interrupted"].ttft_ns == 15 * MS


def test_all_at_once_is_one_by_one(file, load):
    for path in (file, load):
        with open_tape(path) as tape:
            assert flights(tape) == [flight_of(group) for group in runs_of(tape)]


def test_a_tape_without_a_server_is_none(tmp_path):
    from data.tapes import write_tape

    with open_tape(write_tape(tmp_path / "cat.tape")) as tape:
        assert not is_served(tape) and courses_named(tape, ["in_flight"]) == ([], ["in_flight"])


moment = st.integers(0, 60)


def asked(spans):
    none = dict.fromkeys(Flight.__dataclass_fields__)
    return [Flight(**{**none, "run": i, "traces": (i,), "sent_ns": a, "ended_ns": b}) for i, (a, b) in enumerate(spans)]


@given(st.lists(st.tuples(moment, moment).map(sorted), max_size=12))
def test_requests_in_flight_are_those_sent_and_not_ended(spans):
    found = asked(spans)
    at, numbers = in_flight(found)
    assert at == sorted(set(at)) and all(n >= 0 for n in numbers)
    for now in range(62):
        known = [n for when, n in zip(at, numbers, strict=True) if when <= now]
        assert (known[-1] if known else 0) == sum(a <= now < b for a, b in spans)
    assert most_in_flight(found) == max((sum(a <= now < b for a, b in spans) for now in range(62)), default=0)


def test_a_request_that_was_never_sent_is_not_in_flight():
    found = asked([(1, 9)])
    assert in_flight([replace(found[0], sent_ns=None)]) == ([], [])
    assert in_flight([replace(found[0], ended_ns=None, last_ns=5)]) == ([1, 5], [1, 0])


def test_scraped_metrics_are_courses_with_gaps_where_nothing_was_said():
    readings = [
        Scrape("server", 0, 2, {"a": 1.0, 'b{x="1"}': 2.0}),
        Scrape("client 0", 1, 3, {"a": 9}),
        Scrape("server", 5, 7, {"a": 3.0, "c": 0}),
    ]
    assert scraped(readings) == [
        Course("server", "a", (2, 7), (1.0, 3.0)),
        Course("server", 'b{x="1"}', (2, 7), (2.0, None)),
        Course("client 0", "a", (3,), (9,)),
        Course("server", "c", (2, 7), (None, 0)),
    ]


def test_courses_are_named_with_or_without_their_labels(file):
    with open_tape(file) as tape:
        one, rest = courses_named(tape, ["vllm:num_requests_running", "gap", "cpu_share"])
        assert [(found.source, found.name) for found in one] == [
            ("server", 'vllm:num_requests_running{model_name="demo"}'),
            ("client 0", "cpu_share"),
        ] and rest == ["gap"]  # fmt: skip
        assert {found.source for found in courses_named(tape, ["in_flight"])[0]} == {"tape", "client 0"}
        assert courses_named(tape, ["all"])[1] == ["all"] and len(courses_named(tape, ["all"])[0]) == 7


def test_the_series_of_a_request(file):
    with open_tape(file) as tape:
        trace = tape.traces[0]
        said = {name: SERIES[name].of(trace) for name in SERIES if SERIES[name].axis in ("trace", "step")}
        assert said["schedule_delay"] == [2 * MS] and said["ttft"] == [29 * MS] and said["ttft_scheduled"] == [31 * MS]
        assert said["connecting"] == [750_000] and said["ttfb"] == [8 * MS] and said["answer_time"] == [42 * MS]
        assert said["read_lag"] == [1_000] * 4 and said["parse_lag"] == [3_000] * 4
        assert SERIES["schedule_delay"].of(tape.traces[-1]) == [None]


def test_the_summary_counts_each_request_once(file):
    with open_tape(file) as tape:
        found = served_summary(tape)
    assert (found.n_requests, found.n_failed, found.n_open, found.n_retries) == (15, 3, 1, 1)
    assert dict(found.labels) == {"exact": 9, "counted": 2, "coarse": 1, None: 2}
    assert dict(found.faults) == {"http_error": 1, "reset": 1, "no_done": 1, "refused": 1}
    assert dict(found.stamps) == {"kernel": 12, "read": 1}
    assert found.n_tokens is None and found.tokens_per_s is None  # nobody counted those of the coarse answer
    assert found.window_ns == (10 * MS + 14 * EVERY_NS + 15 * MS) - 10 * MS
    assert found.requests_per_s == pytest.approx(11e9 / found.window_ns)
    assert found.as_dict()["labels"]["none"] == 2


def test_percentiles_have_an_honest_n_and_are_those_of_the_values(load):
    with open_tape(load) as tape:
        found, asked_for = served_summary(tape), flights(tape)
        ttft = [one.ttft_ns for one in asked_for if one.ttft_ns is not None]
        gaps = [ns for group in runs_of(tape) for ns in run_gaps_ns(group)]
    assert len(ttft) == 250 - found.n_failed and found.ttft[0].n == len(ttft)
    assert found.ttft[0].value == sorted(ttft)[(len(ttft) + 1) // 2 - 1]
    assert found.ttft[2].value is None and found.ttft[2].n_missing > 0  # p99 needs 662
    assert found.gaps[0].n == len(gaps) and found.gaps[0].value == percentile(gaps, 50).value
    assert 11 < found.gaps[0].n_effective < len(gaps)  # those of one request are alike
    assert found.n_tokens == sum(one.n_rows for one in asked_for)


def test_gaps_of_answers_whose_tokens_are_not_told_apart_are_none(tmp_path):
    chunks = ((20 * MS, words(" ab")), (5 * MS, words(" cd")))
    kinds = [Served(label, chunks, passed(0, MS, 30 * MS, label=label)) for label in ("coarse", "exact", "ends")]
    with open_tape(served_tape(tmp_path / "a.tape", kinds=kinds, scrapes=())) as tape:
        assert served_summary(tape).gaps[0].n == 1


def test_a_load_that_ended_before_any_request(tmp_path):
    with open_tape(served_tape(tmp_path / "a.tape", kinds=())) as tape:
        found = served_summary(tape)
        assert (found.n_requests, found.window_ns, found.requests_per_s, found.most_in_flight) == (0, None, None, 0)


def test_objectives_are_asked_from_when_a_request_was_due(tmp_path):
    """Each answer is fast, and each was sent 80 ms late: coordinated omission makes them look good."""
    late = [
        Served("late", ((20 * MS, words(" a")),), passed(0, MS, 25 * MS, label="exact", scheduled_ns=-80 * MS))
        for _ in range(5)
    ]
    with open_tape(served_tape(tmp_path / "a.tape", kinds=late, scrapes=())) as tape:
        found = answers(tape)
        slo = Slo(ttft_ns=50 * MS)
        assert goodput(found, slo, 10**9).n_good == 5
        assert goodput(from_schedule(found, tape.exchanges), slo, 10**9).n_good == 0


@settings(max_examples=50)
@given(st.lists(st.tuples(st.one_of(st.none(), moment), st.one_of(st.none(), moment)), max_size=5))
def test_only_what_had_a_time_is_moved_to_it(pairs):
    found = [Answer(i, i, start, (), "ended") for i, (start, _) in enumerate(pairs)]
    passed_by = {i: Exchange(i, scheduled_ns=due) for i, (_, due) in enumerate(pairs)}
    moved = from_schedule(found, passed_by)
    assert [one.start_ns for one in moved] == [start if due is None else due for start, due in pairs]
