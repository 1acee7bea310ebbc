"""What people see of an endpoint's tape claims no more than is on it: shared reads, failures, imports, odd JSON, lists."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from served_tapes import KINDS, LATE_CLIENT, MS, Served, passed, served_tape, usage, words
from tokentape.cli.program import run
from tokentape.data import open_tape
from tokentape.study.served_summary import served_summary
from tokentape.views.card import card
from tokentape.views.compare_words import loads_message
from tokentape.views.folder import line_of
from tokentape.views.listing import tape_list
from tokentape.views.page.document import page_document
from tokentape.views.screen import Screen
from tokentape.views.text import show
from tokentape.words.catalogue import said

SCREEN = Screen(width=120, encoding="utf-8", color=False, lang="en")
SHARED = "3 of 5 messages came in one read with another: when they came is known only to the read"
TOGETHER = Served(
    "together",
    ((20 * MS, words(" a")), (6 * MS, words(" b")), (0, words(" c")), (0, ()), (4 * MS, words(" d", " e"))),
    passed(0, 9 * MS, 31 * MS, label="exact", finish="stop", **usage(5, 5)),
)
FAILED = Served(
    "500", (), passed(0, 6 * MS, 7 * MS, status=500, fault="http_error", error="no room\x1b[2J"), ("error",)
)


def tape_of(tmp_path, *kinds, **more):
    return open_tape(served_tape(tmp_path / "a.tape", kinds=kinds, **{"scrapes": (), **more}))


def english(message):
    from tokentape.words.catalogue import Message

    return said(Message.of(message) if isinstance(message, dict) else message, "en")


def test_a_shared_read_is_said_on_the_card_of_one_request_and_on_its_page(tmp_path):
    with tape_of(tmp_path, TOGETHER) as tape:
        assert SHARED in card(tape, SCREEN)
        text = show(tape, SCREEN)
        assert text.count(SHARED) == 2  # on the card, and with the request
        assert text.count("same read") == 2
        table = text[text.index("\npos  ") :].splitlines()[2:]
        gaps = [line.split("'")[2].split()[0] for line in table]
        page = page_document(tape)["tape"]
        tokens = page["traces"][0]["tokens"]
    assert gaps == ["20.000", "6.000", "n/a", "4.000", "n/a"]
    assert tokens["gap_ns"] == [20 * MS, 6 * MS, None, 4 * MS, None]
    assert SHARED in [english(one["text"]) for one in page["overview"]["findings"]]
    figures = {english(one["label"]): one["text"] for one in page["requests"]["figures"]}
    assert figures["messages that shared a read"] == "3"


def test_a_row_of_coarse_text_has_no_number_of_tokens(tmp_path):
    with tape_of(tmp_path, KINDS[2]) as tape:
        rows = [line.split() for line in show(tape, SCREEN).splitlines()]
    assert ["0", "25.0", "ms", "n/a", "25.0", "ms", "1.00", "us"] in rows


def test_where_most_failed_that_is_the_headline_and_the_client_no_excuse(tmp_path):
    with tape_of(tmp_path, FAILED, FAILED, KINDS[0], client=LATE_CLIENT) as tape:
        text, overview = card(tape, SCREEN), page_document(tape)["tape"]["overview"]
    assert text.splitlines()[0].endswith("2 of 3 requests failed")
    assert "HTTP 500 for 2; most often in the words: no room" in text and "\x1b" not in text
    assert english(overview["verdict"]) == "2 of 3 requests to demo failed, 1 was answered."
    findings = [english(one["text"]) for one in overview["findings"]]
    assert findings[0].startswith("2 requests failed (HTTP 500 2); most often in these words: no room")
    assert not any("client" in one for one in findings)


def test_a_stream_that_broke_off_is_a_failure_and_not_unfinished(tmp_path):
    broken = Served(
        "broken", ((15 * MS, words(" It")),), passed(0, 9 * MS, 24 * MS, label="exact", fault="cut_short"), ("error",)
    )
    with tape_of(tmp_path, broken, KINDS[0]) as tape:
        text = card(tape, SCREEN)
        assert "1 answered, 1 failed, 0 not finished" in text and "cut short" not in text
        assert "the stream was broken off in the middle" in show(tape, SCREEN, traces=[0])


def test_results_without_starts_have_no_rate_and_no_server(tmp_path):
    noted = {"imported": {"tool": "llama-bench", "lacks": ["starts"]}}
    with tape_of(tmp_path, TOGETHER, TOGETHER, client=None, notes=noted) as tape:
        found = served_summary(tape)
        assert (found.window_ns, found.requests_per_s, found.tokens_per_s, found.most_in_flight) == (None,) * 4
        text = card(tape, SCREEN)
        assert "rate " not in text and "at once" not in text and "when they were sent is not known" in text
        assert "at 0" not in english(page_document(tape)["tape"]["overview"]["verdict"])


def test_the_time_of_a_request_is_told_of_messages(tmp_path):
    slow = replace(
        TOGETHER, chunks=((900 * MS, words(" a")), *((5 * MS, words(" b")) for _ in range(9)), (0, words(" c")))
    )
    with tape_of(tmp_path, slow) as tape:
        page = page_document(tape)["tape"]
        part = page["runs"][0]["time"]
    assert part["late"] == []  # the first message took what the TTFT says, and is no late step
    assert english(part["caption"]).startswith("9 messages after the first, half of them within 5.00 ms")
    assert english(part["late_caption"]).startswith("None of 9 messages came")
    assert part["prefill"] is None and "step" not in english(part["caption"])


def deep(n):
    found: object = 1
    for _ in range(n):
        found = {"a": [found]}
    return found


def test_json_of_deeply_nested_usage(tmp_path, capsys):
    known = replace(TOGETHER.exchange, usage={"completion_tokens": 5, "more": deep(450)})
    path = served_tape(tmp_path / "a.tape", kinds=[replace(TOGETHER, exchange=known)], scrapes=())
    assert run(["show", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["exchanges"][0]["usage"]["completion_tokens"] == 5
    assert found["served"]["stamps"] == {"kernel": 1}
    assert set(found["runs"][0]["steps"]["kind_name"]) == {"chunk"}


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_list_has_the_throughput_of_requests(tmp_path, lang):
    path = served_tape(tmp_path / "a.tape", kinds=[TOGETHER] * 3, scrapes=())
    line = line_of(path)
    with open_tape(path) as tape:
        found = served_summary(tape)
    assert (line.n_requests, line.n_tokens, line.requests_per_s) == (3, 15, found.requests_per_s)
    assert line.tokens_per_s == pytest.approx(15e9 / (2 * 25 * MS + 31 * MS))
    text = tape_list([line], Screen(width=160, encoding="utf-8", lang=lang))
    assert ("requests/s" if lang == "en" else "请求/秒") in text and "185.2" in text and "37.04" in text


def test_two_loads_say_what_they_were_told_to_do_differently(tmp_path):
    plans = [{"kind": "poisson", "rate": rate, "seed": 0, "calibrated": [[1, rate]]} for rate in (4.0, 8.0)]
    paths = [
        served_tape(tmp_path / f"{i}.tape", kinds=[TOGETHER], scrapes=(), notes={"load": plan})
        for i, plan in enumerate(plans)
    ]
    with open_tape(paths[0]) as a, open_tape(paths[1]) as b:
        told = loads_message(a, b)
        assert told is not None and said(told, "en") == "The loads differ: rate 4.0 | 8.0."
        assert loads_message(a, a) is None
