"""Requests to a server as text: the lines of their end card, a table of them, and each in full."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tokentape.data.exchange import FAULTS, LABELS
from tokentape.study.answers import VAGUE, imported
from tokentape.study.served import Flight, flight_of, scraped
from tokentape.study.served_reads import arrivals, end_of, n_shared_reads, n_sharing
from tokentape.study.served_summary import ServedSummary, is_answered, label_reason, mostly_failed
from tokentape.views.drawing import drawn_text
from tokentape.views.load_table import client_lines
from tokentape.views.screen import Screen, columns, fit, pad
from tokentape.views.served_times import chunk_gaps_text, gaps_text, spread_text
from tokentape.views.units import ABSENT, duration, rate
from tokentape.words.catalogue import Message, said
from tokentape.words.retold import retold

if TYPE_CHECKING:
    from tokentape.data.exchange import Exchange
    from tokentape.data.tape import Tape
    from tokentape.data.trace import Trace

__all__ = [
    "client_line",
    "request_lines",
    "request_table",
    "served_head",
    "served_lines",
    "server_timings",
    "shared_message",
]

_LABEL = 14
_FIRST, _WORST = 10, 10
_ERROR, _SAID = 300, 120
_TIMINGS = 6
"""So many of a server's own timings are told."""

Lines = list[tuple[str, str]]


def served_head(tape: Tape, figures: ServedSummary, screen: Screen) -> str:
    """Model, server, requests and tokens in one line; where most requests failed, that."""
    facts, noted = tape.setting.facts, imported(tape)
    engine = facts.get("engine") or facts.get("server")
    url = facts.get("url") or facts.get("endpoint")
    told = {
        "model": drawn_text(str(facts.get("model") or screen.say("card.a_model"))),
        "engine": "" if engine is None else f" ({drawn_text(str(engine))})",
        "n": figures.n_requests,
        "tokens": figures.n_tokens,
        "failed": figures.n_failed,
    }
    if url is None and noted.get("tool"):
        told["where"] = screen.say("served.by_tool", tool=drawn_text(str(noted["tool"])))
    else:
        told["where"] = screen.say("served.at", url=drawn_text(str(url or screen.say("served.a_server"))))
    if mostly_failed(figures):
        return screen.say("served.head_failed", **told)
    return screen.say("served.head" if figures.n_tokens is not None else "served.head_uncounted", **told)


def served_lines(tape: Tape, figures: ServedSummary, found: Sequence[Flight], screen: Screen) -> Lines:
    """The lines of the end card: how requests went, their times with an honest n, the client, the server."""
    say = screen.say
    answered = [one for one in found if is_answered(one)]
    tokens, requests = rate(figures.tokens_per_s), rate(figures.requests_per_s, "requests/s")
    late = [one.ttft_scheduled_ns for one in found]
    lines = [
        ("requests", _outcomes(figures, len(answered), screen)),
        ("labels", _labels(figures, screen)),
        ("piece", _in_one_piece(sum(not one.streamed for one in tape.exchanges.values()), screen)),
        ("faults", _counts(figures.faults, screen) if figures.faults else ""),
        ("answered_by", _failures(figures, screen)),
        ("ttft", spread_text(figures.ttft, [one.ttft_ns for one in found], screen)),
        ("due", say("served.due_ttft", times=spread_text(figures.ttft_scheduled, late, screen)) if any(late) else ""),
        ("gap", gaps_text(figures, screen)),
        ("chunk_gap", chunk_gaps_text(figures, screen)),
        ("reads", "" if (shared := shared_message(tape, figures)) is None else said(shared, screen.lang)),
        ("e2e", spread_text(figures.e2e, [one.e2e_ns for one in answered], screen)),
        ("answer_time", spread_text(figures.answer_time, [one.answer_time_ns for one in answered], screen)),
        ("connecting", spread_text(figures.connecting, [one.connecting_ns for one in found], screen)),
        (
            "rate",
            ""
            if figures.window_ns is None
            else say("served.rate_line", requests=requests, tokens=tokens, window=duration(figures.window_ns)),
        ),
        ("client", client_line(tape, screen)),
        ("server", _server_line(tape, screen)),
        ("readings", _readings(tape, screen)),
    ]
    return [(f"served.{name}", text) for name, text in lines if text]


