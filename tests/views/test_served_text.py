"""An endpoint's tape on a terminal: its end card, the table of requests, each in full."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from served_tapes import CLIENT, KINDS, LATE_CLIENT, MS, Served, loaded_tape, passed, served_tape, words
from tokentape.cli.program import run
from tokentape.data import open_tape
from tokentape.data.exchange import FAULTS, LABELS
from tokentape.study.served import flights
from tokentape.views.card import card
from tokentape.views.screen import Screen
from tokentape.views.served_text import request_table
from tokentape.views.text import show

SCREEN = Screen(width=120, encoding="utf-8", color=False, lang="en")
CHINESE = Screen(width=120, encoding="utf-8", color=False, lang="zh")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served_tape(tmp_path_factory.mktemp("served") / "cat.tape")


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return loaded_tape(tmp_path_factory.mktemp("load") / "load.tape", 250)


def lines_of(text: str) -> dict[str, str]:
    """The labelled lines of a card."""
    return {line[2:16].strip(): line[16:].strip() for line in text.splitlines() if line.startswith("  ")}


def test_the_end_card_says_how_the_requests_went(file):
    with open_tape(file) as tape:
        text = card(tape, SCREEN)
    said = lines_of(text)
    assert text.splitlines()[0].startswith("demo at http://127.0.0.1:8000 (vllm): 15 requests")
    assert said["requests"] == "11 answered, 3 failed, 1 not finished; 1 sent again; at most 2 at once"
    assert said["tokens"] == (
        "told one by one in 9 requests (exact); counted a chunk in 2 (counted); as pieces of text in 1 (coarse); no chunk in 2"
    )
    assert said["answer"].startswith("HTTP 503 for 1; most often in the words: the queue is full")
    assert said["faults"] == "http_error 1, no_done 1, refused 1, reset 1"
    assert said["TTFT"] == "14.0 ms to 31.0 ms (n = 13)"  # too few for a percentile: the ends are told
    assert said["since due"] == "TTFT 16.0 ms to 33.0 ms (n = 12)"
    assert said["token gap"] == "3.00 ms to 8.00 ms (n = 9); 7 more are not measured"  # of chunks of several tokens
    assert said["E2E"] == "15.0 ms to 40.0 ms (n = 11)"  # of those that were answered
    assert said["answer time"] == "16.0 ms to 42.0 ms (n = 11)"
    assert said["client"] == "kept up: sent 210 us late, read 90.0 us after arrival (p99)"
    assert said["server"] == "says of itself (median of 1): prompt_ms 18.5, predicted_ms 11"
    assert said["readings"].startswith("16 readings of 6 metrics from server, client 0")
    assert "\x1b" not in text


def test_a_client_that_was_the_bottleneck_is_said_to_be(tmp_path):
    with open_tape(served_tape(tmp_path / "a.tape", client=LATE_CLIENT)) as tape:
        assert "was the bottleneck, not the server: requests were sent 88 ms late" in card(tape, SCREEN)
        assert "瓶颈在客户端而非服务器" in card(tape, CHINESE)


@pytest.mark.parametrize(
    "noted", [None, 7, {}, {"bottleneck": "yes"}, {"bottleneck": True, "reasons": 3}, {"read_lag_ns": {"p99": "x\x1b"}}]
)
def test_notes_of_another_kind_spoil_nothing(tmp_path, noted):
    path = served_tape(tmp_path / "a.tape", client=None, notes={} if noted is None else {"client": noted})
    with open_tape(path) as tape:
        text = card(tape, SCREEN)
    assert "15 requests" in text and "\x1b" not in text


def test_few_requests_are_a_table_and_many_the_telling_ones(file, load):
    with open_tape(file) as tape:
        text = show(tape, SCREEN)
    rows = [line.split() for line in text.splitlines() if line[:5].strip()[:1].isdigit()]
    assert len(rows) == len(KINDS)
    assert ["5-6", "133", "ms", "135", "ms", "14.0", "ms", "20.0", "ms", "22.0", "ms", "4", "exact", "stop"] in rows
    assert ["13", "308", "ms", "310", "ms", "n/a", "n/a", "1.00", "ms", "n/a", "-", "refused"] in rows
    assert "sequence 0" not in text and "--trace N shows one in full" in text
    with open_tape(load) as tape:
        found = flights(tape)
        text = "\n".join(request_table(found, SCREEN, 40))
        shown = {int(line[:5]) for line in text.splitlines() if line[:5].strip().isdigit()}
        slowest = max(found, key=lambda one: one.ttft_ns or 0)
        faults = {one.run for one in found if one.fault}
        assert len(shown) <= 40 and slowest.run in shown and faults <= shown and {0, 1, 2} <= shown
        assert f"{250 - len(shown)} more requests: --rows 0 shows all" in text
        assert len(request_table(found, SCREEN, None)) == 250 + 3


def test_one_request_in_full(file):
    with open_tape(file) as tape:
        text = show(tape, SCREEN, traces=[0])
        assert "request of run 0" in text and "requests\n" not in text
        said = lines_of(text[text.index("request of run") :])
        assert said["due"] == "8.00 ms; sent 2.00 ms later" and said["connect"] == "750 us"
        assert said["first byte"] == "8.00 ms after sending" and said["first content"] == "29.0 ms after sending"
        assert said["last content"] == "40.0 ms after sending" and said["stream end"] == "42.0 ms after sending"
        assert said["label"].startswith("exact: each token is told") and "kernel" in said["stamps"]
        assert "prompt 5, completion 4, reasoning n/a, cached 2; 4 rows" in said["counts"]
        assert said["server"] == "prompt_ms 18.5, predicted_ms 11"
        chunks = [line.split() for line in text.splitlines() if line.startswith("    ")]
        assert ["2", "34.0", "ms", "2", "5.00", "ms", "1.00", "us"] in chunks  # k = 2
        assert ["0", "9.00", "ms", "0", "9.00", "ms", "1.00", "us"] in chunks
        again = lines_of(show(tape, SCREEN, traces=[4]))
        assert again["attempt"] == "attempt 2, repeats run 3"
        lost = show(tape, SCREEN, traces=[11])
        assert "reset: the connection was broken off; the rest is lost" in lost and "Connection reset by peer" in lost
        assert "did not come to its end" in show(tape, SCREEN, traces=[15])
        assert "on a connection that was open already" in show(tape, SCREEN, traces=[2])
        assert "no connection" in show(tape, SCREEN, traces=[13])
        assert "talk 1, turn 1" in show(tape, SCREEN, traces=[10])
        refused = show(tape, SCREEN, traces=[3])
        assert "HTTP 503" in refused and "try later" in refused and "\x1b" not in refused


def test_a_few_requests_are_shown_with_their_text(tmp_path):
    chunks = ((20 * MS, words(" ab")), (5 * MS, words(" cd")))
    kinds = [Served(f"{i}", chunks, passed(0, MS, 30 * MS, label="exact")) for i in range(2)]
    with open_tape(served_tape(tmp_path / "a.tape", kinds=kinds)) as tape:
        text = show(tape, SCREEN)
    assert text.count("request of run") == 2 and text.count("   ab cd") == 2 and "requests\ntrace" in text


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_each_label_has_its_sentence(tmp_path, label, lang):
    kinds = [Served("a", ((MS, words("x")),), passed(0, MS, 3 * MS, label=label))]
    with open_tape(served_tape(tmp_path / "a.tape", kinds=kinds)) as tape:
        text = show(tape, Screen(width=120, encoding="utf-8", lang=lang))
    assert f"{label}{':' if lang == 'en' else '：'}" in text


@pytest.mark.parametrize("fault", [*FAULTS, "gremlins"])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_each_fault_has_its_sentence(tmp_path, fault, lang):
    kinds = [Served("a", (), passed(0, MS, 3 * MS, fault=fault, error="\x1b[2Jout"), ("error",))]
    with open_tape(served_tape(tmp_path / "a.tape", kinds=kinds)) as tape:
        text = show(tape, Screen(width=120, encoding="utf-8", lang=lang))
    assert f"{fault}{': ' if lang == 'en' else '：'}" in text and "\x1b" not in text and "served." not in text


def test_a_request_of_many_chunks_says_how_many_it_leaves_out(tmp_path):
    chunks = tuple((MS, words("x")) for _ in range(60))
    with open_tape(
        served_tape(tmp_path / "a.tape", kinds=[Served("a", chunks, passed(0, MS, 70 * MS, label="exact"))])
    ) as tape:
        assert "20 more chunks: --rows 0 shows all" in show(tape, SCREEN)
        assert "more chunks" not in show(tape, SCREEN, rows=None)


def test_the_command(file, capsys):
    assert run(["show", str(file), "--series", "in_flight,ttft", "--rows", "2"]) == 0
    said = capsys.readouterr().out
    assert "ttft_ns" in said and "in_flight" in said and "tape\t" in said
    assert run(["show", str(file), "--series", "vllm:kv_cache_usage_perc", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["courses"]
    assert [one["name"] for one in found] == ["vllm:kv_cache_usage_perc"] and found[0]["values"][:3] == [0, 0.125, 0.25]
    assert run(["show", str(file), "--series", "list"]) == 0
    assert "vllm:prompt_tokens_total (server)" in capsys.readouterr().out
    assert run(["show", str(file), "--series", "vllm:nothing"]) == 2
    capsys.readouterr()
    assert run(["show", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["served"]["n_requests"] == 15 and found["exchanges"][3]["fault"] == "http_error"
    assert len(found["scrapes"]) == 16 and found["notes"]["client"] == CLIENT
