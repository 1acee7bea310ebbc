"""Records of AIPerf, ``profile_export.jsonl``: one object a request, its ``metadata`` and the values of its ``metrics``.

Read off aiperf 0.13, ``common/models/record_models.py`` (MetricRecordInfo) and its metric types. Moments are nanoseconds since 1970
of the machine's clock, times are milliseconds; the gaps between the messages with content are all there,
``inter_chunk_latency``. Which message had how many tokens the file does not say.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

from tokentape.data.exchange import Exchange
from tokentape.imports.fields import Fields
from tokentape.imports.reading import documents
from tokentape.imports.results import Asked, Piece, Results

__all__ = ["is_ours", "parts", "read"]

_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "sec": 10**9, "s": 10**9}


def is_ours(found: Sequence[Any]) -> bool:
    """Whether the documents are of this tool."""
    first = found[0]
    return isinstance(first, dict) and (
        "aiperf_version" in first
        or (isinstance(first.get("metadata"), dict) and {"x_request_id", "worker_id"} <= first["metadata"].keys())
    )


def parts(found: Sequence[Any]) -> list[str]:
    """A file has one."""
    return ["all records"]


def read(found: Sequence[Any], file: str, part: int | None) -> Results:
    """The records of the benchmark itself: those of a warm-up are left out, as the tool leaves them out of its figures."""
    first = Fields(found[0], file)
    if first.has("aiperf_version"):
        first.wrong("it has the summary alone", "the records are in the file beside it, profile_export.jsonl")
    records = [Fields(one, file, ("record", i)) for i, one in enumerate(found)]
    asked = [_asked(one) for one in records if one.object("metadata").maybe_text("benchmark_phase") != "warmup"]
    if not asked:
        first.wrong("every record is of the warm-up", "the benchmark itself has none")
    asked.sort(key=lambda one: one.start_ns)
    lacks = ("message_tokens", "text", "model", "finish")
    return Results("aiperf", {"model": None}, asked, lacks, _duration_ns(Path(file)), epoch=True)


def _duration_ns(records: Path) -> int | None:
    """How long the benchmark took, which the tool divides by: it stands in the summary beside the records, to the microsecond."""
    for name in ("profile_export_aiperf.json", f"{records.stem}.json"):
        beside = records.with_name(name)
        if beside.is_file() and is_ours(found := documents(beside)):
            summary = Fields(found[0], str(beside))
            began, ended = (summary.maybe_text(name) for name in ("start_time", "end_time"))
            try:
                took = datetime.fromisoformat(ended or "") - datetime.fromisoformat(began or "")
            except ValueError:
                return None
            return took // timedelta(microseconds=1) * 1000
    return None


def _asked(one: Fields) -> Asked:
    known, values = one.object("metadata"), one.object("metrics")
    start = known.integer("request_start_ns")
    first, whole = _ns(values, "time_to_first_token"), _ns(values, "request_latency")
    error = one.maybe_object("error")
    gaps = _gaps(values)
    moments: list[int] = []
    if first is not None:
        moments = list(accumulate([start + first, *gaps])) if gaps is not None else [start + first]
        if gaps is None and whole is not None and whole > first:
            moments.append(start + whole)
    output = _ns(values, "time_to_first_output_token")
    said = start + (first or 0) if output is None else start + output
    pieces = tuple(Piece(at, reasoning=at < said) for at in moments)
    seen_all = gaps is not None or len(moments) < 2
    n = _value(values, "output_sequence_length")
    cancelled = known.maybe("was_cancelled") is True
    exchange = Exchange(
        scheduled_ns=known.maybe_integer("credit_issued_ns"),
        ended_ns=known.integer("request_end_ns"),
        first_byte_ns=known.maybe_integer("request_ack_ns"),
        status=_status(error),
        label=None if not moments else "coarse" if seen_all else "ends",
        fault=None if error is None else "http_error" if _status(error) is not None else "error_event",
        error=None if error is None else error.maybe_text("message"),
        request_id=known.maybe_text("x_request_id"),
        n_prompt=_value(values, "input_sequence_length"),
        n_completion=n,
        n_reasoning=_value(values, "reasoning_token_count"),
        conversation=known.maybe_text("conversation_id"),
        turn=known.maybe_integer("turn_index"),
    )
    reason = "interrupted" if cancelled else "error" if error is not None else "unsaid"
    return Asked(start, pieces, reason, exchange)


def _status(error: Fields | None) -> int | None:
    """The HTTP status of an error, which may also be one of the client's own."""
    code = None if error is None else error.maybe_integer("code")
    return code if code is not None and 100 <= code <= 599 else None


def _value(values: Fields, name: str) -> int | None:
    found = values.maybe_object(name)
    return None if found is None else found.integer("value")


def _factor(one: Fields) -> int:
    unit = one.maybe_text("unit")
    if unit not in _NS:
        one.wrong(f"the unit is {unit!r}", f"a time is in one of {', '.join(_NS)}")
    return _NS[unit]


def _ns(values: Fields, name: str) -> int | None:
    one = values.maybe_object(name)
    return None if one is None else round(one.number("value") * _factor(one))


def _gaps(values: Fields) -> list[int] | None:
    """The times between messages; none after a single one, None where they were not written."""
    one = values.maybe_object("inter_chunk_latency")
    if one is not None:
        return [round(gap * _factor(one)) for gap in one.numbers("value")]
    first, whole = _ns(values, "time_to_first_token"), _ns(values, "request_latency")
    return [] if first is not None and first == whole else None