def _outcomes(figures: ServedSummary, answered: int, screen: Screen) -> str:
    counts = {"answered": answered, "failed": figures.n_failed, "open": figures.n_open}
    if figures.most_in_flight is None:
        return screen.say("served.requests_unplaced", **counts)
    return screen.say("served.requests_line", **counts, retries=figures.n_retries, most=figures.most_in_flight)


def _labels(figures: ServedSummary, screen: Screen) -> str:
    """How many requests tell how much of their tokens, and why not more."""
    told = {name or "none": n for name, n in figures.labels.items()}
    return screen.say("served.semi").join(
        _because(screen.say(f"served.told_{name}", n=told[name]), name, figures.label_reasons.get(name), screen)
        for name in (*LABELS, "none")
        if told.get(name)
    )


def _in_one_piece(n: int, screen: Screen) -> str:
    return screen.say("served.piece_line", n=n) if n else ""


def _because(text: str, label: str | None, reason: str | None, screen: Screen) -> str:
    """What is told of tokens, with the reason for which it is not more, or what contradicts it."""
    if reason is None:
        return text
    why = fit(drawn_text(retold(reason, screen.lang, "served.reason")), _SAID)
    return screen.say("served.although" if label == "exact" else "served.because", text=text, reason=why)


def _failures(figures: ServedSummary, screen: Screen) -> str:
    """What failed requests were answered: statuses, and the words that most of them ended with."""
    parts = [screen.say("served.status", status=str(name), n=n) for name, n in sorted(figures.statuses.items())]
    if figures.said is not None:
        words = fit(drawn_text(" ".join(figures.said.split())), _SAID)
        parts.append(screen.say("served.in_words", words=words))
    return screen.say("served.semi").join(parts)


def shared_message(tape: Tape, figures: ServedSummary) -> Message | None:
    """How many messages shared a read, which gaps are lost with that, and for how many the client is to blame; None where none."""
    noted = tape.notes.get("client")
    gaps = noted.get("gaps") if isinstance(noted, Mapping) else None
    missed = gaps.get("missed") if isinstance(gaps, Mapping) else None
    return _sharing(figures.n_sharing, figures.n_messages, figures.n_shared_reads, missed)


def _sharing(n: int, of: int, reads: int, missed: Any = None) -> Message | None:
    if not n:
        return None
    told = Message("page_requests.finding_sharing", {"n": n, "of": of, "reads": reads})
    blamed = isinstance(missed, int) and 0 < missed <= n - reads
    return Message("page_requests.finding_sharing_missed", {"text": told, "missed": missed}) if blamed else told


def _counts(found: Mapping[Any, int], screen: Screen) -> str:
    return screen.say("served.list").join(f"{drawn_text(str(name))} {n:,}" for name, n in sorted(found.items()))


def client_line(tape: Tape, screen: Screen) -> str:
    """Whether the client kept up, as it measured itself; empty where it did not."""
    noted = tape.notes.get("client")
    if not isinstance(noted, Mapping):
        return ""
    late, lag = (_p99(noted.get(name)) for name in ("dispatch_delay_ns", "read_lag_ns"))
    given = noted.get("reasons")
    reasons = [drawn_text(str(one)) for one in given] if isinstance(given, list | tuple) else []
    if isinstance(noted.get("said"), list):  # in the reader's language, where the note is one that a load made
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            return drawn_text(client_lines(noted, screen)[0])
    if noted.get("bottleneck") is True:
        why = screen.say("served.semi").join(reasons) or screen.say("served.client_no_reasons", late=late, lag=lag)
        return screen.say("served.client_bottleneck", reasons=why)
    return screen.say("served.client_kept_up", late=late, lag=lag)


def _p99(noted: Any) -> str:
    value = noted.get("p99") if isinstance(noted, Mapping) else None
    return duration(value) if isinstance(value, int | float) and not isinstance(value, bool) else ABSENT


def server_timings(exchanges: Mapping[int, Exchange]) -> dict[str, tuple[float, int]]:
    """The numbers that a server said of its own time, by name: the median and of how many requests."""
    found: dict[str, list[float]] = {}
    for one in exchanges.values():
        for name, value in (one.server or {}).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                found.setdefault(str(name), []).append(value)
    return {name: (statistics.median(values), len(values)) for name, values in found.items()}


