"""The part Requests and the overview of an endpoint's tape: every number from the tape, within the budget, in both languages."""

from __future__ import annotations

from pathlib import Path

import pytest

from served_tapes import KINDS, LATE_CLIENT, MS, Served, loaded_tape, passed, served_tape, words
from tokentape.data import open_tape
from tokentape.data.exchange import Scrape
from tokentape.study.served import flights, in_flight
from tokentape.views.page.budget import page_within
from tokentape.views.page.document import page_document
from tokentape.views.page.json_text import page_json
from tokentape.views.page.requests import MOST_COURSES, MOST_POINTS, MOST_TRACES
from tokentape.words.catalogue import Message, said


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served_tape(tmp_path_factory.mktemp("served") / "cat.tape")


def told(message, lang="en"):
    return said(Message.of(message), lang)


def test_each_request_has_its_times(file):
    with open_tape(file) as tape:
        part, found = page_document(tape)["tape"]["requests"], flights(tape)
    assert part["trace"] == [one.traces[0] for one in found] and part["sent_ns"] == sorted(part["sent_ns"])
    assert part["ttft_ns"] == [one.ttft_ns for one in found]
    assert part["ttft_due_ns"][0] == 31 * MS and part["answer_ns"][0] == 42 * MS and part["tokens"][:3] == [4, 5, None]
    assert part["fault"][3] == "http_error" and part["fault_ns"][3] == 7 * MS and part["fault_ns"][0] is None
    assert [told(part["ends"][i]) for i in part["end"][7:9]] == ["a call of a tool", "end of text"]
    assert part["span_ns"][0] == 0 and part["span_ns"][1] >= max(part["sent_ns"])
    assert (
        len({len(part[name]) for name in ("trace", "sent_ns", "ttft_ns", "answer_ns", "fault", "fault_ns", "end")}) == 1
    )
    assert told(part["caption"]) == (
        "15 requests over 365 ms: median TTFT 15.0 ms, slowest 31.0 ms; 4 with a fault. "
        "Counted from when they were due, the slowest TTFT is 33.0 ms: the latest was sent 2.00 ms late."
    )


def test_requests_in_flight_are_drawn_as_steps(file):
    with open_tape(file) as tape:
        course = page_document(tape)["tape"]["requests"]["courses"][0]
        at, numbers = in_flight(flights(tape))
    drawn = list(zip(course["at_ns"], course["values"], strict=True))
    assert drawn[0] == (at[0], numbers[0]) and drawn[-1] == (at[-1], numbers[-1])
    for i in range(1, len(at)):  # what held before is drawn up to the change
        assert drawn[2 * i - 1 : 2 * i + 1] == [(at[i], numbers[i - 1]), (at[i], numbers[i])]
    assert told(course["caption"]) == f"requests in flight: at most 2, {len(at)} changes."


def test_metrics_that_changed_can_be_chosen(tmp_path):
    def values(i):
        many = {f"vllm:metric_{j}": float(i * j) for j in range(1, 60)}
        return {"constant": 1.0, 'lag_bucket{le="1"}': float(i), "vllm:\x1b[2J": float(i), **many}

    scrapes = [Scrape("server", i, i + 1, values(i)) for i in range(4)] + [Scrape("client 0", 9, 9, {"share": 0.5})]
    with open_tape(served_tape(tmp_path / "a.tape", scrapes=scrapes)) as tape:
        part = page_document(tape)["tape"]["requests"]
    names = [one["name"] if isinstance(one["name"], str) else told(one["name"]) for one in part["courses"]]
    assert names[0] == "requests in flight" and len(names) == MOST_COURSES and "constant" not in names
    assert not any("_bucket" in name or "\x1b" in name for name in names)
    assert told(part["left_out"]).startswith(f"{MOST_COURSES} of 64 metrics are shown")
    one = part["courses"][names.index("vllm:metric_2")]
    assert one["values"] == [0, 2, 4, 6] and one["at_ns"] == [1, 2, 3, 4]


def test_a_long_course_keeps_its_peaks(tmp_path):
    scrapes = [Scrape("server", i, i, {"waiting": 99.0 if i == 4321 else float(i % 3)}) for i in range(6000)]
    with open_tape(served_tape(tmp_path / "a.tape", scrapes=scrapes)) as tape:
        one = page_document(tape)["tape"]["requests"]["courses"][1]
    assert len(one["values"]) <= MOST_POINTS and (4321, 99) in zip(one["at_ns"], one["values"], strict=True)
    assert told(one["caption"]) == "waiting: 0 to 99, 6,000 values."


