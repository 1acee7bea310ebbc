"""Reports of GuideLLM, ``--output kind=json``: a list of benchmarks, in each the requests by how they ended.

Read off guidellm 0.8.1, ``schemas/base/request_stats.py``, ``schemas/base/info.py`` and ``benchmark/schemas/metrics.py``.
Moments are seconds since 1970 of the machine's clock, which a double holds to 0.24 us. Of each answer the file has the first and
the last message with content and how many there were; when those between came it does not say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tokentape.data.exchange import Exchange
from tokentape.imports.fields import Fields, seconds_to_ns
from tokentape.imports.results import Asked, Piece, Results

__all__ = ["is_ours", "parts", "read"]

_REASONS = {"successful": "unsaid", "incomplete": "interrupted", "errored": "error"}


def is_ours(found: Sequence[Any]) -> bool:
    """Whether the documents are of this tool."""
    (first, *_) = found
    return isinstance(first, dict) and isinstance(first.get("benchmarks"), list) and "metadata" in first


def parts(found: Sequence[Any]) -> list[str]:
    """The benchmarks of a sweep, by their strategies."""
    named = []
    for one in found[0]["benchmarks"]:
        strategy = (one.get("config") or {}).get("strategy") if isinstance(one, dict) else None
        named.append(_strategy(strategy if isinstance(strategy, dict) else {}))
    return named


def read(found: Sequence[Any], file: str, part: int | None) -> Results:
    """One of the benchmarks."""
    report = Fields(found[0], file)
    benchmarks = list(report.objects("benchmarks"))
    if not benchmarks:
        report.wrong("it has no benchmark", "nothing was measured")
    one = benchmarks[part or 0]
    requests, whole = one.object("requests"), one.object("scheduler_metrics")
    asked = [
        _asked(request, reason)
        for how, reason in _REASONS.items()
        if requests.has(how)
        for request in requests.objects(how)
    ]
    asked.sort(key=lambda request: request.start_ns)
    _all_there(one, requests)
    began, ended = whole.number("measure_start_time"), whole.number("measure_end_time")
    version = report.object("metadata").maybe_text("guidellm_version")
    config = one.maybe_object("config")
    strategy = config.maybe_object("strategy") if config is not None else None
    facts = {
        "model": _model(asked),
        "tool_version": version,
        "strategy": None if strategy is None else _strategy(strategy.value),
    }
    lacks = ("chunks_between", "message_tokens", "message_text", "status", "finish")
    return Results("guidellm", facts, asked, lacks, seconds_to_ns(ended) - seconds_to_ns(began), epoch=True)


def _all_there(one: Fields, requests: Fields) -> None:
    """Refuse a sample of the requests: nobody could say what the rest did to the figures."""
    metrics = one.maybe_object("metrics")
    totals = None if metrics is None else metrics.maybe_object("request_totals")
    if totals is None:
        return
    for how in _REASONS:
        n = len(requests.items(how)) if requests.has(how) else 0
        if (told := totals.maybe_integer(how)) is not None and n < told:
            one.wrong(f"it has {n} of {told} {how} requests", "the tool was told to keep a sample of them")


def _asked(one: Fields, reason: str) -> Asked:
    info = one.object("info")
    moments = info.object("timings")
    start = _moment(moments, "request_start") or _moment(moments, "resolve_start")
    first, last = _moment(moments, "first_token_iteration"), _moment(moments, "last_token_iteration")
    if start is None:  # it was given up before it was sent
        start = _moment(moments, "resolve_end") or 0
    n_messages = moments.maybe_integer("token_iterations") or 0
    pieces = _pieces(first, _moment(moments, "first_output_token_iteration"), first if n_messages == 1 else last)
    output, given = one.object("output_metrics"), one.object("input_metrics")
    error = info.maybe_text("error")
    exchange = Exchange(
        scheduled_ns=_moment(moments, "targeted_start"),
        ended_ns=_moment(moments, "request_end") or _moment(moments, "resolve_end"),
        label=None if not pieces else "ends" if n_messages > len(pieces) else "coarse",
        fault="error_event" if reason == "error" else None,
        error=error,
        request_id=one.maybe_text("response_id"),
        n_prompt=given.maybe_integer("total_tokens"),
        n_cached=given.maybe_integer("cached_tokens"),
        n_completion=output.maybe_integer("total_tokens"),
        process=info.maybe_integer("scheduler_process_id"),
        conversation=info.maybe_text("conversation_id"),
        turn=info.maybe_integer("turn_index"),
    )
    return Asked(start, pieces, reason, exchange, _options(one))


def _pieces(first: int | None, output: int | None, last: int | None) -> tuple[Piece, ...]:
    """The first message, the first one that is no reasoning, and the last one, as far as they are not the same."""
    moments = sorted({at for at in (first, output, last) if at is not None})
    return tuple(Piece(at, reasoning=output is not None and at < output) for at in moments)


def _moment(moments: Fields, name: str) -> int | None:
    found = moments.maybe_number(name)
    return None if found is None else seconds_to_ns(found)


def _options(one: Fields) -> dict[str, Any]:
    """What was asked for: the body of the request, which the file holds as text."""
    given = one.maybe_text("request_args")
    try:
        body = json.loads(given or "{}").get("body")
    except (ValueError, RecursionError, AttributeError):
        return {}
    return body if isinstance(body, dict) else {}


def _model(asked: Sequence[Asked]) -> str | None:
    names = {str(one.options["model"]) for one in asked if "model" in one.options}
    return names.pop() if len(names) == 1 else None


def _strategy(given: dict[str, Any]) -> str:
    kind = given.get("type_") or given.get("kind") or "benchmark"
    size = next((given[name] for name in ("rate", "streams", "max_concurrency") if given.get(name) is not None), None)
    return f"{kind}" if size is None else f"{kind} {size}"
