"""Reports of inference-perf, ``per_request_lifecycle_metrics.json``: a list of requests.

It is written where its configuration has ``report.request_lifecycle.per_request: true``. Read off kubernetes-sigs/inference-perf,
``reportgen/base.py`` and ``apis/base.py``. Times are seconds of ``time.perf_counter``. Every message with content is there, as the
JSON that came and its moment; which had how many tokens the tool finds out with its tokenizer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tokentape.data.exchange import Exchange
from tokentape.imports.fields import Fields, seconds_to_ns
from tokentape.imports.results import Asked, Piece, Results

__all__ = ["is_ours", "parts", "read"]

_FIELDS = {"start_time", "end_time", "request", "response", "info", "error"}


def is_ours(found: Sequence[Any]) -> bool:
    """Whether the documents are of this tool."""
    first = found[0]
    if isinstance(first, dict):
        return {"load_summary", "successes", "failures"} <= first.keys()
    return isinstance(first, list) and bool(first) and isinstance(first[0], dict) and first[0].keys() >= _FIELDS


def parts(found: Sequence[Any]) -> list[str]:
    """A file has one."""
    return ["all requests"]


def read(found: Sequence[Any], file: str, part: int | None) -> Results:
    """All requests, stage by stage as the tool made them."""
    if isinstance(found[0], dict):
        why = "the requests are in the file beside it, per_request_lifecycle_metrics.json"
        Fields(found[0], file).wrong("it has the summary alone", why)
    asked = [_asked(Fields(one, file, ("request", i))) for i, one in enumerate(found[0])]
    models = {str(one.options["model"]) for one in asked if "model" in one.options}
    facts = {"model": models.pop() if len(models) == 1 else None}
    return Results("inference-perf", facts, asked, ("schedule", "status", "finish"))


def _asked(one: Fields) -> Asked:
    info, error = one.maybe_object("info"), one.maybe_object("error")
    answer = None if info is None else info.maybe_object("response_metrics")
    start, end = seconds_to_ns(one.number("start_time")), seconds_to_ns(one.number("end_time"))
    pieces = () if answer is None else _pieces(answer)
    usage = None if answer is None else answer.maybe_object("server_usage")
    counted = sum(piece.n_tokens or 0 for piece in pieces) == _n_completion(answer, usage)
    if not counted:
        pieces = tuple(replace(piece, n_tokens=None) for piece in pieces)
    exchange = Exchange(
        ended_ns=end,
        label=None if not pieces else "counted" if counted else "coarse",
        fault=None if error is None else "error_event",
        error=None if error is None else error.maybe_text("error_msg"),
        n_prompt=None if info is None else _n_prompt(info, usage),
        n_completion=_n_completion(answer, usage),
        usage=None if usage is None else usage.value,
    )
    return Asked(start, pieces, "unsaid" if error is None else "error", exchange, _options(one))


def _pieces(answer: Fields) -> tuple[Piece, ...]:
    """The messages, each with as many tokens as the tool's tokenizer found in it."""
    if not answer.has("chunk_times"):
        return ()
    moments = [seconds_to_ns(at) for at in answer.numbers("chunk_times")]
    chunks = answer.items("response_chunks") if answer.has("response_chunks") else [None] * len(moments)
    if len(chunks) != len(moments):
        answer.wrong(f"{len(chunks)} chunks at {len(moments)} moments", "each chunk has one")
    times = answer.numbers("output_token_times") if answer.has("output_token_times") else []
    at_once = Counter(moments)
    tokens = Counter(map(seconds_to_ns, times))
    sizes = [tokens[at] if at_once[at] == 1 else None for at in moments]
    found = zip(moments, chunks, sizes, strict=True)
    return tuple(Piece(at, _text(chunk), n_tokens=n or None) for at, chunk, n in found)


def _text(chunk: Any) -> bytes | None:
    """The text in the JSON of a message."""
    try:
        choice = json.loads(chunk)["choices"][0]
        text = choice["text"] if "text" in choice else choice["delta"]["content"]
    except (TypeError, ValueError, KeyError, IndexError, RecursionError):
        return None
    return text.encode("utf-8", "replace") if isinstance(text, str) else None


def _n_prompt(info: Fields, usage: Fields | None) -> int | None:
    told = None if usage is None else usage.maybe_integer("prompt_tokens")
    return info.maybe_integer("input_tokens") if told is None else told


def _n_completion(answer: Fields | None, usage: Fields | None) -> int | None:
    """The number that the tool divides by: its own count of the text, and the server's where it has none."""
    counted = None if answer is None else answer.maybe_integer("output_tokens")
    return counted if counted else None if usage is None else usage.maybe_integer("completion_tokens")


def _options(one: Fields) -> dict[str, Any]:
    """What was asked for: the body of the request, which the file holds as text."""
    given = one.maybe("request")
    try:
        body = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}
