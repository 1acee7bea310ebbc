"""What people see of an endpoint's tape claims no more than is on it: shared reads, failures, imports, odd JSON, lists."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from served_tapes import KINDS, LATE_CLIENT, MS, Served, passed, served_tape, usage, words
from tokentape.cli.program import run
from tokentape.data import open_tape
from tokentape.study.comparability import load_differences
from tokentape.study.compare import compare
from tokentape.study.served_summary import served_summary
from tokentape.views.card import card
from tokentape.views.compare_words import loads_message
from tokentape.views.comparison import comparison_markdown, comparison_text
from tokentape.views.folder import line_of
from tokentape.views.listing import tape_list
from tokentape.views.page.document import page_document
from tokentape.views.screen import Screen
from tokentape.views.served_text import shared_message
from tokentape.views.text import show
from tokentape.words.catalogue import Message, said
from tokentape.words.retold import retold

SCREEN = Screen(width=120, encoding="utf-8", color=False, lang="en")
SHARED = (
    "3 of 5 messages came together with others or with the end of the answer, in 1 read: the gaps before and within that read"
    " are not measured"
)
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
        found = load_differences(a, b)
        told = loads_message(found)
        assert told is not None and said(told, "en").startswith("The loads differ (rate 4 | 8), ")
        assert loads_message(load_differences(a, a)) is None


LOADS = {
    "the rate": ({"rate": 4.0}, {"rate": 8.0}, "rate 4 | 8"),
    "how they came, and for how long": (
        {"kind": "poisson", "duration_ns": 10**10},
        {"kind": "gamma", "duration_ns": 5 * 10**9},
        "kind poisson | gamma; duration 10 s | 5 s",
    ),
    "a load beside a tape of none": ({"loop": "closed", "concurrency": 8, "seed": 3}, None, "concurrency 8 | none"),
    "what was found out, not told": ({"rate": 4.0, "calibrated": [1]}, {"rate": 4.0, "calibrated": [2]}, None),
}


@pytest.mark.parametrize(("first", "second", "told"), LOADS.values(), ids=LOADS)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_verdict_on_tapes_of_other_loads_is_never_without_these(tmp_path, first, second, told, lang):
    paths = []
    for name, plan in (("a", first), ("b", second)):
        paths.append(served_tape(tmp_path / f"{name}.tape", kinds=[TOGETHER] * 3, scrapes=(), notes={"load": plan}))
    found = compare(*paths)
    text = comparison_text(found, Screen(width=400, encoding="utf-8", lang=lang))
    verdict, load = text.split("\n")[0], [line for line in text.split("\n") if line.startswith(("load  ", "负载  "))]
    if told is None:
        assert found.loads == () and not load and "loads differ" not in verdict and "负载不同" not in verdict
        return
    assert told in verdict and told in load[0] and told in comparison_markdown(found)
    assert ("need not be a difference of the servers" if lang == "en" else "未必是服务器的差异") in verdict
    assert [(one["kind"], one["name"]) for one in found.as_dict()["loads"]][-1][0] == "load"


def test_one_sentence_tells_of_messages_gaps_and_those_that_the_client_missed(tmp_path):
    """Seven messages in three reads: of the four gaps that are lost the client counts two as its own doing."""
    chunks = (
        (20 * MS, words(" a")),
        (6 * MS, words(" b")),
        *((0, words(" c")) for _ in range(3)),
        (4 * MS, words(" d")),
    )
    kinds = [replace(TOGETHER, chunks=(*chunks, (0, words(" e"))))]
    client = {"bottleneck": False, "gaps": {"n": 6, "shared": 4, "missed": 2}}
    path = served_tape(tmp_path / "a.tape", kinds=kinds, scrapes=(), client=client)
    with open_tape(path) as tape:
        told = said(shared_message(tape, served_summary(tape)), "en")
        assert "in 2 reads: the gaps before and within these are not measured" in told and told.startswith(
            "6 of 7 messages"
        )
        assert told.endswith(", 2 of them because the client had not looked for a millisecond")
        assert told in " ".join(show(tape, Screen(width=400)).split("\n"))
        findings = page_document(tape)["tape"]["overview"]["findings"]
        assert any(said(Message.of(one["text"])) == told for one in findings)


@pytest.mark.parametrize(
    ("label", "reason", "told", "chinese"),
    [
        (
            "coarse",
            "the server counts 8 tokens, and 5 came",
            ", since the server counts 8 tokens, and 5 came",
            "实际到达 5 个",
        ),
        ("counted", "something\x1b[31m else", r", since something\x1b[31m else", r"，因为something\x1b[31m else"),
    ],
)
def test_why_the_tokens_are_told_no_better_stands_with_the_label(tmp_path, label, reason, told, chinese):
    known = replace(TOGETHER.exchange, label=label, server={"prompt_ms": 2.5, "label_reason": reason})
    with tape_of(tmp_path, replace(TOGETHER, exchange=known), TOGETHER) as tape:
        assert served_summary(tape).as_dict()["label_reasons"] == {label: reason}
        for lang, words in (("en", told), ("zh", chinese)):
            lines = show(tape, Screen(width=300, encoding="utf-8", lang=lang), traces=[0]).split("\n")
            assert sum(words in line for line in lines) == 2, "in the card, and in full"
            exact = show(tape, Screen(width=300, encoding="utf-8", lang=lang), traces=[1]).split("\n")
            assert sum(words in line for line in exact) == 1, "of the other request there is nothing to say"


REASONS = (
    "the server counts 8 tokens, the last 1 of them in no message",
    "the tokens of a message are counted, not told",
    "the tokens of some messages are neither told nor counted",
    "the tokens of a message are neither told nor counted",
    "3 of the messages are more than a token, although there are as many as tokens",
    "as many messages with text came as tokens, and each of them may be one",
    "the server's count goes back by 2 tokens",
    "the server counts 9 tokens in a message of 4 bytes",
    "2 ids and 3 log-probabilities in one message",
    "every message repeats the ids of the one before",
    "12 words came, and 9 tokens are told",
    "the text of a message is not that of its tokens",
)


@pytest.mark.parametrize("reason", REASONS)
def test_a_reason_has_its_chinese_words_and_keeps_its_numbers(reason):
    told = retold(reason, "zh", "served.reason")
    assert not re.search("[a-z]", told)
    assert sorted(re.findall(r"\d+", told)) == sorted(re.findall(r"\d+", reason))


def test_requests_that_were_placed_nowhere_were_sent_at_no_moment(tmp_path):
    """Of imported results that do not say when requests began each begins at 0: that is none of its times."""
    kinds = [
        replace(TOGETHER, exchange=replace(TOGETHER.exchange, connect_ns=None, connected_ns=None, sent_ns=None))
    ] * 2
    notes = {"imported": {"tool": "vllm", "lacks": ["starts"]}}
    with tape_of(tmp_path, *kinds, notes=notes, client=None) as tape:
        text = show(tape, Screen(width=300))
        rows = [line.split() for line in text.split("\n") if line.endswith("stop") and "exact" in line]
        assert [row[1:3] for row in rows] == [["n/a", "n/a"]] * 2
        assert [row[3:5] for row in rows] == [["20.0", "ms"]] * 2
        assert "after the tape's origin" not in text and "late" not in text and "open already" not in text
    (tmp_path / "b").mkdir()
    with tape_of(tmp_path / "b", *kinds) as tape:
        assert "after the tape's origin" in show(tape, Screen(width=300))
