"""Results of ``llama-bench -o json`` or ``-o jsonl``: one object a test, in it the time of each of its repetitions.

Read off llama.cpp, ``tools/llama-bench/llama-bench.cpp``. A test reads ``n_prompt`` tokens, or makes ``n_gen``, or both, and only
the whole is timed: so a repetition becomes a run with its beginning and its end, and nothing between. When it began the file
does not say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokentape.data.exchange import Exchange
from tokentape.imports.fields import Fields
from tokentape.imports.results import Asked, Results

__all__ = ["is_one", "is_ours", "parts", "read"]

_MEASURED = {
    "n_prompt", "n_gen", "n_depth", "test_time", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts", "samples_ns", "samples_ts",
}  # fmt: skip


def is_ours(found: Sequence[Any]) -> bool:
    """Whether the documents are of this tool."""
    rows = _rows(found)
    return bool(rows) and all(isinstance(one, dict) and {"build_commit", "avg_ns"} <= one.keys() for one in rows)


def parts(found: Sequence[Any]) -> list[str]:
    """The tests."""
    return [_test(one) for one in _rows(found)]


def is_one(found: Sequence[Any]) -> bool:
    """Whether all tests are of one build, model and machine, with the same options, so that one tape can hold them."""
    rows = _rows(found)
    return all(_facts(one) == _facts(rows[0]) for one in rows)


def read(found: Sequence[Any], file: str, part: int | None) -> Results:
    """The tests of one configuration, or of them the one asked for."""
    rows = _rows(found)
    chosen = list(enumerate(rows)) if part is None else [(part, rows[part])]
    asked = [run for i, row in chosen for run in _asked(Fields(row, file, ("test", i)))]
    facts = _facts(chosen[0][1])
    facts = {"model": facts.get("model_filename"), "engine": "llama.cpp", **facts}
    lacks = ("starts", "single_tokens", "ttft", "text")
    return Results("llama-bench", facts, asked, lacks)


def _rows(found: Sequence[Any]) -> list[Any]:
    return found[0] if len(found) == 1 and isinstance(found[0], list) else list(found)


def _facts(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in _MEASURED}


def _test(row: dict[str, Any]) -> str:
    named = [f"{word}{row[name]}" for word, name in (("pp", "n_prompt"), ("tg", "n_gen")) if row.get(name)]
    depth = f" @ d{row['n_depth']}" if row.get("n_depth") else ""
    return "+".join(named) + depth + f", {row.get('model_type')}"


def _asked(row: Fields) -> list[Asked]:
    if not row.has("samples_ns"):
        row.wrong("it has no samples_ns", "without its single measurements a test is an average, and a tape holds none")
    n_prompt, n_gen = row.integer("n_prompt"), row.integer("n_gen")
    options = {"n_prompt": n_prompt, "n_gen": n_gen, "n_depth": row.maybe_integer("n_depth")}
    found = []
    for ns in row.numbers("samples_ns"):
        if ns <= 0 or ns != int(ns):
            row.wrong(f"a sample took {ns} ns", "a time is a whole number above 0")
        exchange = Exchange(ended_ns=int(ns), n_prompt=n_prompt, n_completion=n_gen)
        found.append(Asked(0, (), "length", exchange, options))
    return found
