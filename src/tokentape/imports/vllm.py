"""Results of ``vllm bench serve --save-result --save-detailed``: one object, in it a list a column with an entry a request.

Read off vllm/benchmarks/serve.py and lib/endpoint_request_func.py of vLLM 0.33. Times are seconds of ``time.perf_counter``. Of each
answer the file has the moments of all messages that had output, ``ttfts`` and ``itls``, and the number of tokens together: which
message had how many it does not say, nor which text. Files without ``start_times`` are of older versions: then the times of a
request hold among themselves alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from tokentape.data.exchange import Exchange
from tokentape.imports.fields import Fields, seconds_to_ns
from tokentape.imports.results import Asked, Piece, Results

__all__ = ["is_ours", "parts", "read"]

_FACTS = ("backend", "endpoint_type", "request_rate", "burstiness", "max_concurrency", "num_prompts")


def is_ours(found: Sequence[Any]) -> bool:
    """Whether the documents are of this tool."""
    return all(isinstance(one, dict) and {"completed", "request_throughput"} <= one.keys() for one in found)


def parts(found: Sequence[Any]) -> list[str]:
    """What ``--append-result`` wrote one after another, named."""
    return [f"{one.get('date')}, {one.get('request_rate')} requests/s" for one in found]


def read(found: Sequence[Any], file: str, part: int | None) -> Results:
    """One of the results."""
    given = Fields(found[part or 0], file)
    if not given.has("ttfts"):
        given.wrong("it has the summary alone", "without --save-detailed the tool leaves every request out")
    ttfts, errors = given.numbers("ttfts"), given.items("errors")
    inputs, outputs, itls = given.numbers("input_lens"), given.numbers("output_lens"), given.items("itls")
    starts = given.numbers("start_times") if given.has("start_times") else None
    columns = {"input_lens": inputs, "output_lens": outputs, "itls": itls, "errors": errors, "start_times": starts}
    for name, column in columns.items():
        if column is not None and len(column) != len(ttfts):
            given.wrong(f"{name} has {len(column)} entries, ttfts {len(ttfts)}", "each request has one in both")
    waited = given.numbers("queue_times") if starts is not None and given.has("queue_times") else None
    asked = []
    for i, ttft in enumerate(ttfts):
        one = Fields({"itl": itls[i], "error": errors[i], "n_prompt": inputs[i], "n": outputs[i]}, file, ("request", i))
        start = 0 if starts is None else seconds_to_ns(starts[i])
        due = None if waited is None or i >= len(waited) else start - seconds_to_ns(waited[i])
        asked.append(_asked(one, ttft, start, due))
    facts = {"model": given.maybe_text("model_id"), **{name: given.maybe(name) for name in _FACTS}}
    duration = given.maybe_number("duration")
    lacks = ("message_tokens", "message_text", "stream_end", "status", "finish")
    return Results(
        "vllm",
        facts,
        asked,
        lacks if starts is not None else (*lacks, "starts"),
        None if duration is None else seconds_to_ns(duration),
    )


def _asked(one: Fields, ttft: float, start_ns: int, due_ns: int | None) -> Asked:
    """A request that failed has its error, and may have the messages that came before it."""
    error, gaps, n = one.maybe_text("error"), one.numbers("itl"), one.integer("n")
    failed = bool(error)
    moments = [] if failed and not ttft else [start_ns + seconds_to_ns(s) for s in accumulate([ttft, *gaps])]
    if any(gap < 0 for gap in gaps) or ttft < 0:
        one.wrong("a time is below 0", "each message comes after the one before")
    exchange = Exchange(
        scheduled_ns=due_ns,
        ended_ns=None,
        label="coarse" if moments else None,
        n_prompt=one.integer("n_prompt"),
        n_completion=None if failed else n,
        fault="error_event" if failed else None,
        error=error or None,
    )
    return Asked(start_ns, tuple(map(Piece, moments)), "error" if failed else "unsaid", exchange)
