"""A tape as OpenTelemetry traces: OTLP as JSON, one ExportTraceServiceRequest, for any collector.

A span for each sequence, from the moment its request was handed over to its last token, with a child for reading the
prompt and one for what followed. Neither prompt nor answer is in it unless asked for: nor are ids of tokens, or stop
sequences. Ids of traces and spans are hashes of the recording, so that a tape exported twice is the same trace.

Format: OTLP 1.x, JSON encoding (proto3 JSON but for ids, which are hexadecimal, and enumerations, which are numbers).
Names: :mod:`tokentape.exports.otlp_names`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import urlsplit

import numpy as np

import tokentape.exports.otlp_names as names
from tokentape._version import __version__
from tokentape.data.schema import KINDS
from tokentape.errors import UsageError
from tokentape.study.served import flight_of
from tokentape.study.times import token_times_ns, ttft_ns

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = ["write_otlp"]

_INTERNAL, _CLIENT = 1, 3  # SpanKind
_ERROR = 2  # StatusCode

_WORDS = {math.inf: "Infinity", -math.inf: "-Infinity"}

_TOKEN_COLUMNS = ("position", "id", "logprob", "entropy", "rank", "rules_logprob", "forced")


def write_otlp(
    tape: Tape,
    traces: Sequence[Trace],
    file: TextIO,
    *,
    text: bool = False,
    tokens: bool = False,
    withheld: bool = False,
) -> None:
    """Write the spans of ``traces``; with ``text`` also what was said, with ``tokens`` an event for each token.

    Of a sequence of which a guard withheld something the answer is what it let be seen, and events have neither text
    nor id, unless ``withheld``.

    Raises UsageError for a tape that does not say when it was made.
    """
    origin = tape.notes.get("origin_unix_ns")
    if not isinstance(origin, int):
        raise UsageError(
            "the tape does not say when it was made",
            why="spans have times of day, and its note `origin_unix_ns` is missing",
            fix="--to perfetto, whose times begin with the tape",
        )
    resource = {
        names.SERVICE_NAME: "tokentape",
        names.SERVICE_VERSION: __version__,
        names.FINGERPRINT: tape.setting.fingerprint,
        names.CONVENTIONS_NAME: names.CONVENTIONS,
    }
    scope = {"name": "tokentape", "version": __version__}
    file.write(f'{{"resourceSpans": [{{"resource": {{"attributes": {_dumped(_attributes(resource))}}},\n')
    file.write(f'"scopeSpans": [{{"scope": {_dumped(scope)}, "spans": [')
    separator = "\n"
    for trace in traces:
        for span in _Request(tape, trace, origin, withheld).spans(text=text, tokens=tokens):
            file.write(separator + _dumped(span))
            separator = ",\n"
    file.write("\n]}]}]}\n")


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Key and value of each that is not None."""
    return [{"key": key, "value": _value(value)} for key, value in values.items() if value is not None]