def _server_line(tape: Tape, screen: Screen) -> str:
    found = server_timings(tape.exchanges)
    timed = {name: one for name, one in found.items() if name.endswith(("_ms", "_s", "_ns", "_us", "_time"))} or found
    if not timed:
        return ""
    values = [f"{drawn_text(name)} {value:.4g}" for name, (value, _) in list(timed.items())[:_TIMINGS]]
    n = max(n for _, n in timed.values())
    return screen.say("served.server_says", n=n, values=screen.say("served.list").join(values))


def _readings(tape: Tape, screen: Screen) -> str:
    readings = tape.scrapes
    if not readings:
        return ""
    sources = screen.say("served.list").join(dict.fromkeys(drawn_text(one.source) for one in readings))
    return screen.say("served.readings_line", n=len(readings), metrics=len(scraped(readings)), sources=sources)


def request_table(found: Sequence[Flight], screen: Screen, limit: int | None, *, placed: bool = True) -> list[str]:
    """A line a request; of more than ``limit`` the first, the slowest and those with a fault, and how to see the rest.

    ``placed`` is False where it is not known when requests were due or sent beside one another, as of some imported results.
    """
    chosen = list(found) if limit is None or len(found) <= limit else _telling(found, limit)
    left = len(found) - len(chosen)
    title = screen.say("served.first_of", shown=len(chosen), n=len(found)) if left else screen.say("served.all_of")
    names = ("trace", "scheduled", "sent", "ttft", "e2e", "answer_time", "n", "label", "end")
    header = [screen.say("served.ttft" if name == "ttft" else f"served.col_{name}") for name in names]
    lines = columns(screen, header, [_row(one, placed=placed) for one in chosen], ">>>>>>><<")
    lines = [screen.paint(title, "dim"), *lines]
    lines.append(screen.paint(screen.say("served.more", n=left) if left else screen.say("served.one"), "dim"))
    return [screen.safe(line) for line in lines]


