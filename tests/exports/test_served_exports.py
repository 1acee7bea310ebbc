"""Exports of an endpoint's tape: a timeline of flights, spans with what the server said, tables of exchanges and readings."""

from __future__ import annotations

import csv
import itertools
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from exports.test_otlp import plain, roots
from exports.test_otlp import written as spans_of
from exports.test_perfetto import written as events_of
from served_tapes import EVERY_NS, KINDS, MS, served_tape
from tokentape.data import open_tape
from tokentape.data.request import FINISH_REASONS
from tokentape.data.schema import EXCHANGE_COLUMNS
from tokentape.exports.exporting import export
from tokentape.exports.otlp_names import FINISH_REASONS as WORDS
from tokentape.study.served import flights, in_flight, most_in_flight

SECRETS = (b"try later", b"Tell me", b"Once upon", "🐈".encode())


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served_tape(tmp_path_factory.mktemp("served") / "cat.tape")


def test_a_flight_is_a_slice_with_its_parts(file, tmp_path):
    events = events_of(file, tmp_path)
    requests = {event["name"]: event for event in events if event.get("cat") == "request"}
    assert len(requests) == len(KINDS) and "run 3: http_error" in requests
    first = requests["run 0"]
    assert first["ts"] * 1000 == 9 * MS and first["dur"] * 1000 == 43 * MS  # from connecting to the end of the stream
    assert first["args"]["ttft_ns"] == 29 * MS and first["args"]["schedule_delay_ns"] == 2 * MS
    mine = [e for e in events if e.get("cat") == "part" and e["tid"] == first["tid"] and e["ts"] < 52_000]
    parts = [(event["name"], round(event["dur"] * 1000)) for event in mine]
    assert parts == [
        ("connecting", 750_000),
        ("before sending", 250_000),
        ("waiting for the first byte", 8 * MS),
        ("waiting for content", 21 * MS),
        ("streaming", 11 * MS),
        ("ending", 2 * MS),
    ]