def test_the_overview_is_about_the_requests(file, tmp_path):
    with open_tape(file) as tape:
        overview = page_document(tape)["tape"]["overview"]
    assert told(overview["verdict"]) == (
        "demo answered 11 of 15 requests at 30.1 requests/s; the first token took 15.0 ms at the median."
    )
    by_label = {told(one["label"]): one for one in overview["figures"]}
    assert by_label["Requests answered"]["text"] == "11"
    assert by_label["Time to first token (TTFT)"]["text"] == "15.0 ms"  # the middle, as a percentile needs more
    assert "a percentile needs" in told(by_label["Time to first token (TTFT)"]["note"])
    assert by_label["Token gap"]["text"] == "3.00 ms – 8.00 ms"
    findings = [told(one["text"]) for one in overview["findings"]]
    assert findings[0].startswith("3 requests failed (HTTP 503 1); most often in these words: ")
    assert findings[1] == "4 requests had a fault: http_error 1, no_done 1, refused 1, reset 1"
    assert overview["findings"][1]["link"] == {"part": "requests", "trace": 3}
    with open_tape(served_tape(tmp_path / "a.tape", client=LATE_CLIENT)) as tape:
        overview = page_document(tape)["tape"]["overview"]
        assert "the client was the bottleneck" in told(overview["verdict"])
        assert "瓶颈在客户端" in told(overview["verdict"], "zh")


def test_a_tape_of_this_process_has_no_such_part(tmp_path):
    from data.tapes import write_tape

    with open_tape(write_tape(tmp_path / "cat.tape")) as tape:
        assert "requests" not in page_document(tape)["tape"]


def test_one_request(tmp_path):
    one = Served("a", ((9 * MS, words(" a")), (3 * MS, words(" b"))), passed(0, MS, 13 * MS, label="exact"))
    with open_tape(served_tape(tmp_path / "a.tape", kinds=[one], scrapes=())) as tape:
        document = page_document(tape)["tape"]
    assert "1 request over" in told(document["requests"]["caption"])
    assert [told(one["text"]) for one in document["overview"]["findings"]] == [
        "Requests were sent up to 2.00 ms late: times are told from when they were due, too"
    ]


def test_no_request_at_all(tmp_path):
    with open_tape(served_tape(tmp_path / "a.tape", kinds=())) as tape:
        document = page_document(tape)["tape"]
    assert told(document["requests"]["caption"]).startswith("0 requests")
    assert document["requests"]["span_ns"] == [0, 0] and document["overview"]["findings"] == []


def test_thousands_of_requests_fit_and_what_is_left_out_is_said(tmp_path):
    path = loaded_tape(tmp_path / "load.tape", 700, every_fault=20)
    with open_tape(path) as tape:
        document = page_within(tape, 2_000_000)
        found = flights(tape)
    shown = [trace["number"] for trace in document["tape"]["traces"]]
    assert len(shown) <= MOST_TRACES and len(document["tape"]["requests"]["trace"]) == 700
    slowest = max(found, key=lambda one: one.ttft_ns or 0)
    assert slowest.run in shown and {one.run for one in found if one.fault} <= set(shown)
    (dropped,) = document["dropped"]
    assert dropped["what"]["args"]["n"] == 700 - len(shown) and len(page_json(document)) < 2_000_000
    assert document["tape"]["n_traces"] == 700 and [run["number"] for run in document["tape"]["runs"]] == shown
    with open_tape(path) as tape:
        assert [trace["number"] for trace in page_within(tape, 2_000_000, traces=[699])["tape"]["traces"]] == [699]


def test_every_sentence_has_both_languages(file):
    with open_tape(file) as tape:
        document = page_document(tape)["tape"]

    def messages(value):
        if isinstance(value, dict):
            if isinstance(value.get("key"), str):
                yield value
            for inner in value.values():
                yield from messages(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from messages(inner)

    found = [one for name in ("requests", "overview") for one in messages(document[name])]
    assert len(found) > 30 and len(KINDS) == 15
    for one in found:
        for lang in ("en", "zh"):
            assert told(one, lang) and "page_" not in told(one, lang)