def _telling(found: Sequence[Flight], limit: int) -> list[Flight]:
    part = max(1, limit // 3)
    slow = sorted((one for one in found if one.ttft_ns is not None), key=lambda one: -(one.ttft_ns or 0))[:part]
    faults = [one for one in found if one.fault is not None][:part]
    kept = {one.run for one in [*found[: min(part, _FIRST)], *slow[:_WORST], *faults]}
    return [one for one in found if one.run in kept]


def _row(one: Flight, *, placed: bool) -> list[str]:
    begun = (one.scheduled_ns, one.sent_ns) if placed else (None, None)
    traces = str(one.traces[0]) if len(one.traces) == 1 else f"{one.traces[0]}-{one.traces[-1]}"
    end = one.fault or one.finish or ABSENT
    return [
        traces,
        *(duration(ns) for ns in (*begun, one.ttft_ns, one.e2e_ns, one.answer_time_ns)),
        ABSENT if one.n_tokens is None else f"{one.n_tokens:,}",
        one.label or "-",
        fit(drawn_text(end), 24),
    ]


def request_lines(trace: Trace, screen: Screen, limit: int | None, *, placed: bool = True) -> list[str]:
    """One request in full: its moments one after another, its label and what it means, what was lost, its chunks.

    ``placed`` as for :func:`request_table`.
    """
    siblings, passed = flight_of([trace]), trace.exchange
    say = screen.say
    facts = [one for one in _moments(siblings, passed, screen) if placed or one[0] not in ("scheduled", "sent")]
    if passed is None:
        facts.append(("fault", say("served.unfinished")))
    else:
        facts += _answer(siblings, passed, screen)
    end = end_of(passed)
    shared = _sharing(n_sharing(trace.steps, end), trace.steps.n_rows, n_shared_reads(trace.steps, end))
    facts.append(("reads", "" if shared is None else said(shared, screen.lang)))
    width = max(_LABEL, 2 + max(len(say(f"served.{name}")) for name, _ in facts))
    lines = [screen.paint(say("served.request", run=trace.run.number), "bold")]
    lines += [f"  {pad(say(f'served.{name}'), width)}{text}" for name, text in facts if text]
    return [screen.safe(line) for line in [*lines, *_chunks(trace, screen, limit)]]


def _moments(one: Flight, passed: Exchange | None, screen: Screen) -> Lines:
    say = screen.say
    if one.connecting_ns is not None:
        connected = duration(one.connecting_ns)
    elif one.connect_ns is not None:
        connected = say("served.not_connected")
    else:
        connected = "" if passed is None or passed.sent_ns is None else say("served.kept_open")
    due = {"at": duration(one.scheduled_ns), "delay": duration(one.schedule_delay_ns)}
    after = {
        "first_byte": one.first_byte_ns,
        "first_content": one.first_ns,
        "last_content": one.last_ns,
        "stream_end": one.ended_ns,
    }
    sent = one.sent_ns
    return [
        ("scheduled", "" if one.scheduled_ns is None else say("served.scheduled_line", **due)),
        ("sent", "" if sent is None else say("served.sent_line", at=duration(sent))),
        ("connected", connected),
        *(
            (name, "" if at is None or sent is None else say("served.after_sent", time=duration(at - sent)))
            for name, at in after.items()
        ),
    ]


def _answer(one: Flight, passed: Exchange, screen: Screen) -> Lines:
    say = screen.say

    def shown(value: Any) -> str:
        return ABSENT if value is None else fit(drawn_text(str(value)), 60)

    counts = {name: shown(getattr(passed, f"n_{name}")) for name in ("prompt", "completion", "reasoning", "cached")}
    told = {"status": shown(passed.status), "finish": shown(passed.finish), "model": shown(passed.model)}
    again = passed.retry_of is not None
    fault = passed.fault
    meaning = None if fault is None else _meaning(fault, screen)
    turn = {"name": shown(passed.conversation), "turn": shown(passed.turn)}
    timings = screen.say("served.list").join(
        f"{drawn_text(name)} {value:.4g}" for name, (value, _) in server_timings({0: passed}).items()
    )
    return [
        ("label", _because(say(f"served.label_{passed.label or 'none'}"), passed.label, label_reason(passed), screen)),
        ("piece", _in_one_piece(int(not passed.streamed), screen)),
        ("counts", say("served.counts_line", **counts, rows=one.n_rows)),
        ("stamps", "" if passed.stamps is None else say(f"served.stamps_{passed.stamps}")),
        ("answered_by", say("served.answered_line", **told, id=shown(passed.request_id))),
        ("server", fit(timings, 400)),
        ("conversation", "" if passed.conversation is None else say("served.turn", **turn)),
        ("attempt", say("served.retry", attempt=passed.attempt, of=passed.retry_of) if again else ""),
        ("fault", "" if meaning is None else say("served.fault_line", name=shown(fault), meaning=meaning)),
        ("said", "" if passed.error is None else fit(drawn_text(passed.error), _ERROR)),
    ]


def _meaning(fault: str, screen: Screen) -> str:
    return screen.say(f"served.fault.{fault if fault in FAULTS else 'other'}")


def _chunks(trace: Trace, screen: Screen, limit: int | None) -> list[str]:
    """The messages of the answer, with how many tokens each has."""
    steps = trace.steps
    ends, given = np.asarray(steps["end_ns"]).tolist(), np.asarray(steps["n_out"]).tolist()
    if not ends:
        return []
    start, lags = trace.run.start_ns, (steps["read_ns"] - steps["end_ns"]).tolist()
    before, of = [start, *ends], arrivals(steps).tolist()
    vague = trace.exchange is not None and trace.exchange.label in VAGUE
    shared = screen.say("served.same_read")
    rows = [
        [
            str(i),
            duration(None if start is None else at - start),
            ABSENT if k and vague else str(k),
            shared if i and of[i] == of[i - 1] else duration(None if earlier is None else at - earlier),
            duration(lag),
        ]
        for i, (at, k, earlier, lag) in enumerate(zip(ends, given, before, lags, strict=False))
    ]
    header = [screen.say(f"served.col_{name}") for name in ("chunk", "at")]
    header += ["k", screen.say("served.col_gap"), screen.say("served.col_lag")]
    shown = rows[:limit]
    lines = [
        "",
        screen.paint(screen.say("served.chunks", n=len(rows)), "dim"),
        *columns(screen, header, shown, ">>>>>"),
    ]
    if left := len(rows) - len(shown):
        lines.append(screen.paint(screen.say("served.more_chunks", n=left), "dim"))
    return lines