def test_there_are_as_many_tracks_as_requests_at_a_time(file, tmp_path):
    events = events_of(file, tmp_path)
    busy: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "request":
            busy[event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for spans in busy.values():
        spans.sort()
        assert all(end < start for (_, end), (start, _) in itertools.pairwise(spans))
    with open_tape(file) as tape:
        assert len(busy) in (most_in_flight(flights(tape)), most_in_flight(flights(tape)) + 1)  # connecting counts here


def test_chunks_and_counters(file, tmp_path):
    events = events_of(file, tmp_path)
    chunks = [event for event in events if event.get("cat") == "chunk"]
    assert sum(event["args"]["tokens"] for event in chunks) == sum(len(t) for kind in KINDS for _, t in kind.chunks)
    assert any(event["name"] == " cat 🐈" and event["args"]["tokens"] == 2 for event in chunks)
    counters = defaultdict(list)
    for event in events:
        if event["ph"] == "C":
            counters[event["name"]].append((round(event["ts"] * 1000), event["args"]["value"]))
    with open_tape(file) as tape:
        assert counters["requests in flight"] == list(zip(*in_flight(flights(tape)), strict=True))
    assert counters["server vllm:kv_cache_usage_perc"][1] == (52 * MS, 0.125)


def test_spans_say_what_the_server_said(file, tmp_path):
    found = [(span, plain(span.attributes)) for span in roots(spans_of(file, tmp_path))]
    span, said = found[0]
    assert span.end_time_unix_nano == 10**18 + 52 * MS and span.start_time_unix_nano == 10**18 + 10 * MS
    assert said["gen_ai.response.model"] == "demo-1" and said["gen_ai.response.id"] == "cmpl-1"
    assert said["gen_ai.usage.input_tokens"] == 5 and said["gen_ai.usage.output_tokens"] == 4
    assert said["gen_ai.usage.cache_read.input_tokens"] == 2 and said["gen_ai.provider.name"] == "vllm"
    assert said["gen_ai.response.time_to_first_chunk"] == 0.029 and said["tokentape.time_to_first_byte"] == 0.008
    assert said["tokentape.schedule_delay"] == 0.002 and said["tokentape.connect_time"] == 0.00075
    assert said["server.address"] == "127.0.0.1" and said["server.port"] == 8000 and said["tokentape.label"] == "exact"
    assert said["http.response.status_code"] == 200 and "error.type" not in said
    by_name = dict(zip([n for kind in KINDS for n in [kind.name] * kind.n_traces], found, strict=True))
    failed, said = by_name["http_error"]
    assert failed.status.message == "http_error" and said["error.type"] == "http_error"
    assert said["http.response.status_code"] == 503 and not any("try later" in str(one) for one in said.values())
    assert by_name["retried"][1]["http.request.resend_count"] == 1
    assert by_name["turn 1"][1]["gen_ai.conversation.id"] == "talk 1"
    assert by_name["reasoning"][1]["gen_ai.usage.reasoning.output_tokens"] == 3
    reasons = {name: one[1]["gen_ai.response.finish_reasons"] for name, one in by_name.items()}
    assert reasons["tool"] == ["tool_call"] and reasons["filtered"] == ["content_filter"]
    assert reasons["no_done"] == ["unsaid"]


def test_every_reason_has_a_word_but_those_that_are_said_as_they_are():
    assert {reason for reason in FINISH_REASONS if reason not in WORDS} == {"given", "unsaid"}


@pytest.mark.parametrize("url", ["http://[", "http://a:b", "", 7, "x" * 9000])
def test_an_address_that_is_none_spoils_nothing(tmp_path, url):
    from dataclasses import replace

    import served_tapes

    setting = replace(served_tapes.SETTING, facts={**served_tapes.SETTING.facts, "url": url})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(served_tapes, "SETTING", setting)
        path = served_tape(tmp_path / "a.tape")
    for span in roots(spans_of(path, tmp_path)):
        assert "server.port" not in plain(span.attributes)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_tables_of_exchanges_and_readings(file, tmp_path):
    export(file, tmp_path / "csv", to="csv")
    export(file, tmp_path / "parquet", to="parquet")
    table = pq.read_table(tmp_path / "parquet" / "exchanges.parquet")
    assert table.column_names == [column.name for column in EXCHANGE_COLUMNS]
    with open_tape(file) as tape:
        for column in EXCHANGE_COLUMNS:
            held: list[Any] = [getattr(one, column.name) for one in tape.exchanges.values()]
            read = table[column.name].to_pylist()
            assert (
                [None if v is None else json.loads(v) for v in read] == held if column.dtype == "json" else read == held
            )
        scrapes = pq.read_table(tmp_path / "parquet" / "scrapes.parquet").to_pylist()
        told = [
            (i, one.source, one.ended_ns, k, v) for i, one in enumerate(tape.scrapes) for k, v in one.values.items()
        ]
    assert [tuple(row[k] for k in ("scrape", "source", "ended_ns", "metric", "value")) for row in scrapes] == told
    exchanges = rows_of(tmp_path / "csv" / "exchanges.csv")
    assert exchanges[3]["error"] == r"the queue is full: \u001b[31mtry later" and exchanges[3]["status"] == "503"
    assert exchanges[4]["retry_of"] == "3" and exchanges[0]["retry_of"] == "" and len(exchanges) == len(KINDS) - 1
    assert int(exchanges[1]["sent_ns"]) == 10 * MS + EVERY_NS + 30_000
    channels = [row["channel"] for row in rows_of(tmp_path / "csv" / "tokens.csv") if row["trace"] == "7"]
    assert channels == ["reasoning"] * 3 + ["text"]


@pytest.mark.parametrize("to", ["csv", "parquet", "perfetto", "otlp"])
def test_without_text_there_is_none(file, tmp_path, to):
    place = tmp_path / "out"
    export(file, place, to=to, text=False)
    for path in [place] if place.is_file() else place.iterdir():
        data = path.read_bytes()
        assert not any(secret in data for secret in SECRETS), path


def test_a_tape_without_a_server_has_no_such_tables(tmp_path):
    from data.tapes import write_tape

    path = write_tape(tmp_path / "cat.tape")
    export(path, tmp_path / "csv", to="csv")
    (tmp_path / "csv" / "exchanges.csv").write_text("stale")
    export(path, tmp_path / "csv", to="csv", overwrite=True)
    assert not (tmp_path / "csv" / "exchanges.csv").exists()


def test_one_sequence_alone(file, tmp_path):
    events = events_of(file, tmp_path, traces=[6])
    assert [event["name"] for event in events if event.get("cat") == "request"] == ["run 5"]
    export(file, tmp_path / "csv", to="csv", traces=[0])
    assert len(rows_of(tmp_path / "csv" / "exchanges.csv")) == 1
