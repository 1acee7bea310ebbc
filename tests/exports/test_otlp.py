"""The spans are what OTLP says, read by OpenTelemetry's own protocol buffers, and say what the tape says."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hostile import HOSTILE, hostile_tape, some_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from data.tapes import SETTING, alter, write_run, write_tape
from study.paper import FIVE, paper
from tokentape.data import Run, Tape, TapeWriter, TraceHead, open_tape
from tokentape.errors import UsageError
from tokentape.exports.exporting import export
from tokentape.exports.otlp_names import FINISH_REASONS
from tokentape.study.metrics import ttft_ns

ORIGIN = 10**18


def written(tape: Tape | Path, folder: Path, **more: Any) -> list[Any]:
    path = folder / "t.json"
    export(tape, path, to="otlp", overwrite=True, **more)
    text = path.read_text("utf-8")
    request = json_format.Parse(text, ExportTraceServiceRequest())  # raises for a field that it does not know
    (resource,) = request.resource_spans
    (scope,) = resource.scope_spans
    assert plain(resource.resource.attributes)["service.name"] == "tokentape"
    spans = list(scope.spans)
    # Protocol buffers read ids as base64, OTLP writes them as hexadecimal digits.
    for raw, span in zip(json.loads(text)["resourceSpans"][0]["scopeSpans"][0]["spans"], spans, strict=True):
        for name, field, digits in (
            ("traceId", "trace_id", 32),
            ("spanId", "span_id", 16),
            ("parentSpanId", "parent_span_id", 16),
        ):
            if name in raw:
                assert len(raw[name]) == digits and int(raw[name], 16) > 0
                setattr(span, field, bytes.fromhex(base64.b64encode(getattr(span, field)).decode()))
    check_family(spans)
    return spans


def check_family(spans: list[Any]) -> None:
    assert len({span.span_id for span in spans}) == len(spans)
    roots = {span.span_id: span for span in spans if not span.parent_span_id}
    assert len({span.trace_id for span in roots.values()}) == len(roots)
    for span in spans:
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        if span.parent_span_id:
            parent = roots[span.parent_span_id]
            assert span.trace_id == parent.trace_id
            assert parent.start_time_unix_nano <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= parent.end_time_unix_nano


def plain(attributes: Any) -> dict[str, Any]:
    return {one.key: value_of(one.value) for one in attributes}


def value_of(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(one) for one in value.array_value.values]
    return plain(value.kvlist_value.values) if kind == "kvlist_value" else getattr(value, kind)


def roots(spans: list[Any]) -> list[Any]:
    return [span for span in spans if not span.parent_span_id]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tape(tmp_path_factory.mktemp("tape") / "cat.tape")


def test_a_span_for_each_sequence(file: Path, tmp_path: Path) -> None:
    spans = written(file, tmp_path)
    with open_tape(file) as tape:
        for span, trace in zip(roots(spans), tape.traces, strict=True):
            found = plain(span.attributes)
            ends = dict(zip(trace.steps["index"].tolist(), trace.steps["end_ns"].tolist(), strict=True))
            assert span.name == "text_completion demo" and span.kind == Span.SPAN_KIND_INTERNAL
            assert span.start_time_unix_nano == ORIGIN + trace.run.start_ns
            assert span.end_time_unix_nano == ORIGIN + ends[int(trace.tokens["step"][-1])]
            assert found["gen_ai.operation.name"] == "text_completion" and found["gen_ai.provider.name"]
            assert found["gen_ai.request.model"] == "demo" and found["gen_ai.request.max_tokens"] == 6
            assert found["gen_ai.request.temperature"] == 0.5 and found["gen_ai.request.seed"] == 2**62
            assert (
                found["gen_ai.usage.input_tokens"] == 3 and found["gen_ai.usage.output_tokens"] == trace.tokens.n_rows
            )
            assert found["gen_ai.response.finish_reasons"] == [FINISH_REASONS[trace.finish_reason]]
            assert found["gen_ai.response.time_to_first_chunk"] == ttft_ns(trace) / 1e9
            assert span.status.code == Status.STATUS_CODE_UNSET and "error.type" not in found
        children = [span for span in spans if span.parent_span_id]
        assert [span.name for span in children] == ["prefill", "decode"] * len(tape.traces)
        steps = tape.traces[0].steps
        assert children[0].start_time_unix_nano == ORIGIN + int(steps["start_ns"][0])
        assert children[0].end_time_unix_nano == ORIGIN + int(steps["end_ns"][0])
        assert plain(children[1].attributes)["tokentape.tokens"] == tape.traces[0].tokens.n_rows - 1


def test_the_same_tape_is_the_same_trace(file: Path, tmp_path: Path) -> None:
    first, again = written(file, tmp_path), written(file, tmp_path, tokens=True)
    assert [span.span_id for span in first] == [span.span_id for span in again]
    other = write_tape(tmp_path / "other.tape")
    alter(other, "update tape set value = '1000000000000000001' where key = 'origin_unix_ns'")
    assert not {span.trace_id for span in first} & {span.trace_id for span in written(other, tmp_path)}


def test_content_only_where_it_is_asked_for(file: Path, tmp_path: Path) -> None:
    for more in ({}, {"tokens": True}, {"text": False}):
        spans = written(file, tmp_path, **more)
        assert "prompt 0" not in (tmp_path / "t.json").read_text("utf-8")
        assert not any(name.endswith("messages") for span in spans for name in plain(span.attributes))
        assert not any("tokentape.token.id" in plain(event.attributes) for span in spans for event in span.events)
    with open_tape(file) as tape:
        for span, trace in zip(roots(written(file, tmp_path, text=True)), tape.traces, strict=True):
            found = plain(span.attributes)
            assert found["gen_ai.input.messages"] == [
                {"role": "user", "parts": [{"type": "text", "content": trace.prompt_text}]}
            ]
            (answer,) = found["gen_ai.output.messages"]
            assert answer["role"] == "assistant" and answer["parts"] == [{"type": "text", "content": trace.text}]
            assert [answer["finish_reason"]] == found["gen_ai.response.finish_reasons"]


def test_what_a_guard_took_out_stays_out(tmp_path: Path) -> None:
    file = write_tape(tmp_path / "ruled.tape", n_runs=0, ruled=True)
    spans = roots(written(file, tmp_path, text=True, tokens=True))
    with open_tape(file) as tape:
        for span, trace in zip(spans, tape.traces, strict=True):
            assert trace.shown != trace.text
            (answer,) = plain(span.attributes)["gen_ai.output.messages"]
            assert answer["parts"][0]["content"] == trace.shown
            assert not any(
                {"tokentape.token.text", "tokentape.token.id"} & plain(e.attributes).keys() for e in span.events
            )
    assert plain(spans[1].attributes)["gen_ai.response.finish_reasons"] == ["content_filter"]
    spans = roots(written(file, tmp_path, text=True, tokens=True, withheld=True))
    with open_tape(file) as tape:
        (answer,) = plain(spans[0].attributes)["gen_ai.output.messages"]
        assert answer["parts"][0]["content"] == tape.traces[0].text


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tokens=st.lists(some_bytes, min_size=1, max_size=8))
def test_an_event_for_each_token(tmp_path: Path, tokens: list[bytes]) -> None:
    with timed(hostile_tape(tokens)) as tape:
        (span, *_) = written(tape, tmp_path, text=True, tokens=True)
        columns = {name: column.tolist() for name, column in tape.traces[0].tokens.items()}
        ends = tape.traces[0].steps["end_ns"].tolist()
    found = [plain(event.attributes) for event in span.events]
    for name in ("position", "id", "logprob", "entropy", "rank"):
        assert [one.get(f"tokentape.token.{name}") for one in found] == columns[name]
    assert [one["tokentape.token.text"] for one in found] == [data.decode("utf-8", "replace") for data in tokens]
    assert [event.time_unix_nano for event in span.events] == [ORIGIN + ns for ns in ends]


def timed(tape: Tape) -> Tape:
    """A tape on paper with a time of day."""
    tape.notes = {**tape.notes, "origin_unix_ns": ORIGIN}
    return tape


def test_every_hostile_token_at_once(tmp_path: Path) -> None:
    with timed(hostile_tape(HOSTILE)) as tape:
        (span, *_) = written(tape, tmp_path, text=True, tokens=True)
        assert plain(span.attributes)["gen_ai.output.messages"][0]["parts"][0]["content"] == tape.traces[0].text


def test_runs_that_failed_were_cut_short_or_were_served(tmp_path: Path) -> None:
    with timed(paper(*FIVE)) as tape:
        spans = roots(written(tape, tmp_path))
    found = [plain(span.attributes) for span in spans]
    assert [one.get("error.type") for one in found] == [None, None, "_OTHER", "interrupted", None]
    assert [one["gen_ai.response.finish_reasons"] for one in found] == [
        ["stop"],
        ["length"],
        ["error"],
        ["error"],
        ["stop"],
    ]
    assert [span.status.code == Status.STATUS_CODE_ERROR for span in spans] == [False, False, True, True, False]
    assert [span.kind == Span.SPAN_KIND_CLIENT for span in spans] == [False] * 4 + [True]
    assert [one.get("gen_ai.request.stream") for one in found] == [None] * 4 + [True]


def test_a_greedy_run_has_no_temperature(tmp_path: Path) -> None:
    writer = TapeWriter.create(tmp_path / "g.tape", SETTING, notes={"origin_unix_ns": ORIGIN})
    head = TraceHead(0, 1, (1,), "x")
    begun = writer.begin(
        Run((head,), {"do_sample": False, "temperature": 0.7, "top_k": 50, "stop_strings": ["END"]}, start_ns=0)
    )
    writer.end(begun.number, ["stop"])
    writer.close().close()
    (span,) = written(tmp_path / "g.tape", tmp_path)
    assert not {name for name in plain(span.attributes) if name.startswith("gen_ai.request.")} - {
        "gen_ai.request.model"
    }
    (span,) = written(tmp_path / "g.tape", tmp_path, text=True)
    assert plain(span.attributes)["gen_ai.request.stop_sequences"] == ["END"]


def test_a_tape_without_a_time_of_day_is_refused(tmp_path: Path) -> None:
    with hostile_tape([b"a"]) as tape:
        tape.notes = {name: value for name, value in tape.notes.items() if name != "origin_unix_ns"}
        with pytest.raises(UsageError, match="when it was made"):
            export(tape, tmp_path / "t.json", to="otlp")
    assert list(tmp_path.iterdir()) == []


def test_a_growing_tape_is_exported_as_it_is(tmp_path: Path) -> None:
    writer = TapeWriter.create(tmp_path / "g.tape", SETTING, notes={"origin_unix_ns": ORIGIN})
    write_run(writer, end=False)
    spans = written(tmp_path / "g.tape", tmp_path)
    writer.close().close()
    assert len(roots(spans)) == 2
    assert plain(spans[0].attributes)["gen_ai.response.finish_reasons"] == ["error"]