def _value(value: Any) -> dict[str, Any]:
    """A value as AnyValue: 64-bit integers are strings there, and infinities words."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value if math.isfinite(value) else _WORDS.get(value, "NaN")}
    if isinstance(value, Mapping):
        return {"kvlistValue": {"values": _attributes(value)}}
    if isinstance(value, (list, tuple)):
        return {"arrayValue": {"values": [_value(one) for one in value]}}
    return {"stringValue": str(value)}


class _Request:
    """One sequence as spans."""

    def __init__(self, tape: Tape, trace: Trace, origin: int, withheld: bool) -> None:
        self.tape, self.trace, self.origin = tape, trace, origin
        self.silent = trace.has_withheld and not withheld
        self.steps = {name: np.ma.asarray(column).tolist() for name, column in trace.steps.items()}
        self.times = token_times_ns(trace)
        steps = trace.tokens["step"].tolist()
        last = steps[-1] if steps else None
        # the steps until its last token: those after it are of other sequences of the batch
        self.mine = [i for i, index in enumerate(self.steps["index"]) if last is None or index <= last]

    def spans(self, *, text: bool, tokens: bool) -> Iterator[dict[str, Any]]:
        starts, ends = ([self.steps[name][i] for i in self.mine] for name in ("start_ns", "end_ns"))
        start = self.trace.run.start_ns if self.trace.run.start_ns is not None else min(starts, default=0)
        end = self.times[-1] if self.times else max(ends, default=start)
        passed = self.trace.exchange
        if passed is not None and passed.ended_ns is not None:  # the answer was over when its stream was
            end = max(end, passed.ended_ns, *ends)
        model = self.tape.setting.facts.get("model")
        served = KINDS.index("chunk") in self.steps["kind"] or passed is not None
        root = self._span("request", None, f"{names.TEXT_COMPLETION} {model}" if model else names.TEXT_COMPLETION)
        root |= {"kind": _CLIENT if served else _INTERNAL, **self._between(start, end)}
        root["attributes"] = _attributes(
            self._asked(text) | self._answered(served) | self._served() | (self._said() if text else {})
        )
        if tokens:
            root["events"] = list(self._events(text))
        error = names.ERRORS.get(self.trace.finish_reason)
        if error is not None:
            fault = None if passed is None else passed.fault
            root["status"] = {"code": _ERROR, "message": fault or self.trace.finish_reason}
        yield root
        for name, kinds in (("prefill", ("prefill",)), ("decode", ("decode",)), ("stream", ("chunk",))):
            rows = [i for i in self.mine if KINDS[self.steps["kind"][i]] in kinds]
            if rows:
                yield self._phase(name, rows, root["spanId"])

    def _phase(self, name: str, rows: Sequence[int], parent: str) -> dict[str, Any]:
        indices = {self.steps["index"][i] for i in rows}
        given = sum(step in indices for step in self.trace.tokens["step"].tolist())
        span = self._span(name, parent, name)
        span |= {"kind": _INTERNAL, **self._between(self.steps["start_ns"][rows[0]], self.steps["end_ns"][rows[-1]])}
        counted = {names.STEPS: len(rows), names.TOKENS: given, names.BATCH: self.steps["batch"][rows[0]]}
        return {**span, "attributes": _attributes(counted)}

    def _span(self, what: str, parent: str | None, name: str) -> dict[str, Any]:
        who = [self.tape.setting.fingerprint, self.origin, self.trace.run.number, self.trace.number]
        span = {"traceId": _hash(who)[:32], "spanId": _hash([*who, what])[:16]}
        return {**span, **({} if parent is None else {"parentSpanId": parent}), "name": name}

    def _between(self, start: int, end: int) -> dict[str, str]:
        return {"startTimeUnixNano": str(self.origin + start), "endTimeUnixNano": str(self.origin + end)}

    def _asked(self, text: bool) -> dict[str, Any]:
        facts, options = self.tape.setting.facts, self.trace.run.options
        known = dict(names.REQUEST_OPTIONS)
        if options.get("do_sample", True):  # a greedy run has a temperature too, which does nothing
            known |= names.SAMPLING_OPTIONS
        asked: dict[str, Any] = {
            names.OPERATION_NAME: names.TEXT_COMPLETION,
            names.PROVIDER_NAME: str(facts.get("engine") or "tokentape"),
            names.REQUEST_MODEL: facts.get("model"),
            names.REQUEST_SEED: self.trace.run.seed,
        }
        for option, (name, kind) in known.items():
            value = options.get(option)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                asked[name] = kind(value)
        for option, name in names.STOP_OPTIONS.items():
            stops = options.get(option)
            if text and stops and not isinstance(stops, Mapping):
                asked[name] = [stops] if isinstance(stops, str) else [str(stop) for stop in stops]
        return asked

    def _answered(self, served: bool) -> dict[str, Any]:
        trace, first = self.trace, ttft_ns(self.trace)
        return {
            names.REQUEST_STREAM: True if served else None,
            names.USAGE_INPUT_TOKENS: trace.n_prompt,
            names.USAGE_OUTPUT_TOKENS: trace.tokens.n_rows,
            names.RESPONSE_FINISH_REASONS: [self._finish()],
            # every step hands over what it gave, so in this process too there is a first chunk
            names.RESPONSE_TIME_TO_FIRST_CHUNK: None if first is None else first / 1e9,
            names.ERROR_TYPE: names.ERRORS.get(trace.finish_reason),
            names.FINISH_REASON: trace.finish_reason,
            names.TRACE: trace.number,
            names.RUN: trace.run.number,
            names.ROW: trace.row,
            names.BATCH: trace.run.n_traces,
        }

    def _served(self) -> dict[str, Any]:
        """What passed with a server; its own counts take the place of ours."""
        passed = self.trace.exchange
        if passed is None:
            return {}
        one, lone = flight_of([self.trace]), self.trace.run.n_traces == 1
        host, port = _server(str(self.tape.setting.facts.get("url") or ""))
        told: dict[str, Any] = {
            names.PROVIDER_NAME: str(self.tape.setting.facts.get("engine") or "openai"),
            names.RESPONSE_MODEL: passed.model,
            names.RESPONSE_ID: passed.request_id,
            names.CONVERSATION_ID: passed.conversation,
            names.USAGE_INPUT_TOKENS: passed.n_prompt if passed.n_prompt is not None else self.trace.n_prompt,
            names.USAGE_OUTPUT_TOKENS: one.n_tokens if lone else one.n_rows,
            names.USAGE_CACHE_READ: passed.n_cached,
            names.USAGE_REASONING: passed.n_reasoning,
            names.SERVER_ADDRESS: host,
            names.SERVER_PORT: port,
            names.HTTP_STATUS: passed.status,
            names.HTTP_RESEND: passed.attempt - 1 or None,
            names.LABEL: passed.label,
            names.FAULT: passed.fault,
        }
        if names.ERRORS.get(self.trace.finish_reason) is not None:
            told[names.ERROR_TYPE] = passed.fault or names.ERRORS[self.trace.finish_reason]
        times = {
            names.SCHEDULE_DELAY: one.schedule_delay_ns,
            names.TTFB: one.ttfb_ns,
            names.CONNECTING: one.connecting_ns,
        }
        return told | {name: None if ns is None else ns / 1e9 for name, ns in times.items()}

    def _finish(self) -> str:
        reason = self.trace.finish_reason
        return names.FINISH_REASONS.get(reason) or str(reason)

    def _said(self) -> dict[str, Any]:
        prompt, answer = self.trace.prompt_text, self.trace.shown if self.silent else self.trace.text
        asked = [{"role": "user", "parts": [{"type": "text", "content": prompt}]}]
        told = [{"role": "assistant", "parts": [{"type": "text", "content": answer}], "finish_reason": self._finish()}]
        return {
            names.INPUT_MESSAGES: None if prompt is None else asked,
            names.OUTPUT_MESSAGES: None if answer is None else told,
        }

    def _events(self, text: bool) -> Iterator[dict[str, Any]]:
        """An event for each token; its text and id only where they may be said."""
        trace = self.trace
        said = text and not self.silent
        columns = {name: np.ma.asarray(trace.tokens[name]).tolist() for name in _TOKEN_COLUMNS if said or name != "id"}
        for i, (at, data) in enumerate(zip(self.times, trace.token_bytes, strict=True)):
            values = {names.TOKEN_PREFIX + name: values[i] for name, values in columns.items()}
            values[names.TOKEN_PREFIX + "forced"] = bool(columns["forced"][i])
            if said and data is not None:
                values[names.TOKEN_PREFIX + "text"] = data.decode("utf-8", "replace")
            yield {
                "timeUnixNano": str(self.origin + at),
                "name": names.TOKEN_EVENT,
                "attributes": _attributes(values),
            }


def _server(url: str) -> tuple[str | None, int | None]:
    """Host and port of an address; None for what is none, as a setting is what somebody wrote."""
    try:
        address = urlsplit(url)
        return address.hostname, address.port
    except ValueError:
        return None, None


def _hash(what: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()
