"""The account of a load: what a tape says of its requests and of the client that sent them, as plain values.

Every trace is read once, so that thousands of requests are gone through in seconds. The figures are those of
:func:`~tokentape.study.metrics.metrics`, by the same functions: no gap is told that was not measured, and a count of tokens that
cannot be true is none.

Where a request was due, its time to first token is told twice: from when it was sent, and from when it was due. A client that
sends late, or waits for room, hides the difference in the first figure (coordinated omission); the second one has it. So goodput
is of what was due, whatever was sent of it; of what was sent alone, counted from there, it stands beside it.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tokentape.data.exchange import Exchange
from tokentape.study.answers import Answer, window_ns
from tokentape.study.metrics import (
    Spread,
    counted_answers,
    counted_total,
    gap_spreads,
    runs_of,
    since_of,
    spread,
    told_apart,
)
from tokentape.study.served_rates import due_of, n_unsent_of, rates_of
from tokentape.study.slo import goodput

if TYPE_CHECKING:
    from tokentape.data.tape import Tape
    from tokentape.study.slo import Slo

__all__ = ["account_of"]


def account_of(tape: Tape, slo: Slo | None = None, *, since: str | None = None) -> dict[str, Any]:
    """The account of a tape that a load wrote; percentiles are None where they are of too few.

    ``since`` is the moment from which objectives count; where it is None, when requests were due, if they were. Where ``"start"``
    is asked for, what was never sent is no part of it.
    """
    runs = runs_of(tape)
    found, counts = counted_answers(tape, [trace for run in runs for trace in run])
    token_gaps, chunk_gaps = gap_spreads(*told_apart(runs, found))
    n_tokens = counted_total(found, counts)
    passed = [tape.exchanges[number] for number in sorted(tape.exchanges)]
    window, rates = window_ns(found), rates_of(tape, found)
    ended = [one for one in found if one.outcome == "ended"]
    return {
        "plan": tape.notes.get("load"),
        "n_requests": len(passed),
        "n_unsent": 0 if since == "start" else n_unsent_of(tape),
        "n_retries": sum(one.retry_of is not None for one in passed),
        "n_ended": len(ended),
        "n_failed": sum(one.outcome == "failed" for one in found),
        "n_failed_for_good": _failed_for_good(found, passed),
        "n_in_one_piece": sum(not one.streamed for one in passed),
        "n_cut_short": sum(one.outcome == "cut short" for one in found),
        "faults": dict(Counter(one.fault for one in passed if one.fault is not None).most_common()),
        "labels": dict(Counter(one.label for one in passed if one.label is not None)),
        "n_tokens": n_tokens,
        "window_ns": window,
        "rates": None if rates is None else asdict(rates),
        "offered_per_s": None if rates is None else rates.due_per_s,
        "requests_per_s": _per_s(len(ended), window) if rates is None else rates.ended_per_s,
        "tokens_per_s": _per_s(n_tokens, window),
        "ttft": _figures(spread([_known(one.ttft_ns for one in found)])),
        "ttft_from_due": _figures(spread([_known(_from_due_ns(one, tape.exchanges.get(one.run)) for one in found)])),
        "token_gap": _figures(token_gaps),
        "chunk_gap": _figures(chunk_gaps),
        "e2e": _figures(spread([_known(one.e2e_ns for one in ended)])),
        **_kept(tape, found, slo, window if rates is None else rates.window_ns, since),
        "prompt_tokens": _asked(tape, "prompt_tokens_asked", "n_prompt"),
        "client": tape.notes.get("client"),
        "server_behind": _behind(tape),
        "backlog": tape.notes.get("backlog"),
    }


def _failed_for_good(found: Sequence[Answer], passed: Sequence[Exchange]) -> int:
    """How many requests had failed when they were not sent again any more."""
    return len({one.run for one in found if one.outcome == "failed"} - {one.retry_of for one in passed})


def _behind(tape: Tape) -> bool | None:
    """Whether the server fell behind; None where that cannot be told."""
    noted = tape.notes.get("backlog")
    return bool(noted.get("behind")) if isinstance(noted, Mapping) else None


def _kept(
    tape: Tape, found: Sequence[Answer], slo: Slo | None, window: int | None, asked: str | None
) -> dict[str, Any]:
    """How often objectives were met: counted from when requests were due where they were (``since``), with those never sent among
    them; ``goodput_from_start`` is of those that were sent, counted from there.
    """
    since = since_of(tape, asked, promised=True)
    if slo is None:
        return {"since": since, "goodput": None, "goodput_from_start": None}
    sent = asdict(goodput(found, slo, window))
    if since == "start":
        return {"since": since, "goodput": sent, "goodput_from_start": sent}
    due = goodput(due_of(found, tape.exchanges), slo, window, n_unsent_of(tape))
    return {"since": since, "goodput": asdict(due), "goodput_from_start": sent}


def _known(values: Iterable[int | None]) -> list[int]:
    return [value for value in values if value is not None]


def _from_due_ns(one: Answer, passed: Exchange | None) -> int | None:
    """The time to first token since the request was due; None where it was not."""
    if one.first_ns is None or passed is None or passed.scheduled_ns is None:
        return None
    return one.first_ns - passed.scheduled_ns


def _figures(found: Spread) -> dict[str, Any]:
    """A spread with its percentiles by name, in nanoseconds, and how many more values those need that are None."""
    by_name = {f"p{one.q:g}": one.value for one in found.percentiles}
    needs = {f"p{one.q:g}": one.n_missing for one in found.percentiles if one.value is None}
    counts = {"n": found.n, "n_effective": found.n_effective, "n_untold": found.n_untold, "needs": needs}
    return {**by_name, "mean": found.mean, "max": found.max, **counts}


def _per_s(n: int | None, window: int | None) -> float | None:
    return n * 1e9 / window if window and n is not None else None


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
