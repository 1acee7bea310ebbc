"""The account of a load: what a tape says of its requests and of the client that sent them, as plain values.

Every trace is read once, so that thousands of requests are gone through in seconds; the figures are those of
:func:`~tokentape.study.metrics.metrics`.

Where a request was due, its time to first token is told twice: from when it was sent, and from when it was due. A client that
sends late, or waits for room, hides the difference in the first figure (coordinated omission); the second one has it.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tokentape.data.exchange import Exchange
from tokentape.study.answers import Answer, answers, total_tokens, window_ns
from tokentape.study.metrics import Spread, spread
from tokentape.study.slo import goodput

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.study.slo import Slo

__all__ = ["account_of"]


def account_of(tape: Tape, slo: Slo | None = None) -> dict[str, Any]:
    """The account of a tape that a load wrote; percentiles are None where they are of too few."""
    found = answers(tape)
    passed = [tape.exchanges[number] for number in sorted(tape.exchanges)]
    window = window_ns(found)
    ended = [one for one in found if one.outcome == "ended"]
    return {
        "plan": tape.notes.get("load"),
        "n_requests": len(passed),
        "n_unsent": tape.notes.get("n_unsent", 0),
        "n_retries": sum(one.retry_of is not None for one in passed),
        "n_ended": len(ended),
        "n_failed": sum(one.outcome == "failed" for one in found),
        "n_cut_short": sum(one.outcome == "cut short" for one in found),
        "faults": dict(Counter(one.fault for one in passed if one.fault is not None).most_common()),
        "labels": dict(Counter(one.label for one in passed if one.label is not None)),
        "n_tokens": total_tokens(found),
        "window_ns": window,
        "offered_per_s": _offered_per_s(passed),
        "requests_per_s": _per_s(len(ended), window),
        "tokens_per_s": _per_s(total_tokens(found), window),
        "ttft": _figures(spread([_known(map(_ttft_ns, found))])),
        "ttft_from_due": _figures(spread([_known(_from_due_ns(one, tape.exchanges.get(one.run)) for one in found)])),
        "token_gap": _figures(spread([_token_gaps_ns(one) for one in found])),
        "chunk_gap": _figures(spread([_chunk_gaps_ns(one) for one in found])),
        "e2e": _figures(spread([_known(map(_e2e_ns, ended))])),
        "goodput": None if slo is None else asdict(goodput(found, slo, window)),
        "prompt_tokens": _asked(tape, "prompt_tokens_asked", "n_prompt"),
        "client": tape.notes.get("client"),
        "server_behind": _behind(tape),
        "backlog": tape.notes.get("backlog"),
    }


def _behind(tape: Tape) -> bool | None:
    """Whether the server fell behind; None where that cannot be told."""
    noted = tape.notes.get("backlog")
    return bool(noted.get("behind")) if isinstance(noted, Mapping) else None


def _known(values: Iterable[int | None]) -> list[int]:
    return [value for value in values if value is not None]


def _ttft_ns(one: Answer) -> int | None:
    chunks = one.chunks
    return one.since_start(chunks[0].at_ns) if chunks else None


def _e2e_ns(one: Answer) -> int | None:
    chunks = one.chunks
    return one.since_start(chunks[-1].at_ns) if chunks else None


def _from_due_ns(one: Answer, passed: Exchange | None) -> int | None:
    """The time to first token since the request was due; None where it was not."""
    chunks = one.chunks
    if not chunks or passed is None or passed.scheduled_ns is None:
        return None
    return chunks[0].at_ns - passed.scheduled_ns


def _chunk_gaps_ns(one: Answer) -> list[int]:
    return [after.at_ns - before.at_ns for before, after in pairwise(one.chunks)]


def _token_gaps_ns(one: Answer) -> list[int]:
    """The gaps between tokens, 0 between those of one chunk; none where a chunk's tokens are not counted."""
    moments = [chunk.at_ns for chunk, n in zip(one.chunks, one.sizes or (), strict=False) for _ in range(n)]
    return [after - before for before, after in pairwise(moments)]


def _figures(found: Spread) -> dict[str, Any]:
    """A spread with its percentiles by name, in nanoseconds."""
    by_name = {f"p{one.q:g}": one.value for one in found.percentiles}
    return {**by_name, "mean": found.mean, "max": found.max, "n": found.n, "n_effective": found.n_effective}


def _per_s(n: int | None, window: int | None) -> float | None:
    return n * 1e9 / window if window and n is not None else None


def _offered_per_s(passed: Iterable[Exchange]) -> float | None:
    """The rate at which requests were due, from the first to the last of them; None where none were."""
    due = sorted(one.scheduled_ns for one in passed if one.scheduled_ns is not None and one.retry_of is None)
    return (len(due) - 1) * 1e9 / (due[-1] - due[0]) if len(due) > 1 and due[-1] > due[0] else None


def _asked(tape: Tape, option: str, counted: str) -> dict[str, Any] | None:
    """How lengths that were asked for compare with what the server counted; None where none were, or nothing was counted."""
    pairs: list[tuple[int, int]] = []
    for run in tape.runs:
        asked = run.options.get(option)
        passed = tape.exchanges.get(run.number)
        n = None if passed is None else getattr(passed, counted)
        if asked and n is not None:
            pairs.append((asked, n))
    if not pairs:
        return None
    off: Sequence[float] = [abs(n - asked) / asked for asked, n in pairs]
    return {
        "n": len(pairs),
        "asked": sum(asked for asked, _ in pairs),
        "counted": sum(n for _, n in pairs),
        "median_error": statistics.median(off),
        "max_error": max(off),
    }
